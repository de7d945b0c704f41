"""Measurements of the runs of one model size, prepared for the surface."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raylr.analysis._checks import Array, same_length
from raylr.analysis.curves.schedule import Schedule, recognise_schedule


def stable(
    x: Array, t: Array, y: Array, current_lr: ArrayLike | None, given: Schedule | None
) -> tuple[NDArray[np.bool_], Schedule | None]:
    """Return which measurements were made before the LR fell (n,), and the schedule of a run in which it falls.

    If the LR of any run changes throughout, no measurement is kept: all runs then follow that schedule, and the part
    before the LR falls is missing. A run that has diverged keeps its last loss, which is only a bound.

    Args:
        x: ln of the peak LR of each measurement's run (n,).
        t: Tokens (n,).
        y: Losses (n,); NaN and inf where the run has diverged.
        current_lr: LR of the schedule at each measurement (n,); None if it is not known.
        given: The schedule of all runs; None if it is not known.

    Returns:
        The mask, and the schedule that falls earliest; None if the LR never falls.
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
