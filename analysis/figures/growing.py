"""Runs as they grow: what was measured so far, before anything is fitted to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raylr.analysis.figures.colours import ACCENT
from raylr.analysis.figures.curves import (
    MOST_CURVES,
    MOST_PANELS,
    MOST_RUNS,
    colours_of,
    labels_of,
    loss_axis,
    measured,
    spread,
    thinned,
)
from raylr.analysis.figures.description import Axis, Figure, Mark, Panel, Points
from raylr.analysis.units import format_count, format_lr


@dataclass(frozen=True, kw_only=True)
class GrowingRun:
    """What was measured of a run so far."""

    trial: str
    place: str
    """The panel that it is drawn in, such as its size."""
    lr: float
    tokens: np.ndarray
    """[evaluations], increasing."""
    loss: np.ndarray
    """[evaluations], nats; NaN where the run diverged."""
    diverged: bool
    ended: bool
    """Whether it has ended or was paused."""


def growing(runs: Sequence[GrowingRun]) -> Figure:
    """Describe the losses of all runs over tokens, a panel a place; runs that have not ended have a ring at their end.

    Args:
        runs: One or more.

    Example:
        >>> run = GrowingRun(trial="a", place="S", lr=1e-3, tokens=np.array([1e6, 2e6]), loss=np.array([4.0, 3.5]),
        ...                  diverged=False, ended=False)
        >>> growing([run]).statement
        '1 run has not ended; the lowest loss so far is 3.5000, of S at LR 1.00e-3 after 2M tokens.'
    """
    groups: dict[str, list[GrowingRun]] = {}
    for run in runs:
        groups.setdefault(run.place, []).append(run)
    places = spread(list(groups), MOST_PANELS)
    most = max(4, min(MOST_RUNS, MOST_CURVES // len(places)))
    shown = {place: thinned(sorted(groups[place], key=lambda run: run.lr), most) for place in places}
    colours = colours_of([run for own in shown.values() for run in own])
    panels = []
    for place, own in shown.items():
        marks: list[Mark] = [mark for run in own for mark in measured(run, colours[run.lr], joined=True)]
        ends = [(run, _last(run)) for run in own if not run.ended]
        rings = [(run, end) for run, end in ends if end is not None]
        if rings:
            hover = [f"{run.trial}, LR {format_lr(run.lr)}" for run, _ in rings]
            marks.append(
                Points(
                    x=[at for _, (at, _) in rings], y=[loss for _, (_, loss) in rings], symbol="hollow", size=8,
                    colour=ACCENT, label="not ended", hover=hover, edges=False,
                )
            )  # fmt: skip
        panels.append(
            Panel(
                title=place,
                x=Axis("tokens", unit="count", low=0.0),
                y=loss_axis(own),
                marks=marks,
            )
        )
    drawn = sum(map(len, shown.values()))
    caption = "A line a run, coloured by its LR."
    if any(not run.ended for run in runs):
        caption += " A ring is the last loss of a run that has not ended."
    if drawn < len(runs):
        caption += f" {drawn} of {len(runs)} runs are drawn, spread evenly over their LRs and sizes."
    return Figure(
        title="Losses so far", statement=_statement(runs), caption=caption, panels=panels,
        width=6.4 if len(panels) == 1 else 4.4, names=list(groups),
        legend_order=labels_of([run for own in shown.values() for run in own]),
    )  # fmt: skip


def _statement(runs: Sequence[GrowingRun]) -> str:
    going, ended = sum(not run.ended for run in runs), sum(run.ended for run in runs)
    text = f"{going or ended} {'run has' if (going or ended) == 1 else 'runs have'}{' not' if going else ''} ended"
    text += f", {ended} {'has' if ended == 1 else 'have'}" if going and ended else ""
    lows = [(float(np.nanmin(run.loss)), run) for run in runs if np.isfinite(run.loss).any()]
    if not lows:
        return f"{text}; no loss is finite."
    loss, run = min(lows, key=lambda one: one[0])
    at = float(run.tokens[int(np.nanargmin(run.loss))])
    where = f"{run.place} at LR {format_lr(run.lr)} after {format_count(at)} tokens"
    return f"{text}; the lowest loss so far is {loss:.4f}, of {where}."


def _last(run: GrowingRun) -> tuple[float, float] | None:
    """Return tokens and loss of the last measurement; None if it is not finite."""
    if not run.tokens.size or not math.isfinite(float(run.loss[-1])):
        return None
    return float(run.tokens[-1]), float(run.loss[-1])
