import numpy as np
import pytest

from raylr.analysis.curves import _discount
from raylr.analysis.curves._discount import FLOOR, GAMMA_PRIOR, KAPPA_PRIOR, KAPPAS, CurvePosterior, nodes

X = np.linspace(-3, 0, 16)
GAMMAS = (0.3, 0.5, 0.9)


def curves(noise=1e-3):
    """Curves in units of their slope at the end, above their last point."""
    y = np.array([(np.exp(-g * X) - 1) / g for g in GAMMAS]) + np.random.default_rng(0).normal(0, noise, (3, X.size))
    return y, np.full_like(y, noise**2), np.maximum(y, 0.0)


def correlation(a, b):
    d = np.sqrt(3) / _discount.TIME_SCALE * np.abs(a[:, None] - b)
    return (1 + d) * np.exp(-d)


def by_matrices(y, v, e, at):
    """Mean and standard deviation at `at` from whole covariance matrices, one node at a time."""
    amp, ahead = (1 + e) ** 2, 1.0
    mean, variance, score = [], [], []
    for kappa in KAPPAS:
        cov = kappa**2 * correlation(X, X) * np.outer(amp, amp) + np.diag(v + FLOOR**2 + 1e-9 * (kappa * amp) ** 2)
        cross = kappa**2 * correlation(X, np.array([at]))[:, 0] * amp * ahead
        inverse = np.linalg.inv(cov)
        for g in nodes():
            f, there = np.stack([np.ones_like(X), np.exp(-g * X)], 1), np.array([1, np.exp(-g * at)])
            unit = np.linalg.inv(f.T @ inverse @ f)
            theta = unit @ f.T @ inverse @ y
            rest = y - f @ theta
            left = there - f.T @ inverse @ cross
            mean.append(there @ theta + cross @ inverse @ rest)
            variance.append(kappa**2 * ahead**2 - cross @ inverse @ cross + left @ unit @ left)
            prior = (np.log(g / GAMMA_PRIOR[0]) / GAMMA_PRIOR[1]) ** 2
            prior += (np.log(kappa / KAPPA_PRIOR[0]) / KAPPA_PRIOR[1]) ** 2
            size = np.linalg.slogdet(cov)[1] - np.linalg.slogdet(unit)[1] - 2 * np.log(g)
            score.append(-0.5 * (rest @ inverse @ rest + size + prior) if theta[1] > 0 else -np.inf)
    weight = np.exp(np.array(score) - np.max(score))
    weight /= weight.sum()
    centre = weight @ mean
    return centre, np.sqrt(weight @ (np.array(variance) + (np.array(mean) - centre) ** 2))


@pytest.mark.parametrize("at", [0.2, 1.4])
def test_predictions_are_those_of_the_whole_matrices(at):
    y, v, e = curves(noise=0.05)
    for i in range(3):
        mean, sd = CurvePosterior(x=X, y=y[i], v=v[i], e=e[i]).predict(np.array([at, 3.0]))
        assert (mean[0], sd[0]) == pytest.approx(by_matrices(y[i], v[i], e[i], at), rel=2e-3)


def test_the_width_follows_the_curve():
    """A curve that is an exact power law is predicted more exactly than one that waves, whatever the prior."""
    y, v, e = curves(noise=1e-6)
    waves = y + 0.1 * np.sin(3 * X) * (1 + e)
    sd = [CurvePosterior(x=X, y=one[1], v=v[1], e=e[1]).predict(np.array([1.0]))[1][0] for one in (y, waves)]
    assert sd[1] > 4 * sd[0]


def test_the_exponent_lies_between_the_nodes():
    mode = _discount.fit(X, *curves(noise=1e-6))
    assert mode.gamma == pytest.approx(np.array(GAMMAS), rel=0.05)
    assert mode.l0 == pytest.approx(-1 / np.array(GAMMAS), rel=0.1)
    assert not np.isin(mode.gamma, nodes()).any()


def test_a_rising_curve_has_no_fit():
    y, v, e = curves()
    mode = _discount.fit(X, -y[:1], v[:1], e[:1])
    assert np.isnan([mode.gamma[0], mode.l0[0], mode.b[0]]).all()


def test_inside_the_curve_predictions_follow_it():
    y, v, e = curves(noise=1e-3)
    y[0] += 0.3 * np.sin(2 * X)
    mean, sd = CurvePosterior(x=X, y=y[0], v=v[0], e=e[0]).predict(X[4:])
    assert np.abs(mean - y[0, 4:]).max() < 0.02
    assert sd.max() < 0.02
