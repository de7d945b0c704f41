"""The figure of a module-wise search: the loss over the LR of each module (the paper's Figures 5 and 19 to 23)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raylr.analysis._checks import Array
from raylr.analysis.figures.colours import Colour, ordered
from raylr.analysis.figures.description import Axis, Band, Figure, Line, Mark, Panel, Points, Rule, finite, loss_limits
from raylr.analysis.units import format_lr

_ROOM = 1.15
"""Factor by which a panel reaches beyond the outermost run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModuleCurve:
    """The loss of one size over the LR (or another hyperparameter) of one module."""

    module: str
    """The panel."""
    size: str
    """The colour."""
    tried: Array
    """Values of the runs (n,)."""
    loss: Array
    """Their losses, nats; NaN where a run diverged (n,)."""
    grid: Array
    """Values of the fitted curve (m,), rising."""
    mean: Array
    """Expected losses there (m,)."""
    sd: Array
    """Their standard deviations (m,)."""
    start: float
    """The global value; NaN in the panel in which that is searched."""
    start_loss: float
    """Loss at it; NaN if it is not known."""
    best: float
    """The value that was found."""
    low: float
    """Ends of its 90 % interval; 0 and inf where open."""
    high: float
    off_curve: bool = False
    """Whether the runs differ in other modules too, so that they do not lie on the curve."""


def module_losses(curves: Sequence[ModuleCurve], label: str = "LR") -> Figure:
    """Describe the loss over the LR of each module, a panel a module, a colour a size.

    Args:
        curves: The curves of all panels, panels in their order.
        label: What the horizontal axes show.

    Returns:
        Runs (points), the fitted curves with their standard deviation, the optimum of each (triangle) with its 90 %
        interval, the global value (star) and the loss there (dashed line).
    """
    names = list(dict.fromkeys(curve.module for curve in curves))
    sizes = list(dict.fromkeys(curve.size for curve in curves))
    colours = dict(zip(sizes, ordered(len(sizes)), strict=True))
    panels = []
    for name in names:
        parts = [curve for curve in curves if curve.module == name]
        ends = np.concatenate([[*curve.tried, curve.best] for curve in parts])
        shown = [*(loss for curve in parts for loss in curve.loss), *(curve.start_loss for curve in parts)]
        low, high = loss_limits(shown, share=0.9, room=0.3)
        lowest = finite([_at_best(curve) for curve in parts])
        if low is not None and high is not None and lowest.size:  # an optimum may lie below every run
            low = min(low, float(lowest.min()) - 0.08 * (high - low))
        panels.append(
            Panel(
                title=name,
                x=Axis(
                    f"{label} of {name}" if label == "LR" else label,
                    scale="log",
                    unit="lr",
                    low=float(ends.min()) / _ROOM,
                    high=float(ends.max()) * _ROOM,
                ),
                y=Axis("loss (nats)", low=low, high=high),
                marks=[mark for curve in parts for mark in _marks(curve, colours[curve.size])],
            )
        )
    hollow = any(curve.off_curve for curve in curves)
    caption = "After Figures 5 and 19 to 23 of the paper: the loss over the LR of each module, the others held. "
    caption += "Lines are the fitted curves with their standard deviation, "
    caption += "hollow points runs that differ in the other modules too" if hollow else "points are runs"
    caption += ", triangles the optima with their 90 % intervals"
    if any(math.isfinite(curve.start_loss) for curve in curves):
        caption += "; the star is the global value, the dashed line the loss there"
    return Figure(
        title="The loss over the LR of each module",
        statement=_statement(curves, label),
        caption=f"{caption}.",
        panels=panels,
        width=4.2,
        height=3.4,
        names=[*sizes, *names],
    )


def _statement(curves: Sequence[ModuleCurve], label: str) -> str:
    moved = [curve for curve in curves if curve.start > 0 and curve.best > 0]
    if not moved:
        return "No optimum of a module is known yet."
    far = max(moved, key=lambda curve: abs(math.log(curve.best / curve.start)))
    inside = far.low <= far.start <= far.high
    return (
        f"Of {len(moved)} optima of modules, that of {far.module} at size {far.size} is farthest from the global "
        f"{label}: {format_lr(far.best)}, a factor {far.best / far.start:.2f}, "
        f"{'inside' if inside else 'outside'} its interval."
    )


def _at_best(curve: ModuleCurve) -> float:
    return float(np.interp(curve.best, curve.grid, curve.mean))


def _marks(curve: ModuleCurve, colour: Colour) -> list[Mark]:
    size = curve.size
    marks: list[Mark] = [
        Line(x=curve.grid, y=curve.mean, colour=colour, group=size, hover=f"{size}, fitted", width=1.2),
        Band(x=curve.grid, low=curve.mean - curve.sd, high=curve.mean + curve.sd, colour=colour, group=size),
        Points(
            x=curve.tried,
            y=curve.loss,
            symbol="hollow" if curve.off_curve else "circle",
            size=4,
            colour=colour,
            label=size,
            hover=f"{size}, {curve.module}",
        ),
        Points(
            x=[curve.best],
            y=[_at_best(curve)],
            symbol="triangle",
            size=6,
            colour=colour,
            group=size,
            along="x",
            low=[curve.low],
            high=[curve.high],
            hover=f"{size}: optimum of {curve.module}",
        ),
    ]
    if math.isfinite(curve.start_loss):
        marks.append(Rule(axis="y", at=curve.start_loss, colour=colour, group=size))
        if math.isfinite(curve.start):
            marks.append(
                Points(
                    x=[curve.start],
                    y=[curve.start_loss],
                    symbol="star",
                    size=5,
                    colour=colour,
                    group=size,
                    hover=f"{size}: global value",
                )
            )
    return marks
