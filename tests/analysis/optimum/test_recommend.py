"""What an answer may not do: leave an LR that was measured for one that the model does not expect to be better."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.optimum import fit_optimum
from raylr.analysis.optimum._losses import CLUSTER
from raylr.analysis.optimum._recommend import CONFIRM, REPEAT, sure_noise


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


def test_beside_a_kink_that_the_shape_does_not_explain_the_answer_is_the_best_lr_tried() -> None:
    lr = [0.0004647, 0.01245, 0.01723, 0.02152, 0.02152, 0.02656, 0.03298, 0.07736]
    loss = [0.98396, 0.03044, 0.02307, 0.02014, 0.02014, 0.03647, 0.05339, 0.06788]
    fit = fit_optimum(lr, loss)
    assert fit.lr == 0.02152 or math.isclose(fit.lr, 0.02152, rel_tol=1e-9)


def test_losses_that_a_cliff_makes_steep_do_not_loosen_what_counts_as_known() -> None:
    # the mean cost of a factor e is 15 % of the loss here, and a tenth of it no small regret
    fit = fit_optimum([0.001, 0.001829, 0.002521, 0.006348], [3.3711, 3.3234, 3.5337, 6.9698])
    assert not fit.ok
