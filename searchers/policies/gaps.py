"""Stretches of an axis in which a search has not looked yet."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

HIDDEN = math.log(10.0)
"""Width in ln of a stretch without a run that a search looks into before it ends because all losses are equal. Losses
are equal where nothing trains: at chance level, or at the cap of those that diverged. A choice: no stretch of a factor
of ten that trains is overlooked, which costs a range of four decades one or two runs more where nothing trains at all.
"""


def widest(tried: Iterable[float], low: float, high: float) -> tuple[float, float]:
    """Return the middle and the width of the widest stretch from `low` to `high` without a run.

    Args:
        tried: ln of the values that were run, in any order; those outside count as the end beside them.
        low: Lower end of the range, ln.
        high: Upper end.

    Example:
        >>> widest([0.0, 1.0], 0.0, 4.0)
        (2.5, 3.0)
    """
    places = sorted({low, high, *(min(max(x, low), high) for x in tried)})
    width, start = max(((b - a, a) for a, b in pairwise(places)), default=(0.0, low))
    return start + 0.5 * width, width
