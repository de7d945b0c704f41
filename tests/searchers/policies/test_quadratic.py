import math

import pytest

from raylr.errors import InputError
from raylr.searchers import QuadraticPolicy, RunEnd, Setting, Status, StoppingRule

TARGET = 1000.0


def curve(lr, tokens):
    return 2.2 + 0.3 * (tokens / TARGET) ** -0.5 + 0.03 * math.log(lr / 2e-3) ** 2


def begin(**options):
    return QuadraticPolicy([Setting(tokens=TARGET)], lr_range=(1e-4, 1e-1), **options)


def report(policy, until):
    """A run that reports up to some tokens or to the policy's decision; its identity, lr, tokens and the decision."""
    found = policy.ask()
    for tokens in range(50, until + 1, 50):
        decision = policy.report(found.run, tokens, curve(found.lr, tokens))
        if decision:
            break
    return found.run, found.lr, tokens, decision


def test_runs_are_truncated_only_where_a_rule_says_so():
    assert report(begin(), 1000)[2:] == (1000, None)
    *_, tokens, decision = report(begin(stopping=StoppingRule()), 1000)
    assert (400 <= tokens < 1000, decision) == (True, RunEnd.TRUNCATED)
    assert report(begin(stopping=StoppingRule(min_fraction=1.0)), 1000)[2:] == (1000, RunEnd.COMPLETED)


@pytest.mark.parametrize("end", [RunEnd.TRUNCATED, RunEnd.PRUNED])
def test_the_loss_of_a_run_that_stopped_early_is_extrapolated(end):
    policy = begin()
    run, lr, *_ = report(policy, 600)
    policy.tell(run, end)
    assert policy.run(run).loss == pytest.approx(curve(lr, TARGET), rel=2e-3)
    assert policy.run(run).stderr > 0


@pytest.mark.parametrize(
    ("end", "loss", "want"),
    [
        (RunEnd.COMPLETED, 2.5, RunEnd.COMPLETED),
        (RunEnd.COMPLETED, math.nan, RunEnd.DIVERGED),
        (RunEnd.COMPLETED, math.inf, RunEnd.DIVERGED),
        (RunEnd.COMPLETED, 1e200, RunEnd.DIVERGED),
        (RunEnd.COMPLETED, None, RunEnd.NO_REPORT),
        (RunEnd.NO_REPORT, None, RunEnd.NO_REPORT),
        (RunEnd.DIVERGED, 2.5, RunEnd.DIVERGED),
        (RunEnd.FAILED, None, RunEnd.FAILED),
    ],
)
def test_how_ends_are_taken(end, loss, want):
    policy = begin()
    run = policy.ask().run
    policy.tell(run, end, loss)
    policy.tell(run, RunEnd.COMPLETED, 1.0)  # a second end changes nothing
    assert policy.run(run).end is want
    assert policy.run(run).measured == (want is RunEnd.COMPLETED)


def test_known_results_take_the_place_of_runs():
    policy = begin()
    for lr in (1e-3, 2e-3, 4e-3, 8e-3):
        policy.add(lr, 2.5 + 0.03 * math.log(lr / 2e-3) ** 2)
    assert policy.finished
    assert policy.ask() is None
    assert policy.recommend().status is Status.OK
    with pytest.raises(InputError, match="has no range yet"):
        QuadraticPolicy().add(1e-3, 2.0)
    with pytest.raises(InputError, match="positive number"):
        begin().add(-1.0, 2.0)


def test_closed_it_waits_for_nothing_new():
    policy = begin()
    run = policy.ask().run
    policy.close()
    assert policy.ask() is None
    policy.tell(run, RunEnd.COMPLETED, 2.5)
    assert policy.finished
