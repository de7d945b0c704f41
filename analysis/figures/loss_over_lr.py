"""The loss over the LR: the paper's Figure 1(b), and Figures 15 and 17 over the tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from raylr.analysis.figures.colours import Colour, ordered
from raylr.analysis.figures.curves import MOST_PANELS, MOST_RUNS, spread, thinned
from raylr.analysis.figures.description import Axis, Figure, Line, Mark, Panel, Points, loss_limits
from raylr.analysis.status import Status
from raylr.analysis.studyfit import FittedRun, SettingOptimum, StudyFit
from raylr.analysis.surface.surface import LossSurface
from raylr.analysis.units import format_count, format_lr

_GRID = 40
_CUTS = 5
"""Token counts at which the losses of a size are drawn."""
_FIRST = 0.25
"""The first of them, as a share of the largest budget."""


def loss_over_lr(fit: StudyFit, budget: int) -> Figure:
    """Describe the loss at `budget` over the LR with the curve through it, for every size (paper, Figure 1(b)).

    Args:
        fit: The fits of a study.
        budget: Tokens at which the losses are compared.
    """
    marks: list[Mark] = []
    shown: list[float] = []
    hollow = 0
    colours = ordered(len(fit.surfaces))
    known = []
    for (size, surface), colour in zip(fit.surfaces.items(), colours, strict=True):
        runs = [run for run in fit.runs if run.size == size]
        losses = final_losses([run for run in runs if not run.diverged], surface, budget)
        shown += [loss for _, loss, _ in losses]
        hollow += sum(not measured for *_, measured in losses)
        cell = next((c for c in fit.optima if c.size == size and c.tokens == budget), None)
        label = size
        if cell is not None and math.isfinite(cell.lr_opt):
            known.append(cell)
            label = f"{size}, optimum {format_lr(cell.lr_opt)}"
            marks.append(_curve(surface, runs, budget, colour, label))
            marks.append(_optimum(cell, colour, label))
        marks += _losses(losses, colour, label, f"{size}, ")
        gone = [run.lr for run in thinned([run for run in runs if run.diverged], MOST_RUNS)]
        if gone:
            marks.append(Points(x=gone, y=[math.nan] * len(gone), colour=colour, group=label, hover=size, size=6))
    low, high = loss_limits(shown)
    caption = "After Figure 1(b) of the paper. Filled points were measured at the full budget"
    caption += ", hollow ones are predicted for shorter runs from all runs of the size" if hollow else ""
    if known:
        caption += "; lines are raylr's model of the loss over the LR (near its optimum, Eq. 2 with a skew), triangles "
        caption += "the optima with their 90 % intervals"
    statement = f"At {format_count(budget)} tokens no size has a known optimum yet."
    if known:
        best = min(known, key=lambda cell: cell.loss)
        statement = (
            f"At {format_count(budget)} tokens the optimal LR is {_range([cell.lr_opt for cell in known])} over "
            f"{len(known)} of {len(fit.surfaces)} sizes; the lowest loss is {best.loss:.4f}, at size {best.size}."
        )
    panel = Panel(
        x=Axis("learning rate", scale="log", unit="lr"),
        y=Axis(f"validation loss at {format_count(budget)} tokens (nats)", low=low, high=high),
        marks=marks,
        note="" if marks else "no loss is known at the budget",
    )
    title = "Loss over the learning rate"
    return Figure(
        title=title,
        statement=statement,
        caption=f"{caption}.",
        panels=[panel],
        width=6.4,
        height=4.0,
        names=list(fit.surfaces),
    )


def over_tokens(fit: StudyFit, budget: int) -> Figure:
    """Describe the loss over the LR at several token counts, a panel a size (paper, Figures 15 and 17).

    Args:
        fit: The fits of a study.
        budget: The largest token count.
    """
    cuts = [float(t) for t in np.geomspace(_FIRST * budget, budget, _CUTS)]
    panels, moves = [], []
    sizes = spread(list(fit.surfaces), MOST_PANELS)
    for size in sizes:
        surface = fit.surfaces[size]
        runs = [run for run in fit.runs if run.size == size and not run.diverged]
        marks: list[Mark] = []
        shown: list[float] = []
        optima = []
        for tokens, colour in zip(cuts, ordered(len(cuts)), strict=True):
            label = f"{format_count(tokens)} tokens"
            losses = final_losses(runs, surface, tokens)
            shown += [loss for _, loss, _ in losses]
            marks += _losses(losses, colour, label, "")
            if surface.status is not Status.NOT_CONSTANT and losses:
                best = float(surface.lr_opt(tokens))
                if math.isfinite(best):
                    optima.append(best)
                    line = _curve(surface, runs, tokens, colour, label)
                    at = float(np.interp(math.log(best), np.log(line.x), line.y))
                    marks.append(line)
                    marks.append(
                        Points(
                            x=[best], y=[at], symbol="triangle", colour=colour, group=label, hover=f"optimum at {label}"
                        )
                    )
        if len(optima) > 1:
            moves.append((size, optima[0], optima[-1]))
        low, high = loss_limits(shown, share=0.8, room=0.25)
        panels.append(
            Panel(
                title=f"size {size}",
                x=Axis("learning rate", scale="log", unit="lr"),
                marks=marks,
                y=Axis("validation loss (nats)", low=low, high=high),
                note="" if marks else "no run went so far",
            )
        )
    statement = "No optimum is known at these token counts."
    if moves:
        size, first, last = max(moves, key=lambda move: abs(math.log(move[2] / move[1])))
        statement = (
            f"From {format_count(cuts[0])} to {format_count(cuts[-1])} tokens the optimal LR of size {size} goes from "
            f"{format_lr(first)} to {format_lr(last)}, a factor {last / first:.2f}."
        )
    caption = (
        "After Figures 15 and 17 of the paper. Filled points were measured; lines are raylr's model of the loss over "
        "the LR at each token count, triangles its optima."
    )
    if any(isinstance(mark, Points) and mark.symbol == "hollow" for panel in panels for mark in panel.marks):
        caption += " Hollow points are predicted from all runs of the size."
    if len(sizes) < len(fit.surfaces):
        caption += f" {len(sizes)} of {len(fit.surfaces)} sizes are drawn, spread evenly."
    return Figure(
        title="Loss over the learning rate as tokens grow",
        statement=statement,
        caption=caption,
        panels=panels,
        names=list(fit.surfaces),
    )


def final_losses(runs: Sequence[FittedRun], surface: LossSurface, budget: float) -> list[tuple[float, float, bool]]:
    """Return LR, loss at `budget` and whether it was measured, of each run that has one.

    Under a falling LR the surface predicts nothing, and the last loss of a run that ended there counts.

    Args:
        runs: Runs of one size that did not diverge.
        surface: Its surface.
        budget: Tokens.
    """
    if surface.status is Status.NOT_CONSTANT:
        return [(run.lr, float(run.loss[-1]), True) for run in runs if run.tokens[-1] >= budget]
    part = surface.section(float(budget))
    rows = zip(np.exp(part.log_lr), part.loss, part.measured, strict=True)
    return [(float(lr), float(loss), bool(known)) for lr, loss, known in rows if math.isfinite(loss)]


def _curve(surface: LossSurface, runs: Sequence[FittedRun], tokens: float, colour: Colour, label: str) -> Line:
    lrs = [run.lr for run in runs]
    grid = np.geomspace(min(lrs) / 1.3, max(lrs) * 1.3, _GRID)
    return Line(x=grid, y=np.asarray(surface.loss(grid, float(tokens))[0]), colour=colour, label=label)


def _losses(losses: Sequence[tuple[float, float, bool]], colour: Colour, label: str, prefix: str) -> list[Mark]:
    out: list[Mark] = []
    for measured, symbol in ((True, "circle"), (False, "hollow")):
        rows = [(lr, loss) for lr, loss, known in losses if known is measured]
        if rows:
            lrs, values = (list(part) for part in zip(*rows, strict=True))
            words = "measured" if measured else "predicted from all runs of the size"
            hover = [f"{prefix}LR {format_lr(lr)}, {words}" for lr in lrs]
            out.append(
                Points(
                    x=lrs,
                    y=values,
                    symbol="circle" if symbol == "circle" else "hollow",
                    colour=colour,
                    group=label,
                    hover=hover,
                )
            )
    return out


def _optimum(cell: SettingOptimum, colour: Colour, label: str) -> Points:
    return Points(
        x=[cell.lr_opt],
        y=[cell.loss],
        symbol="triangle",
        size=7,
        colour=colour,
        group=label,
        along="x",
        low=[cell.lr_low],
        high=[cell.lr_high],
        hover=f"optimum of {cell.size} ({cell.status})",
    )


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return format_lr(low) if high <= 1.0005 * low else f"{format_lr(low)} to {format_lr(high)}"
