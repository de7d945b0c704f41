"""The batches among the optima of a study."""

from __future__ import annotations

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
