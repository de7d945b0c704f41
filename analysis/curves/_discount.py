"""Eq. 4 with a discounted past: l0 + b * u(g) plus what it leaves out, for many curves at once.

Notation
    x        ln(tokens / last tokens), 0 at the end                              (m,)
    y        losses (R, m); v their noise variance, amp the discrepancy's standard deviation, both (R, m)
    g        exponents, evenly spaced in ln g; u = exp(-g x)                     (G,), (G, m)
    rho      correlation of the discrepancy from one point to the next           (m - 1,)
    s, r     products of whitened columns: s00 = <1, 1>, s01 = <1, u>, s11 = <u, u>, r0 = <1, y>, r1 = <u, y>

The discrepancy is an Ornstein-Uhlenbeck process in x times amp, so whitening is a Kalman filter with one state: m steps
on arrays (R, G) in place of a matrix (m, m) a curve. l0 and b then are linear given g, and g has a log-normal prior.
"""

import math
from dataclasses import dataclass

import numpy as np

from raylr.analysis._checks import Array
from raylr.analysis.curves._progress import SCALE_DOF, TIME_SCALE

GRID = 61
"""Exponents on the grid."""
SPREAD = 3.0
"""The grid reaches this many prior standard deviations."""
ROWS = 256
"""Curves that are worked on together: what fits into the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class Discounted:
    """Posterior of every curve."""

    gamma: Array
    """Most likely exponent, between the nodes (R,); NaN where no falling curve fits, as l0 and b."""
    l0: Array
    """Its limit (R,)."""
    b: Array
    """Its factor, in tokens of the last (R,)."""
    scale: Array
    """Variance of the whitened residuals (R,)."""
    nodes: Array
    """(G,)."""
    table: Array
    """Per curve and node: weight, l0, b, covariances (l0,l0), (l0,b), (b,b). (R, G, 6)."""


def fit(x: Array, y: Array, v: Array, amp: Array, prior: tuple[float, float]) -> Discounted:
    """The posterior of each row of `y`; `prior`: median and ln-sd of the exponent."""
    nodes = prior[0] * np.exp(prior[1] * np.linspace(-SPREAD, SPREAD, GRID))
    parts = [_rows(x, nodes, prior, y[i : i + ROWS], v[i : i + ROWS], amp[i : i + ROWS])
             for i in range(0, max(y.shape[0], 1), ROWS)]  # fmt: skip
    gamma, l0, b, scale, table = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Discounted(gamma=gamma, l0=l0, b=b, scale=scale, nodes=nodes, table=table)


def _rows(x: Array, nodes: Array, prior: tuple[float, float], y: Array, v: Array, amp: Array) -> tuple[Array, ...]:
    u = np.exp(-nodes[:, None] * x)
    s00, s01, s11, r0, r1, total = _products(x, y, v, amp, u)
    det = np.maximum(s00 * s11 - s01**2, 1e-12 * s00 * s11)
    l0, b = (s11 * r0 - s01 * r1) / det, (s00 * r1 - s01 * r0) / det
    misfit = np.maximum(total - l0 * r0 - b * r1, 0.0)
    unit = np.log(nodes / prior[0]) / prior[1]
    score = np.where(b > 0, -0.5 * (misfit + unit**2), -np.inf)
    best = score.argmax(1)
    rows = np.arange(best.size)
    found = np.isfinite(score[rows, best])
    top = np.where(found, score[rows, best], 0.0)
    weight = np.exp(score - top[:, None])
    weight /= np.where(found, weight.sum(1), 1.0)[:, None]
    scale = ((weight * misfit).sum(1) + SCALE_DOF) / (x.size + SCALE_DOF)
    covariance = scale[:, None] / det
    table = np.stack([weight, l0, b, covariance * s11, -covariance * s01, covariance * s00], -1)
    at, (l0, b) = _between(score, best, l0, b)
    gamma = nodes[0] * (nodes[1] / nodes[0]) ** at
    return *(np.where(found, value, math.nan) for value in (gamma, l0, b)), scale, table


def _products(x: Array, y: Array, v: Array, amp: Array, u: Array) -> tuple[Array, ...]:
    """s00 (R, 1), s01, s11 (R, G), r0 (R, 1), r1 (R, G) and <y, y> (R, 1) of the whitened columns."""
    rho = np.exp(-np.diff(x) / TIME_SCALE)
    gain, root = _filter(rho, v / amp**2)
    one, loss, s00, r0, total = np.zeros((5, y.shape[0], 1))
    power, s01, s11, r1 = np.zeros((4, y.shape[0], u.shape[0]))
    for i in range(x.size):
        errors = [column / amp[:, [i]] - state for column, state in ((1.0, one), (y[:, [i]], loss), (u[:, i], power))]
        white_one, white_loss, white_power = (error / root[:, [i]] for error in errors)
        s00 += white_one**2
        r0 += white_one * white_loss
        total += white_loss**2
        s01 += white_one * white_power
        s11 += white_power**2
        r1 += white_loss * white_power
        if i < rho.size:
            for state, error in zip((one, loss, power), errors, strict=True):
                error *= gain[:, [i]]
                state += error
                state *= rho[i]
    return s00, s01, s11, r0, r1, total


def _filter(rho: Array, noise: Array) -> tuple[Array, Array]:
    """Kalman gains and standard deviations of the innovations (R, m) of a process of variance 1 seen with `noise`."""
    gain, root = np.empty_like(noise), np.empty_like(noise)
    state = np.ones(noise.shape[0])
    for i in range(noise.shape[1]):
        seen = state + noise[:, i]
        gain[:, i], root[:, i] = state / seen, np.sqrt(seen)
        if i < rho.size:
            state = rho[i] ** 2 * (state - gain[:, i] * state) + 1 - rho[i] ** 2
    return gain, root


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
