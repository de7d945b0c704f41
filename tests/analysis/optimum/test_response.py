"""The response surface: what must hold for any losses, then what it says of particular ones."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.optimum import ResponseFit, Status, fit_response
from raylr.errors import InputError

RANGES = {"lr": (1e-4, 1e-1), "wd": (1e-2, 1.0)}
few = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 10**6)


def places(seed: int, count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: np.exp(rng.uniform(*np.log(ends), count)) for name, ends in RANGES.items()}


def losses(points: dict[str, np.ndarray], *, correlation: float = 0.4, flat: bool = False) -> np.ndarray:
    """A quadratic with its minimum at lr 3e-3, weight decay 0.1."""
    u, v = np.log(points["lr"] / 3e-3), np.log(points["wd"] / 0.1)
    v = 0.0 * v if flat else v
    return 3.0 + 0.05 * (u * u + 2 * correlation * u * v + v * v)


def rough(points: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """Losses of any shape: a quadratic, noise, runs far above it, runs that diverged."""
    rng = np.random.default_rng(seed)
    out = losses(points) + rng.choice([0.0, 0.01, 0.3]) * rng.standard_normal(points["lr"].size)
    high = np.log(points["lr"] / 3e-3) + rng.uniform(-1, 1) * np.log(points["wd"] / 0.1) > rng.uniform(0.0, 3.0)
    return np.where(high, rng.choice([math.nan, 10.0]), out)


def close(one: ResponseFit, other: ResponseFit, tolerance: float = 1e-6) -> None:
    assert one.status is other.status
    assert one.at.keys() == other.at.keys()
    for part in ("at", "low", "high"):
        assert getattr(one, part) == pytest.approx(getattr(other, part), rel=tolerance)


@few
@given(seed=seeds, scale=st.sampled_from([1e-6, 1e6]), shift=st.sampled_from([-3.0, 0.0, 7.0]))
def test_scale_and_level_of_the_loss_change_nothing(seed: int, scale: float, shift: float) -> None:
    points = places(seed, 8)
    y = rough(points, seed)
    close(fit_response(points, y, ranges=RANGES), fit_response(points, scale * (y + shift), ranges=RANGES), 1e-3)


@few
@given(seed=seeds)
def test_order_of_axes_and_runs_and_units_of_axes_change_nothing(seed: int) -> None:
    points = places(seed, 8)
    y = rough(points, seed)
    fit = fit_response(points, y, ranges=RANGES)
    order = np.random.default_rng(seed).permutation(8)
    other = {name: 1e3 * points[name][order] for name in reversed(points)}
    ranges = {name: (1e3 * low, 1e3 * high) for name, (low, high) in RANGES.items()}
    turned = fit_response(other, y[order], ranges=ranges)
    assert turned.status is fit.status
    for name, value in fit.at.items():
        assert turned.at[name] == pytest.approx(1e3 * value, rel=1e-3)


@few
@given(seed=seeds)
def test_a_power_of_an_axis_gives_the_same_place(seed: int) -> None:
    points = places(seed, 9)
    y = rough(points, seed)
    fit = fit_response(points, y, ranges=RANGES)
    powers = fit_response({**points, "wd": points["wd"] ** 3}, y, ranges={**RANGES, "wd": (1e-6, 1.0)})
    assert powers.at["lr"] == pytest.approx(fit.at["lr"], rel=1e-3)
    assert powers.at["wd"] == pytest.approx(fit.at["wd"] ** 3, rel=1e-2)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, count=st.integers(1, 14))
def test_the_answer_lies_beside_the_best_run_and_is_not_above_it(seed: int, count: int) -> None:
    points = places(seed, count)
    y = rough(points, seed)
    fit = fit_response(points, y, ranges=RANGES)
    if not np.isfinite(y).any():
        assert fit.status is Status.DIVERGED
        assert not fit.at
        return
    for name, values in points.items():
        tried = values[np.isfinite(y)]
        assert tried.min() * (1 - 1e-9) <= fit.at[name] <= tried.max() * (1 + 1e-9)
        assert fit.low[name] <= fit.at[name] * (1 + 1e-9)
        assert fit.at[name] <= fit.high[name] * (1 + 1e-9)
    assert fit.regret >= 0
    # Without replicates no run but the best one may be nearest in the metric of the curvature.
    at = fit.runs.units(np.log(np.array([fit.at[name] for name in fit.names])))
    h = fit.surfaces.curvature.mean(axis=0)
    distance = [float((at - v) @ h @ (at - v)) for v in fit.runs.v]
    assert distance[0] <= min(distance) + 0.05 * np.trace(h) * max(float(((at - v) ** 2).sum()) for v in fit.runs.v)


def test_an_exact_quadratic_is_known_from_seven_runs_and_its_ridge_with_it() -> None:
    points = places(3, 9)
    fit = fit_response(points, losses(points), ranges=RANGES)
    assert fit.status is Status.OK
    assert fit.at == pytest.approx({"lr": 3e-3, "wd": 0.1}, rel=0.1)
    ridge = fit.ridge("lr", "wd")
    assert ridge.low <= -0.4 <= ridge.high
    assert ridge.high - ridge.low < 0.5
    assert "lr ∝ wd^-0." in str(ridge)
    mean, sd = fit.predict({"lr": np.array([3e-3]), "wd": np.array([0.1])})
    assert mean[0] == pytest.approx(3.0, abs=3 * sd[0] + 1e-3)


def test_an_axis_without_effect_is_named() -> None:
    points = places(2, 10)
    fit = fit_response(points, losses(points, flat=True), ranges=RANGES)
    assert fit.flat == ("wd",)
    assert "wd makes no difference" in fit.message
    assert fit.at["lr"] == pytest.approx(3e-3, rel=0.1)


def test_replicates_show_that_nothing_depends_on_the_axes() -> None:
    points = {name: np.tile(values, 3) for name, values in places(1, 5).items()}
    y = 3 + 0.01 * np.random.default_rng(0).standard_normal(15)
    fit = fit_response(points, y, ranges=RANGES)
    assert fit.status is Status.FLAT
    assert "check that lr and wd reach the training" in fit.message
    assert fit.noise == pytest.approx(0.01, rel=0.6)


@pytest.mark.parametrize("seed", [2, 3, 6, 9])
@pytest.mark.parametrize(("axis", "sign"), [("lr", 1), ("lr", -1), ("wd", 1)])
def test_an_edge_is_named_with_its_axis(axis: str, sign: int, seed: int) -> None:
    points = places(seed, 10)
    other = "wd" if axis == "lr" else "lr"
    middle = math.sqrt(RANGES[other][0] * RANGES[other][1])
    y = 3 - sign * 0.1 * np.log(points[axis]) + 0.05 * np.log(points[other] / middle) ** 2
    fit = fit_response(points, y, ranges=RANGES)
    assert fit.edges == {axis: Status.EDGE_HIGH if sign > 0 else Status.EDGE_LOW}
    assert fit.status is fit.edges[axis]
    assert f"{'highest' if sign > 0 else 'lowest'} {axis} tried" in fit.message
    assert math.isinf(fit.high[axis]) if sign > 0 else fit.low[axis] == 0


def test_divergence_is_a_border_over_both_axes_that_rises_with_the_lr() -> None:
    points = {"lr": np.array([1e-3, 4e-3, 1.6e-2, 1e-3, 4e-3, 1.6e-2]), "wd": np.array([0.03] * 3 + [0.3] * 3)}
    fit = fit_response(points, [3.2, 3.0, math.nan, 3.1, math.nan, math.nan], ranges=RANGES)
    risk = fit.divergence_probability(
        {"lr": np.array([1e-3, 4e-3, 8e-2, 8e-2]), "wd": np.array([0.3, 0.03, 0.3, 0.03])}
    )
    assert risk[0] == risk[1] == 0.0
    assert risk[2] > 0.95
    assert risk[3] > 0.95
    rising = fit.divergence_probability({"lr": np.geomspace(1e-4, 1e-1, 20), "wd": np.full(20, 0.1)})
    assert np.all(np.diff(rising) >= -0.05)


def test_a_run_far_above_its_neighbours_does_not_bend_the_surface() -> None:
    points = places(4, 12)
    y = losses(points)
    y[np.argsort(y)[6]] = 9.0
    fit = fit_response(points, y, ranges=RANGES)
    assert fit.at == pytest.approx({"lr": 3e-3, "wd": 0.1}, rel=0.25)


def test_few_or_no_losses_are_statuses() -> None:
    assert fit_response({"lr": [], "wd": []}, [], ranges=RANGES).status is Status.TOO_FEW
    fit = fit_response({"lr": [1e-3, 2e-3], "wd": [0.1, 0.1]}, [math.nan, math.inf], ranges=RANGES)
    assert fit.status is Status.DIVERGED
    assert "lower lr" in fit.message
    assert math.isnan(fit.ridge("lr", "wd").slope)
    assert np.isnan(fit.predict({"lr": [1e-3], "wd": [0.1]})[0]).all()
    one = fit_response({"lr": [1e-3], "wd": [0.1]}, [3.0], ranges=RANGES)
    assert one.status is Status.TOO_FEW
    assert one.at == pytest.approx({"lr": 1e-3, "wd": 0.1})


@pytest.mark.parametrize(
    ("points", "options", "words"),
    [
        ({"lr": [1e-3]}, {}, "2 to 4 axes"),
        ({"lr": [1e-3, 0.0], "wd": [1, 2]}, {}, "lr must be"),
        ({"lr": [1e-3, 1e-2], "wd": [1.0]}, {}, "one entry a measurement"),
        ({"lr": [1e-3, 1e-2], "wd": [0.1, 0.1]}, {}, "is one value: leave it out"),
        ({"lr": [1e-3, 1e-2], "wd": [0.1, 1]}, {"ranges": {"std": (0.01, 0.1)}}, "the axes are"),
        ({"lr": [1e-3, 1e-2], "wd": [0.1, 1]}, {"ranges": {"wd": (1, 0.1)}}, "not the lowest and the highest"),
        ({"lr": [1e-3, 1e-2], "wd": [0.1, 1]}, {"tolerance": -1.0}, "tolerance"),
    ],
)
def test_bad_input_is_one_clear_error(points: dict, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit_response(points, np.ones(len(points["lr"])), **options)


def test_a_ridge_needs_two_known_axes() -> None:
    points = places(3, 7)
    fit = fit_response(points, losses(points), ranges=RANGES)
    with pytest.raises(InputError, match="two axes"):
        fit.ridge("lr", "lr")
    with pytest.raises(InputError, match="unknown axis"):
        fit.ridge("lr", "batch")
