"""The linear parameters of the annealing law, against direct solves of the same equations."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raylr.analysis.curves import _coefficients


def _problem(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nodes (N, 3), whitened columns of each (N, n, 3) and losses (n,) of a made-up run, and the gain."""
    rng = np.random.default_rng(seed)
    progress, floor = np.cumsum(rng.uniform(0.5, 1, (2, 30)), axis=1), rng.uniform(0, 1, (4, 30))
    grid = np.meshgrid([0.2, 0.4, 0.6], [0, 1], [0, 2, 3], indexing="ij")
    nodes = np.stack([axis.ravel() for axis in grid], 1).astype(float)
    shared, of_curve, of_response = _coefficients.columns(nodes, progress, floor, progress.max(1))
    one, curve, fall = shared
    each = np.stack([np.broadcast_to(one[:, 0], (len(nodes), 30)), curve.T[of_curve], fall.T[of_response]], -1)
    y = 3 + each[0, :, 1] + rng.uniform(0, 3) * each[0, :, 2] + 0.05 * rng.standard_normal(30)
    gram, rhs = _coefficients.normal_equations(one, curve, fall, y, of_curve, of_response)
    assert np.allclose(gram, np.einsum("kni,knj->kij", each, each))
    assert np.allclose(rhs, np.einsum("kni,n->ki", each, y))
    return gram, rhs, each, y


@given(seed=st.integers(0, 10**6), gain=st.floats(0.01, 10))
def test_they_are_those_of_direct_solves(seed: int, gain: float) -> None:
    gram, rhs, each, y = _problem(seed)
    phi, covariance, log_det, misfit = _coefficients.coefficients(gram, rhs, float(y @ y), gain)
    middle, sd = (gain * one for one in _coefficients.DROP_PRIOR)
    assert (phi[:, 2] >= 0).all()
    rest = y - np.einsum("knc,kc->kn", each, phi)
    assert np.allclose(misfit, (rest**2).sum(1) + 2 * np.log1p(0.5 * ((phi[:, 2] - middle) / sd) ** 2), atol=1e-5)
    # phi solves the equations with the Gaussian prior that the covariance stands for
    precision = np.linalg.inv(covariance) - gram
    assert np.allclose(np.linalg.slogdet(gram + precision)[1], log_det, atol=1e-4)
    left = rhs[:, :2] - np.einsum("kij,kj->ki", gram[:, :2], phi)
    assert np.abs(left).max() < 1e-4 * np.abs(rhs).max()  # l_inf and a follow b everywhere


def test_a_height_that_the_data_tell_is_theirs_however_large() -> None:
    """The prior's tails are heavy: 20 gains that the data tell to 0.1 are not drawn towards the prior's middle."""
    for b in (0.5, 2.0, 20.0):
        x = np.linspace(0.1, 1, 40)
        each = np.stack([np.ones(40), x**-0.4, np.where(x > 0.8, 5 * (1 - x), 1.0)], -1)[None] / 0.01
        y = each[0] @ np.array([2.0, 0.5, b])
        gram, rhs = np.einsum("kni,knj->kij", each, each), np.einsum("kni,n->ki", each, y)
        phi, *_ = _coefficients.coefficients(gram, rhs, float(y @ y), 1.0)
        assert abs(phi[0, 2] - b) < 0.01 * b
