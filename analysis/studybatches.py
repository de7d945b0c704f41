"""The batches among the optima of a study: for the law that has the batch in it, and for the one that has not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raylr.errors import InputError

if TYPE_CHECKING:
    from raylr.analysis.studyfit import SettingOptimum


def batches_of(optima: Sequence[SettingOptimum]) -> np.ndarray | None:
    """Return the batch of each optimum (n,); None if no batch is known.

    Raises:
        InputError: The batch of some is known and that of others is not.
    """
    known = [one.batch for one in optima if one.batch is not None]
    if not known:
        return None
    if len(known) < len(optima):
        raise InputError(
            "the run table has the batch of some runs and not of others; give it (column `batch`, tokens of one "
            "optimizer step) for all of them, or the law takes its effect for one of size or tokens"
        )
    return np.array(known, float)


def at_batch(optima: Sequence[SettingOptimum], batch: float | None) -> list[SettingOptimum]:
    """Return the optima of each model at the one of its batches that is nearest to `batch` (None: the smallest).

    At the same tokens a larger batch takes fewer steps and ends at another loss; the loss law has no batch in it.
    """
    own: dict[int, list[float]] = {}
    for one in optima:
        if one.batch is not None:
            own.setdefault(one.params, []).append(one.batch)

    def nearest(batches: list[float]) -> float:
        return min(batches, key=lambda value: value if batch is None else abs(math.log(value / batch)))

    keep = {params: nearest(batches) for params, batches in own.items()}
    return [one for one in optima if one.batch is None or one.batch == keep[one.params]]
