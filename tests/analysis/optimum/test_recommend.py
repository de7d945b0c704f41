"""What an answer may not do: leave an LR that was measured for one that the model does not expect to be better."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.optimum import fit_optimum
from raylr.analysis.optimum._losses import CLUSTER
from raylr.analysis.optimum._recommend import CAUTION, CONFIRM, NEGLIGIBLE, ROUGH, contradicted, doubtful
from raylr.analysis.optimum._verdict import COST, RELATIVE_REGRET
from raylr.analysis.status import Status


def scattered(seed: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """LRs and losses on straight lines between scattered points of a parabola."""
    rng = np.random.default_rng(seed)
    knots = np.arange(-12, 13) * gap + rng.uniform(-gap, gap)
    height = 0.5 * knots**2 + 0.1 * rng.standard_normal(knots.size)
    x = np.sort(rng.uniform(-3, 3, int(rng.integers(CONFIRM, 14))))
    x += 2 * CLUSTER * np.arange(x.size)  # none counts as a replicate of another
    return x, np.interp(x, knots, height)


def test_on_a_rough_curve_an_untried_lr_has_to_gain_more_than_is_not_known_of_it() -> None:
    moved = 0
    for seed in range(40):
        x, loss = scattered(seed, 0.4)
        fit = fit_optimum(np.exp(x), loss)
        curves, at = fit.curves, math.log(fit.lr)
        if curves is None or curves.rough <= ROUGH or np.abs(x - at).min() < 1e-6:
            continue
        moved += 1
        gain = curves.mean[curves.best] - np.interp(at, curves.x, curves.mean)
        unknown = np.interp(at, curves.x, (curves.curves - curves.curves[:, [curves.best]]).std(axis=0))
        assert gain >= 0.9 * CAUTION * unknown - 1e-3  # the answer lies between points of the grid
    assert moved >= 3


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), gap=st.floats(0.2, 1.0), cliff=st.floats(0.0, 20.0))
def test_ok_means_a_regret_far_below_the_least_likely_cost_of_a_factor_e(seed: int, gap: float, cliff: float) -> None:
    x, loss = scattered(seed, gap)
    fit = fit_optimum(np.exp(x), loss + np.where(x > 0.5, cliff, 0.0))
    if fit.ok:
        assert fit.curves is not None
        least = float(np.quantile(fit.curves.curvature, COST)) * fit.losses.unit
        assert fit.regret <= RELATIVE_REGRET * least * (1 + 1e-9)


def test_a_search_leaves_the_best_lr_tried_on_a_doubtful_curve_only_for_more_than_its_tolerance() -> None:
    kept = 0
    for seed in range(30):
        x, loss = scattered(seed, 0.4)
        fit = fit_optimum(np.exp(x), loss, searching=True)
        curves, at = fit.curves, math.log(fit.lr)
        assert curves is not None
        gain = curves.mean[curves.best] - np.interp(at, curves.x, curves.mean)
        if not doubtful(fit.losses, curves):
            continue
        if at == fit.losses.x[0]:
            kept += fit_optimum(np.exp(x), loss).lr != fit.lr
        elif np.abs(fit.losses.tried - at).min() > 1e-6 and not contradicted(fit.losses, curves):
            assert gain >= 0.9 * max(NEGLIGIBLE, RELATIVE_REGRET * float(np.quantile(curves.curvature, COST)))
    assert kept >= 2


def test_a_search_is_not_ok_where_an_untried_lr_is_expected_to_be_far_better_than_all_that_were_tried() -> None:
    lr, loss = [0.001, 0.02629, 0.09986, 0.2714], [2.2497, 0.10546, 0.030186, 0.83721]
    assert fit_optimum(lr, loss).ok
    fit = fit_optimum(lr, loss, searching=True)
    assert fit.status is Status.UNCERTAIN
    assert "try it first" in fit.message
    assert fit_optimum(lr, loss, searching=True, tolerance=1.0).ok
