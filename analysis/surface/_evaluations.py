"""Measurements of the runs of one model size, prepared for the surface."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raylr.analysis._checks import Array, same_length
from raylr.analysis.curves.schedule import Schedule, recognise_schedule


def stable(
    x: Array, t: Array, y: Array, current_lr: ArrayLike | None, given: Schedule | None
) -> tuple[NDArray[np.bool_], Schedule | None]:
    """Return which measurements were made before the LR fell (n,), and a schedule of those in which it does.

    If any run's LR changes throughout, none are left: its runs are of one schedule, and what is left of them tells
    nothing of the others' ends. A run that has diverged keeps its last loss, which is only a bound.
    """
    keep, decay = np.ones(t.size, bool), None
    found: list[tuple[NDArray[np.bool_], Schedule | None]] = [(np.ones(t.size, bool), given)]
    if current_lr is not None:
        now = np.asarray(current_lr, float).ravel()
        same_length(lr=x, current_lr=now)
        found += [(x == one, recognise_schedule(t[x == one], now[x == one])) for one in np.unique(x)]
    for of_run, schedule in found:
        if schedule is None or schedule.constant:
            continue
        if schedule.changing:
            return np.zeros(t.size, bool), schedule
        keep &= ~of_run | schedule.stable(t) | ~np.isfinite(y)
        decay = schedule if decay is None or schedule.decay_start < decay.decay_start else decay
    return keep, decay


def in_order(t: Array, y: Array) -> tuple[Array, Array]:
    """Measurements of one LR with a finite loss, by tokens."""
    order = np.argsort(t, kind="stable")
    order = order[np.isfinite(y[order])]
    return t[order], y[order]


def average(t: Array, y: Array) -> tuple[Array, Array, Array]:
    """Distinct token counts in order, the mean of the losses there, and how many they were."""
    tokens, at = np.unique(t, return_inverse=True)
    count = np.bincount(at)
    with np.errstate(invalid="ignore"):
        return tokens, np.asarray(np.bincount(at, y) / count), count.astype(np.float64)
