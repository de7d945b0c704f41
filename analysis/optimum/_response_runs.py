"""Measured losses over several axes in the form in which the response surface takes them: distinct places in units of
each axis's range, and heights above the lowest loss, free of the loss's level and scale."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum._losses import weights

Array = NDArray[np.float64]

SPAN = 4.0
"""Units in the range of an axis: the middle of the range is 0 and its ends are -2 and 2. No axis has a scale of its
own: how far a user lets it vary says what counts as a large change."""
SAME = 0.02
"""Runs closer than this on every axis, in ln of its value, are replicates: what they differ by is noise."""
NEAR = 0.1
"""Places closer than this, in units, say nothing of the curvature: their difference in loss is mostly noise."""
LOWEST = 12
"""Lowest places from which the unit of height is taken."""
MOST = 40
"""The model sees this many of the lowest places: its time grows with their cube."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs of one search, places ordered by height."""

    v: Array
    """Places with a finite loss, in units of the range, (n, d)."""
    h: Array
    """Mean loss above the lowest mean, in `unit`s, ascending, (n,)."""
    count: Array
    """Runs behind each mean, (n,)."""
    error: Array
    """Standard error that each mean came with, in `unit`s; 0: none, (n,)."""
    diverged: Array
    """Places at which half of the runs or more diverged, (m, d)."""
    lowest: float
    """The loss that height 0 stands for."""
    unit: float
    """The loss that height 1 stands for: about what a quarter of the range of an axis costs."""
    scatter: float
    """Variance between replicates, in `unit`s squared, NaN without replicates."""
    scatter_dof: int
    """Degrees of freedom of `scatter`."""
    middle: Array
    """ln of the middle of each range, (d,)."""
    width: Array
    """ln of each range's ratio, over `SPAN`, (d,)."""

    def units(self, x: Array) -> Array:
        """Places given as ln of the axes' values (..., d), in units."""
        return np.asarray((x - self.middle) / self.width)

    def logs(self, v: Array) -> Array:
        """The opposite of `units`."""
        return np.asarray(self.middle + v * self.width)


def prepare(x: Array, loss: Array, stderr: Array | None, low: Array, high: Array) -> Runs:
    """Return r runs over d axes in the form in which the model takes them.

    Args:
        x: ln of the axes' values (r, d).
        loss: Loss of each run (r,); NaN and inf are diverged runs.
        stderr: Standard error of each loss (r,); None for measured losses.
        low: ln of the lower ends of the ranges (d,).
        high: ln of the upper ends of the ranges (d,).
    """
    middle, width = 0.5 * (low + high), (high - low) / SPAN
    # The order of the runs must not matter, not even in the last digit.
    order = np.lexsort((np.where(np.isfinite(loss), loss, np.inf), *x.T[::-1]))
    x, loss = x[order], loss[order]
    known = np.zeros(loss.size) if stderr is None else stderr[order]
    finite = np.isfinite(loss)
    group = _groups(x)
    lost = [g for g in range(group.max(initial=-1) + 1) if np.mean(~finite[group == g]) >= 0.5]
    gone = np.isin(group, lost)
    places = (np.array([x[group == g].mean(axis=0) for g in lost]).reshape(-1, x.shape[1]) - middle) / width
    keep = finite & ~gone
    if not keep.any():
        keep, places = finite, places if not finite.any() else places[:0]
    group = np.unique(group[keep], return_inverse=True)[1]
    weight, error = weights(known[keep]), known[keep]
    total = np.bincount(group, weight)
    count = total**2 / np.bincount(group, weight**2)
    base = float(loss[keep].min()) if keep.any() else 0.0
    y = loss[keep] - base
    mean = np.bincount(group, weight * y) / total
    columns = [np.bincount(group, weight * x[keep][:, k]) / total for k in range(x.shape[1])]
    at = np.array(columns).T.reshape(-1, x.shape[1])
    v = (at - middle) / width
    error = np.sqrt(np.bincount(group, (weight * error) ** 2)) / total
    dof = int(y.size - mean.size)
    scatter = float(weight @ (y - mean[group]) ** 2) / dof if dof else math.nan
    lowest = float(mean.min(initial=math.inf)) if mean.size else 0.0
    h = mean - lowest
    unit = _unit(v, h)
    first = np.argsort(h, kind="stable")[:MOST]
    return Runs(
        v=v[first], h=h[first] / unit, count=count[first], error=error[first] / unit, diverged=places,
        lowest=base + lowest, unit=unit, scatter=scatter / unit**2, scatter_dof=dof, middle=middle, width=width,
    )  # fmt: skip


def _groups(x: Array) -> NDArray[np.intp]:
    """Number of the place of each run: that of the first run within `SAME` of it."""
    out = np.zeros(len(x), dtype=np.intp)
    first: list[int] = []
    for i in range(len(x)):
        near = [g for g, j in enumerate(first) if np.abs(x[i] - x[j]).max() <= SAME]
        out[i] = near[0] if near else len(first)
        if not near:
            first.append(i)
    return out


def _unit(v: Array, h: Array) -> float:
    """A loss difference to measure others by: the median of height / distance² over the lowest places."""
    if not h.size or not h.max() > 0:
        return 1.0
    distance = ((v - v[int(np.argmin(h))]) ** 2).sum(axis=1)
    usable = (distance > NEAR**2) & (h > 0)
    if not usable.any():
        return float(h.max())
    order = np.argsort(h[usable], kind="stable")[:LOWEST]
    return float(np.median((h[usable] / distance[usable])[order]))
