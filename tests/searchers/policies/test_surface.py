import math

import pytest

from raylr.errors import InputError
from raylr.searchers import Point, RunEnd, Setting, Status, SurfacePolicy

TARGET = 1000.0


def begin(**options):
    settings = [Setting(tokens=options.pop("tokens", TARGET))]
    return SurfacePolicy(settings, **({"lr_range": (1e-4, 1e-1)} | options))


def report(policy, found, until):
    for tokens in range(50, until + 1, 50):
        loss = 2.2 + 0.5 * (tokens / TARGET) ** -0.35 + 0.03 * math.log(found.lr / 2e-3) ** 2
        decision = policy.report(found.run, tokens, loss)
        if decision:
            return decision
    return None


def test_runs_pause_at_their_rung_and_are_resumed_with_the_same_lr():
    policy, lrs = begin(), {}
    for _ in range(4):
        found = policy.ask()
        lrs[found.run] = found.lr
        assert (found.stop_at, found.resumes) == (200, False)
        assert report(policy, found, 1000) is RunEnd.PAUSED
        policy.tell(found.run, RunEnd.PAUSED)
    found = policy.ask(new=False)
    while found is None:  # the first plan may be a new lr
        new = policy.ask()
        assert report(policy, new, 1000) in (RunEnd.PAUSED, RunEnd.COMPLETED)
        policy.tell(new.run, RunEnd.PAUSED)
        lrs[new.run] = new.lr
        found = policy.ask(new=False)
    assert found.resumes
    assert found.lr == lrs[found.run]
    assert found.stop_at > 200
    assert policy.run(found.run).running


def test_a_run_that_reached_the_last_rung_is_complete():
    policy = begin(rungs=(1.0,))
    found = policy.ask()
    report(policy, found, 1000)
    policy.tell(found.run, RunEnd.PAUSED)
    assert policy.run(found.run).end is RunEnd.COMPLETED


def test_the_first_runs_leave_room_for_points():
    policy = begin(points=[Point(lr=1e-3), Point(lr=2e-3)])
    lrs = [policy.ask().lr for _ in range(2)]
    assert lrs == [1e-3, 2e-3]
    assert policy.ask() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rungs": (0.2, 0.5)}, "rise from above 0 to 1"),
        ({"budget": 0}, "budget"),
        ({"tokens": None}, "has no target"),
        ({"tokens": math.nan}, "has no target"),
        ({"points": [Point(lr=1e-3, loss=2.0)]}, "final losses"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        begin(**options)
    with pytest.raises(InputError, match="final losses"):
        begin().add(1e-3, 2.0)


def test_runs_whose_lr_falls_have_no_surface():
    policy = begin()
    again = begin()
    while (found := policy.ask()) is not None:
        for tokens in range(50, 1001, 50):
            loss = 2.2 + 0.5 * (tokens / TARGET) ** -0.35 + 0.03 * math.log(found.lr / 2e-3) ** 2
            decision = policy.report(found.run, tokens, loss, found.lr * math.cos(0.5 * math.pi * tokens / TARGET))
            if decision:
                break
        policy.tell(found.run, decision)
    said = policy.recommend()
    assert said.lr is None
    assert said.status is Status.NOT_CONSTANT
    assert "QuadraticSearch" in said.reason
    again.replay(policy.history.events)
    assert again.recommend() == said
