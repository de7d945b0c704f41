"""Draws of whole response surfaces: the loss over several axes given the runs so far.

Model, in units of height, for the runs of a window (those that lie on the surface):
    z(h + e) = a + b·u + u'Hu + g(u),    u = v - v_best
z is the height itself, or a power of it where the minimum is sharp (`_response_warp`). H is the curvature, with a
minimum (no negative eigenvalue) that lies within reach of the ranges. g is what the quadratic misses, a Gaussian
process (one part is smooth and grows with the height above the best loss, as the error of an expansion does, the other
is the same everywhere and has kinks, so that a kink of any kind is possible), e the noise of a run. How steep each axis
is, the noise, the size of g and the power are unknown: values of them (`_response_hypers`) are weighed by how well they
explain the losses, with a, b, H and g integrated out. What must hold for a minimum is then required of each draw. Runs
outside of the window have jumped to another branch; their heights are anything above, on a logarithmic scale.

Notation and shapes (d axes, n places, p coefficients, T values of the hyperparameters, S draws, G places of a grid)
    v       place in units of the ranges                          (n, d)
    z       power of the height of each run                       (T, n)
    phi     1, u_k, u_k², 2·u_k·u_l                               (n, p)
    table   height of each draw at each place of the grid         (S, G)

References:
    Box & Wilson 1951 (the quadratic response surface and its ridges); Wilson et al. 2020 (arXiv 2002.09309: draws of a
    conditioned Gaussian process from unconditioned ones).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum._response_hypers import HYPERS, Hypers, again, first, kronecker
from raylr.analysis.optimum._response_runs import Runs
from raylr.analysis.optimum._response_warp import Warp

Array = NDArray[np.float64]

DRAWS = 512
"""Surfaces drawn: quantiles at 5 and 95 % are then known to about one percentage point."""
TRIES = 4096
"""Surfaces drawn before those without a minimum in reach are dropped."""
FEWEST = 48
"""Surfaces that must remain; below, the quadratic with a minimum contradicts the losses."""
OUTSIDE = 1.0
"""The prior of the minimum falls by a factor e with each such distance outside of the ranges, in units; draws further
out than `BEYOND` are as good as there."""
BEYOND = 1.0
LONG, SHORT = 2.0, 0.8
"""Correlation lengths of g, in units: of the part that grows with the height and of the other."""
FEATURES = 96
"""Waves from which a draw of g is made."""
WHOLE = 0.6
"""Prior probability that all runs lie on one surface."""
LEAST_JUMP = 0.3
"""Height, in units, from which a run can have jumped."""
JUMP = 4.0
"""ln of the range of heights to which losses jump: from the highest down to 2 % of it."""
AGAIN = 3
"""Times that the values of a sharp minimum are spread anew."""
NEGLIGIBLE = 0.02
"""Probability of a sharp minimum below which they are not."""
PLANES = 24
"""Borders that are tried for each draw."""
EVEN, MINIMA = 160, 160
"""Places of a grid that fill the ranges, and those that are minima of draws."""
TILT = 0.7
"""Standard deviation of the slope of the border above which runs diverge, in units of one axis per unit of another."""


@dataclass(frozen=True, kw_only=True)
class Surfaces:
    """Draws of the response surface."""

    v: Array
    """Grid; its first n places are those of the runs, (G, d)."""
    table: Array
    """Heights, jumps included, (S, G)."""
    jumped: Array
    """Probability of having diverged or jumped, (G,)."""
    noise: Array
    """Standard deviation of one run in each draw, (S,)."""
    optimum: Array
    """Place of the minimum of each draw, (S, d)."""
    curvature: Array
    """H of z, (S, d, d)."""
    minimum: Array
    """Minimum of the quadratic alone, (S, d)."""
    level: Array
    """z of it, (S,)."""
    warp: Warp
    """What z is of the height, in each draw."""
    fits: bool
    """Whether quadratics with a minimum explain the losses."""
    inside: NDArray[np.bool_]
    """Runs that are likely to lie on the surface, (n,)."""

    def rise(self, z: Array) -> Array:
        """Rise of the height where z rises by so much from the minimum of the quadratic, (S, m): (S, m)."""
        base = self.level[:, None]
        return self.warp.height(base + z) - self.warp.height(base)

    @property
    def mean(self) -> Array:
        """Expected height, (G,)."""
        return np.asarray(self.table.mean(axis=0))


def features(u: Array) -> Array:
    """phi of places relative to the best one, (..., p)."""
    d = u.shape[-1]
    i, k = np.triu_indices(d, 1)
    return np.concatenate([np.ones((*u.shape[:-1], 1)), u, u * u, 2.0 * u[..., i] * u[..., k]], axis=-1)


def matern(distance: Array, length: float) -> Array:
    """Matérn 5/2 correlation."""
    r = math.sqrt(5.0) * distance / length
    return np.asarray((1.0 + r + r * r / 3.0) * np.exp(-r))


@lru_cache(maxsize=8)
def _waves(d: int) -> tuple[Array, ...]:
    """Frequencies and phases of two processes of correlation length 1, their weights for each try, and normal numbers
    for the coefficients."""
    rng = np.random.default_rng(d)
    p = 1 + d + d * (d + 1) // 2
    # The spectrum of Matérn 5/2 is Student's t with 5 degrees of freedom, that of the exponential one with 1.
    degrees = np.array([5.0, 1.0])[:, None, None]
    frequency = rng.standard_normal((2, FEATURES, d)) / np.sqrt(rng.chisquare(degrees, (2, FEATURES, 1)) / degrees)
    phase = rng.uniform(0.0, 2 * math.pi, (2, FEATURES))
    return frequency, phase, rng.standard_normal((2, FEATURES, TRIES)), rng.standard_normal((TRIES, p))


def draw(runs: Runs, low: Array, high: Array, rising: int | None, more: Array | None = None) -> Surfaces:
    """Draw surfaces given the runs so far.

    Args:
        runs: The runs; at least one has a finite loss.
        low: Lower ends of the ranges in which the minimum is searched, in units (d,).
        high: Upper ends of these ranges, in units (d,).
        rising: Axis above whose values runs diverge (the LR); None if no axis has this.
        more: Further places at which the surfaces are wanted (m, d): the last m of the grid. They change nothing else.
    """
    d, n = runs.v.shape[1], runs.h.size
    hypers = first(d)
    system = _System(runs, hypers)
    for _ in range(AGAIN):
        if system.p[HYPERS:].sum() < NEGLIGIBLE:
            break
        hypers = again(hypers, system.p.sum(axis=1))
        system = _System(runs, hypers)
    noise, share, every, warp = hypers.noise, hypers.share, hypers.every, hypers.warp
    mean, sd, phi, z, variance, k = system.mean, system.sd, system.phi, system.z, system.variance, system.k
    window, weight = system.sizes, system.p

    rng = np.random.default_rng(0)
    flat = np.cumsum(weight.ravel())
    index = np.minimum(np.searchsorted(flat, (np.arange(TRIES) + 0.5) / TRIES * flat[-1]), flat.size - 1)
    t, j = np.unravel_index(index[rng.permutation(TRIES)], weight.shape)

    frequency, phase, wave, normal = _waves(d)
    g = [_process(runs.v, frequency[i], phase[i], length) @ wave[i] for i, length in enumerate((LONG, SHORT))]
    g_prior = share[t] * z[t].T * g[0] + every[t] * g[1]  # (n, TRIES)
    beta = mean[t] + sd[t] * normal
    error = rng.standard_normal((TRIES, n)) * np.sqrt(variance[t])
    on = np.arange(n) < window[j][:, None]
    rest = np.where(on, z[t] - beta @ phi.T - g_prior.T - error, 0.0)
    block = np.where(on[:, :, None] & on[:, None, :], k[t], 0.0)
    block[:, np.arange(n), np.arange(n)] = np.where(on, block[:, np.arange(n), np.arange(n)], 1.0)
    alpha = np.linalg.solve(block, rest[..., None])[..., 0]
    beta = beta + sd[t] ** 2 * (alpha @ phi)

    h, minimum, bad = _minima(beta, runs.v[0], d)
    bad |= _least(beta, h, runs.v[0] - minimum) < warp.lowest[t]
    out = np.maximum(low - minimum, minimum - high).max(axis=1)
    keep = ~bad & (out < 3.0) & (rng.random(TRIES) < np.exp(-np.maximum(out, 0.0) / OUTSIDE))
    fits = int(keep.sum()) >= FEWEST
    if not fits:  # the nearest surfaces that have one, with curvature where the losses show none
        h, minimum = _forced(h, beta, runs.v[0], low, high)
        keep = np.ones(TRIES, dtype=bool)
        beta = _beta(h, minimum, runs.v[0], beta)
    chosen = np.flatnonzero(keep)
    chosen = chosen[:DRAWS] if chosen.size >= DRAWS else chosen[np.arange(DRAWS) % chosen.size]
    t, j, alpha, beta, h, minimum = t[chosen], j[chosen], alpha[chosen], beta[chosen], h[chosen], minimum[chosen]
    warp, z = warp[t], z[t]

    grid = _grid(runs, minimum, low, high)
    size = len(grid)
    grid = grid if more is None else np.concatenate([grid, more])
    u = features(grid - runs.v[0])
    table = beta @ u.T
    height = warp.height(table).mean(axis=0)
    height = np.maximum(height - height[:size].min(), 0.0)
    height[:n] = runs.h
    between = np.sqrt(((grid[:, None] - runs.v) ** 2).sum(axis=-1))
    g = [_process(grid, frequency[i], phase[i], length) @ wave[i][:, chosen] for i, length in enumerate((LONG, SHORT))]
    missed = np.zeros_like(table)
    if fits:
        missed = share[t][:, None] * (g[0].T + share[t][:, None] * ((alpha * z) @ matern(between, LONG).T))
        missed *= warp.z(height)
        missed += every[t][:, None] * (g[1].T + every[t][:, None] * (alpha @ exponential(between, SHORT).T))
    table = warp.height(table + missed)
    metric = h.mean(axis=0)
    jump, jumped = _jumps(runs, window[j], grid, metric, rising, rng)
    table = np.where(jump > 0, np.maximum(table, jump), table)
    optimum = grid[np.argmin(table[:, :size], axis=1)]
    return Surfaces(
        v=grid,
        table=table,
        jumped=jumped.mean(axis=0),
        noise=noise[t],
        optimum=optimum,
        curvature=h,
        minimum=minimum,
        warp=warp,
        level=_least(beta, h, runs.v[0] - minimum),
        fits=fits,
        inside=np.mean(np.arange(n) < window[j][:, None], axis=0) > 0.5,
    )


class _System:
    """The losses given every value of the hyperparameters: their covariance, and the probability of each value with
    each size of the window.

    A window holds the lowest runs. The leading block of a Cholesky factor is that of a window, so that one
    factorisation serves all of them.
    """

    mean: Array
    """Mean of the coefficients, (T, p)."""
    sd: Array
    """Their standard deviation, (T, p)."""
    phi: Array
    """(n, p)."""
    z: Array
    """(T, n)."""
    variance: Array
    """Of the noise of each z, (T, n)."""
    k: Array
    """Covariance of z, (T, n, n)."""
    sizes: NDArray[np.intp]
    """Sizes of the windows, (J,)."""
    p: Array
    """Posterior probability, (T, J)."""

    def __init__(self, runs: Runs, hypers: Hypers):
        at = np.arange(runs.h.size)
        self.mean, self.sd = hypers.coefficients()
        self.phi = features(runs.v - runs.v[0])
        distance = np.sqrt(((runs.v[:, None] - runs.v) ** 2).sum(axis=-1))
        error = np.sqrt(hypers.noise[:, None] ** 2 / runs.count + runs.error**2)
        z, slope = hypers.warp.z(runs.h), hypers.warp.slope(runs.h, error)
        self.z, self.variance = z, (slope * error) ** 2
        k = (self.phi * (self.sd**2)[:, None, :]) @ self.phi.T
        k += hypers.share[:, None, None] ** 2 * z[:, :, None] * z[:, None, :] * matern(distance, LONG)
        k += hypers.every[:, None, None] ** 2 * exponential(distance, SHORT)
        k[:, at, at] += self.variance + 1e-10 * k[:, at, at]
        self.k = k
        self.sizes, self.p = self._weigh(runs, hypers, np.log(slope))

    def _weigh(self, runs: Runs, hypers: Hypers, log_slope: Array) -> tuple[NDArray[np.intp], Array]:
        n, d = runs.v.shape
        root = np.linalg.cholesky(self.k)
        y = np.linalg.solve(root, (self.z - self.mean @ self.phi.T)[..., None])[..., 0]
        one = -0.5 * y**2 - np.log(np.diagonal(root, axis1=1, axis2=2)) - 0.5 * math.log(2 * math.pi) + log_slope
        inside = np.cumsum(one, axis=1)  # log density of the first j heights
        sizes = np.arange(min(d + 1, n), n + 1)
        log_p = np.full(sizes.size, math.log((1 - WHOLE) / max(sizes.size - 1, 1)))
        log_p[-1] = math.log(WHOLE)
        top = max(float(runs.h.max()), 1e-300)
        h = np.maximum(runs.h, 1e-12 * top)
        jump = -np.log(h) - math.log(JUMP + 0.5) + 2.0 * np.minimum(0.0, np.log(h / top) + JUMP)
        jump = jump + 2.0 * np.minimum(0.0, np.log(h / LEAST_JUMP))
        log_p = log_p + np.array([jump[size:].sum() for size in sizes])
        total = inside[:, sizes - 1] + log_p + hypers.log_weight[:, None]
        if runs.scatter_dof:
            known = float(np.mean(runs.error**2 * runs.count))
            variance = hypers.noise**2 + known
            total = total - 0.5 * runs.scatter_dof * (np.log(variance) + runs.scatter / variance)[:, None]
        p = np.exp(total - total.max())
        return sizes, p / p.sum()


def exponential(distance: Array, length: float) -> Array:
    """Correlation of a process that has a kink everywhere (Matérn 1/2)."""
    return np.asarray(np.exp(-distance / length))


def _process(v: Array, frequency: Array, phase: Array, length: float) -> Array:
    """The waves of a process at places (m, d): (m, FEATURES)."""
    return np.asarray(math.sqrt(2.0 / FEATURES) * np.cos(v @ frequency.T / length + phase))


def _minima(beta: Array, best: Array, d: int) -> tuple[Array, Array, NDArray[np.bool_]]:
    """H (S, d, d), the minimum (S, d), and whether there is none, (S,)."""
    h = np.zeros((len(beta), d, d))
    axes = np.arange(d)
    h[:, axes, axes] = beta[:, 1 + d : 1 + 2 * d]
    i, k = np.triu_indices(d, 1)
    h[:, i, k] = h[:, k, i] = beta[:, 1 + 2 * d :]
    size = np.linalg.eigvalsh(h)
    bad = size[:, 0] <= 1e-9 * np.abs(size).max(axis=1)
    safe = np.where(bad[:, None, None], np.eye(d), h)
    minimum = best - 0.5 * np.linalg.solve(safe, beta[:, 1 : 1 + d, None])[..., 0]
    return h, minimum, bad


def _least(beta: Array, h: Array, best: Array) -> Array:
    """z at the minimum, (S,), where the best run lies at `best` from it (S, d)."""
    return np.asarray(beta[:, 0] - (best[:, None, :] @ h @ best[:, :, None])[:, 0, 0])


def _forced(h: Array, beta: Array, best: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """The nearest H with a minimum, and that minimum, held within reach: where losses go on falling, a curvature that
    has the slope of the quadratic at the best run."""
    d = h.shape[1]
    size, vectors = np.linalg.eigh(h)
    slope = np.abs((vectors * beta[:, 1 : 1 + d, None]).sum(axis=1))
    reach = float(np.linalg.norm(high - low + 2 * BEYOND))
    size = np.maximum(size, 0.01 * np.abs(size).max(axis=1, keepdims=True) + 1e-9)
    size = np.maximum(size, 0.5 * slope / reach)
    h = (vectors * size[:, None, :]) @ vectors.transpose(0, 2, 1)
    minimum = best - 0.5 * np.linalg.solve(h, beta[:, 1 : 1 + d, None])[..., 0]
    return h, np.clip(minimum, low - BEYOND, high + BEYOND)


def _beta(h: Array, minimum: Array, best: Array, beta: Array) -> Array:
    """Coefficients of the quadratics with curvature `h` and `minimum`, at the level of `beta`."""
    d = h.shape[1]
    i, k = np.triu_indices(d, 1)
    axes = np.arange(d)
    slope = 2.0 * (h @ (best - minimum)[..., None])[..., 0]
    return np.concatenate([beta[:, :1], slope, h[:, axes, axes], h[:, i, k]], axis=1)


def _grid(runs: Runs, minimum: Array, low: Array, high: Array) -> Array:
    """Places of the runs, of the minima of the quadratics, and between, within reach: (G, d)."""
    d = runs.v.shape[1]
    first, last = low - BEYOND, high + BEYOND
    even = first + (last - first) * kronecker(EVEN, d)
    inner = low + (high - low) * kronecker(EVEN, d)
    middle = np.median(minimum, axis=0, keepdims=True)
    found = np.clip(np.concatenate([middle, minimum.mean(axis=0, keepdims=True), minimum[:MINIMA]]), first, last)
    return np.concatenate([runs.v, even, inner, found])


def nearest(places: Array, v: Array, metric: Array) -> NDArray[np.intp]:
    """Which of the runs at `v` (n, d) is nearest to each of the `places` (G, d), where H is `metric` (d, d): on a
    quadratic, the run of the least loss is the one nearest to its minimum."""
    d = v.shape[1]
    metric = metric + 0.02 * np.trace(metric) / d * np.eye(d)
    root = np.linalg.cholesky(metric)
    distance = (((places @ root)[:, None] - v @ root) ** 2).sum(axis=-1)
    return np.asarray(np.argmin(distance, axis=1))


def _jumps(
    runs: Runs, window: NDArray[np.intp], grid: Array, metric: Array, rising: int | None, rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_]]:
    """Height to which the loss has jumped at each place, 0 where it has not, and whether it has: (S, G) each."""
    n = runs.h.size
    jump, jumped = np.zeros((window.size, len(grid))), np.zeros((window.size, len(grid)), dtype=bool)
    top = 2.0 * max(float(runs.h.max()), 1.0)
    for size in np.unique(window):
        rows = np.flatnonzero(window == size)
        lost = np.concatenate([runs.v[size:], runs.diverged])
        if not len(lost):
            continue
        level = np.append(runs.h[size:], np.full(len(runs.diverged), top))[nearest(grid, lost, metric)]
        here = _beyond(runs.v[:size], lost, grid, metric, rows.size, rising, rng)
        here[:, :n] = np.arange(n) >= size  # what was measured at a run is known
        level[:n] = runs.h
        jump[rows], jumped[rows] = np.where(here, level, 0.0), here
    return jump, jumped


def _beyond(
    ended: Array, lost: Array, grid: Array, metric: Array, size: int, rising: int | None, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Whether each place lies beyond the border above which runs jump or diverge, for `size` draws: (size, G).

    The border is a plane, tilted against all axes but the rising one; it lies anywhere between the runs that are on the
    surface and those that are `lost`. Where no plane separates them, a place has jumped if the nearest run has.
    """
    d = grid.shape[1]
    normal = rng.standard_normal((size, PLANES, d))
    if rising is not None:
        normal *= TILT
        normal[..., rising] = 1.0
    else:
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    last, first = (normal @ ended.T).max(axis=-1), (normal @ lost.T).min(axis=-1)
    apart = last < first
    row, which = np.arange(size), np.argmax(apart, axis=1)
    share = (rng.permutation(size) + 0.5) / size
    border = last[row, which] + share * (first[row, which] - last[row, which])
    out = (normal[row, which] @ grid.T) > border[:, None]
    beside = nearest(grid, np.concatenate([ended, lost]), metric) >= len(ended)
    return np.where(apart.any(axis=1)[:, None], out, beside)
