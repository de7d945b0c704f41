"""Which learning rate to choose: the least expected loss among the LRs that the measured losses allow."""

import math

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum._curves import Curves
from raylr.analysis.optimum._losses import Losses

Array = NDArray[np.float64]

CAUTION = 0.3
"""The LR chosen has the least expected loss + `CAUTION` standard deviations of its difference to the best LR tried: an untried LR has to
be better by more than what is not known of it. It trades the gain of a smooth curve's minimum against the loss on one that is not."""
TIED = 2.0
"""Losses within this many standard errors of their difference may be equal."""


def at_least(name: str, value: float, least: float) -> None:
    """ValueError unless `value` is a number of at least `least`."""
    if not (isinstance(value, int | float) and math.isfinite(value) and value >= least):
        raise ValueError(f"{name} must be a number of at least {least:g}, got {value!r}")


def noise_of(curves: Curves) -> float:
    """Standard deviation of one run: the posterior median, in units."""
    return float(np.median(curves.noise))


def tied(losses: Losses, curves: Curves) -> NDArray[np.bool_]:
    """Which of `losses.tried` may be as good as the best, given the noise, (m,)."""
    noise = noise_of(curves)
    error = np.hypot(noise * np.sqrt(1.0 / losses.tried_count + 1.0 / losses.count[0]), losses.error[0])
    return np.asarray((losses.tried_h <= TIED * error) | (losses.tried_h == 0.0))


def allowed(losses: Losses, curves: Curves, low: float, high: float) -> Array:
    """Intervals of ln lr (i, 2) within [low, high] that no measured loss speaks against.

    They are the gaps between LRs that may both be the best, and the near half of a gap between such an LR and a worse one: on a curve with
    one minimum that is nearly symmetric, the far half would make the worse one the better one.
    """
    x, good = losses.tried, tied(losses, curves)
    out = [(v, v) for v in x[good]]
    for i in range(x.size - 1):
        middle = 0.5 * (x[i] + x[i + 1])
        if good[i] or good[i + 1]:
            out.append((x[i] if good[i] else middle, x[i + 1] if good[i + 1] else middle))
    clipped = np.clip(np.array(out), low, high)
    return np.asarray(clipped[[bool(a <= high and b >= low) for a, b in out]])


def best_lr(losses: Losses, curves: Curves, low: float, high: float) -> float:
    """ln of the LR to choose within [low, high], ln lr; it lies among the LRs tried where they reach into it."""
    cost = curves.mean + CAUTION * (curves.curves - curves.curves[:, [curves.best]]).std(axis=0)
    x = curves.x
    intervals = allowed(losses, curves, low, high)
    if not intervals.size:
        inside = np.clip(x, low, high)
        return float(inside[np.argmin(np.interp(inside, x, cost))])
    choices = [v for a, b in intervals for v in (a, b)]
    for a, b in intervals:
        inside = np.flatnonzero((x > a) & (x < b))
        if inside.size:
            i = int(inside[np.argmin(cost[inside])])
            choices += [float(x[i]), min(max(_vertex(x, cost, i, losses.tried), a), b)]
    values = [float(np.interp(v, x, cost)) for v in choices]
    values = [v - _dip(x, cost, c) for v, c in zip(values, choices, strict=True)]
    return float(choices[int(np.argmin(values))])


def _parabola(x: Array, y: Array, i: int) -> tuple[float, float, float]:
    """Parabola through grid points i - 1, i, i + 1, in x - x[i]."""
    left, right = x[i - 1] - x[i], x[i + 1] - x[i]
    l, r = (y[i - 1] - y[i]) / left, (y[i + 1] - y[i]) / right
    square = (r - l) / (right - left)
    return square, r - square * right, y[i]


def _vertex(x: Array, y: Array, i: int, tried: Array) -> float:
    """Where the parabola through grid point i and its neighbours is lowest, if i is a minimum of the grid."""
    if i in (0, x.size - 1) or y[i] > min(y[i - 1], y[i + 1]):
        return float(x[i])
    square, slope, _ = _parabola(x, y, i)
    return float(x[i] - 0.5 * slope / square) if square > 0 else float(x[i])


def _dip(x: Array, y: Array, at: float) -> float:
    """How far the curve lies below its linear interpolation at `at`, where the grid has a minimum beside it."""
    j = int(np.clip(np.searchsorted(x, at), 1, x.size - 1))
    i = j if y[j] < y[j - 1] else j - 1
    if i in (0, x.size - 1) or y[i] > min(y[i - 1], y[i + 1]):
        return 0.0
    square, slope, level = _parabola(x, y, i)
    u = at - x[i]
    return max(0.0, float(np.interp(at, x, y)) - (level + slope * u + square * u * u)) if square > 0 else 0.0
