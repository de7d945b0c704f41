"""Where the runs of a search over several axes go."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.optimum import ResponseFit, Status, fit_response, next_point, next_points
from raylr.analysis.optimum.response_search import start_places

RANGES = {"lr": (1e-4, 1e-1), "wd": (1e-2, 1.0)}


def values(places: np.ndarray) -> dict[str, np.ndarray]:
    ends = np.log(np.array([RANGES["lr"], RANGES["wd"]]))
    x = np.exp(ends.mean(axis=1) + places * np.diff(ends)[:, 0] / 4)
    return {"lr": x[:, 0], "wd": x[:, 1]}


def searched(loss, runs: int) -> ResponseFit:
    points = values(start_places(2))
    y = [loss(a, b) for a, b in zip(points["lr"], points["wd"], strict=True)]
    fit = fit_response(points, y, ranges=RANGES)
    while len(y) < runs and not fit.ok:
        found = next_point(fit)
        assert found is not None
        points = {name: np.append(points[name], found[name]) for name in points}
        y.append(loss(found["lr"], found["wd"]))
        fit = fit_response(points, y, ranges=RANGES)
    return fit


@pytest.mark.parametrize("d", [2, 3, 4])
def test_the_start_design_spreads_over_every_axis(d: int) -> None:
    places = start_places(d)
    assert places.shape == (d + 2, d)
    assert not places[0].any()
    gaps = np.diff(np.sort(places, axis=0), axis=0)
    assert gaps.min() > 0.1
    assert np.abs(places).max() < 2
    assert not np.allclose(start_places(d, 1), places)


@settings(max_examples=4, deadline=None)
@given(
    lr=st.floats(math.log(5e-4), math.log(2e-2)).map(math.exp),
    wd=st.floats(math.log(0.03), math.log(0.4)).map(math.exp),
    correlation=st.floats(-0.8, 0.8),
    scale=st.sampled_from([1.0, 1e5]),
)
def test_a_quadratic_with_a_ridge_is_found_in_nine_runs(lr: float, wd: float, correlation: float, scale: float) -> None:
    def loss(a: float, b: float) -> float:
        u, v = math.log(a / lr), 0.7 * math.log(b / wd)
        return scale * (3 + 0.05 * (u * u + 2 * correlation * u * v + v * v))

    fit = searched(loss, 9)
    assert loss(fit.at["lr"], fit.at["wd"]) <= 3.003 * scale  # 0.1 %


def test_runs_at_once_lie_apart_and_away_from_those_in_progress() -> None:
    points = values(start_places(2))
    y = 3 + 0.05 * np.log(points["lr"] / 2e-3) ** 2 + 0.02 * np.log(points["wd"] / 0.1) ** 2
    fit = fit_response(points, y, ranges=RANGES)
    first = next_point(fit)
    assert first is not None
    more = next_points(fit, 2, pending=[first], repeats=False)
    places = np.log(np.array([[p["lr"], p["wd"]] for p in [first, *more]]))
    for i in range(3):
        for j in range(i):
            assert np.abs(places[i] - places[j]).max() > 0.05


def test_no_run_goes_where_runs_diverged() -> None:
    lr = np.array([3e-4, 1e-3, 3e-3, 3e-2, 1e-2, 3e-2])
    wd = np.array([0.1, 0.3, 0.05, 0.1, 0.3, 0.03])
    fit = fit_response({"lr": lr, "wd": wd}, [3.3, 3.1, 3.0, math.nan, math.nan, math.nan], ranges=RANGES)
    found = next_point(fit)
    assert found is not None
    assert fit.divergence_probability({k: [v] for k, v in found.items()})[0] <= 0.5


def test_an_edge_sends_the_next_run_outward() -> None:
    points = values(start_places(2))
    y = 3 - 0.1 * np.log(points["lr"]) + 0.05 * np.log(points["wd"] / 0.1) ** 2
    fit = fit_response(points, y, ranges=RANGES)
    found = next_point(fit)
    assert fit.status is Status.EDGE_HIGH
    assert found is not None
    assert found["lr"] > points["lr"].max()
