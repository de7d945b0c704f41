import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.optimum.basin import Basins, one_basin
from raylr.errors import InputError


def grid(lrs=6, stds=5):
    lr, std = np.meshgrid(np.geomspace(1e-3, 3e-2, lrs), np.geomspace(0.005, 0.08, stds))
    return {"lr": lr.ravel(), "init_std": std.ravel()}


@given(
    slope=st.floats(-0.8, 0.8), c=st.floats(0.005, 0.1), ratio=st.floats(0.05, 2), at=st.floats(-1.5, 1.5),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=10)
def test_a_quadratic_with_noise_is_one_basin(slope, c, ratio, at, seed):
    points = grid()
    x, y = np.log(points["lr"] / 5e-3) - at, np.log(points["init_std"] / 0.02)
    loss = 3 + c * (x - slope * y) ** 2 + c * ratio * y**2
    noise = 0.002
    found = one_basin(points, loss + noise * np.random.default_rng(seed).standard_normal(len(loss)), noise=noise)
    assert found.basins is Basins.ONE
    assert found.tested > 10


@given(seed=st.integers(0, 99), gap=st.floats(1.2, 1.7))
@settings(max_examples=10)
def test_two_valleys_are_found(seed, gap):
    points = grid()
    x, y = np.log(points["lr"] / 5.5e-3), np.log(points["init_std"] / 0.02)
    valleys = [np.sqrt((x - side * gap) ** 2 + (y - side * 0.5) ** 2) for side in (-1, 1)]
    loss = 3 + 0.06 * np.minimum(*valleys) + 0.002 * np.random.default_rng(seed).standard_normal(len(x))
    found = one_basin(points, loss, noise=0.002)
    assert found.basins is Basins.NOT_CONVEX
    assert found.hill is not None


@given(seed=st.integers(0, 999), bend=st.floats(0.1, 0.5), runs=st.integers(6, 20))
@settings(max_examples=15)
def test_one_valley_that_bends_is_not_called_several_basins(seed, bend, runs):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-3, 3, runs), rng.uniform(-3, 3, runs)
    loss = 3 + 0.05 * (x - bend * y**2) ** 2 + 0.01 * y**2 + 0.002 * rng.standard_normal(runs)
    found = one_basin({"lr": 3e-3 * np.exp(x), "init_std": 0.02 * np.exp(y)}, loss, noise=0.002)
    assert found.basins is not Basins.NOT_CONVEX or "or one valley that bends" in found.message


def test_what_cannot_be_told_and_what_is_no_input():
    corners = {"lr": [1e-3, 1e-2, 1e-3, 1e-2], "init_std": [0.01, 0.01, 0.04, 0.04]}
    assert one_basin(corners, [3.0, 3.1, 3.2, 3.3], noise=0.01).basins is Basins.UNKNOWN
    lost = one_basin({k: [*v, 3e-3 if k == "lr" else 0.02] for k, v in corners.items()},
                     [3.0, 3.1, 3.2, 3.3, math.nan], noise=0.01)  # fmt: skip
    assert lost.basins is Basins.UNKNOWN  # a diverged run is a cliff, not a hill
    for bad in ({}, {"lr": [1.0], "init_std": [0.0]}, {"lr": [1.0, 2.0], "init_std": [1.0]}):
        with pytest.raises(InputError):
            one_basin(bad, [3.0], noise=0.01)
    with pytest.raises(InputError, match="noise"):
        one_basin(corners, [3.0, 3.1, 3.2, 3.3], noise=-1)


def test_neither_order_nor_units_nor_replicates_matter():
    points = {"lr": np.array([1e-3, 2e-3, 4e-3, 8e-3]), "init_std": np.array([0.01, 0.02, 0.04, 0.08])}
    loss = np.array([3.0, 3.05, 3.02, 3.1])
    found = one_basin(points, loss, noise=0.005)
    turned = one_basin({k: 7 * v[::-1] for k, v in points.items()}, loss[::-1] - 9, noise=0.005)
    assert found.basins is turned.basins is Basins.NOT_CONVEX
    twice = one_basin({k: np.tile(v, 2) for k, v in points.items()}, np.tile(loss, 2), noise=0.005)
    assert twice.basins is Basins.NOT_CONVEX
    assert one_basin(points, loss, noise=0.02).basins is Basins.ONE  # within noise
