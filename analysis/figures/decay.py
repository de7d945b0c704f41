"""The picture of a decay: the loss over the LR before it and after it, with both optima."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raylr.analysis.figures.colours import ACCENT, GREY
from raylr.analysis.figures.description import Axis, Figure, Line, Mark, Panel, Points, loss_limits
from raylr.analysis.surface.decayed import DecayedOptimum
from raylr.analysis.units import format_count, format_lr

if TYPE_CHECKING:
    from raylr.analysis.studyfit import StudyFit

_SIGMAS = 1.6449
_STABLE, _DECAYED = "constant LR", "after the decay"


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
    optimum_loss: float
    """Loss there."""
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
                title=f"{size} at {format_count(budget)} tokens", lrs=np.exp(part.log_lr).tolist(),
                losses=part.loss.tolist(), optimum=(before.lr_opt, before.lr_low, before.lr_high),
                optimum_loss=before.loss, decayed=fit.decayed[size, budget],
            )
        )  # fmt: skip
    return panels


def before_and_after(panels: Sequence[DecayPanel]) -> Figure:
    """Describe the loss over the LR at a constant LR and after a decay, a panel a setting.

    Args:
        panels: The settings.
    """
    ratios = [one.decayed.lr / one.optimum[0] for one in panels]
    ratios = [ratio for ratio in ratios if math.isfinite(ratio) and ratio > 0]
    statement = "No setting has an optimum both before and after the decay."
    if ratios:
        low, high = f"{min(ratios):.2g}", f"{max(ratios):.2g}"
        span = low if low == high else f"{low} to {high}"
        statement = f"After the decay the optimal LR is {span} times that at a constant LR."
    caption = "Filled points were measured after the decay; squares are losses at a constant LR. Triangles are the "
    caption += "optima with their 90 % intervals."
    if any((~one.decayed.measured).any() for one in panels):
        caption += " Hollow points are predicted by the annealing law, with 90 % intervals."
    return Figure(
        title="Loss over the learning rate before and after the decay", statement=statement, caption=caption,
        panels=[_panel(one) for one in panels], names=[one.title for one in panels],
    )  # fmt: skip


def _panel(panel: DecayPanel) -> Panel:
    after = panel.decayed
    known, guessed, half = after.measured, ~after.measured, _SIGMAS * after.stderr
    hover = [f"LR {format_lr(lr)}" for lr in panel.lrs]
    marks: list[Mark] = [
        Line(x=panel.lrs, y=panel.losses, colour=GREY, group=_STABLE, style="dashed", width=1.0),
        Points(x=panel.lrs, y=panel.losses, colour=GREY, label=_STABLE, symbol="square", hover=hover),
        Line(x=after.lrs, y=after.losses, colour=ACCENT, group=_DECAYED, width=1.0),
        Points(x=after.lrs[known], y=after.losses[known], colour=ACCENT, label=_DECAYED,
               hover=[f"LR {format_lr(lr)}, measured" for lr in after.lrs[known]]),
    ]  # fmt: skip
    if guessed.any():
        loss = after.losses[guessed]
        marks.append(
            Points(x=after.lrs[guessed], y=loss, low=loss - half[guessed], high=loss + half[guessed], symbol="hollow",
                   colour=ACCENT, group=_DECAYED,
                   hover=[f"LR {format_lr(lr)}, predicted" for lr in after.lrs[guessed]])
        )  # fmt: skip
    optima = ((panel.optimum, panel.optimum_loss, GREY, _STABLE),
              ((after.lr, *after.interval(0.9)), after.loss[0], ACCENT, _DECAYED))  # fmt: skip
    for (lr, left, right), loss_there, colour, group in optima:
        if math.isfinite(lr) and math.isfinite(loss_there):
            marks.append(
                Points(x=[lr], y=[loss_there], low=[left], high=[right], along="x", symbol="triangle", size=7,
                       colour=colour, group=group, hover=f"optimum, {group}")
            )  # fmt: skip
    low, high = loss_limits([*panel.losses, *after.losses], share=0.85, room=0.3)
    return Panel(
        title=panel.title, x=Axis("learning rate", scale="log", unit="lr"),
        y=Axis("validation loss (nats)", low=low, high=high), marks=marks,
    )  # fmt: skip
