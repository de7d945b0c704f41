"""Where the next run goes: outward at edges, not above what diverged, to a replicate where noise matters."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.optimum import Status, fit_optimum, next_lr, next_lrs

RANGE = (1e-5, 1e-1)


@settings(max_examples=15, deadline=None)
@given(
    curvature=st.floats(math.log(0.003), math.log(10)).map(math.exp),
    best=st.floats(math.log(1e-4), math.log(1e-2)),
    scale=st.sampled_from([1.0, 1e6]),
)
def test_a_parabola_is_known_within_six_runs_of_a_search(curvature: float, best: float, scale: float) -> None:
    lrs = [2e-4, 5e-3]

    def losses() -> list[float]:
        return [scale * (1.0 + curvature * (math.log(v) - best) ** 2) for v in lrs]

    while len(lrs) < 6 and not fit_optimum(lrs, losses(), lr_range=RANGE).ok:
        found = next_lr(fit_optimum(lrs, losses(), lr_range=RANGE))
        assert found is not None
        lrs.append(found)
    fit = fit_optimum(lrs, losses(), lr_range=RANGE)
    assert fit.ok
    assert math.log(fit.lr) == pytest.approx(best, abs=0.3)  # costs less than a tenth of what a factor e does
    assert fit.expected_regret(math.exp(best)) <= 0.2 * fit.curvature
    assert next_lr(fit) is None


def test_edges_send_the_next_run_outward() -> None:
    high = fit_optimum([1e-4, 1e-3], [3.4, 3.2], lr_range=RANGE)
    low = fit_optimum([1e-4, 1e-3], [3.2, 3.4], lr_range=RANGE)
    above, below = next_lr(high), next_lr(low)
    assert above is not None
    assert above > 1e-3
    assert below is not None
    assert below < 1e-4
    falling = fit_optimum([1e-4, 1e-3, 1e-2], [3.4, 3.3, 3.2])
    assert falling.status is Status.EDGE_HIGH
    beyond = next_lr(falling, high=1.0)
    assert beyond is not None
    assert 1e-2 < beyond <= 4.1e-2


@pytest.mark.parametrize("bad", [math.nan, 10.0])
def test_no_run_above_an_lr_that_diverged(bad: float) -> None:
    lrs, losses = [1e-4, 3e-4, 1e-3, 1e-2], [3.4, 3.3, 3.22, bad]
    fit = fit_optimum(lrs, losses, lr_range=RANGE)
    for found in next_lrs(fit, 3):
        assert found < 1e-2


def test_noise_that_nothing_shows_is_told_from_a_rough_curve_by_a_replicate() -> None:
    rng = np.random.default_rng(0)
    lrs = list(np.geomspace(1e-4, 1e-2, 7))
    losses = [3 + 0.02 * math.log(v / 1e-3) ** 2 + 0.05 * rng.standard_normal() for v in lrs]
    found = next_lr(fit_optimum(lrs, losses))
    assert found is not None
    assert min(abs(math.log(found / v)) for v in lrs) < 1e-9


def test_a_batch_is_spread_and_keeps_away_from_what_is_running() -> None:
    fit = fit_optimum([1e-4, 1e-3, 1e-2], [3.3, 3.2, 3.28], lr_range=RANGE)
    batch = next_lrs(fit, 3, pending=[2e-3])
    logs = np.log([*batch, 2e-3])
    assert len(batch) == 3
    assert min(abs(a - b) for i, a in enumerate(logs) for b in logs[:i]) > 0.04
    assert batch == next_lrs(fit, 3, pending=[2e-3])


def test_without_a_finite_loss_there_is_nothing_to_choose_by() -> None:
    with pytest.raises(ValueError, match="diverged"):
        next_lr(fit_optimum([1e-3], [math.nan]))


@settings(max_examples=15, deadline=None)
@given(
    curvature=st.floats(math.log(0.003), math.log(10)).map(math.exp),
    place=st.floats(-0.35, 0.35),
    skew=st.sampled_from([0.0, 0.5]),
)
def test_where_all_lrs_show_one_smooth_minimum_the_next_run_goes_close_to_it(
    curvature: float, place: float, skew: float
) -> None:
    gap = 1.5
    x = math.log(1e-3) + gap * np.arange(-2, 3)
    u = x - math.log(1e-3) - place * gap
    rise = u**2 if skew == 0 else 2 * (np.expm1(skew * u) - skew * u) / skew**2
    found = next_lr(fit_optimum(np.exp(x), 2.0 + curvature * rise, tolerance=1e-12))
    assert found is not None
    repeats_best = found == pytest.approx(1e-3)  # where a skew may be noise
    assert repeats_best or abs(math.log(found / 1e-3) - place * gap) < 0.25 * gap
