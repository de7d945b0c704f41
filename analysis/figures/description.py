"""What a figure shows, as data: panels, axes, marks, captions.

`static` draws it with matplotlib (SVG, PNG), `interactive` describes it for plotly; both draw the same marks within the
same limits.

A module of a figure kind has one function, from fits to a `Figure`:

    >>> lr, loss = [1e-3, 2e-3, 4e-3, 8e-3], [3.21, 3.14, 3.12, math.nan]
    >>> panel = Panel(
    ...     x=Axis("learning rate", scale="log", unit="lr"),
    ...     y=Axis("loss (nats)"),
    ...     marks=[
    ...         Line(x=lr[:3], y=loss[:3], label="size S"),
    ...         Points(x=lr, y=loss, label="size S", hover=[f"run {i}" for i in range(4)]),  # NaN: a cross, on top
    ...         Points(x=[3e-3], y=[3.11], symbol="triangle", along="x", low=[2e-3], high=[math.inf]),  # open above
    ...     ],
    ... )
    >>> figure = Figure(
    ...     title="Loss over LR",
    ...     statement="The lowest loss of size S, 3.12, is at an LR of 4e-3.",
    ...     caption="Points are runs; the triangle is the optimum with its 90 % interval.",
    ...     panels=[panel],
    ... )

`raylr.analysis.figures.static.draw(figure)` is then a figure of matplotlib (`savefig` writes it).

The study's report takes any such figure: both forms, hover, legend and dark page come from the description.

Rules of marks
    label   an entry of the legend; marks of one label share it, and are hidden together
    group   marks without a label of their own are hidden together with the label that is named here
    hover   the first line of what is shown beside the pointer: the run
    NaN     a point whose y is NaN is a run that diverged: a cross at the upper edge; a line has a gap there
    edges   a point beyond the limits of its panel is a hollow triangle at that edge, its value is in the hover
    open    an interval that ends at 0, -inf, inf or NaN ends in an arrow at the panel's edge
The caption need not explain these three: `placing.edge_note` adds what is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.figures.colours import GREY, INK, Colour

Values: TypeAlias = Sequence[float] | NDArray[np.float64]
Style = Literal["solid", "dashed", "dotted"]
Symbol = Literal["circle", "hollow", "cross", "triangle", "star", "square", "diamond", "dot", "above", "below"]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What all marks have."""

    colour: Colour = INK
    label: str = ""
    """Entry of the legend; "" for none."""
    group: str = ""
    """Label that hides this mark too; "" for its own label."""


@dataclass(frozen=True, kw_only=True)
class Line(Mark):
    """A line through points; NaN makes a gap. With `z` a line of a panel in three dimensions."""

    x: Values
    y: Values
    z: Values | None = None
    style: Style = "solid"
    width: float = 1.4
    hover: str = ""


@dataclass(frozen=True, kw_only=True)
class Points(Mark):
    """Points, with intervals along an axis where `low` and `high` are given."""

    x: Values
    y: Values
    z: Values | None = None
    symbol: Symbol = "circle"
    size: float = 5.0
    """Width in points (1/72 inch)."""
    hover: Sequence[str] | str = ""
    """One text for each point, or one for all."""
    texts: Sequence[str] = ()
    """What is written beside each point."""
    low: Values | None = None
    """Lower end of each interval; 0, -inf or NaN: open."""
    high: Values | None = None
    """Upper end of each interval; inf or NaN: open."""
    along: Literal["x", "y"] = "y"
    """Axis of the intervals."""
    edges: bool = True
    """Whether points beyond the limits, and those without a y, are drawn at the edge; otherwise they are not seen."""


@dataclass(frozen=True, kw_only=True)
class Band(Mark):
    """A shaded range of y over x; the ends are cut at the panel's limits."""

    x: Values
    low: Values
    high: Values


@dataclass(frozen=True, kw_only=True)
class Boxes(Mark):
    """Filled rectangles: bars, ranges in which something is expected. Infinite sides run to the panel's edge."""

    x_low: Values
    x_high: Values
    y_low: Values
    y_high: Values
    hover: Sequence[str] | str = ""
    alpha: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Rule(Mark):
    """A straight line across the panel at one value of an axis."""

    at: float
    axis: Literal["x", "y"] = "x"
    """The axis that `at` is a value of: "x" for a vertical line."""
    style: Style = "dashed"
    colour: Colour = GREY


@dataclass(frozen=True, kw_only=True)
class Map(Mark):
    """Values of `z` over a grid, as colours with a colour bar; in a panel with a z axis a surface."""

    x: Values
    """(columns,)"""
    y: Values
    """(rows,)"""
    z: NDArray[np.float64]
    """(rows, columns); NaN is left blank."""
    bar: str = ""
    """What the colour bar says."""
    log_lr: bool = False
    """Whether `z` is log10 of an LR: the colour bar is marked by LRs then."""


@dataclass(frozen=True)
class Axis:
    """An axis. Limits that are not given are those of the marks."""

    label: str
    _: KW_ONLY
    scale: Literal["linear", "log"] = "linear"
    unit: Literal["number", "count", "lr"] = "number"
    """How values are written: 0.25, 1.5B, or 3e-4."""
    low: float | None = None
    high: float | None = None
    ticks: Mapping[float, str] | None = None
    """Value → text of every tick; None: chosen by the limits."""
    reverse: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes with marks on it; with `z` a view in three dimensions that can be turned."""

    x: Axis
    y: Axis
    marks: Sequence[Mark]
    z: Axis | None = None
    title: str = ""
    note: str = ""
    """What is written into a panel without marks."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure: its panels, and the words around them."""

    title: str
    """A few words: what is drawn."""
    statement: str
    """One sentence: what the data show, with its number."""
    caption: str
    """What the marks are. It must be true of what is drawn here."""
    panels: Sequence[Panel]
    columns: int = 3
    """Panels side by side, at most."""
    width: float = 4.4
    """Width of a panel, inches."""
    height: float = 3.5
    """Height of a panel, inches."""
    legend_order: Sequence[str] = ()
    """Labels that come first in the legend, in this order; the others follow in the order of the panels."""
    names: Sequence[str] = field(default=())
    """Names from outside (sizes, runs) in the texts: where no font has their characters the static form shows a number
    for each, which the report explains."""


def legend(figure: Figure) -> dict[str, Mark]:
    """Return label → the mark that stands for it in the legend, in the figure's order.

    Args:
        figure: Any figure.

    Returns:
        Of several marks with one label, points come before lines, and lines before areas.
    """
    rank = {Points: 0, Line: 1, Rule: 2}
    found: dict[str, Mark] = {}
    for panel in figure.panels:
        for mark in panel.marks:
            if mark.label and (
                mark.label not in found or rank.get(type(mark), 3) < rank.get(type(found[mark.label]), 3)
            ):
                found[mark.label] = mark
    first = {label: found[label] for label in figure.legend_order if label in found}
    return first | found


def finite(values: Values | None) -> NDArray[np.float64]:
    """Return the finite ones of some values."""
    array = np.asarray([] if values is None else values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]


def loss_limits(losses: Values, share: float = 0.75, room: float = 0.6) -> tuple[float | None, float | None]:
    """Return limits of a loss axis that show the best losses well; those far above are drawn at the edge.

    Args:
        losses: Losses, NaN for runs that diverged (n,).
        share: Quantile of the losses that must be seen.
        room: Space above it, as a share of the range.

    Returns:
        Limits, or (None, None) without a finite loss.
    """
    known = finite(losses)
    if not known.size:
        return None, None
    low, top = float(known.min()), float(np.quantile(known, share))
    span = max(top - low, 1e-3 * abs(low), 1e-9)
    return low - 0.12 * span, top + room * span


def is_open(end: float, log: bool) -> bool:
    """Return whether the end of an interval is open."""
    return not math.isfinite(end) or (log and end <= 0)
