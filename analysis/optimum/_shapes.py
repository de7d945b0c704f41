"""Shapes of the loss around its minimum, the correlation of what they miss, and draws of it.

Notation and shapes
    u    x - x*, ln lr above the optimum                       (...)
    k    skew of a smooth shape, on `SKEWS`                    (K1,)
    r    ln of the ratio of the sides of a sharp shape             (K2,)
    p    its power                                             (K2,)
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SKEWS: Array = np.array([-0.8, 0.0, 0.6, 1.2, 1.8])
"""Grid of the skew: one standard deviation of the default prior below zero, and more on the side of divergence."""
RATIOS = (-1.0, 0.0, 1.0)
"""ln of the rise above over the rise below of a sharp curve: a factor e either way."""
POWERS = (0.5, 1.0, 1.5)
"""Powers of the distance from the optimum with which a sharp curve rises: a cusp, a kink, and halfway to a parabola."""
FIXED: Array = np.array([(r, p) for p in POWERS for r in RATIOS])
"""r and p of the sharp shapes that do not depend on the LRs."""
RATIO_SD = 2.0
"""Standard deviation of the prior of it around 0."""
RATIO_WIDTH = 0.1
"""Width in it that a ratio read from the LRs stands for: what two slopes between two LRs each tell of it."""
KINK = 0.02
"""Prior probability of a kink. No measured table has one; functions that people try an optimizer on do."""
SHARP = 0.1
"""Prior probability of a sharp curve with which regrets and intervals are stated: nobody has to be a believer in smooth
curves for them to hold."""
CHOSEN = 0.02
"""And with which an LR is chosen: no measured table of language models has one."""
DRAWS = 256
"""Curves drawn from the posterior: quantiles at 5 and 95 % are then known to about 1.4 percentage points."""
_STEP = 0.1
_NODES = 700


def shapes(u: Array, sharp: Array) -> Array:
    """Rise of every shape at `u` (...), per unit of curvature: (..., K1 + K2); `sharp` (K2, 2) are r and p.

    The smooth ones are 2·(exp(k·u) - 1 - k·u)/k², which is u² at k = 0 (Eq. 2) and has this second derivative for any
    k; the sharp ones are |u|^p, higher on one side.
    """
    v = u[..., None]
    k = np.where(SKEWS == 0, 1.0, SKEWS)
    ku = np.clip(k * v, -40.0, 40.0)
    smooth = np.where(SKEWS == 0, v * v, 2.0 * (np.expm1(ku) - ku) / (k * k))
    return np.concatenate([smooth, _sharp(v, sharp)], axis=-1)


def _sharp(u: Array, sharp: Array) -> Array:
    """|u|^p of `u` (..., K2) or (..., 1), times the root of exp(r) above and divided by it below: (..., K2)."""
    root = np.exp(0.5 * sharp[:, 0])
    size = np.abs(u)
    return np.asarray(np.where(sharp[:, 1] == 1.0, size, size ** sharp[:, 1]) * np.where(u > 0, root, 1.0 / root))


def drawn_shapes(u: Array, shape: NDArray[np.intp], sharp: Array) -> Array:
    """The same at `u` (S, G) of one shape a row, by its index in `shapes` (S,): (S, G)."""
    k = skew_of(shape)[:, None]
    safe = np.where(k == 0, 1.0, k)
    ku = np.clip(safe * u, -40.0, 40.0)
    out = (np.expm1(ku) - ku) * (2.0 / (safe * safe))
    plain, kinked = np.flatnonzero(shape == int(np.argmax(SKEWS == 0))), np.flatnonzero(shape >= SKEWS.size)
    out[plain] = u[plain] ** 2
    if kinked.size:
        out[kinked] = _sharp(u[kinked].T, sharp[shape[kinked] - SKEWS.size]).T
    return np.asarray(out)


def skew_of(shape: NDArray[np.intp]) -> Array:
    """Skew of each shape by its index; 0 for sharp ones."""
    return np.asarray(np.where(shape < SKEWS.size, SKEWS[np.minimum(shape, SKEWS.size - 1)], 0.0))


def choice_weights(shape: NDArray[np.intp]) -> Array:
    """Ratio of the prior with which an LR is chosen to that of the draws, for drawn shapes (S,): weights of sum 1."""
    sharp = (shape >= SKEWS.size) & (shape < SKEWS.size + len(FIXED))
    odds = CHOSEN * (1 - SHARP) / (SHARP * (1 - CHOSEN))
    weight = np.where(sharp, odds, 1.0)
    return np.asarray(weight / weight.sum())


def log_prior(skew: float, sd: float, measured: Array) -> Array:
    """Return the log prior probability of every shape (K1 + K2,).

    Args:
        skew: Mean of the normal prior of the skew of the smooth shapes.
        sd: Its standard deviation.
        measured: r of the kinks that the LRs tried show, the last ones of the sharp shapes.
    """
    smooth = -0.5 * ((SKEWS - skew) / sd) ** 2
    smooth = smooth - np.log(np.exp(smooth - smooth.max()).sum()) - smooth.max() + math.log(1 - SHARP)
    fixed = np.full(len(FIXED), math.log(SHARP / len(FIXED)))
    density = np.exp(-0.5 * (measured / RATIO_SD) ** 2) / (RATIO_SD * math.sqrt(2 * math.pi))
    return np.concatenate([smooth, fixed, np.log(KINK * np.maximum(density * RATIO_WIDTH, 1e-12))])


def matern(distance: Array, length: float) -> Array:
    """Matérn 5/2 correlation at `distance` in ln lr."""
    r = math.sqrt(5.0) * np.abs(distance) / length
    return np.asarray((1.0 + r + r * r / 3.0) * np.exp(-r))


@lru_cache(maxsize=1)
def shuffle() -> NDArray[np.intp]:
    """The order of the draws: antithetic ones are apart, so that neighbouring hypotheses get both."""
    return np.random.default_rng(0).permutation(DRAWS)


@lru_cache(maxsize=8)
def _table(seed: int) -> Array:
    t = np.arange(_NODES) * _STEP
    root = np.linalg.cholesky(matern(t[:, None] - t, 1.0) + 1e-10 * np.eye(_NODES))
    half = np.random.default_rng(seed).standard_normal((DRAWS // 2, _NODES)) @ root.T
    both = np.concatenate([half, -half])[shuffle()]  # antithetic: means over all draws are exact
    return np.ascontiguousarray(both.T)


def smooth_draws(seed: int, x: Array, length: float) -> Array:
    """Draws of a process of unit variance with correlation `matern` at `x` (m,): (m, DRAWS).

    They are read from one table that is drawn once, so that they cost no factorisation.
    """
    at = np.mod((x - x.min()) / (length * _STEP), _NODES - 2)
    index = at.astype(np.intp)
    share = (at - index)[:, None]
    table = _table(seed)
    return np.asarray(table[index] * (1.0 - share) + table[index + 1] * share)


def monotone(x: Array, y: Array, at: Array) -> Array:
    """Monotone cubic interpolation of `y` over ascending `x` (n,), held beyond its ends, at `at` (G,): (G,).

    Slopes are the weighted harmonic means of Fritsch and Butland 1984, and those of the chords at the ends.
    """
    step = np.diff(x)
    chord = np.diff(y) / step
    slope = np.concatenate([chord[:1], np.zeros(max(x.size - 2, 0)), chord[-1:]])
    turn = chord[:-1] * chord[1:] > 0
    before, after = np.where(turn, chord[:-1], 1.0), np.where(turn, chord[1:], 1.0)
    left, right = 2 * step[1:] + step[:-1], step[1:] + 2 * step[:-1]
    slope[1:-1] = np.where(turn, (left + right) / (left / before + right / after), 0.0)
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, x.size - 2)
    u = np.clip((at - x[i]) / step[i], 0.0, 1.0)
    v = 1.0 - u
    ends = (1 + 2 * u) * v * v * y[i] + u * u * (3 - 2 * u) * y[i + 1]
    return np.asarray(ends + step[i] * (u * v * v * slope[i] - u * u * v * slope[i + 1]))
