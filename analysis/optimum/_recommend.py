"""Which learning rate to choose: the least expected loss among the LRs that the measured losses allow."""

import math

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum._curves import Curves
from raylr.analysis.optimum._hypotheses import ROUGH_SHARE
from raylr.analysis.optimum._losses import CLUSTER, Losses
from raylr.errors import InputError

Array = NDArray[np.float64]

CAUTION = 0.3
"""The LR chosen has the least expected loss + `CAUTION` standard deviations of its difference to the best LR tried: an
untried LR has to be better by more than what is not known of it. It trades the gain of a smooth curve's minimum against
the loss on one that is not."""
CAUTION_SMOOTH = 0.1
"""The same where all LRs tried show one smooth minimum (`smooth`, `ROUGH`), or a prior says that there is one."""
ROUGH = 0.5
"""Probability of a rough curve from which the minimum does not count as smooth."""
COMPARABLE = 8.0
"""Ratio of heights and of curvatures beside the best LR from which there may be a cliff. With the strongest skew of the
model the curvature grows by a factor 6 over an e-fold."""
TIGHT = 0.1
"""Gaps between LRs that are narrower than this in ln lr offer a gain of at most a 400th of the curvature: half of the
gap, squared. That is not worth leaving an LR whose loss was measured."""
SURE = 0.25
"""Quantile of the posterior of the noise with which losses count as equal. Without replicates and standard errors none
do: noise that only the misfit of the model shows may be a shape."""
REPEAT = 0.03
"""Noise of a run, in units of the curvature, above which it matters: it moves a loss as an LR 17 % from the best
does."""
CONFIRM = 5
"""LRs with a finite loss from which scatter around the curve can show: four determine level, curvature, optimum and
skew."""
LEAD = 0.5
"""Share of the lead of the best LR over its neighbours' mean that the model may take back without a
replicate."""
NEGLIGIBLE = 0.02
"""Heights within this share of what a factor e of the LR costs are equal."""
TIED = 2.0
"""Losses within this many standard errors of their difference may be equal."""


def at_least(name: str, value: float, least: float) -> None:
    """InputError unless `value` is a number of at least `least`."""
    if not (isinstance(value, int | float) and math.isfinite(value) and value >= least):
        raise InputError(f"{name} must be a number of at least {least:g}, got {value!r}")


def noise_of(curves: Curves) -> float:
    """Standard deviation of one run: the posterior median, in units."""
    return float(np.median(curves.noise))


def sure_noise(losses: Losses, curves: Curves) -> float:
    """The noise that one run has at least, with probability 1 - `SURE`, in units."""
    if losses.scatter_dof == 0 and not losses.error.any():
        return 0.0
    return float(np.quantile(curves.noise, SURE))


def noise_unconfirmed(losses: Losses, curves: Curves) -> bool:
    """Whether the scatter around the curve may be noise and no replicate has shown it yet: an LR is then repeated,
    which tells noise from a rough curve."""
    known = losses.scatter_dof > 0 or bool(losses.error.any())
    return not known and losses.tried.size >= CONFIRM and noise_of(curves) > REPEAT


def tied(losses: Losses, curves: Curves) -> NDArray[np.bool_]:
    """Which of `losses.tried` may be as good as the best, given the noise, (m,)."""
    noise = sure_noise(losses, curves)
    run = noise**2 * (1.0 / losses.tried_count + 1.0 / losses.count[0])
    error = np.sqrt(run + losses.tried_error**2 + losses.error[0] ** 2)
    return np.asarray((losses.tried_h <= TIED * error) | (losses.tried_h == 0.0))


def allowed(losses: Losses, curves: Curves, low: float, high: float) -> Array:
    """Return the intervals of ln lr (i, 2) within a range in which no measured loss speaks against an optimum.

    They are the gaps between LRs that may both be the best, and the near half of a gap between such an LR and a worse
    one: on a curve with one minimum that is nearly symmetric, the far half would make the worse one the better one.
    In some gaps beside a cliff no LR can be better (`_gains`); in tight gaps, not by enough (`TIGHT`).

    Args:
        losses: The losses of the cell.
        curves: Draws of its curve.
        low: Lower end of the range, ln lr.
        high: Upper end of the range, ln lr.
    """
    x, good = losses.tried, tied(losses, curves)
    noisy = sure_noise(losses, curves) > 0
    out = [(v, v) for v in x[good]]
    for i in range(x.size - 1):
        middle = 0.5 * (x[i] + x[i + 1])
        if good[i] and good[i + 1]:
            out.append((x[i], x[i + 1]))
        elif x[i + 1] - x[i] <= TIGHT and not noisy:
            continue
        elif good[i] and _gains(losses, i, 1):
            out.append((x[i], middle))
        elif good[i + 1] and _gains(losses, i + 1, -1):
            out.append((middle, x[i + 1]))
    clipped = np.clip(np.array(out), low, high)
    return np.asarray(clipped[[bool(a <= high and b >= low) for a, b in out]])


def smooth(losses: Losses) -> bool:
    """Whether all LRs tried show one smooth minimum: no cliff, edge or scatter that an untried LR has to be feared
    for."""
    h, best = losses.tried_h, int(np.argmin(losses.tried_h))
    if best in (0, h.size - 1) or np.any(np.diff(h[: best + 1]) >= 0) or np.any(np.diff(h[best:]) < 0):
        return False
    return not beside_cliff(losses)


def beside_cliff(losses: Losses) -> bool:
    """Whether a neighbour of the best LR may lie beyond a cliff."""
    best = int(np.argmin(losses.tried_h))
    return any(_beside_cliff(losses, best, side) for side in (-1, 1))


def _beside_cliff(losses: Losses, best: int, side: int) -> bool:
    """Whether the neighbour of `losses.tried[best]` on one side (-1 or 1) may lie beyond a cliff: its height is far
    above that of the other neighbour, and the curve bends far more at the best LR than on that other side."""
    x, h = losses.tried, losses.tried_h - losses.tried_h[best]
    high, near, far = best + side, best - side, best - 2 * side
    if not (min(high, near) >= 0 and max(high, near) < x.size) or h[high] <= COMPARABLE * h[near]:
        return False
    if not 0 <= far < x.size:
        return True
    inner = h[near] / abs(x[near] - x[best])
    here = 2.0 * (h[high] / abs(x[high] - x[best]) + inner) / abs(x[high] - x[near])
    there = 2.0 * ((h[far] - h[near]) / abs(x[far] - x[near]) - inner) / abs(x[far] - x[best])
    return bool(here > COMPARABLE * there)


def _gains(losses: Losses, best: int, side: int) -> bool:
    """Whether an LR between `losses.tried[best]` and its neighbour on one side (-1 or 1) may be better.

    Where the neighbour on the other side may lie beyond a cliff, only this side tells where the minimum is. A curve
    that is convex around its minimum lies above the line through the two LRs on this side: if that line is above the
    best loss all the way to the best LR, no LR in between is better. On a parabola with its minimum there the line is
    below it by twice the height of the nearer LR or more, where the gaps are equal.
    """
    x, h = losses.tried, losses.tried_h
    near, far = best + side, best + 2 * side
    if not 0 <= far < x.size or not _beside_cliff(losses, best, -side):
        return True
    return bool((h[near] - h[best]) * abs(x[far] - x[near]) < (h[far] - h[near]) * abs(x[near] - x[best]))


def contradicted(losses: Losses, curves: Curves) -> bool:
    """Whether the model takes back most of the lead that was measured for the best LR, with no replicate to show that
    it was luck."""
    if sure_noise(losses, curves) > 0 or losses.tried.size < 2:
        return False
    at = int(np.argmin(losses.tried_h))
    beside = [losses.tried_h[i] for i in (at - 1, at + 1) if 0 <= i < losses.tried.size]
    return bool(curves.mean[curves.best] > LEAD * float(np.mean(beside)))


def doubtful(losses: Losses, curves: Curves) -> bool:
    """Whether enough LRs speak for a rough curve, more than was assumed without them, and noise does not explain it."""
    enough = losses.tried.size >= CONFIRM
    return enough and curves.rough > ROUGH_SHARE and sure_noise(losses, curves) <= REPEAT


def best_lr(losses: Losses, curves: Curves, low: float, high: float, *, known: bool, least_gain: float = 0.0) -> float:
    """Return ln of the LR to choose within a range; it lies among the LRs tried where they reach into the range.

    Args:
        losses: The losses of the cell.
        curves: Draws of its curve.
        low: Lower end of the range, ln lr.
        high: Upper end of the range, ln lr.
        known: Whether other cells have shown where the optimum lies and how the loss rises around it.
        least_gain: On a `doubtful` curve, by how much an LR that was not tried has to be better than the best one
            tried, in units.
    """
    caution = CAUTION_SMOOTH if known or (smooth(losses) and curves.rough <= ROUGH) else CAUTION
    apart = curves.curves - curves.curves[:, [curves.best]]
    apart = apart - curves.weight @ apart
    cost = curves.mean + caution * np.sqrt(curves.weight @ apart**2)
    x = curves.x
    if low <= losses.x[0] <= high and contradicted(losses, curves):
        return float(losses.x[0])
    intervals = allowed(losses, curves, low, high)
    if not intervals.size:
        within = np.clip(x, low, high)
        return float(within[np.argmin(np.interp(within, x, cost))])
    found = [v for a, b in intervals for v in (a, b)]
    for a, b in intervals:
        inside = np.flatnonzero((x > a) & (x < b))
        if inside.size:
            i = int(inside[np.argmin(cost[inside])])
            found += [float(x[i]), min(max(_vertex(x, cost, i), a), b)]
    choices = _snapped(np.array(found), losses.tried)
    values = np.interp(choices, x, cost) - _dip(x, cost, choices)
    # Where the model expects more than was measured at the best LR, by more than noise explains, the measurement
    # decides.
    noise = sure_noise(losses, curves)
    slack = TIED * noise * math.sqrt(2.0 / losses.count[0]) if noise > 0 else math.inf
    stands = (choices != losses.x[0]) & (np.interp(choices, x, curves.mean) > slack)
    if least_gain > 0 and doubtful(losses, curves):
        values = values + least_gain * (choices != losses.x[0])
    return float(choices[int(np.argmin(np.where(stands, math.inf, values)))])


def _snapped(choices: Array, tried: Array) -> Array:
    """`choices` (C,), with the LR tried in place of one that counts as the same (`CLUSTER`): it was measured."""
    nearest = tried[np.argmin(np.abs(choices[:, None] - tried), axis=1)]
    return np.asarray(np.where(np.abs(choices - nearest) <= CLUSTER, nearest, choices))


def _vertex(x: Array, y: Array, i: int) -> float:
    """Where the parabola through grid point i and its neighbours is lowest, if i is a minimum of the grid."""
    if i in (0, x.size - 1) or y[i] > min(y[i - 1], y[i + 1]):
        return float(x[i])
    square, slope = (float(v[0]) for v in _parabola(x, y, np.array([i])))
    return float(x[i] - 0.5 * slope / square) if square > 0 else float(x[i])


def _parabola(x: Array, y: Array, i: NDArray[np.intp]) -> tuple[Array, Array]:
    """Square and slope, in x - x[i], of the parabolas through the grid points i - 1, i and i + 1, (C,) each."""
    left, right = x[i - 1] - x[i], x[i + 1] - x[i]
    before, after = (y[i - 1] - y[i]) / left, (y[i + 1] - y[i]) / right
    square = (after - before) / (right - left)
    return square, after - square * right


def _dip(x: Array, y: Array, at: Array) -> Array:
    """How far the curve lies below its linear interpolation at each `at` (C,), where the grid has a minimum beside
    it."""
    j = np.clip(np.searchsorted(x, at), 1, x.size - 1)
    i = np.where(y[j] < y[j - 1], j, j - 1)
    middle = np.clip(i, 1, x.size - 2)
    square, slope = _parabola(x, y, middle)
    u = at - x[middle]
    dip = np.interp(at, x, y) - (y[middle] + slope * u + square * u * u)
    minimum = (i == middle) & (y[middle] <= np.minimum(y[middle - 1], y[middle + 1])) & (square > 0)
    return np.where(minimum, np.maximum(dip, 0.0), 0.0)
