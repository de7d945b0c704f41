"""Colours of figures: one pair a colour, for light and for dark pages; all scales survive deuteranopia.

What has an order (LRs, sizes, budgets, steps) is drawn in viridis, whose lightness rises with the value; what has none
(arms, suites, module groups) in the palette of Okabe and Ito.

References:
    Okabe and Ito 2008, "Color Universal Design".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """A colour on a light page and the one that takes its place on a dark page, as #rrggbb."""

    light: str
    dark: str


INK = Colour("#1f2430", "#e8eaee")
GREY = Colour("#7a808a", "#9aa1ac")
ACCENT = Colour("#c2410c", "#fb923c")
SOFT = Colour("#dfe3ea", "#343a45")

_OKABE_ITO = (
    Colour("#0072b2", "#3f9bd6"),
    Colour("#d55e00", "#e57a2a"),
    Colour("#009e73", "#1fbf93"),
    Colour("#cc79a7", "#d993ba"),
    Colour("#e69f00", "#f0e442"),
    Colour("#56b4e9", "#8fcdf2"),
    INK,
)
_LIGHT, _DARK = (0.0, 0.84), (0.3, 1.0)
"""Parts of viridis that stand out from a white and from a dark page."""


def categories(count: int) -> list[Colour]:
    """Return `count` colours for things without an order; beyond seven, those of `ordered`.

    Args:
        count: How many.
    """
    return list(_OKABE_ITO[:count]) if count <= len(_OKABE_ITO) else ordered(count)


def ordered(count: int) -> list[Colour]:
    """Return `count` colours in ascending order of lightness.

    Args:
        count: How many.

    Example:
        >>> ordered(1)
        [Colour(light='#287d8e', dark='#2fb47c')]
    """
    return [_viridis(i / (count - 1) if count > 1 else 0.5) for i in range(count)]


def by_value(values: Sequence[float]) -> list[Colour]:
    """Return a colour for each value above zero, by its place between the lowest and the highest logarithm.

    Args:
        values: LRs, tokens, parameters (n,).
    """
    if not len(values):
        return []
    logs = [math.log(value) for value in values]
    low, high = min(logs), max(logs)
    return [_viridis((one - low) / (high - low) if high > low else 0.5) for one in logs]


def _viridis(share: float) -> Colour:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    light, dark = (to_hex(colormaps["viridis"](a + (b - a) * share)) for a, b in (_LIGHT, _DARK))
    return Colour(light, dark)
