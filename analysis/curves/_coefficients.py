"""The linear parameters of the annealing law at every node of its grid, by least squares with a prior of b.

Notation
    node     numbers of gamma, p and a response of the floor, see `_annealing`   (N, 3)
    phi      (l_inf, a, b): L = l_inf + a (S / S_end)^-gamma + b R                (N, 3)

Thousands of nodes share a few hundred columns: the one of l_inf, those of a for each pair of gamma and p, and those of
b for each response. Only these are whitened and multiplied with one another, which is most of the work of a fit.
"""

import numpy as np
from numpy.typing import NDArray

from raylr.analysis._checks import Array

DROP_PRIOR = (2.0, 3.0)
"""Middle of b, the loss that a decay to zero takes away, and its standard deviation there, in what the run gains in an
e-fold of progress at its end: public runs have 0.7 to 3, and one family 9. The tails are those of a Cauchy
distribution: with Gaussian ones a b of 15 gains would weigh as much as a misfit of four standard errors, and a slow
response, of which a short branch sees a part, would give way to a fast one that takes away less in all."""
ROUNDS = 4
"""Weighted least squares steps in which a Gaussian prior of b follows the Cauchy one."""


def columns(
    nodes: Array, progress: Array, floor: Array, ends: Array
) -> tuple[tuple[Array, Array, Array], NDArray[np.intp], NDArray[np.intp]]:
    """Return the different columns, and which of them are each node's.

    Args:
        nodes: gamma and the numbers of p and of the response (N, 3).
        progress: S at each point for each p (P, n).
        floor: R at each point for each response (Q, n).
        ends: Largest S for each p (P,).

    Returns:
        The column of l_inf (n, 1), those of a (n, C) and of b (n, Q'); for each node the number of its column of a and
        of b, (N,) and (N,).
    """
    curves, of_curve = np.unique(nodes[:, :2], axis=0, return_inverse=True)
    responses, of_response = np.unique(nodes[:, 2].astype(int), return_inverse=True)
    u = np.exp(-curves[:, :1] * np.log(progress / ends[:, None])[curves[:, 1].astype(int)])
    return (np.ones((progress.shape[1], 1)), u.T, floor[responses].T), of_curve.ravel(), of_response.ravel()


def normal_equations(
    one: Array, curve: Array, fall: Array, y: Array, of_curve: NDArray[np.intp], of_response: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Return the products of each node's whitened columns with one another (N, 3, 3) and with the losses (N, 3).

    Args:
        one: Whitened column of l_inf (n, 1).
        curve: Those of a (n, C).
        fall: Those of b (n, Q').
        y: Whitened losses (n,).
        of_curve: Number of each node's column of a (N,).
        of_response: Number of its column of b (N,).
    """
    gram = np.empty((of_curve.size, 3, 3))
    gram[:, 0, 0] = float(one[:, 0] @ one[:, 0])
    gram[:, 0, 1] = gram[:, 1, 0] = (curve.T @ one[:, 0])[of_curve]
    gram[:, 0, 2] = gram[:, 2, 0] = (fall.T @ one[:, 0])[of_response]
    gram[:, 1, 1] = (curve**2).sum(0)[of_curve]
    gram[:, 2, 2] = (fall**2).sum(0)[of_response]
    gram[:, 1, 2] = gram[:, 2, 1] = (curve.T @ fall)[of_curve, of_response]
    each = np.full(of_curve.size, float(one[:, 0] @ y)), (curve.T @ y)[of_curve], (fall.T @ y)[of_response]
    return gram, np.stack(each, 1)


def coefficients(gram: Array, rhs: Array, square: float, gain: float) -> tuple[Array, Array, Array, Array]:
    """Return phi (N, 3), its covariances (N, 3, 3), ln det of their inverses (N,), and misfits with the prior (N,).

    l_inf and a are eliminated first, so that the prior concerns one number a node.

    Args:
        gram: Products of the columns with one another (N, 3, 3).
        rhs: ... and with the losses (N, 3).
        square: Sum of the squares of the losses.
        gain: Unit of the prior of b, nats.
    """
    middle, sd = DROP_PRIOR[0] * gain, DROP_PRIOR[1] * gain
    size = np.sqrt(np.einsum("kii->ki", gram))
    scaled = gram / (size[:, :, None] * size[:, None, :]) + 1e-10 * np.eye(3)
    det = scaled[:, 0, 0] * scaled[:, 1, 1] - scaled[:, 0, 1] ** 2
    first = np.empty((len(gram), 2, 2))  # inverse of the block of l_inf and a
    first[:, 0, 0], first[:, 1, 1], first[:, 0, 1] = scaled[:, 1, 1], scaled[:, 0, 0], -scaled[:, 0, 1]
    first[:, 1, 0] = first[:, 0, 1]
    first /= det[:, None, None] * (size[:, :2, None] * size[:, None, :2])
    follow = np.einsum("kij,kj->ki", first, gram[:, :2, 2])  # how far both go down as b goes up
    own = scaled[:, 2, 2] * size[:, 2] ** 2
    data = np.maximum(own - (follow * gram[:, :2, 2]).sum(1), 1e-10 * own)
    pull, variance = rhs[:, 2] - (follow * rhs[:, :2]).sum(1), np.full(len(gram), sd**2)
    for _ in range(ROUNDS):
        precision = data + 1 / variance
        b = np.maximum((pull + middle / variance) / precision, 0.0)  # a floor that rises as the LR falls is none
        variance = sd**2 + 0.5 * (b - middle) ** 2
    phi = np.concatenate([np.einsum("kij,kj->ki", first, rhs[:, :2]) - follow * b[:, None], b[:, None]], 1)
    down = np.concatenate([follow, np.full((len(gram), 1), -1.0)], 1)
    inverse = np.einsum("ki,kj->kij", down, down) / precision[:, None, None]
    inverse[:, :2, :2] += first
    misfit = square - 2 * (phi * rhs).sum(1) + np.einsum("ki,kij,kj->k", phi, gram, phi)
    misfit += 2 * np.log1p(0.5 * ((b - middle) / sd) ** 2)
    log_det = np.log(det) + 2 * np.log(size[:, :2]).sum(1) + np.log(precision)
    return phi, inverse, log_det, misfit
