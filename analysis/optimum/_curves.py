"""Whole curves of the loss drawn from the posterior, and their mean: what every answer is read from.

Notation and shapes (S draws, G points of ln lr, n LRs seen)
    curves   loss above the lowest mean, in units, jumps included   (S, G)
    mean     its expected value                                     (G,)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum._hypotheses import (
    CLOSE,
    LONG,
    LONG_SHARE,
    ROUGH,
    SHORT,
    WIDE,
    Hypotheses,
    bracket,
    distinct,
)
from raylr.analysis.optimum._losses import Losses
from raylr.analysis.optimum._shapes import (
    DRAWS,
    choice_weights,
    drawn_shapes,
    matern,
    monotone,
    shuffle,
    skew_of,
    smooth_draws,
)

Array = NDArray[np.float64]

APART = 4.0
"""A loss this many standard errors of a difference above the best LR's lies on the other side of a minimum for good."""
KINK_STEPS = (-0.01, -0.002, 0.0, 0.002, 0.01)
"""Points of the grid around a kink: where a curve has one, its lowest point on a wider grid is too high."""
LEAST_CURVATURE = 0.1
"""A drawn curvature is at least this share of its expected value: the posterior's small values are in other
hypotheses."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Draws from the posterior on a grid of ln lr."""

    x: Array
    """Grid, ascending, holds all LRs that the model sees, (G,)."""
    curves: Array
    mean: Array
    weight: Array
    """Of each draw where an LR is chosen (S,): a sharp minimum counts for less there than in what is stated. Sum 1."""
    jumped: Array
    """Probability of having diverged or jumped at each x, (G,)."""
    noise: Array
    """Standard deviation of one run in each draw, (S,)."""
    optimum: Array
    """ln of the best LR of each draw, (S,)."""
    curvature: Array
    """(S,), in units."""
    skew: Array
    """(S,)."""
    rough: float
    """Probability that the shape misses much of the curve, on the scale of gaps between LRs."""
    best: int
    """Where on the grid the best LR tried is."""


def draw(hypotheses: Hypotheses) -> Curves:
    """Draw `DRAWS` curves: hypotheses in proportion to their probability, then the curve given each."""
    losses, n = hypotheses.losses, hypotheses.losses.x.size
    grid = _grid(hypotheses)
    p = np.cumsum(hypotheses.p)
    index = np.minimum(np.searchsorted(p, (np.arange(DRAWS) + 0.5) / DRAWS * p[-1]), p.size - 1)
    t, j, m, k = np.unravel_index(hypotheses.at[index], hypotheses.form)
    rng = np.random.default_rng(0)
    half = rng.standard_normal((DRAWS // 2, n))
    e = np.concatenate([half, -half])[shuffle()]

    height = _height(losses, grid)
    x, h = np.append(losses.x, grid), np.append(losses.h, height)
    z = [smooth_draws(seed, x, length) for seed, length in ((1, LONG), (2, SHORT), (3, SHORT))]
    models = hypotheses.models[t]
    grown = h[:, None] * (LONG_SHARE**0.5 * z[0] + (1 - LONG_SHARE) ** 0.5 * z[1])
    prior = np.ascontiguousarray((models[:, 1] * grown + models[:, 2] * z[2]).T)
    error = np.sqrt(models[:, :1] ** 2 / losses.count + losses.error**2)

    center = hypotheses.m[m][:, None]
    system = _System(hypotheses, t, hypotheses.windows[j], drawn_shapes(losses.x - center, k, hypotheses.sharp))
    f = drawn_shapes(grid - center, k, hypotheses.sharp)
    expected, c, rest = system.solve(np.broadcast_to(losses.h, (DRAWS, n)), f, None)
    drawn, _, rest_drawn = system.solve(losses.h - prior[:, :n] - error * e, f, LEAST_CURVATURE * c)
    drawn = drawn + prior[:, n:]
    for model in np.unique(t):  # far fewer than draws
        rows = np.flatnonzero(t == model)
        cross = _cross(hypotheses, height, grid, int(model))
        expected[rows] += rest[rows] @ cross
        drawn[rows] += rest_drawn[rows] @ cross

    jump, jumped = _jumps(losses, hypotheses.windows[j], grid, height, rng)
    expected, drawn = (np.where(jump > 0, np.maximum(jump, v), v) for v in (expected, drawn))
    drawn = _one_minimum(losses, models[:, 0], grid, height, drawn)
    spacing = np.gradient(grid)
    lowest = np.argmin(drawn, axis=1)
    wiggle = spacing[lowest] * (rng.permutation(DRAWS) / (DRAWS - 1) - 0.5)
    weight = choice_weights(k)
    return Curves(
        x=grid, curves=drawn, mean=weight @ expected, weight=weight, jumped=jumped.mean(axis=0), noise=models[:, 0],
        optimum=grid[lowest] + wiggle, curvature=c, skew=skew_of(k), best=int(np.searchsorted(grid, losses.x[0])),
        rough=float(np.mean(models[:, 2] >= ROUGH)),
    )  # fmt: skip


def _grid(hypotheses: Hypotheses) -> Array:
    low, high = hypotheses.m[0], hypotheses.m[-1]
    x = hypotheses.losses.x
    ends = np.array([v for v in (hypotheses.low, hypotheses.high) if np.abs(x - v).min() > CLOSE])
    fine = np.linspace(*bracket(hypotheses.losses), 25)
    kinks = (hypotheses.kinks[:, None] + np.array(KINK_STEPS)).ravel()
    return distinct(np.concatenate([np.linspace(low, high, 41), fine, kinks]), np.append(x, ends))


def _height(losses: Losses, grid: Array) -> Array:
    """Height at every LR of the grid by a monotone interpolation, held beyond the LRs tried."""
    if losses.tried.size < 2:
        return np.zeros(grid.size)
    return np.maximum(monotone(losses.tried, losses.tried_h, grid), 0.0)


def _cross(hypotheses: Hypotheses, height: Array, grid: Array, model: int) -> Array:
    """W of a noise model times the covariance of g between LRs seen and grid: (n, G)."""
    losses, (_, growing, constant) = hypotheses.losses, hypotheses.models[model]
    distance = losses.x[:, None] - grid
    short = matern(distance, SHORT)
    share = LONG_SHARE * matern(distance, LONG) + (1 - LONG_SHARE) * short
    g = growing**2 * (np.outer(losses.h, height) * share) + constant**2 * short
    return np.asarray(hypotheses.whiten[model] @ g)


class _System:
    """Generalised least squares of (a, c) and the remainder g, one system a draw; rows beyond its window are zero."""

    def __init__(self, hypotheses: Hypotheses, t: NDArray[np.intp], window: NDArray[np.intp], f: Array):
        n = f.shape[1]
        self.curvature = hypotheses.curvature or WIDE
        self.mask = np.arange(n) < window[:, None]
        self.w = hypotheses.whiten[t]
        self.one = self.w.sum(axis=2) * self.mask
        self.f = self._whiten(f)
        self.s_11 = np.einsum("sn,sn->s", self.one, self.one)
        self.f_mean = np.einsum("sn,sn->s", self.one, self.f) / self.s_11
        self.f_rest = self.f - self.one * self.f_mean[:, None]

    def _whiten(self, values: Array) -> Array:
        return np.asarray(np.einsum("snm,sm->sn", self.w, values) * self.mask)

    def solve(self, h: Array, f: Array, least: Array | None) -> tuple[Array, Array, Array]:
        """Shapes (S, G) fitted to the heights `h` (S, n), their curvatures (S,), which are at least `least`, and the
        whitened heights that they leave, (S, n)."""
        y = self._whiten(h)
        y_mean = np.einsum("sn,sn->s", self.one, y) / self.s_11
        precision = np.einsum("sn,sn->s", self.f_rest, self.f_rest)
        pull = np.einsum("sn,sn->s", self.f_rest, y)
        mean, sd = self.curvature
        c = (pull + mean * sd**-2) / (precision + sd**-2)
        c = np.maximum(c, 1e-3 if least is None else least)
        a = y_mean - c * self.f_mean
        rest = y - self.one * a[:, None] - self.f * c[:, None]
        return a[:, None] + c[:, None] * f, c, rest


def _jumps(
    losses: Losses, window: NDArray[np.intp], grid: Array, height: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Height to which the loss has jumped at each x, 0 where it has not, and whether it has diverged: (S, G) each.

    The jump lies anywhere between the last LR on the curve and the first beyond it, with equal probability in ln lr.
    """
    jump, diverged = np.zeros((2, window.size, grid.size))
    top = 2.0 * max(float(losses.tried_h.max()), 1.0)
    for size in np.unique(window):
        rows = np.flatnonzero(window == size)
        on, off = losses.x[:size], losses.x[size:]
        share = ((rng.permutation(rows.size) + 0.5) / rows.size)[:, None]
        for sign in (1.0, -1.0):
            beyond = np.concatenate([off[sign * off > (sign * on).max()], losses.diverged])
            beyond = beyond[sign * beyond > sign * losses.x[0]]
            if not beyond.size:
                continue
            first = sign * (sign * beyond).min()
            last = sign * (sign * on)[sign * on < sign * first].max()
            at = last + (first - last) * share
            known = losses.h[np.abs(losses.x - first) < 1e-12]
            level = float(known[0]) if known.size else top
            here = sign * (grid - at) > CLOSE  # a point of the grid exactly there must not depend on rounding
            value = np.where(sign * grid < sign * first, level, np.maximum(height, level))
            jump[rows] = np.maximum(jump[rows], np.where(here, value, 0.0))
            if sign > 0 or not known.size:
                diverged[rows] = np.maximum(diverged[rows], here)
    return jump, diverged


def _one_minimum(losses: Losses, noise: Array, grid: Array, height: Array, curves: Array) -> Array:
    """Curves that stay above what was measured beyond the nearest LRs that are certainly worse than the best."""
    error = np.sqrt(1.0 / losses.tried_count + 1.0 / losses.count[0]) * noise[:, None]
    worse = losses.tried_h > APART * np.sqrt(error**2 + losses.tried_error**2 + losses.error[0] ** 2)
    below = np.where(worse & (losses.tried < losses.x[0]), losses.tried, -np.inf).max(axis=1)[:, None]
    above = np.where(worse & (losses.tried > losses.x[0]), losses.tried, np.inf).min(axis=1)[:, None]
    return np.asarray(np.where((grid <= below) | (grid >= above), np.maximum(curves, height), curves))
