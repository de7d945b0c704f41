"""What a few losses say about the best learning rate: an exact Bayesian posterior on a grid. No Ray, no optimiser, no
state.

Model (relative losses, u = x - x*):  y = a + c·f_k(u) + e,  f_k(u) = 2·(exp(k·u) - 1 - k·u)/k²  (f_0(u) = u²).
f_k is Eq. 2 of Zhou et al. (2026, arXiv 2601.05049), a quadratic in ln lr, with one more parameter, the skew k: real
losses rise faster on one side of the optimum. e is the noise of one run plus what the shape misses, which grows with
the height above the best loss. `a` is integrated out in closed form with a flat prior, the noise scale with an
inverse-gamma prior.

Notation and shapes
    x      ln lr                                     (n,) observed, (X,) grid
    y      (loss - best)/scale, dimensionless        (n,)
    s      standard error of y known beforehand      (n,)
    x*     ln of the best lr, on the grid            (X,)
    k      skew, on `SKEWS`                          (K,)
    c      relative curvature, on `CURVATURES`       (C,)
    p      posterior probability                     (X, K, C), sums to 1

NaN and infinite losses mark diverged runs: they say only that the best lr is lower than theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SKEWS: Array = np.linspace(-1.2, 1.2, 7)
"""Grid of the skew k, 1/ln(lr)."""
CURVATURES: Array = np.geomspace(1e-3, 0.3, 15)
"""Grid of the relative curvature c, 1/ln(lr)²: 0.003-0.04 for language-model losses, more for other metrics."""
GRID = 128
"""Points of the grid of ln lr."""
MOST = 24
"""Losses that the posterior looks at: the best ones. The rest lie far from the optimum and only cost time."""
NOISE = 1e-3
"""Prior scale of the noise of one run, relative: seeds of one setting differ by 0.1-0.4 %."""
NOISE_DOF = 3.0
"""Weight of the prior on the noise, in runs."""
MISFIT = 0.15
"""What the shape misses, as a fraction of the height above the best loss."""
FAR = 0.08
"""Relative height from which a loss at an lr above the best one only says that the lr is too high."""


@dataclass(frozen=True, kw_only=True)
class ShapePrior:
    """What is known beforehand about the losses of a cell: normal in each of x*, ln c and k.

    `center`, `center_sd` describe ln of the best lr (None: anywhere in the range with equal probability);
    `curvature` is the median of c and `curvature_log_sd` the standard deviation of ln c.
    """

    center: float | None = None
    center_sd: float = 1.0
    curvature: float = 0.012
    curvature_log_sd: float = 0.8
    skew: float = 0.0
    skew_sd: float = 0.5


def rise(u: NDArray[np.floating[Any]], skew: Array) -> Array:
    """f_k(u), broadcast: how far the loss lies above its minimum, in units of the curvature."""
    small = np.abs(skew) < 1e-9
    k = np.where(small, 1.0, skew)
    ku = np.clip(k * u, -50.0, 50.0)
    return np.asarray(np.where(small, u * u, 2.0 * (np.expm1(ku) - ku) / (k * k)), dtype=np.float64)


@lru_cache(maxsize=256)
def _table(step: float) -> Array:
    """f_k(x_i - x*_j) on the grid, (X, X, K); the same for every grid of one spacing."""
    offset = (np.arange(GRID)[:, None] - np.arange(GRID)[None, :]) * step
    return rise(offset[:, :, None], SKEWS)


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Joint distribution of the best lr, the curvature and the skew of one cell, and what follows from it."""

    x: Array
    """Grid of ln lr, (X,)."""
    p: Array
    """Posterior probability, (X, K, C)."""
    a: Array
    """Mean of the lowest relative loss given each (x*, k, c), (X, K, C)."""
    noise: float
    """Posterior standard deviation of the noise of one run, relative."""
    best: float
    """The loss that y = 0 stands for."""
    scale: float
    """The loss difference that y = 1 stands for."""
    count: int
    """How many finite losses went in."""

    def marginal(self) -> Array:
        """Probability of each x*, (X,)."""
        return np.asarray(self.p.sum(axis=(1, 2)))

    def regrets(self) -> Array:
        """Expected relative regret of choosing each x of the grid, (X,)."""
        weight = self.p @ CURVATURES
        return np.asarray(np.tensordot(_table(_spacing(self.x)), weight, axes=([1, 2], [0, 1])))

    def optimum(self) -> tuple[float, float]:
        """ln of the lr of least expected regret and that regret (relative)."""
        r = self.regrets()
        return _vertex(self.x, r)

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Central interval of x* that holds `level` of the probability."""
        cdf = np.concatenate([[0.0], np.cumsum(self.marginal())])
        edges = np.concatenate([self.x - _spacing(self.x) / 2, [self.x[-1] + _spacing(self.x) / 2]])
        low, high = np.interp([(1 - level) / 2, (1 + level) / 2], cdf, edges)
        return float(low), float(high)

    def beyond(self, low: float, high: float) -> tuple[float, float]:
        """Probability that x* lies below `low`, and above `high`."""
        q = self.marginal()
        return float(q[self.x < low].sum()), float(q[self.x > high].sum())

    def moments(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of x* ("center"), ln c ("curvature") and k ("skew")."""
        out = {}
        values = (("center", self.x, (1, 2)), ("skew", SKEWS, (0, 2)), ("curvature", np.log(CURVATURES), (0, 1)))
        for name, grid, axes in values:
            q = self.p.sum(axis=axes)
            mean = float(q @ grid)
            out[name] = (mean, float(np.sqrt(max(0.0, q @ (grid - mean) ** 2))))
        return out

    def predict(self, x: float) -> tuple[float, float]:
        """Loss at ln lr = x and its standard deviation, in the units of the losses given."""
        y = self.a + (rise(x - self.x[:, None], SKEWS[None, :])[:, :, None] * CURVATURES)
        mean = float((self.p * y).sum())
        var = float((self.p * (y - mean) ** 2).sum())
        return self.best + self.scale * mean, self.scale * float(np.sqrt(var))

    def information(self) -> Array:
        """How much a run at each x of the grid would say about x*, (X,): the variance of its expected loss over x*,
        relative to all the other variance that its loss will have (noise, unknown curvature and skew, misfit of the
        shape)."""
        table = _table(_spacing(self.x))
        q = self.marginal()
        safe = np.where(q > 0, q, 1.0)
        a_mean = self._given_center(self.a, safe)
        c_mean = (self.p @ CURVATURES) / safe[:, None]
        c_square = (self.p @ CURVATURES**2) / safe[:, None]
        y_mean = a_mean[None, :] + np.einsum("ijk,jk->ij", table, c_mean)
        y_square_rise = np.einsum("ijk,jk->ij", table**2, c_square)
        rise_mean = y_mean - a_mean[None, :]
        inner = y_square_rise - rise_mean**2
        mean = y_mean @ q
        signal = ((y_mean - mean[:, None]) ** 2) @ q
        height = rise_mean @ q
        other = inner @ q + self.noise**2 + (MISFIT * height) ** 2
        return np.asarray(signal / other)

    def _given_center(self, values: Array, q: Array) -> Array:
        return np.asarray((self.p * values).sum(axis=(1, 2)) / q)


def grid(low: float, high: float, prior: ShapePrior) -> Array:
    """ln lr from below the range to above it: the optimum may lie outside, and a run at the edge must be able to say
    so."""
    beyond = 0.5 * (high - low) + 0.5
    if prior.center is not None:
        low, high = min(low, prior.center - 3 * prior.center_sd), max(high, prior.center + 3 * prior.center_sd)
    return np.linspace(low - beyond, high + beyond, GRID)


def posterior(
    x_log_lr: Array,
    loss: Array,
    *,
    low: float,
    high: float,
    stderr: Array | None = None,
    prior: ShapePrior | None = None,
) -> Posterior:
    """Posterior of a cell after `loss` at ln lr = `x_log_lr`, both (n,), n ≥ 0, for a search over [low, high] (ln lr).

    `stderr` (n,) is the standard error that the losses had before they came here (an extrapolation's); 0 for measured
    ones. Losses that are NaN or infinite are diverged runs. Smaller is better: negate what is to be maximised."""
    prior = prior or ShapePrior()
    x = grid(low, high, prior)
    log_p = _log_prior(x, prior, low, high)
    finite = np.isfinite(loss)
    known = np.zeros_like(loss) if stderr is None else np.where(np.isfinite(stderr), stderr, 0.0)
    xs, ys, ss = x_log_lr[finite], loss[finite], known[finite]
    if len(ys) > MOST:
        keep = np.sort(np.argpartition(ys, MOST)[:MOST])
        xs, ys, ss = xs[keep], ys[keep], ss[keep]
    log_p = log_p + _bound(x, x_log_lr[~finite], xs, ys)[:, None, None]
    if len(ys) == 0:
        return Posterior(x=x, p=_normalise(log_p), a=np.zeros_like(log_p), noise=NOISE, best=0.0, scale=1.0, count=0)
    best = float(ys.min())
    scale = max(abs(best), float(np.median(ys) - best), 1e-12)
    y, s = (ys - best) / scale, ss / scale
    near = (y <= FAR) | (xs <= xs[int(np.argmin(ys))])
    f = rise(xs[:, None, None] - x[None, :, None], SKEWS)  # (n, X, K)
    w = 1.0 / (1.0 + (MISFIT * y / NOISE) ** 2 + (s / NOISE) ** 2)
    wn, yn, fn = w[near], y[near], f[near]
    total = wn.sum()
    y_mean = float(wn @ yn) / total
    f_mean = np.tensordot(wn, fn, axes=1) / total
    dy, df = yn - y_mean, fn - f_mean
    s_yy = float(wn @ dy**2)
    s_yf = np.tensordot(wn * dy, df, axes=1)[:, :, None]
    s_ff = np.tensordot(wn, df**2, axes=1)[:, :, None]
    a = y_mean - CURVATURES * f_mean[:, :, None]
    misfit = (s_yy - 2.0 * CURVATURES * s_yf + CURVATURES**2 * s_ff) / NOISE**2
    for i in np.flatnonzero(~near):  # one-sided: a loss beyond FAR may be a cliff, whose height says nothing
        short = np.maximum(0.0, FAR - (a + CURVATURES * f[i][:, :, None])) / (0.5 * FAR)
        misfit = misfit + np.minimum(short, 3.0) ** 2
    dof = NOISE_DOF + max(0, int(near.sum()) - 1)
    log_p = log_p - 0.5 * dof * np.log1p(misfit / NOISE_DOF)
    p = _normalise(log_p)
    noise = NOISE * float(np.sqrt((NOISE_DOF + (p * misfit).sum()) / dof))
    return Posterior(x=x, p=p, a=a, noise=noise, best=best, scale=scale, count=len(ys))


def _log_prior(x: Array, prior: ShapePrior, low: float, high: float) -> Array:
    if prior.center is None:
        outside = np.maximum(0.0, np.maximum(low - x, x - high))
        log_x = -0.5 * (outside / 0.7) ** 2
    else:
        log_x = -0.5 * ((x - prior.center) / prior.center_sd) ** 2
    log_c = -0.5 * ((np.log(CURVATURES) - np.log(prior.curvature)) / prior.curvature_log_sd) ** 2
    log_k = -0.5 * ((SKEWS - prior.skew) / prior.skew_sd) ** 2
    return np.asarray(log_x[:, None, None] + log_k[None, :, None] + log_c[None, None, :])


def _bound(x: Array, diverged: Array, finite: Array, loss: Array) -> Array:
    """Log weight of each x* given the diverged runs: the optimum is lower than the lowest of them that no good run
    contradicts."""
    weight = np.zeros_like(x)
    if len(diverged) == 0:
        return weight
    good = finite[int(np.argmin(loss))] if len(loss) else -np.inf
    credible = diverged[diverged > good]
    if len(credible):
        weight -= np.where(x >= credible.min(), 12.0, 0.0)
    return weight


def _normalise(log_p: Array) -> Array:
    p = np.exp(log_p - log_p.max())
    return np.asarray(p / p.sum())


def _spacing(x: Array) -> float:
    return round(float(x[1] - x[0]), 9)


def _vertex(x: Array, y: Array) -> tuple[float, float]:
    """Minimum of the parabola through the lowest grid value and its neighbours."""
    i = int(np.argmin(y))
    if i in (0, len(x) - 1):
        return float(x[i]), float(y[i])
    left, mid, right = y[i - 1 : i + 2]
    bend = left - 2 * mid + right
    if bend <= 0:
        return float(x[i]), float(mid)
    shift = float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5))
    return float(x[i] + shift * (x[1] - x[0])), float(mid - 0.25 * (left - right) * shift)
