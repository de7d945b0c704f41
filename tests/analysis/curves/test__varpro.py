import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from raylr.analysis.curves._varpro import GAMMA_MAX, GAMMA_MIN, least_squares

ROUNDING = 1e-11
"""Share of the variance that a misfit of zero may come out as: residuals of 3e-6, cancelled digits of the losses."""


def misfit(log_gamma, x, y, w):
    u = np.exp(-np.exp(log_gamma) * x)
    root = np.sqrt(w)
    f = np.stack([np.ones_like(u), u], 1) * root[:, None]
    coefficients = np.linalg.lstsq(f, y * root, rcond=None)[0]
    return float(np.sum((y * root - f @ coefficients) ** 2))


@settings(deadline=None, max_examples=40)
@given(
    gamma=st.floats(0.1, 2.0),
    noise=st.floats(0, 0.02),
    ratio=st.floats(5, 200),
    n=st.integers(6, 80),
    seed=st.integers(0, 99),
)
def test_no_exponent_nearby_fits_better(gamma, noise, ratio, n, seed):
    rng = np.random.default_rng(seed)
    x = np.log(np.sort(np.concatenate([rng.uniform(1 / ratio, 1, n - 2), [1 / ratio, 1]])))
    y = 2 + 0.5 * np.exp(-gamma * x) + rng.normal(0, noise + 1e-9, n)
    w = rng.uniform(0.5, 2, n)
    w /= w.sum()
    fit = least_squares(x, y[None], w)
    if fit.at_bound[0] or fit.b[0] == 0:
        return
    at = float(np.log(fit.gamma[0]))
    best = minimize_scalar(lambda v: misfit(v, x, y, w), bounds=(at - 0.1, at + 0.1), method="bounded")
    # a difference of sums of squares: rounding leaves some 1e-12 of the variance
    assert fit.misfit[0] == pytest.approx(misfit(at, x, y, w), rel=1e-6, abs=1e-11 * np.var(y))
    assert misfit(at, x, y, w) <= best.fun * (1 + 1e-6) + ROUNDING * np.var(y)


def test_exponents_stay_within_their_bounds():
    x = np.log(np.linspace(0.02, 1, 50))
    y = np.stack([3 - x, 3 + 1e-3 * np.exp(-8 * x)])
    fit = least_squares(x, y, np.full(50, 0.02))
    assert fit.at_bound.tolist() == [True, True]
    assert fit.gamma == pytest.approx([GAMMA_MIN, GAMMA_MAX])
