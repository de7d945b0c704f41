"""Least squares of l0 + b * u(g) with u = exp(-g x), for many curves at once.

Notation
    x        ln(tokens / last tokens), 0 at the end                              (n,)
    w        weights that sum to 1                                               (n,)
    y        losses                                                              (R, n)
    E, V     weighted mean and variance of u(g)
    h(g)     sum of w y (u - E) / sqrt(V), one function a curve: the standard deviation that u explains
    t        place between a node and its neighbours, -1 to 1: ln g = ln(node) + t * spacing

Given g the rest is linear, b = h / sqrt(V) and the misfit is var(y) - h^2, so only g is searched: the largest h. As h
is linear in y, one matrix product gives it at all nodes of a grid of exponents, and another the polynomial in t that it
is around its best node (interpolation at Chebyshev points). Newton's method then runs on ten numbers a curve.
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from raylr.analysis._checks import Array

GAMMA_MIN, GAMMA_MAX = 0.02, 3.0
"""Bounds of the exponent."""
NODES = 49
"""Nodes of the search grid, evenly spaced in ln g."""
POINTS = 20
"""Chebyshev points between a node's neighbours."""
TAIL = 1e-14
"""Terms of the polynomials are dropped from where they are this small: about ten are left."""
STEPS = 30
"""Most Newton (or bisection) steps."""
ROWS = 4096
"""Curves that are worked on together: what fits into the processor's cache."""
GRID = 61
"""Exponents of the posterior."""
REACH = 30.0
"""The posterior's grid ends where the misfit is this far above its least."""
PARTS = 3
"""Parts of a curve that are left out in turn. What a power law misses of a smooth curve has few changes of sign, as
many as parameters were fitted; with more and shorter parts, those left out and their neighbours err alike."""


@dataclass(frozen=True, kw_only=True)
class LeastSquares:
    """The optima of all curves, each (R,)."""

    gamma: Array
    l0: Array
    b: Array
    misfit: Array
    """Weighted mean square residual."""
    at_bound: NDArray[np.bool_]
    """Whether the exponent is at a bound."""


@dataclass(frozen=True, kw_only=True)
class LeastSquaresPosterior:
    """The posterior of one curve around its optimum, flat in ln g.

    Residuals of loss curves are correlated, so the variance is that of n (1 - r) / (1 + r) points, r their lag-one
    correlation. That is enough for noise, but not where the curve is no power law: residuals are then small, and an
    extrapolation is wrong all the same. So each third of the curve is left out in turn, and a prediction's standard
    error is at least that of this jackknife.
    """

    t: Array
    """Tokens (n,)."""
    y: Array
    w: Array
    noise: float
    """Known variance of the weighted mean; 0 if it is not known."""
    l0: float
    b: float
    gamma: float

    @cached_property
    def table(self) -> Array:
        """Per exponent: the exponent, its weight, l0, b, covariances (l0,l0), (l0,b), (b,b). (GRID, 7)."""
        x, y, w, mean_y = np.log(self.t / self.t[-1]), self.y, self.w, float(self.y @ self.w)
        residual = y - self.l0 - self.b * np.exp(-self.gamma * x)
        tokens, at = np.unique(self.t, return_inverse=True)
        each = np.bincount(at, residual) / np.bincount(at)
        size = float(each @ each)
        lag = float(each[1:] @ each[:-1]) / size if size > 0 else 0.0
        lag = min(max(lag + (3 + 4 * lag) / tokens.size, 0.0), 0.95)  # three fitted parameters bias it low
        variance = max(float(w @ residual**2) / max(y.size - 3, 1), self.noise) * (1 + lag) / (1 - lag)
        variance += (1e-9 * abs(mean_y)) ** 2 + 1e-300
        low, high = math.log(GAMMA_MIN), math.log(GAMMA_MAX)
        for _ in range(4):  # narrow the grid to where the posterior is
            grid = np.exp(np.linspace(low, high, GRID))
            u = np.exp(-grid[:, None] * x)
            mean_u = u @ w
            suu, suy = (u - mean_u[:, None]) ** 2 @ w, u @ (w * (y - mean_y))
            b = np.maximum(suy / suu, 0.0)
            misfit = np.maximum(float((y - mean_y) ** 2 @ w) - b * (2 * suy - b * suu), 0.0) / variance
            near = np.flatnonzero(misfit <= misfit.min() + REACH)
            low, high = np.log(grid[[max(near[0] - 1, 0), min(near[-1] + 1, GRID - 1)]])
        weight = np.exp(-0.5 * np.minimum(misfit - misfit.min(), 700.0))
        v11 = variance / suu
        columns = grid, weight / weight.sum(), mean_y - b * mean_u, b, variance + mean_u**2 * v11, -mean_u * v11, v11
        return np.stack(columns, 1)

    def predict(self, at: Array) -> tuple[Array, Array]:
        """Loss of the optimum and its standard deviation at ln(tokens / last tokens) `at` (k,)."""
        gamma, weight, l0, b, v00, v01, v11 = (column[:, None] for column in self.table.T)
        u = np.exp(-gamma * at)
        loss = self.l0 + self.b * np.exp(-self.gamma * at)
        spread = (l0 + b * u - loss) ** 2 + v00 + 2 * u * v01 + u**2 * v11
        return loss, np.sqrt(np.maximum((weight * spread).sum(0), self._jackknife(at)))

    def _jackknife(self, at: Array) -> Array:
        """Variance of the predictions (k,) from leaving out a part of the curve at a time; 0 for short curves."""
        parts = np.array_split(np.arange(self.t.size), PARTS)
        left = [np.setdiff1d(np.arange(self.t.size), part) for part in parts]
        if min(np.unique(self.t[kept]).size for kept in left) <= PARTS:
            return np.zeros(at.size)
        each = np.empty((PARTS, at.size))
        for i, kept in enumerate(left):
            x, w = np.log(self.t[kept] / self.t[-1]), self.w[kept] / self.w[kept].sum()
            fit = least_squares(x - x[-1], self.y[None, kept], w)
            each[i] = fit.l0 + fit.b * np.exp(-fit.gamma * (at - x[-1]))
        return np.asarray((PARTS - 1) * each.var(0))


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """What all curves share."""

    log_g: Array
    """ln of the nodes (G,)."""
    at_nodes: Array
    """Weights of the losses in h at the nodes (n, G)."""
    powers: Array
    """Weights of the losses in the coefficients of h in powers of t, around each node (G, K, n)."""
    moments: Array
    """Coefficients of E and sqrt(V) in powers of t (G, K, 2)."""


def least_squares(x: Array, y: Array, w: Array) -> LeastSquares:
    """The optimum of every row of `y`; b is 0 for a curve that does not fall."""
    grid = _grid(x, w)
    parts = [_rows(grid, y[i : i + ROWS], w) for i in range(0, max(y.shape[0], 1), ROWS)]
    gamma, l0, b, misfit = (np.concatenate(column) for column in zip(*parts, strict=True))
    bound = (gamma <= GAMMA_MIN * (1 + 1e-6)) | (gamma >= GAMMA_MAX * (1 - 1e-6))
    return LeastSquares(gamma=gamma, l0=l0, b=b, misfit=misfit, at_bound=bound)


def _grid(x: Array, w: Array) -> _Grid:
    log_g = np.linspace(math.log(GAMMA_MIN), math.log(GAMMA_MAX), NODES)
    at_nodes, _, _ = _projection(x, w, log_g)
    points, to_series, to_powers = _chebyshev()
    around, mean, root = _projection(x, w, (log_g[:, None] + (log_g[1] - log_g[0]) * points).ravel())
    series = to_series @ around.reshape(NODES, POINTS, -1)
    size = np.abs(series).max(axis=(0, 2))
    terms = max(int(np.flatnonzero(size > TAIL * size.max())[-1]) + 1, 4)
    to_powers = to_powers[:terms, :terms]
    moments = to_series[:terms] @ np.stack([mean, root], 1).reshape(NODES, POINTS, 2)
    return _Grid(log_g=log_g, at_nodes=at_nodes.T, powers=to_powers @ series[:, :terms], moments=to_powers @ moments)


def _projection(x: Array, w: Array, log_g: Array) -> tuple[Array, Array, Array]:
    """Weights of the losses in h (G, n), E and sqrt(V) (G,) at exponents `log_g` (G,)."""
    u = np.exp(-np.exp(log_g)[:, None] * x)
    mean = u @ w
    u -= mean[:, None]
    root = np.sqrt(u**2 @ w)
    return u * w / root[:, None], mean, root


@cache
def _chebyshev() -> tuple[Array, Array, Array]:
    """Chebyshev points, the matrix from values there to the series, and that from the series to powers."""
    angle = np.pi * (np.arange(POINTS) + 0.5) / POINTS
    to_series = 2.0 / POINTS * np.cos(np.outer(np.arange(POINTS), angle))
    to_series[0] *= 0.5
    to_powers = np.zeros((POINTS, POINTS))
    for k, one in enumerate(np.eye(POINTS)):
        to_powers[: k + 1, k] = chebyshev.cheb2poly(one[: k + 1])
    return np.cos(angle), to_series, to_powers


def _rows(grid: _Grid, y: Array, w: Array) -> tuple[Array, Array, Array, Array]:
    """Exponent, l0, b and misfit of each row."""
    mean = y @ w
    y = y - mean[:, None]
    h = y @ grid.at_nodes
    node = h.argmax(1)
    rows = np.argsort(node, kind="stable")  # curves of one node side by side
    count = np.bincount(node, minlength=NODES)
    end, by_node, node = np.cumsum(count), y[rows], node[rows]
    series = np.empty((grid.powers.shape[1], rows.size))
    for i in np.flatnonzero(count):
        part = slice(end[i] - count[i], end[i])
        series[:, part] = grid.powers[i] @ by_node[part].T
    t = _largest(series, _start(h[rows], node), low=-1.0 * (node > 0), high=1.0 * (node < NODES - 1))
    explained = np.maximum(_polynomial(series, t)[0], 0.0)
    u_mean, u_root = (_polynomial(column, t)[0] for column in grid.moments[node].transpose(2, 1, 0))
    gamma, l0, b, gain = np.empty((4, rows.size))
    gamma[rows] = np.exp(grid.log_g[node] + (grid.log_g[1] - grid.log_g[0]) * t)
    b[rows] = explained / u_root
    l0[rows] = mean[rows] - b[rows] * u_mean
    gain[rows] = explained**2
    return gamma, l0, b, np.maximum(y**2 @ w - gain, 0.0)


def _start(h: Array, node: Array) -> Array:
    """Where the parabola through the best node and its neighbours is highest (R,)."""
    inner, rows = np.clip(node, 1, NODES - 2), np.arange(node.size)
    left, mid, right = (h[rows, inner + k] for k in (-1, 0, 1))
    bend = left - 2 * mid + right
    return np.asarray(np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, 1.0), 0.0) + inner - node)


def _largest(series: Array, start: Array, low: Array, high: Array) -> Array:
    """Where each polynomial (K, R) is largest between `low` and `high`: Newton, or bisection where it would leave."""
    t = np.clip(start, low, high)
    for _ in range(STEPS):
        value, slope, bend = _polynomial(series, t)
        low, high = np.where(slope > 0, t, low), np.where(slope < 0, t, high)
        newton = t - slope / np.where(bend < 0, bend, -np.inf)
        new = np.where((bend < 0) & (newton >= low) & (newton <= high), newton, 0.5 * (low + high))
        new = np.where(slope == 0, t, new)
        settled = (np.abs(new - t) <= 1e-11) | (value <= 0)
        t = new
        if settled.all():
            break
    return t


def _polynomial(series: Array, t: Array) -> tuple[Array, Array, Array]:
    """Values, first and second derivatives at `t` (R,) of polynomials whose coefficients are `series` (K, R)."""
    value = series[-1].copy()
    first, second = np.zeros_like(value), np.zeros_like(value)
    for coefficient in series[-2::-1]:
        second *= t
        second += first
        first *= t
        first += value
        value *= t
        value += coefficient
    return value, first, 2 * second
