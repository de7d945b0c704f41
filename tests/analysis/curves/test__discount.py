import numpy as np
import pytest

from raylr.analysis.curves import _discount
from raylr.analysis.curves._progress import SCALE_DOF, covariance

PRIOR = (0.5, 0.5)
X = np.linspace(-3, 0, 31)


def curves(count=5, noise=1e-3):
    rng = np.random.default_rng(0)
    gamma = rng.uniform(0.2, 1.2, count)
    y = 2.5 + 0.4 * np.exp(-gamma[:, None] * X) + rng.normal(0, noise, (count, X.size))
    return gamma, y, np.full_like(y, noise**2), 5e-3 * (1 + np.abs(X)) * rng.uniform(0.5, 2, (count, 1))


def dense(y, v, amp, nodes):
    """l0, b, misfit and covariance at each node by the whole covariance matrix."""
    zero = np.zeros_like(X)
    inverse = np.linalg.inv(covariance(zero, X, amp, zero, X, amp, own=True) + np.diag(v))
    for g in nodes:
        f = np.stack([np.ones_like(X), np.exp(-g * X)], 1)
        unit = np.linalg.inv(f.T @ inverse @ f)
        theta = unit @ f.T @ inverse @ y
        residual = y - f @ theta
        yield theta, residual @ inverse @ residual, unit


def test_the_filter_whitens_as_the_whole_covariance_does():
    _, y, v, amp = curves()
    fit = _discount.fit(X, y, v, amp, PRIOR)
    for i in range(len(y)):
        theta, misfit, unit = zip(*dense(y[i], v[i], amp[i], fit.nodes), strict=True)
        theta, misfit, unit = np.array(theta), np.array(misfit), np.array(unit)
        weight = np.exp(-0.5 * (misfit + (np.log(fit.nodes / PRIOR[0]) / PRIOR[1]) ** 2))
        weight[theta[:, 1] <= 0] = 0
        weight /= weight.sum()
        assert fit.table[i, :, 0] == pytest.approx(weight, abs=1e-7)
        assert fit.table[i, :, 1:3] == pytest.approx(theta, rel=1e-6)
        scale = (weight @ misfit + SCALE_DOF) / (X.size + SCALE_DOF)
        assert fit.scale[i] == pytest.approx(scale, rel=1e-6)
        assert fit.table[i, :, 3:] == pytest.approx(scale * unit.reshape(-1, 4)[:, [0, 1, 3]], rel=1e-5)


def test_the_exponent_lies_between_the_nodes():
    gamma, y, v, amp = curves(noise=1e-6)
    fit = _discount.fit(X, y, v, amp / 100, PRIOR)
    assert fit.gamma == pytest.approx(gamma, rel=0.02)
    assert fit.l0 == pytest.approx(np.full(5, 2.5), abs=0.02)
    assert not np.isin(fit.gamma, fit.nodes).any()


def test_a_rising_curve_has_no_fit():
    _, y, v, amp = curves()
    fit = _discount.fit(X, 6 - y[:1], v[:1], amp[:1], PRIOR)
    assert np.isnan([fit.gamma[0], fit.l0[0], fit.b[0]]).all()
