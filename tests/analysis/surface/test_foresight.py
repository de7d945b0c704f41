import math

import numpy as np
import pytest

from raylr.analysis import fit_surface
from raylr.analysis.surface.foresight import expected_variance

TARGET = 1e9
LRS = np.geomspace(2e-4, 2e-2, 4)


def loss(lr, tokens):
    z = math.log(lr / 2e-3) + 0.4 * np.log(tokens / TARGET)
    return 2.2 + 0.5 * (tokens / TARGET) ** -0.35 + 0.03 * z**2


def surface(ends=(0.2, 0.2, 0.2, 0.2), lrs=LRS):
    rows = [
        (lr, t, loss(lr, t))
        for lr, end in zip(lrs, ends, strict=True)
        for t in np.arange(0.02, end + 1e-9, 0.02) * TARGET
    ]
    return fit_surface(*np.array(rows).T)


def test_nothing_measured_is_the_present_variance():
    fit = surface()
    (now,) = expected_variance(fit, TARGET, [[]])
    assert now == pytest.approx(np.var(fit.optima(TARGET)), rel=0.15)


def test_every_measurement_narrows_and_more_of_it_narrows_more():
    fit = surface()
    plans = [[]] + [[(lr, share * TARGET) for lr in LRS[1:3]] for share in (0.35, 0.6, 1.0)]
    left = expected_variance(fit, TARGET, plans)
    assert (np.diff(left) < 0).all()


def test_two_runs_together_say_more_than_either():
    fit = surface()
    one, other = (LRS[0], TARGET), (LRS[2], TARGET)
    first, second, both, now = expected_variance(fit, TARGET, [[one], [other], [one, other], []])
    assert both < min(first, second) < now


def test_a_new_lr_in_a_gap_says_what_the_curve_is_like_there():
    fit = surface((0.6, 0.6, 0.6, 0.6), np.array([2e-4, 5e-4, 8e-3, 2e-2]))
    gap, beside, now = expected_variance(fit, TARGET, [[(2e-3, TARGET)], [(2.1e-2, TARGET)], []])
    assert gap < min(0.9 * beside, 0.9 * now)


@pytest.mark.parametrize(("first", "then"), [(0.2, 0.35), (0.35, 0.6)])
def test_the_expectation_holds_on_average(first, then):
    """What is left after measuring is near what was expected, where the model is right about the curves."""
    (expected,) = expected_variance(surface((first,) * 4), TARGET, [[(lr, then * TARGET) for lr in LRS]])
    got = float(np.var(surface((then,) * 4).optima(TARGET)))
    assert 0.3 < got / expected < 3


def test_the_target_itself_settles_the_optimum():
    # What is left is the shape between four LRs a factor 4.6 apart.
    assert np.var(surface((1.0,) * 4).optima(TARGET)) < 0.2 * np.var(surface((0.6,) * 4).optima(TARGET))


def test_no_model_says_nothing():
    fit = surface(ends=(0.2, 0.2), lrs=LRS[:2])
    assert np.isinf(expected_variance(fit, TARGET, [[], [(1e-3, TARGET)]])).all()
