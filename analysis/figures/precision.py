"""How well Eq. 4 predicted what came later: the paper's Figures 12 and 13, for the runs of a study."""

from __future__ import annotations

import math

import numpy as np

from raylr.analysis.curves.power_law import fit_power_law
from raylr.analysis.figures.colours import ordered
from raylr.analysis.figures.curves import thinned
from raylr.analysis.figures.description import Axis, Band, Figure, Line, Mark, Panel, Points, Rule, Symbol, loss_limits
from raylr.analysis.status import Status
from raylr.analysis.studyfit import StudyFit
from raylr.analysis.units import format_lr

SHARE = 0.6
"""Part of each run that is fitted: the paper fits 120 of 200 billion tokens."""
_MOST = 8
"""Runs of the figure."""
_LEAST = 10
"""Fewest reports of a run that is drawn."""
_GRID = 60
_SIGMAS = 1.6449


def precision(fit: StudyFit) -> Figure | None:
    """Describe the first part of runs with the power law through it, and what came after (paper, Figures 12 and 13).

    Args:
        fit: The fits of a study.

    Returns:
        The figure, of runs of the largest size with long enough curves; None where there are none.
    """
    size = list(fit.surfaces)[-1]
    own = [
        run
        for run in fit.runs
        if run.size == size
        and not run.diverged
        and run.tokens.size >= _LEAST
        and run.power_law.status is not Status.NOT_CONSTANT
    ]
    marks: list[Mark] = []
    shown: list[float] = []
    missed, foreseen = [], 0
    cuts = []
    drawn = thinned(own, _MOST)
    for run, colour in zip(drawn, ordered(len(drawn)), strict=True):
        first = run.tokens <= SHARE * run.tokens[-1]
        law = fit_power_law(run.tokens[first], run.loss[first], schedule=run.schedule)
        if law.forecast is None:
            continue
        cuts.append(float(run.tokens[first][-1]))
        label, name = format_lr(run.lr), f"{run.trial}, LR {format_lr(run.lr)}"
        grid = np.geomspace(max(law.burn_in, float(run.tokens[0])), float(run.tokens[-1]), _GRID)
        loss, stderr = (np.asarray(part, dtype=np.float64) for part in law.predict(grid))
        ahead = grid >= cuts[-1]
        marks.append(Line(x=grid, y=loss, colour=colour, label=label, hover=f"{name}, fitted to its first {SHARE:.0%}"))
        marks.append(
            Band(
                x=grid[ahead],
                low=(loss - _SIGMAS * stderr)[ahead],
                high=(loss + _SIGMAS * stderr)[ahead],
                colour=colour,
                group=label,
            )
        )
        symbols: tuple[Symbol, Symbol] = ("circle", "hollow")
        for part, symbol in zip((first, ~first), symbols, strict=True):
            marks.append(
                Points(
                    x=run.tokens[part],
                    y=run.loss[part],
                    symbol=symbol,
                    size=3.5,
                    colour=colour,
                    group=label,
                    hover=name,
                )
            )
        at, error = law.predict(run.tokens[-3:])
        miss = float(np.mean(run.loss[-3:] - np.asarray(at)))
        missed.append(miss / float(np.mean(run.loss[-3:])))
        spread = math.hypot(
            float(np.mean(np.asarray(error))), 0.0 if math.isnan(law.noise) else law.noise / math.sqrt(3)
        )
        foreseen += abs(miss) <= _SIGMAS * spread
        shown += run.loss[run.tokens >= 0.15 * run.tokens[-1]].tolist()
    if not missed:
        return None
    low, high = loss_limits(shown, share=0.9, room=0.2)
    marks += [Rule(at=cut) for cut in sorted(set(cuts))[:1]]
    panel = Panel(
        x=Axis("tokens", unit="count", low=0.0), y=Axis("validation loss (nats)", low=low, high=high), marks=marks
    )
    statement = (
        f"Fitted to the first {SHARE:.0%} of {len(missed)} run{'s' if len(missed) > 1 else ''} of size {size}, Eq. 4 "
        f"misses the losses at their ends by {np.median(np.abs(missed)):.2%} (median) and {np.max(np.abs(missed)):.2%} "
        f"(most); {foreseen} lie in the 90 % interval."
    )
    caption = (
        f"After Figures 12 and 13 of the paper. Filled points were fitted, hollow ones came later; lines are the power "
        f"laws through the filled ones, bands their 90 % intervals. Vertical: {SHARE:.0%} of the first run."
    )
    if len(drawn) < len(own):
        caption += f" {len(drawn)} of {len(own)} runs are drawn, spread evenly over the LRs."
    return Figure(
        title="How well Eq. 4 predicted",
        statement=statement,
        caption=caption,
        panels=[panel],
        width=6.4,
        height=4.0,
        names=[size],
    )
