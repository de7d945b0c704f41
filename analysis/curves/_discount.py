"""Eq. 4 with a discounted past: l0 + b * u(g) plus what it leaves out, for many curves at once.

Notation
    x        ln(tokens / last tokens), 0 at the end                              (m,)
    y        losses less the last, in units of what the curve gains in an e-fold of tokens at its end (`slope`)  (R, m)
    v        variance of their noise, in the same units                          (R, m)
    e        how many such gains a point is above the end (smoothed)             (R, m)
    g        exponents, evenly spaced in ln g; u = exp(-g x)                     (G,), (G, m)
    k        kappa: discrepancy at the end, in gains; evenly spaced in ln k      (K,)

The discrepancy, what Eq. 4 leaves out, is a Gaussian process in x with standard deviation k (1 + e)^POWER. It is smooth
(Matern, 3/2): its derivative is continuous, as that of a loss curve, so that a curve that looks exact may still bend
slowly. A rough process of the same size would have shown itself between neighbouring points; taking its absence for an
exact power law makes intervals ten times too narrow (see the lab notebook).

g and k have log-normal priors and are integrated over, so that the width of an interval follows from the curve: k is
what its own points say. l0 and b are linear given g and k, with a flat prior on the level and the slope at the end.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raylr.analysis._checks import Array

GAMMA_PRIOR = (0.4, 0.5)
"""Median and ln-sd of the exponent: published exponents of the loss over tokens are 0.28-0.6."""
KAPPA_PRIOR = (0.1, 1.0)
"""Median and ln-sd of kappa: between 2 and 50 % of the gain in an e-fold. Wide, so that a curve decides."""
POWER = 2.0
"""Growth of the discrepancy with the distance from the end."""
TIME_SCALE = 2.0
"""Correlation length of the discrepancy in ln tokens. Curves are extrapolated by factors of 2 to 7: what did not show
over the last e-folds may show over the next one or two. Intervals hold as often with 1.5 and 3."""
FLOOR = 1e-3
"""Least noise of a point, in gains: losses are printed with four digits or so."""
GAMMAS, GAMMA_SPREAD = 31, 3.0
"""Exponents on the grid, which reaches this many prior standard deviations."""
KAPPAS = KAPPA_PRIOR[0] * np.exp(KAPPA_PRIOR[1] * np.arange(-4.0, 3.0))
ROWS = 32
"""Curves that are worked on together: what fits into the processor's cache."""
LEAST_WEIGHT = 1e-5
"""Nodes of less weight are left out of predictions."""


def nodes() -> Array:
    """The exponents of the grid (G,)."""
    return np.asarray(GAMMA_PRIOR[0] * np.exp(GAMMA_PRIOR[1] * np.linspace(-GAMMA_SPREAD, GAMMA_SPREAD, GAMMAS)))


@dataclass(frozen=True, kw_only=True)
class Modes:
    """Most likely parameters of every curve, each (R,); NaN where no falling curve fits."""

    gamma: Array
    l0: Array
    b: Array
    """Factor in tokens of the last."""


def fit(x: Array, y: Array, v: Array, e: Array) -> Modes:
    """Return the most likely parameters of R curves, between the nodes of the grid.

    Args:
        x: ln(tokens / last tokens), ascending, 0 at the end (m,).
        y: Losses less the last, in gains of an e-fold of tokens (R, m); finite.
        v: Variance of their noise, in gains squared (R, m).
        e: How many gains each point is above the end (R, m).

    Returns:
        The modes, each (R,); NaN where no falling curve fits.
    """
    parts = [_modes(x, y[i : i + ROWS], v[i : i + ROWS], e[i : i + ROWS]) for i in range(0, max(len(y), 1), ROWS)]
    gamma, l0, b = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Modes(gamma=gamma, l0=l0, b=b)


@dataclass(frozen=True, kw_only=True)
class CurvePosterior:
    """The posterior of one curve: a mixture over the nodes of both grids."""

    x: Array
    """(m,)."""
    y: Array
    v: Array
    e: Array

    @cached_property
    def table(self) -> Array:
        """Per node of weight: exponent, kappa, weight, l0, b, covariances (l0,l0), (l0,b), (b,b). (N, 8)."""
        n = _nodes(self.x, *(one[None, :] for one in (self.y, self.v, self.e)))
        weight = _normalised(n.score.reshape(1, -1))[0]
        gamma, kappa = np.broadcast_arrays(nodes(), KAPPAS[:, None])
        columns = (gamma, kappa, weight, n.l0[0], n.b[0], n.s11[0] / n.det[0], -n.s01[0] / n.det[0],
                   n.s00[0] / n.det[0])  # fmt: skip
        table = np.stack([np.broadcast_to(one, gamma.shape).ravel() if one.ndim == 2 else one for one in columns], 1)
        return np.asarray(table[weight > LEAST_WEIGHT * weight.max()])

    def predict(self, at: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the loss at ln(tokens / last tokens) `at` (k,), in the units of `y`."""
        amp = (1 + np.interp(at, self.x, self.e)) ** POWER
        amp[at > self.x[-1]] = 1.0
        mean, spread = np.zeros((2, 0, at.size))
        for kappa in np.unique(self.table[:, 1]):
            part = self.table[self.table[:, 1] == kappa]
            own = kappa * (1 + self.e) ** POWER
            u, there = _powers(part[:, 0], self.x), _powers(part[:, 0], at)
            cross = _correlation(self.x[:, None] - at) * kappa * amp
            factor = _factors(self.x, self.v[None, :], own[None, :])[0]
            columns = np.column_stack([np.ones(self.x.size), self.y, u.T]) / own[:, None]
            white = np.linalg.solve(factor, np.column_stack([columns, cross]))
            one, loss, power, cross = white[:, :1], white[:, 1], white[:, 2 : 2 + len(part)], white[:, 2 + len(part) :]
            level, rise = 1 - one.T @ cross, there - power.T @ cross  # what remains of both columns, (1, k) and (N, k)
            _, _, _, l0, b, v00, v01, v11 = (column[:, None] for column in part.T)
            own_variance = np.maximum((kappa * amp) ** 2 - (cross**2).sum(0), 0.0)
            mean = np.concatenate([mean, loss @ cross + level * l0 + rise * b])
            spread = np.concatenate([spread, own_variance + v00 * level**2 + 2 * v01 * level * rise + v11 * rise**2])
        order = np.argsort(self.table[:, 1], kind="stable")
        weight = self.table[order, 2][:, None] / self.table[:, 2].sum()
        centre = (weight * mean).sum(0)
        return centre, np.sqrt((weight * (spread + (mean - centre) ** 2)).sum(0))


@dataclass(frozen=True, kw_only=True)
class _Nodes:
    """Products of the whitened columns 1, y and u at every node, and what follows from them, each (R, K, G)."""

    s00: Array
    s01: Array
    s11: Array
    det: Array
    l0: Array
    b: Array
    score: Array
    """ln of the posterior density."""


def _nodes(x: Array, y: Array, v: Array, e: Array) -> _Nodes:
    gamma = nodes()
    amp = KAPPAS[:, None] * ((1 + e) ** POWER)[:, None, :]  # (R, K, m)
    factor = _factors(x, v[:, None, :], amp)
    columns = np.empty((*amp.shape, 2 + gamma.size))
    columns[..., 0], columns[..., 1] = 1 / amp, y[:, None, :] / amp
    columns[..., 2:] = _powers(gamma, x).T / amp[..., None]
    white = np.linalg.solve(factor, columns)
    one, loss, power = white[..., 0], white[..., 1], white[..., 2:]
    s00, r0, total = ((a * b).sum(-1)[..., None] for a, b in ((one, one), (one, loss), (loss, loss)))
    s01, r1 = (np.einsum("rkm,rkmg->rkg", a, power) for a in (one, loss))
    s11 = np.einsum("rkmg,rkmg->rkg", power, power)
    det = np.maximum(s00 * s11 - s01**2, 1e-12 * s00 * s11)
    l0, b = (s11 * r0 - s01 * r1) / det, (s00 * r1 - s01 * r0) / det
    misfit = np.maximum(total - l0 * r0 - b * r1, 0.0)
    size = 2 * (np.log(np.diagonal(factor, axis1=-2, axis2=-1)) + np.log(amp)).sum(-1)
    prior = (np.log(gamma / GAMMA_PRIOR[0]) / GAMMA_PRIOR[1]) ** 2
    prior = prior + (np.log(KAPPAS[:, None] / KAPPA_PRIOR[0]) / KAPPA_PRIOR[1]) ** 2
    # The determinant is that of level and slope at the end, l0 + b and g b: that of l0 and b prefers small exponents.
    score = -0.5 * (misfit + size[..., None] + np.log(det / gamma**2) + prior)
    return _Nodes(s00=s00, s01=s01, s11=s11, det=det, l0=l0, b=b, score=np.where(b > 0, score, -np.inf))


def _modes(x: Array, y: Array, v: Array, e: Array) -> tuple[Array, ...]:
    n = _nodes(x, y, v, e)
    each = _normalised(n.score.reshape(len(y), -1)).reshape(n.score.shape)
    weight = each.sum(1)
    share = each / np.where(weight > 0, weight, 1.0)[:, None, :]
    l0, b = (share * n.l0).sum(1), (share * n.b).sum(1)
    with np.errstate(divide="ignore"):
        score = np.log(weight)
    best = score.argmax(1)
    found = np.isfinite(score[np.arange(best.size), best])
    at, (l0, b) = _between(score, best, l0, b)
    grid = nodes()
    gamma = grid[0] * (grid[1] / grid[0]) ** at
    return tuple(np.where(found, value, math.nan) for value in (gamma, l0, b))


def _normalised(score: Array) -> Array:
    """Weights that sum to 1 in each row; 0 in a row without a finite score."""
    top = score.max(1, keepdims=True)
    weight = np.exp(score - np.where(np.isfinite(top), top, 0.0))
    total = weight.sum(1, keepdims=True)
    return np.asarray(weight / np.where(total > 0, total, 1.0))


def _powers(gamma: Array, x: Array) -> Array:
    """u at each exponent and x (G, m)."""
    return np.asarray(np.exp(np.minimum(-gamma[:, None] * x, 150.0)))


def _correlation(distance: Array) -> Array:
    d = math.sqrt(3) / TIME_SCALE * np.abs(distance)
    return np.asarray((1 + d) * np.exp(-d))


def _factors(x: Array, v: Array, amp: Array) -> Array:
    """Lower Cholesky factors (..., m, m) of the points' covariance in units of `amp` (..., m)."""
    ratio = np.minimum((v + FLOOR**2) / amp**2, 1e12)
    covariance = _correlation(x[:, None] - x) + (ratio + 1e-9)[..., None] * np.eye(x.size)
    return np.asarray(np.linalg.cholesky(covariance), np.float64)


def _between(score: Array, best: Array, *values: Array) -> tuple[Array, list[Array]]:
    """Where the parabola through the best node and its neighbours is highest, in nodes (R,), and `values` there."""
    inner, rows = np.clip(best, 1, score.shape[1] - 2), np.arange(best.size)
    around = [(rows, inner + k) for k in (-1, 0, 1)]
    left, mid, right = (score[one] for one in around)
    whole = np.isfinite(left) & np.isfinite(right) & (best == inner)
    left, mid, right = (np.where(whole, one, 0.0) for one in (left, mid, right))
    bend = left - 2 * mid + right
    shift = np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, 1.0), best - inner)
    return inner + shift, [
        value[around[1]] + 0.5 * shift * (value[around[2]] - value[around[0]])
        + 0.5 * shift**2 * (value[around[2]] - 2 * value[around[1]] + value[around[0]])
        for value in values
    ]  # fmt: skip
