"""Measured losses in the form in which the model takes them: by distinct LR, as heights above the lowest, free of the
loss's level and scale."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum.prior import OptimumPrior

Array = NDArray[np.float64]

SAME = 1e-9
"""LRs closer than this in ln lr are replicates of one LR."""
CLUSTER = 0.02
"""LRs within this of each other in ln lr count as one: what they differ by is noise."""
NEAR = 0.05
"""LRs closer than this say nothing of the curvature: their difference in loss is mostly noise."""
ROUNDING = 16 * float(np.finfo(np.float64).eps)
"""Losses that differ by less than this share of them are equal: a few roundings on the way from the run."""
SHARE = 1e-12
"""And losses that differ by less than this share of the median height."""
BINS = 24
"""LRs beyond this number are averaged with their neighbours, so that the fit's time does not grow with the runs."""
LOWEST = 12
"""The model sees this many LRs around the best one: what lies higher says nothing of
the curve near the optimum, and a shape that has to explain it fits worse there."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Losses of one cell, ordered by height."""

    x: Array
    """ln lr, distinct, (n,)."""
    h: Array
    """Mean loss above the lowest mean, in `unit`s, ascending, (n,)."""
    count: Array
    """Runs behind each mean; of unequal errors, as many equal ones as the mean is worth, (n,)."""
    error: Array
    """Standard error that each mean came with, in `unit`s; 0: none, (n,)."""
    diverged: Array
    """ln of the LRs at which runs diverged, ascending, (d,)."""
    lowest: float
    """The loss that height 0 stands for."""
    unit: float
    """The loss difference that height 1 stands for: about the curvature, loss per (ln lr)^2."""
    scatter: float
    """Variance between replicates, in `unit`s squared, NaN without replicates."""
    scatter_dof: int
    """Degrees of freedom of `scatter`."""
    tried: Array
    """All distinct ln lr with a finite loss, ascending, also those that the model does not see, (m,)."""
    tried_h: Array
    """Their heights, (m,)."""
    tried_count: Array
    """Runs behind each of them, (m,)."""
    tried_error: Array
    """Standard error that each of them came with, (m,)."""


def prepare(x: Array, y: Array, stderr: Array | None, prior: OptimumPrior) -> Losses:
    """Return the losses of one cell in the form in which the model takes them.

    Args:
        x: ln lr of each run (n,).
        y: Loss of each run (n,); NaN and inf are diverged runs.
        stderr: Standard error of each loss (n,), where one that is not finite counts as 0; None for measured losses.
        prior: What is known about the cell; its curvature, if it has one, is the unit of height.
    """
    finite = np.isfinite(y)
    lost = np.unique(x[~finite])
    order = np.argsort(x[finite], kind="stable")
    xs, ys = x[finite][order], y[finite][order]
    known = np.zeros(ys.size) if stderr is None else stderr[finite][order]
    known = np.where(np.isfinite(known), known, 0.0)
    if xs.size == 0:
        empty = np.empty(0)
        return Losses(
            x=empty, h=empty, count=empty, error=empty, diverged=lost, lowest=0.0, unit=1.0, scatter=math.nan,
            scatter_dof=0, tried=empty, tried_h=empty, tried_count=empty, tried_error=empty,
        )  # fmt: skip
    group = _clusters(xs)
    mixed = [g for g in range(group[-1] + 1) if _share_lost(xs[group == g][0], x, finite) >= 0.5]
    if mixed:  # an LR at which half of the runs diverged has diverged
        keep = ~np.isin(group, mixed)
        if keep.any():
            xs, ys, known, group = xs[keep], ys[keep], known[keep], group[keep]
            group = np.unique(group, return_inverse=True)[1]
    lost = np.array([v for v in lost if not np.any(np.abs(xs - v) <= SAME)])
    if group[-1] + 1 > BINS:
        first = np.searchsorted(group, np.arange(group[-1] + 1))  # replicates stay together
        group = np.unique((first[group] * BINS) // xs.size, return_inverse=True)[1]
    base = float(ys.min())
    weight = weights(known)
    total = np.bincount(group, weight)
    count = total**2 / np.bincount(group, weight**2)
    mx, my = np.bincount(group, weight * xs) / total, np.bincount(group, weight * (ys - base)) / total
    error = np.sqrt(np.bincount(group, (weight * known) ** 2)) / total
    scatter, dof = _scatter(xs, ys - base, weight, group, mx, my)
    rank = _ranks(my, base)
    best = int(np.argmin(rank))
    h = np.where(rank == 0, 0.0, np.maximum(my - my[best], 0.0))
    unit = prior.curvature if prior.curvature is not None else usual_curvature(mx, h, best)
    keep = _seen(mx, rank, best)
    order = np.flatnonzero(keep)[np.lexsort((mx[keep], rank[keep]))]
    return Losses(
        x=mx[order], h=h[order] / unit, count=count[order], error=error[order] / unit, diverged=lost,
        lowest=base + float(my[best]), unit=unit, scatter=scatter / unit**2, scatter_dof=dof, tried=mx, tried_h=h /
        unit, tried_count=count, tried_error=error / unit,
    )  # fmt: skip


def weights(error: Array) -> Array:
    """Return the weights (n,) at which losses with these standard errors (n,) are averaged, the largest 1.

    They are inverse variances, with one for the run's own noise: the square of the median error or, where most losses
    come without one, of a tenth of the largest, so that these weigh a hundred times the least certain.
    """
    if not error.any():
        return np.ones(error.size)
    own = float(np.median(error)) or 0.1 * float(error.max())
    inverse = 1.0 / (error**2 + own**2)
    return np.asarray(inverse / inverse.max())


def _ranks(y: Array, base: float) -> NDArray[np.intp]:
    """Ranks of the losses `y` + `base`, (m,); losses that rounding alone tells apart share one.

    Otherwise the order of two LRs on either side of a symmetric minimum would depend on the unit of the loss.
    """
    order = np.argsort(y, kind="stable")
    size = np.abs(y[order] + base)
    usual = SHARE * float(np.median(y - y[order[0]]))  # the level may have been subtracted after the rounding
    apart = np.diff(y[order]) > np.maximum(ROUNDING * np.maximum(size[1:], size[:-1]), usual)
    rank = np.empty(y.size, dtype=np.intp)
    rank[order] = np.append(0, np.cumsum(apart))
    return rank


def _clusters(x: Array) -> NDArray[np.intp]:
    """Number of the cluster of each of the ascending `x`; none is wider than `CLUSTER`."""
    out = np.zeros(x.size, dtype=np.intp)
    first = x[0]
    for i in range(1, x.size):
        new = x[i] - first > CLUSTER
        out[i] = out[i - 1] + new
        first = x[i] if new else first
    return out


def _share_lost(at: float, x: Array, finite: NDArray[np.bool_]) -> float:
    here = np.abs(x - at) <= SAME
    return float(np.mean(~finite[here]))


def _scatter(
    x: Array, y: Array, weight: Array, group: NDArray[np.intp], mx: Array, my: Array
) -> tuple[float, int]:  # fmt: skip
    """Variance of runs of weight 1 around the mean of their group, or around its line where LRs were binned."""
    dx, dy = x - mx[group], y - my[group]
    sxx = np.bincount(group, weight * dx * dx)
    lines = np.bincount(group, dx * dx) > np.bincount(group) * CLUSTER**2  # wider than a cluster: binned
    slope = np.where(lines, np.bincount(group, weight * dx * dy) / np.where(lines, sxx, 1.0), 0.0)
    dof = int(x.size - mx.size - lines.sum())
    return (float(weight @ (dy - slope[group] * dx) ** 2) / dof, dof) if dof > 0 else (math.nan, 0)


def usual_curvature(x: Array, h: Array, best: int) -> float:
    """The lower quartile of height / distance² over the lowest LRs, so that neither a cliff beside the best LR nor
    noise between close LRs sets it: a loss difference to measure others by."""
    u = np.abs(x - x[best])
    usable = (u > NEAR) & (h > 0)
    if not usable.any():
        top = float(h.max())
        return top if top > 0 else 1.0
    order = np.argsort(h[usable], kind="stable")[:LOWEST]
    ratio = np.sort((h[usable] / u[usable] ** 2)[order])
    at, share = divmod(0.25 * (ratio.size - 1), 1.0)  # as `np.quantile`, which takes 20 times as long
    first, second = ratio[int(at)], ratio[min(int(at) + 1, ratio.size - 1)]
    return float(first + share * (second - first))


def _seen(x: Array, h: NDArray[np.intp], best: int) -> NDArray[np.bool_]:
    """The LRs around the best of ranks `h` (m,), the lower side first: the lowest losses would be those that noise made
    low."""
    first = last = best
    while last - first + 1 < min(LOWEST, x.size):
        left = h[first - 1] if first > 0 else np.inf
        right = h[last + 1] if last < x.size - 1 else np.inf
        first, last = (first - 1, last) if left <= right else (first, last + 1)
    at = np.arange(x.size)
    return (at >= max(min(first, best - 1), 0)) & (at <= max(last, best + 1))
