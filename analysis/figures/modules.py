"""The picture of a module-wise search: the loss over the LR of each module (the paper's Figures 5 and 19 to 23)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raylr.analysis._checks import Array
from raylr.analysis.figures._drawing import GREY, Colour, labels_of, mark_ticks, new_figure, size_colours, styled
from raylr.analysis.units import format_lr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3
"""Panels side by side."""
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


@styled
def module_losses(curves: Sequence[ModuleCurve], label: str = "LR") -> Figure:
    """Draw the loss over the LR of each module, a panel a module, a colour a size.

    Args:
        curves: The curves of all panels, panels in their order.
        label: What the horizontal axes show.

    Returns:
        Runs (points), the fitted curves with their standard deviation, the optimum of each (triangle) with its 90 %
        interval (bar; an open end has an arrow), the global value (star) and the loss there (dashed line).
    """
    panels = list(dict.fromkeys(curve.module for curve in curves))
    sizes = list(dict.fromkeys(curve.size for curve in curves))
    columns = min(_COLUMNS, max(len(panels), 1))
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(rows, columns, width=4.2, height=3.4)
    names, shown = labels_of(sizes), labels_of(panels)
    colours = dict(zip(sizes, size_colours(len(sizes)), strict=True))
    for ax, panel in zip(axes, panels, strict=False):
        parts = [curve for curve in curves if curve.module == panel]
        for place, curve in enumerate(parts):
            _draw(ax, curve, colours[curve.size], names[curve.size], place)
        ends = np.concatenate([[*curve.tried, curve.best] for curve in parts])
        ax.set_xscale("log")
        ax.set_xlim(ends.min() / _ROOM, ends.max() * _ROOM)
        mark_ticks(ax.xaxis, format_lr)
        ax.set_xlabel(f"{label} of {shown[panel]}" if label == "LR" else label)
        ax.set_ylabel("loss (nats)")
        ax.set_title(shown[panel])
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    if len(sizes) > 1 and axes:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(sizes), 6))
    return figure


def _draw(ax: Axes, curve: ModuleCurve, colour: Colour, name: str, place: int) -> None:
    finite = np.isfinite(curve.loss)
    ax.plot(curve.grid, curve.mean, "-", lw=1.2, color=colour)
    ax.fill_between(curve.grid, curve.mean - curve.sd, curve.mean + curve.sd, color=colour, alpha=0.12, lw=0)
    filled = "none" if curve.off_curve else colour
    ax.plot(curve.tried[finite], curve.loss[finite], "o", ms=4, color=colour, markerfacecolor=filled, label=name)
    top = ax.get_xaxis_transform()
    if (~finite).any():
        ax.plot(curve.tried[~finite], np.full(int((~finite).sum()), 0.97), "x", ms=6, color=colour, transform=top)
    if math.isfinite(curve.start_loss):
        ax.axhline(curve.start_loss, color=colour, ls="--", lw=0.8)
        if math.isfinite(curve.start):
            ax.plot([curve.start], [curve.start_loss], "*", ms=9, color=colour, zorder=4)
    ax.plot([curve.best], [np.interp(curve.best, curve.grid, curve.mean)], "^", ms=7, color=colour, zorder=5)
    first, last = min(*curve.tried, curve.best) / _ROOM, max(*curve.tried, curve.best) * _ROOM
    height = 0.03 + 0.03 * place
    low, high = max(curve.low, first), min(curve.high, last)
    ax.plot([low, high], [height, height], "-", lw=3, color=colour, alpha=0.6, transform=top, solid_capstyle="butt")
    for end, given, marker in ((low, curve.low, "<"), (high, curve.high, ">")):
        if end != given:
            ax.plot([end], [height], marker, ms=6, color=colour or GREY, transform=top, clip_on=False)
