"""The search of one axis after another, or of all at once, around a known LR."""

import math

import numpy as np
import pytest

from raylr.errors import InputError
from raylr.searchers import RunEnd, Setting
from raylr.searchers.policies.modules import ModulesPolicy
from raylr.searchers.policies.modules_stages import FRESH, ModuleAxis

AXES = {name: ModuleAxis(low=0.2, high=5.0) for name in ("head", "rest")}
BEST = {"head": -0.5, "rest": 0.3}
RANGE = (1e-4, 1e-1)


def loss_of(suggestion, noise=0.0, best=BEST) -> float:
    off = {name: math.log(suggestion.lr * suggestion.axes[name] / 3e-3) - best[name] for name in best}
    rng = np.random.default_rng([int(1e6 * math.exp(off["head"])), int(1e6 * math.exp(off["rest"])), suggestion.repeat])
    return (
        3
        + 0.02 * off["head"] ** 2
        + 0.05 * off["rest"] ** 2
        + 0.01 * off["head"] * off["rest"]
        + (noise * rng.standard_normal())
    )


def run(policy: ModulesPolicy, loss=loss_of) -> list:
    asked = []
    while not policy.finished:
        suggestion = policy.ask()
        assert suggestion is not None
        asked.append(suggestion)
        value = loss(suggestion)
        end = RunEnd.COMPLETED if math.isfinite(value) else RunEnd.DIVERGED
        policy.tell(suggestion.run, end, value if math.isfinite(value) else None)
    assert policy.ask() is None
    return asked


@pytest.mark.parametrize("method", ["greedy", "joint"])
def test_both_methods_find_the_optima_in_few_runs(method: str) -> None:
    policy = ModulesPolicy(axes=AXES, lr_range=RANGE, method=method, whole=True)
    asked = run(policy)
    lr = policy.lr()
    assert lr is not None
    axes = [one for one in policy.stages() if one.names]
    assert sum(len(stage.runs) for stage in axes) <= (8 if method == "greedy" else 6)
    assert len(asked) == sum(len(stage.runs) for stage in policy.stages())
    if method == "joint":
        for name, answer in policy.recommend().axes.items():
            assert answer.low <= 3e-3 * math.exp(BEST[name]) / lr <= answer.high, name
    assert policy.found()["head"] < 1 < policy.found()["rest"] * 1.2


def test_a_stage_holds_what_was_found_or_the_start() -> None:
    for held in ("found", "start"):
        policy = ModulesPolicy(axes=AXES, lr_range=RANGE, held=held, whole=True)
        asked = run(policy)
        *_, last = policy.stages()
        assert last.names == ("rest",)
        wanted = policy.found()["head"] if held == "found" else 1.0
        assert {asked[number].axes["head"] for number in last.runs} == {wanted}
        assert last.held["head"] == wanted


def test_axes_are_searched_in_their_order_and_none_is_run_twice() -> None:
    backwards = dict(reversed(AXES.items()))
    policy = ModulesPolicy(axes=backwards, lr_range=RANGE)
    asked = run(policy)
    assert [stage.names for stage in policy.stages()] == [(), ("rest",), ("head",)]
    places = [(one.lr, *one.axes.values(), one.repeat) for one in asked]
    assert len(set(places)) == len(places)
    assert [one.run.number for one in asked] == list(range(len(asked)))


def test_replicates_have_seeds_of_their_own_and_tell_the_noise() -> None:
    policy = ModulesPolicy(axes=AXES, lr_range=RANGE, replicates=3, whole=True)
    asked = run(policy, lambda one: loss_of(one, noise=0.003))
    first, second = policy.replicate_runs()
    assert [asked[run.number].repeat for run in first] == [FRESH, FRESH + 1, FRESH + 2]
    assert {tuple(asked[run.number].axes.values()) for run in first} == {(1.0, 1.0)}
    assert {tuple(asked[run.number].axes.values()) for run in second} == {tuple(policy.found().values())}
    assert max(run.number for run in second) == len(asked) - 1
    assert 3e-4 < policy.noise() < 1e-2
    assert max(one.repeat for one in asked if one.run not in (*first, *second)) < FRESH


def test_more_replicates_train_nothing_but_these() -> None:
    few, many = (ModulesPolicy(axes=AXES, lr_range=RANGE, replicates=count, whole=True) for count in (3, 6))
    before, after = ([(one.lr, *one.axes.values(), one.repeat) for one in run(policy, lambda one: loss_of(one, 0.003))]
                     for policy in (few, many))  # fmt: skip
    assert len(set(after)) == len(after)
    assert set(before) < set(after)
    assert len(after) == len(before) + 6
    assert few.found() == many.found() != {"head": 1.0, "rest": 1.0}
    assert [len(runs) for runs in many.replicate_runs()] == [6, 6]
    start, found = ({after[run.number][-1] - FRESH for run in runs} for runs in many.replicate_runs())
    assert start == found == set(range(6))


def test_axes_that_do_nothing_stay_where_they_are() -> None:
    policy = ModulesPolicy(axes=AXES, lr_range=RANGE, replicates=2)
    run(policy, lambda one: 3 + 0.05 * math.log(one.lr / 3e-3) ** 2)
    assert policy.found() == {"head": 1.0, "rest": 1.0}
    assert len(policy.replicate_runs()) == 1  # nothing was changed: there is nothing to compare


def test_a_given_lr_is_not_searched_and_its_place_is_tried_once() -> None:
    policy = ModulesPolicy(axes=AXES, lr_range=RANGE, lr={"": 3e-3})
    asked = run(policy)
    assert {one.lr for one in asked} == {3e-3}
    assert sum(tuple(one.axes.values()) == (1.0, 1.0) for one in asked) == 1
    assert policy.recommend().lr == 3e-3


def test_settings_go_on_side_by_side_and_say_the_same_again() -> None:
    settings = [Setting(name=name, params=params, tokens=1e6) for name, params in (("S", 1e5), ("M", 2e5))]
    first, again = (ModulesPolicy(settings, axes=AXES, lr_range=RANGE, seed=3) for _ in range(2))
    one, other = run(first), run(again)
    assert [(a.run, a.lr, a.axes) for a in one] == [(b.run, b.lr, b.axes) for b in other]
    assert first.lr("S") is not None
    assert first.ended("M")
    with pytest.raises(InputError, match="which setting"):
        first.lr("L")


def test_every_run_diverged() -> None:
    policy = ModulesPolicy(axes=AXES, lr_range=RANGE)
    run(policy, lambda one: math.nan)
    assert policy.lr() is None
    assert policy.found() == {"head": 1.0, "rest": 1.0}


def test_a_module_whose_runs_diverge_above_its_start_is_answered_below() -> None:
    policy = ModulesPolicy(axes=AXES, lr_range=RANGE, whole=True)
    run(policy, lambda one: loss_of(one) if one.axes["head"] <= 1.05 else math.nan)
    assert policy.found()["head"] <= 1.05


def test_arguments_that_cannot_work() -> None:
    with pytest.raises(InputError, match="must hold its start"):
        ModulesPolicy(axes={"head": ModuleAxis(low=2, high=5)}, lr_range=RANGE)
    with pytest.raises(InputError, match="a joint search takes 2 to 4"):
        ModulesPolicy(axes={"head": AXES["head"]}, lr_range=RANGE, method="joint")
    with pytest.raises(InputError, match="besides 'lr'"):
        ModulesPolicy(axes={}, lr_range=RANGE)
    with pytest.raises(InputError, match="axis_trials"):
        ModulesPolicy(axes=AXES, lr_range=RANGE, axis_trials=-1)
