import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@given(
    seeds=st.sampled_from([None, 1, 2, 3]), noise=st.floats(0.0, 0.3), number=st.integers(0, 10**6),
    most=st.sampled_from([6, 12, 24]),
)  # fmt: skip
@settings(max_examples=25)
def test_an_lr_has_at_most_so_many_runs_as_seeds_and_each_another_seed(seeds, noise, number, most):
    rng = np.random.default_rng(number)
    policy = QuadraticPolicy(lr_range=(1e-4, 1e-1), max_trials=most, seeds=seeds)
    runs = []
    while (suggestion := policy.ask()) is not None:
        runs.append((suggestion.lr, suggestion.repeat))
        loss = 2.5 + 0.03 * math.log(suggestion.lr / 2e-3) ** 2 + noise * rng.standard_normal()
        policy.tell(suggestion.run, RunEnd.COMPLETED, loss)
    assert len(set(runs)) == len(runs)
    assert len(runs) <= most
    if seeds is not None:
        assert max(repeat for _, repeat in runs) < seeds


def test_noise_makes_replicates_up_to_seeds():
    def replicates(seeds):
        rng = np.random.default_rng(1)
        policy = QuadraticPolicy(lr_range=(1e-4, 1e-1), max_trials=10, seeds=seeds)
        most = 0
        while (suggestion := policy.ask()) is not None:
            loss = 2.5 + 0.03 * math.log(suggestion.lr / 2e-3) ** 2 + 0.05 * rng.standard_normal()
            most = max(most, suggestion.repeat)
            policy.tell(suggestion.run, RunEnd.COMPLETED, loss)
        return 1 + most

    assert [replicates(seeds) for seeds in (1, 2)] == [1, 2]
    assert replicates(None) >= 2
    with pytest.raises(InputError, match="seeds must be a whole number of at least 1, not 0"):
        QuadraticPolicy(lr_range=(1e-4, 1e-1), seeds=0)


def test_a_round_is_no_deeper_than_its_information_needs():
    def searched(batch):
        policy = QuadraticPolicy(lr_range=(1e-4, 1e-1), max_trials=16, batch=batch)
        rounds = runs = 0
        while not policy.finished:
            going = []
            while (one := policy.ask()) is not None:
                going.append(one)
            for one in going:
                policy.tell(one.run, RunEnd.COMPLETED, 3 + 0.05 * math.log(one.lr / 3e-3) ** 2)
            rounds, runs = rounds + 1, runs + len(going)
        return rounds, runs, policy.recommend().lr

    narrow, broad = searched(1), searched(64)
    assert broad[0] < narrow[0]
    assert broad[1] <= narrow[1] + 2
    assert abs(math.log(broad[2] / 3e-3)) < 0.1


def test_results_of_one_setting_plan_that_setting_alone(monkeypatch):
    settings = [Setting(name=f"s{i}", params=1e6 * 2**i, tokens=1e9) for i in range(20)]
    policy = QuadraticPolicy(settings, lr_range=(1e-4, 1e-1), settings_at_once=20)
    planned = []
    first = [policy.ask() for _ in range(40)]
    monkeypatch.setattr("raylr.searchers.policies.settings_policy.repeat_failed", planned.append)
    for one in first:
        policy.tell(one.run, RunEnd.COMPLETED, 3 + 0.05 * math.log(one.lr / 3e-3) ** 2)
    assert len(planned) == 40
