"""Shapes of the loss around its minimum, the correlation of what they miss, and draws of it.

Notation and shapes
    u    x - x*, ln lr above the optimum                       (...)
    k    skew of a smooth shape, on `SKEWS`                    (K1,)
    r    ln of the ratio of slopes of a kinked shape, on `RATIOS`  (K2,)
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SKEWS: Array = np.array([-0.8, 0.0, 0.6, 1.2, 1.8])
"""Grid of the skew: one standard deviation of the default prior below zero, and more on the side of divergence."""
RATIOS: Array = np.array([-0.8, 0.8])
"""Grid of ln of the slope above over the slope below of a curve with a kink."""
KINK = 0.02
"""Prior probability of a kink. No measured table has one; functions that people try an optimizer on do."""
DRAWS = 256
"""Curves drawn from the posterior: quantiles at 5 and 95 % are then known to about 1.4 percentage points."""
_STEP = 0.1
_NODES = 700


def shapes(u: Array) -> Array:
    """Rise of every shape at `u` (...), per unit of curvature: (..., K1 + K2).

    The smooth ones are 2·(exp(k·u) - 1 - k·u)/k², which is u² at k = 0 (Eq. 2) and has this second derivative for any
    k; the kinked ones are |u| with two slopes.
    """
    v = u[..., None]
    k = np.where(SKEWS == 0, 1.0, SKEWS)
    ku = np.clip(k * v, -40.0, 40.0)
    smooth = np.where(SKEWS == 0, v * v, 2.0 * (np.expm1(ku) - ku) / (k * k))
    root = np.exp(0.5 * RATIOS)
    return np.concatenate([smooth, np.where(v > 0, v * root, -v / root)], axis=-1)


def log_prior(skew: float, sd: float) -> Array:
    """Log prior probability of every shape, (K1 + K2,)."""
    smooth = -0.5 * ((SKEWS - skew) / sd) ** 2
    smooth = smooth - np.log(np.exp(smooth - smooth.max()).sum()) - smooth.max() + math.log(1 - KINK)
    return np.concatenate([smooth, np.full(RATIOS.size, math.log(KINK / RATIOS.size))])


def matern(distance: Array, length: float) -> Array:
    """Matérn 5/2 correlation at `distance` in ln lr."""
    r = math.sqrt(5.0) * np.abs(distance) / length
    return np.asarray((1.0 + r + r * r / 3.0) * np.exp(-r))


@lru_cache(maxsize=8)
def _table(seed: int) -> Array:
    t = np.arange(_NODES) * _STEP
    root = np.linalg.cholesky(matern(t[:, None] - t, 1.0) + 1e-10 * np.eye(_NODES))
    half = np.random.default_rng(seed).standard_normal((DRAWS // 2, _NODES)) @ root.T
    return np.concatenate([half, -half])  # antithetic: means over all draws are exact


def smooth_draws(seed: int, x: Array, length: float) -> Array:
    """Draws of a process of unit variance with correlation `matern` at `x` (m,): (DRAWS, m).

    They are read from one table that is drawn once, so that they cost no factorisation.
    """
    at = np.mod((x - x.min()) / (length * _STEP), _NODES - 2)
    index = at.astype(np.intp)
    share = at - index
    table = _table(seed)
    return np.asarray(table[:, index] * (1.0 - share) + table[:, index + 1] * share)
