"""What an answer may not do: leave an LR that was measured for one that the model does not expect to be better."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.optimum import fit_optimum
from raylr.analysis.optimum._losses import CLUSTER
from raylr.analysis.optimum._recommend import CONFIRM, REPEAT, sure_noise
from raylr.analysis.optimum._verdict import COST, RELATIVE_REGRET


def scattered(seed: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """LRs and losses on straight lines between scattered points of a parabola."""
    rng = np.random.default_rng(seed)
    knots = np.arange(-12, 13) * gap + rng.uniform(-gap, gap)
    height = 0.5 * knots**2 + 0.1 * rng.standard_normal(knots.size)
    x = np.sort(rng.uniform(-3, 3, int(rng.integers(CONFIRM, 14))))
    x += 2 * CLUSTER * np.arange(x.size)  # none counts as a replicate of another
    return x, np.interp(x, knots, height)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), gap=st.floats(0.2, 1.0))
def test_where_the_model_takes_back_the_best_loss_an_untried_lr_is_expected_to_be_better_than_it(
    seed: int, gap: float
) -> None:
    x, loss = scattered(seed, gap)
    fit = fit_optimum(np.exp(x), loss)
    assert fit.curves is not None
    assert sure_noise(fit.losses, fit.curves) == 0
    taken_back = fit.curves.mean[fit.curves.best] > REPEAT
    if taken_back and np.abs(x - math.log(fit.lr)).min() > 1e-6:
        assert fit.loss <= loss.min() + 1e-9 * np.ptp(loss)


def test_the_best_lr_tried_stands_where_the_model_calls_it_lucky_without_a_replicate() -> None:
    lr = [0.001001, 0.00581, 0.051, 0.07161, 0.09986, 0.1175, 0.144, 0.2601]
    fit = fit_optimum(lr, [2.24347, 0.35175, 0.02165, 0.00992, 0.00306, 0.01298, 0.02553, 1.20143])
    assert math.isclose(fit.lr, 0.09986, rel_tol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), gap=st.floats(0.2, 1.0), cliff=st.floats(0.0, 20.0))
def test_ok_means_a_regret_far_below_the_least_likely_cost_of_a_factor_e(seed: int, gap: float, cliff: float) -> None:
    x, loss = scattered(seed, gap)
    fit = fit_optimum(np.exp(x), loss + np.where(x > 0.5, cliff, 0.0))
    if fit.ok:
        assert fit.curves is not None
        least = float(np.quantile(fit.curves.curvature, COST)) * fit.losses.unit
        assert fit.regret <= RELATIVE_REGRET * least * (1 + 1e-9)
