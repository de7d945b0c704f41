"""The picture of a decay: the loss over the LR before it and after it, with both optima."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raylr.analysis.figures._drawing import ACCENT, GREY, mark_ticks, new_figure, styled
from raylr.analysis.surface.decayed import DecayedOptimum
from raylr.analysis.units import format_count, format_lr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raylr.analysis.studyfit import StudyFit

_SIGMAS = 1.6449
_COLUMNS = 3
"""Panels side by side."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DecayPanel:
    """The losses of one setting before and after a decay."""

    title: str
    lrs: Sequence[float]
    """LRs of the losses at a constant LR."""
    losses: Sequence[float]
    """Those losses, nats."""
    optimum: tuple[float, float, float]
    """The best LR at a constant LR and the ends of its 90 % interval; 0 and inf where open, NaN without one."""
    decayed: DecayedOptimum
    """The same after the decay."""


def study_panels(fit: StudyFit, budget: int) -> list[DecayPanel]:
    """Return a panel for each size of a study whose objective is decayed, at one budget."""
    panels = []
    for size, surface in fit.surfaces.items():
        before = next(one for one in fit.stable if one.size == size and one.tokens == budget)
        part = surface.section(float(budget))
        panels.append(
            DecayPanel(
                title=f"{size} at {format_count(budget)} tokens",
                lrs=np.exp(part.log_lr).tolist(),
                losses=part.loss.tolist(),
                optimum=(before.lr_opt, before.lr_low, before.lr_high),
                decayed=fit.decayed[size, budget],
            )
        )
    return panels


@styled
def before_and_after(panels: Sequence[DecayPanel]) -> Figure:
    """Draw the loss over the LR at a constant LR and after a decay, a panel a setting.

    Filled points were measured after the decay; hollow ones are predicted by the annealing law, with their 90 %
    intervals. Squares are losses at a constant LR. Triangles are the optima, bars their 90 % intervals; an open end
    goes to the edge.
    """
    columns = min(_COLUMNS, max(len(panels), 1))
    figure, axes = new_figure(-(-len(panels) // columns), columns, width=4.2, height=3.5)
    for ax, panel in zip(axes, panels, strict=False):
        _draw(ax, panel)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    axes[0].set_ylabel("validation loss (nats)")
    axes[0].legend(loc="upper left")
    return figure


def _draw(ax: Axes, panel: DecayPanel) -> None:
    after = panel.decayed
    ax.plot(panel.lrs, panel.losses, "s--", color=GREY, ms=4, lw=1, label="constant LR")
    known, open_ones = after.measured, ~after.measured
    ax.plot(after.lrs, after.losses, "-", color=ACCENT, lw=1)
    ax.plot(after.lrs[known], after.losses[known], "o", color=ACCENT, ms=5, label="decayed, measured")
    if open_ones.any():
        ax.errorbar(after.lrs[open_ones], after.losses[open_ones], _SIGMAS * after.stderr[open_ones], fmt="o",
                    color=ACCENT, mfc="white", ms=5, lw=1, capsize=2, label="decayed, predicted")  # fmt: skip
    shown = np.concatenate([np.asarray(panel.losses, float), after.losses])
    shown = shown[np.isfinite(shown)]
    low, high = (float(shown.min()), float(np.quantile(shown, 0.9))) if shown.size else (0.0, 1.0)
    step = 0.08 * max(high - low, 1e-6)
    ax.set_ylim(low - 3.2 * step, high + 4 * step)
    ends = min([*panel.lrs, *after.lrs], default=1e-4) / 1.3, max([*panel.lrs, *after.lrs], default=1e-2) * 1.3
    ax.set_xscale("log")
    ax.set_xlim(*ends)
    optima = ((panel.optimum, GREY), ((after.lr, *after.interval(0.9)), ACCENT))
    for row, ((lr, left, right), colour) in enumerate(optima):
        at = low - (1 + row) * step
        if math.isfinite(lr):
            ax.plot([max(left, ends[0]), min(right, ends[1])], [at, at], "-", color=colour, lw=2)
            ax.plot([lr], [at], "^", color=colour, ms=6)
    mark_ticks(ax.xaxis, format_lr)
    ax.set_xlabel("learning rate")
    ax.set_title(panel.title)
