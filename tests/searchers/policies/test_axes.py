"""The search over several axes as an ask/tell policy."""

import math

import pytest

from raylr.errors import InputError
from raylr.searchers import AxesPolicy, RunEnd, Setting, Status
from raylr.searchers._config import LRDomain
from raylr.searchers.policies.policy import Point

AXES = {"wd": (1e-2, 1.0)}


def loss_of(suggestion) -> float:
    u, v = math.log(suggestion.lr / 2e-3), math.log(suggestion.axes["wd"] / 0.1)
    return 2.5 + 0.03 * (u + 0.5 * v) ** 2 + 0.01 * v * v


def run(policy: AxesPolicy, loss=loss_of) -> list:
    asked = []
    while not policy.finished:
        suggestion = policy.ask()
        assert suggestion is not None
        asked.append(suggestion)
        value = loss(suggestion)
        end = RunEnd.COMPLETED if math.isfinite(value) else RunEnd.DIVERGED
        policy.tell(suggestion.run, end, value if math.isfinite(value) else None)
    return asked


def test_nine_runs_find_the_best_place_and_the_ridge() -> None:
    policy = AxesPolicy(lr_range=(1e-4, 1e-1), axes=AXES)
    asked = run(policy)
    found = policy.recommend()
    assert len(asked) <= 9
    assert found.status is Status.OK
    assert found.lr == pytest.approx(2e-3, rel=0.1)
    assert found.axes["wd"].value == pytest.approx(0.1, rel=0.2)
    assert found.axes["wd"].low <= 0.1 <= found.axes["wd"].high
    assert found.ridges["wd"].slope == pytest.approx(-0.5, abs=0.1)
    assert "lr ∝ wd^-0." in found.reason


def test_the_same_again_and_from_its_history() -> None:
    first, again = (AxesPolicy(lr_range=(1e-4, 1e-1), axes=AXES, max_trials=5) for _ in range(2))
    assert [(s.lr, s.axes) for s in run(first)] == [(s.lr, s.axes) for s in run(again)]
    replayed = AxesPolicy(axes=["wd"], max_trials=5)
    replayed.set_axes(AXES)
    replayed.replay(first.history.events)
    assert replayed.recommend() == first.recommend()


def test_all_runs_of_the_first_round_diverge_and_the_search_goes_down() -> None:
    policy = AxesPolicy(lr_range=(1e-4, 1e-1), axes=AXES)
    asked = run(policy, lambda s: loss_of(s) if s.lr < 4e-4 else math.nan)
    assert min(s.lr for s in asked) < 4e-4
    assert sum(s.lr >= 4e-4 for s in asked) <= 5
    assert policy.recommend().lr < 4e-4


def test_an_edge_is_searched_beyond_where_allowed() -> None:
    def loss(s) -> float:
        return 3 + 0.05 * math.log(s.lr / 0.4) ** 2 + 0.02 * math.log(s.axes["wd"] / 0.1) ** 2

    policy = AxesPolicy(lr_range=(1e-4, 1e-1), axes=AXES, extend=True, max_trials=10)
    run(policy, loss)
    assert policy.recommend().lr == pytest.approx(0.4, rel=0.4)
    held = AxesPolicy(lr_range=(1e-4, 1e-1), axes=AXES, max_trials=8)
    assert max(s.lr for s in run(held, loss)) <= 0.1 * 1.001
    assert held.recommend().status is Status.EDGE_HIGH


def test_points_and_known_losses_are_used() -> None:
    points = [
        Point(lr=1e-3, config={"wd": 0.2}),
        Point(lr=4e-3, config={"wd": 0.05}, loss=2.6),
        Point(lr=5e-2, config={"wd": 0.05}, loss=math.nan),
    ]
    policy = AxesPolicy(lr_range=(1e-4, 1e-1), axes=AXES, points=points)
    policy.add(6e-4, 2.8, config={"wd": 0.3})
    asked = run(policy)
    assert asked[0].lr == pytest.approx(1e-3)
    assert asked[0].axes["wd"] == pytest.approx(0.2)
    assert policy.recommend().trials == len(asked) + 3
    with pytest.raises(InputError, match="no positive number at 'wd'"):
        policy.add(1e-3, 2.0)


def test_values_of_domains_with_steps_are_kept() -> None:
    policy = AxesPolicy(lr_range=(1e-4, 1e-1), axes={"batch": LRDomain(16, 256, step=16.0, integer=True)}, max_trials=6)
    asked = run(policy, lambda s: 3 + 0.03 * math.log(s.lr / 3e-3) ** 2 + 0.02 * math.log(s.axes["batch"] / 64) ** 2)
    assert all(s.axes["batch"] % 16 == 0 for s in asked)
    assert policy.recommend().axes["batch"].value % 16 == 0


def test_a_run_that_raises_is_repeated_once_at_its_place() -> None:
    policy = AxesPolicy(lr_range=(1e-4, 1e-1), axes=AXES, max_trials=5)
    first, second = policy.ask(), policy.ask()
    policy.tell(first.run, RunEnd.FAILED)
    policy.tell(second.run, RunEnd.COMPLETED, loss_of(second))
    again = policy.ask()
    assert (again.lr, again.axes) == (first.lr, first.axes)


def test_settings_are_searched_one_by_one() -> None:
    settings = [Setting(name="a", config={"size": 1}), Setting(name="b", config={"size": 2})]
    policy = AxesPolicy(settings, lr_range=(1e-4, 1e-1), axes=AXES, max_trials=5)
    assert {s.setting.name for s in run(policy)} == {"a", "b"}
    assert policy.recommend("b").axes["wd"].value > 0


@pytest.mark.parametrize("axes", ["wd", [], ["lr"], ["a", "b", "c", "d"], ["wd", "wd"]])
def test_axes_that_cannot_be_searched(axes) -> None:
    with pytest.raises(InputError, match="axes must name 1 to 3"):
        AxesPolicy(lr_range=(1e-4, 1e-1), axes=axes)


def test_ranges_have_to_be_known_and_stay() -> None:
    with pytest.raises(InputError, match="no ranges for the axes"):
        AxesPolicy(lr_range=(1e-4, 1e-1), axes=["wd"])
    policy = AxesPolicy(axes=["wd"])
    policy.set_axes(AXES)
    with pytest.raises(InputError, match="another range of 'wd'"):
        policy.set_axes({"wd": (1e-3, 1.0)})
    with pytest.raises(InputError, match="ranges were given for"):
        policy.set_axes({"std": (1e-3, 1.0)})
    with pytest.raises(InputError, match="range of 'wd' is"):
        AxesPolicy(axes={"wd": (0.0, 1.0)})
