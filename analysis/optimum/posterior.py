"""What a few losses say about the best learning rate: an exact Bayesian posterior on a grid. No Ray, no optimiser, no
state.

Model (relative losses, u = x - x*):  y = a + c·f_k(u) + g(x) + e,  f_k(u) = 2·(exp(k·u) - 1 - k·u)/k²  (f_0(u) = u²).
f_k is Eq. 2 of Zhou et al. (2026, arXiv 2601.05049), a quadratic in ln lr, with one more parameter, the skew k: real
losses rise faster on one side of the optimum. g is what that shape misses near the optimum, a Gaussian process; e is
the noise of one run plus what the shape misses farther up, in proportion to the height above the best loss.
`TEXTURES` are two ways to share out g and e (all noise, nearly all smooth), weighed by the evidence. `a` is
integrated out in closed form with a flat prior, the scale of g and e with an inverse-gamma prior.

Notation and shapes
    x      ln lr                                     (n,) observed, (X,) grid
    y      (loss - best)/scale, dimensionless        (n,)
    s      standard error of y known beforehand      (n,)
    x*     ln of the best lr, on the grid            (X,)
    k      skew, on `SKEWS`                          (K,)
    c      relative curvature, on `CURVATURES`       (C,)
    p      posterior probability                     (X, K, C), sums to 1
    W      whitening matrix: W·(g + e) is white      (n, n)

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
CURVATURES: Array = np.geomspace(1e-3, 1.0, 20)
"""Grid of the relative curvature c, 1/ln(lr)²: 0.003-0.04 for long runs of language models, 0.1 after a few hundred
steps."""
GRID = 128
"""Points of the grid of ln lr."""
MOST = 16
"""Losses that the posterior looks at: the best ones. The rest lie far from the optimum and only cost time."""
NOISE = 1e-3
"""Prior scale of the noise of one run, relative: seeds of one setting differ by 0.1-0.4 %."""
NOISE_DOF = 3.0
"""Weight of the prior on the noise, in runs."""
HUGE = 1e100
"""A loss beyond this counts as infinite."""
TOP = 1e3
"""Relative height beyond which losses are told apart no more."""
MISFIT = 0.15
"""What the shape misses, as a fraction of the height above the best loss."""
WANDER = 0.12
"""How far the lowest point of one noisy loss curve lies from the shape's, in ln lr; it widens the interval, not the
regret."""
CLIFF = 0.35
"""The same for losses far up on the side of high lrs: a run that is about to diverge says little by its height."""
FAR = 0.08
"""Relative height from which a loss on that side counts as on its way up a cliff, wholly so at twice it."""


@dataclass(frozen=True)
class Texture:
    """How losses scatter around the shape near the optimum: relative standard deviations of e and g, and g's length
    in ln lr."""

    noise: float
    smooth: float
    length: float


TEXTURES = (Texture(1e-3, 0.0, 1.0), Texture(1e-4, 1e-3, 0.4))
"""Runs that repeat to 0.1 % only, and runs that repeat exactly around a shape that is 0.1 % off within a factor 1.5
of lr."""
CAUTION = 0.5
"""The recommended lr has the lowest mean + `CAUTION` standard deviations of the loss: tried lrs count for a little
more."""


@dataclass(frozen=True, kw_only=True)
class ShapePrior:
    """What is known beforehand about the losses of a cell: normal in each of x*, ln c and k.

    `center`, `center_sd` describe ln of the best lr (None: anywhere in the range with equal probability);
    `curvature` is the median of c and `curvature_log_sd` the standard deviation of ln c.
    """

    center: float | None = None
    center_sd: float = 1.0
    curvature: float = 0.012
    curvature_log_sd: float = 1.2
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
    mean: Array
    """Expected relative loss at each x of the grid, (X,)."""
    sd: Array
    """Standard deviation of what the shape misses there, (X,); the uncertainty of the shape itself is in `p`."""
    noise: float
    """Posterior standard deviation of the noise of one run, relative."""
    best: float
    """The loss that y = 0 stands for."""
    scale: float
    """The loss difference that y = 1 stands for."""
    exact: float
    """Probability that the losses repeat exactly, as against to 0.1 % only; 0 if they came with standard errors."""
    count: int
    """How many finite losses went in."""

    def marginal(self) -> Array:
        """Probability of each x*, (X,)."""
        return np.asarray(self.p.sum(axis=(1, 2)))

    def regrets(self) -> Array:
        """Expected relative regret of choosing each x of the grid, (X,)."""
        weight = self.p @ CURVATURES
        return np.asarray(np.tensordot(_table(_spacing(self.x)), weight, axes=([1, 2], [0, 1])))

    def optimum(self, low: float = -np.inf, high: float = np.inf) -> tuple[float, float]:
        """ln of the lr to recommend within [low, high] (ln lr), and its expected regret (relative)."""
        cost = self.mean + CAUTION * self.sd
        inside = np.flatnonzero((self.x >= low) & (self.x <= high))
        ends = [e for e in (low, high) if self.x[0] <= e <= self.x[-1]]
        found = [_vertex(self.x, cost, int(inside[np.argmin(cost[inside])]))] if len(inside) else []
        x = min([*(min(max(f, low), high) for f in found), *ends], key=lambda at: float(np.interp(at, self.x, cost)))
        return x, float(np.interp(x, self.x, self.regrets()))

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Central interval of x* that holds `level` of the probability."""
        low, high = self.quantiles(np.array([(1 - level) / 2, (1 + level) / 2]))
        return float(low), float(high)

    def quantiles(self, levels: Array) -> Array:
        """Quantiles of x*, with the part that one noisy curve adds."""
        blur = np.exp(-0.5 * ((self.x[:, None] - self.x) / WANDER) ** 2)
        cdf = np.concatenate([[0.0], np.cumsum((blur / blur.sum(axis=0)) @ self.marginal())])
        edges = np.concatenate([self.x - _spacing(self.x) / 2, [self.x[-1] + _spacing(self.x) / 2]])
        return np.asarray(np.interp(levels, cdf, edges), dtype=np.float64)

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
        other = inner @ q + self.noise**2 + _misfit(height, self.x > self.x @ q) ** 2
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
    finite = np.abs(loss) < HUGE  # False for NaN
    known = np.zeros_like(loss) if stderr is None else np.where(np.isfinite(stderr), stderr, 0.0)
    xs, ys, ss = x_log_lr[finite], loss[finite], known[finite]
    if len(ys) > MOST:
        keep = np.sort(np.argpartition(ys, MOST)[:MOST])
        xs, ys, ss = xs[keep], ys[keep], ss[keep]
    log_p = log_p + _bound(x, x_log_lr[~finite], xs, ys)[:, None, None]
    if len(ys) == 0:
        p = _normalise(log_p)
        mean = np.tensordot(_table(_spacing(x)), p @ CURVATURES, axes=([1, 2], [0, 1]))
        return Posterior(
            x=x,
            p=p,
            a=np.zeros_like(p),
            mean=mean,
            sd=np.zeros(GRID),
            noise=NOISE,
            best=0.0,
            scale=1.0,
            exact=0.0,
            count=0,
        )
    best = float(ys.min())
    scale = max(abs(best), float(np.median(ys) - best), 1e-12)
    data = _Data(x, xs, np.minimum((ys - best) / scale, TOP), np.minimum(ss / scale, TOP))
    views = [_View(data, log_p, texture) for texture in TEXTURES]
    top = max(float(v.log_p.max()) for v in views)
    total = sum(float(np.exp(v.log_p - top).sum()) for v in views)
    shares = [np.exp(v.log_p - top) / total for v in views]
    weights = [float(share.sum()) for share in shares]
    p = np.asarray(sum(shares))
    a = sum(share * v.a for share, v in zip(shares, views, strict=True)) / np.where(p > 0, p, 1.0)
    curves = [v.curve(share / w) for v, share, w in zip(views, shares, weights, strict=True) if w > 1e-9]
    kept = np.array([w for w in weights if w > 1e-9])
    means, variances, scatters = (np.array([c[i] for c in curves]) for i in range(3))
    mean = kept @ means
    sd = np.sqrt(kept @ (variances + (means - mean) ** 2))
    noise = float(np.sqrt(kept @ scatters))
    exact = sum(w for w, t in zip(weights, TEXTURES, strict=True) if t.smooth > t.noise) if not ss.any() else 0.0
    return Posterior(x=x, p=p, a=a, mean=mean, sd=sd, noise=noise, best=best, scale=scale, exact=exact, count=len(ys))


class _Data:
    """The losses as every texture sees them, and how well the shape can be expected to meet each."""

    def __init__(self, x: Array, xs: Array, y: Array, s: Array):
        self.x, self.xn, self.yn = x, xs, y
        self.fn = rise(xs[:, None, None] - x[None, :, None], SKEWS)  # (n, X, K)
        self.variance = _misfit(y, xs > xs[int(np.argmin(y))]) ** 2 + s**2


def _misfit(height: Array, above: NDArray[np.bool_]) -> Array:
    """Standard deviation of what the shape misses at a relative height, at lrs above the best or not."""
    cliff = np.where(above, np.clip(height / FAR - 1.0, 0.0, 1.0), 0.0)
    return np.asarray((MISFIT + (CLIFF - MISFIT) * cliff) * height)


class _View:
    """Evidence for each (x*, k, c) under one texture, and the loss curve that follows."""

    def __init__(self, data: _Data, log_prior: Array, texture: Texture):
        self.data, self.texture = data, texture
        cov = texture.smooth**2 * _matern(data.xn[:, None] - data.xn, texture.length)
        cov = cov + np.diag(texture.noise**2 + data.variance)
        self.w = np.linalg.inv(np.linalg.cholesky(cov))
        one, y, f = self.w.sum(axis=1), self.w @ data.yn, np.tensordot(self.w, data.fn, axes=1)
        total = float(one @ one)
        y_mean, f_mean = float(one @ y) / total, np.tensordot(one, f, axes=1) / total
        dy, df = y - one * y_mean, f - one[:, None, None] * f_mean
        s_yf, s_ff = np.tensordot(dy, df, axes=1)[:, :, None], np.einsum("nxk,nxk->xk", df, df)[:, :, None]
        self.a = y_mean - CURVATURES * f_mean[:, :, None]
        misfit = float(dy @ dy) - 2.0 * CURVATURES * s_yf + CURVATURES**2 * s_ff
        self.misfit, self.dof = misfit, NOISE_DOF + max(0, len(data.yn) - 1)
        volume = float(np.log(np.diag(self.w)).sum()) - 0.5 * np.log(total)
        self.log_p = log_prior - 0.5 * self.dof * np.log1p(misfit / NOISE_DOF) + volume

    def curve(self, p: Array) -> tuple[Array, Array, float]:
        """Mean (X,) and variance (X,) of the loss around the mean shape, and the variance of one run, given this
        view's p."""
        data, texture = self.data, self.texture
        weight, level = p @ CURVATURES, float((p * self.a).sum())
        shape = level + np.tensordot(_table(_spacing(data.x)), weight, axes=([1, 2], [0, 1]))
        missed = data.yn - level - np.tensordot(data.fn, weight, axes=([1, 2], [0, 1]))
        scale = (NOISE_DOF + float((p * self.misfit).sum())) / self.dof
        cross = texture.smooth**2 * _matern(data.x[:, None] - data.xn, texture.length) @ self.w.T
        left = np.maximum(texture.smooth**2 - (cross**2).sum(axis=1), 0.0)
        return shape + cross @ (self.w @ missed), scale * left, scale * (texture.noise**2 + texture.smooth**2)


def _matern(distance: Array, length: float) -> Array:
    """Matérn 5/2 correlation at `distance` in ln lr."""
    r = np.sqrt(5.0) * np.abs(distance) / length
    return np.asarray((1.0 + r + r * r / 3.0) * np.exp(-r))


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


def _vertex(x: Array, y: Array, i: int) -> float:
    """Where the parabola through grid point i and its neighbours is lowest, if i is lower than they are."""
    if i in (0, len(x) - 1):
        return float(x[i])
    left, mid, right = y[i - 1 : i + 2]
    bend = left - 2 * mid + right
    if bend <= 0 or mid > min(left, right):
        return float(x[i])
    return float(x[i] + 0.5 * (left - right) / bend * (x[1] - x[0]))
