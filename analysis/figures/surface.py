"""The loss over LR and tokens in three dimensions: the paper's Figure 16."""

from __future__ import annotations

import math

import numpy as np

from raylr.analysis.figures.colours import ACCENT
from raylr.analysis.figures.curves import MOST_RUNS, thinned
from raylr.analysis.figures.description import Axis, Figure, Line, Map, Mark, Panel, Points, loss_limits
from raylr.analysis.status import Status
from raylr.analysis.studyfit import FittedRun, StudyFit
from raylr.analysis.surface.surface import LossSurface
from raylr.analysis.units import format_count, format_lr

MOST_SIZES = 3
"""Surfaces that are drawn: browsers hold few views in three dimensions."""
_COLUMNS, _ROWS = 24, 9
_FIRST = 0.25
"""Where the surface begins, as a share of the budget: before it the losses are those of the burn-in."""
_SHOWN = 20
"""Points of a run."""


def loss_surface(fit: StudyFit, budget: int) -> Figure | None:
    """Describe the loss over LR and tokens, a panel a size (paper, Figure 16).

    Args:
        fit: The fits of a study.
        budget: The largest token count.

    Returns:
        The figure, of the smallest, a middle and the largest size at most; None where no size has a surface.
    """
    usable = [
        size
        for size, surface in fit.surfaces.items()
        if surface.posterior is not None and surface.status is not Status.NOT_CONSTANT
    ]
    if not usable:
        return None
    chosen = [
        usable[i] for i in np.unique(np.linspace(0, len(usable) - 1, min(MOST_SIZES, len(usable))).round().astype(int))
    ]
    panels, moves = [], []
    for size in chosen:
        runs = [run for run in fit.runs if run.size == size and not run.diverged]
        found = _panel(size, runs, fit.surfaces[size], float(budget)) if runs else None
        if found is not None:
            panels.append(found[0])
            moves.append(found[1])
    if not panels:
        return None
    size, first, last, fall = moves[-1]
    statement = (
        f"From {format_count(_FIRST * budget)} to {format_count(budget)} tokens the lowest loss of size {size} falls "
        f"by {fall:.3f} nats, and its LR goes from {format_lr(first)} to {format_lr(last)}."
    )
    caption = (
        "After Figure 16 of the paper. The surface is the fitted loss over LR and tokens, points were measured, the "
        "line is the path of the optimal LR."
    )
    if len(panels) < len(fit.surfaces):
        caption += f" {len(panels)} of {len(fit.surfaces)} sizes are drawn."
    return Figure(
        title="Loss over LR and tokens", statement=statement, caption=caption, panels=panels, height=4.2, names=chosen
    )


def _panel(
    size: str, runs: list[FittedRun], surface: LossSurface, budget: float
) -> tuple[Panel, tuple[str, float, float, float]] | None:
    lrs = [run.lr for run in runs]
    x = np.geomspace(min(lrs), max(lrs), _COLUMNS)
    y = np.geomspace(_FIRST * budget, budget, _ROWS)
    z = np.array([np.asarray(surface.loss(x, tokens)[0]) for tokens in y])
    best = np.asarray(surface.lr_opt(y))
    lowest = np.array([np.interp(np.log(lr), np.log(x), row) for lr, row in zip(best, z, strict=True)])
    _, high = loss_limits(z.ravel(), share=0.85, room=0.8)
    if high is None or not np.isfinite(lowest[[0, -1]]).all():
        return None
    z = np.where(z > high, math.nan, z)
    marks: list[Mark] = [Map(x=x, y=y, z=z, bar="loss")]
    points: list[tuple[float, float, float, str]] = []
    for run in thinned(runs, MOST_RUNS):
        use = (run.tokens >= y[0]) & (run.tokens <= 1.001 * budget) & (run.loss <= high)
        at = np.flatnonzero(use)
        at = at[np.unique(np.linspace(0, at.size - 1, min(_SHOWN, at.size)).round().astype(int))] if at.size else at
        points += [(run.lr, float(run.tokens[i]), float(run.loss[i]), run.trial) for i in at]
    if points:
        px, py, pz, names = (list(part) for part in zip(*points, strict=True))
        marks.append(Points(x=px, y=py, z=pz, size=2.5, hover=names, label="measured"))
    marks.append(Line(x=best, y=y, z=lowest, colour=ACCENT, width=2.5, label="optimal LR"))
    panel = Panel(
        title=f"size {size}",
        x=Axis("learning rate", scale="log", unit="lr"),
        y=Axis("tokens", scale="log", unit="count"),
        z=Axis("loss (nats)"),
        marks=marks,
    )
    return panel, (size, float(best[0]), float(best[-1]), float(lowest[0] - lowest[-1]))
