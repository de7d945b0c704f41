"""The figure of a study that varies the batch: the optimal LR over the batch, with the law through it."""

from __future__ import annotations

import numpy as np

from raylr.analysis.figures.colours import ordered
from raylr.analysis.figures.description import Axis, Figure, Line, Mark, Panel
from raylr.analysis.figures.law import known_optima, lr_axis, optima_of, predicted
from raylr.analysis.laws.lr_law import LRPrediction
from raylr.analysis.studyfit import LEVEL, StudyFit
from raylr.analysis.units import format_count


def over_batch(fit: StudyFit, prediction: LRPrediction | None) -> Figure:
    """Describe the optimal LR over the batch at each parameter count and token budget.

    Args:
        fit: The fits of a study whose law has the batch in it.
        prediction: At the target: a star, and the law there with its interval as a band; None for none.
    """
    law = fit.law
    known = [cell for cell in known_optima(fit) if cell.batch]
    ends = [float(cell.batch or 0) for cell in known]
    shown = prediction if prediction is not None and prediction.batch is not None else None
    if shown is not None and shown.batch is not None:
        ends.append(shown.batch)
    grid = np.geomspace(min(ends) / 1.5, max(ends) * 1.5, 60)
    groups = sorted({(cell.params, cell.tokens) for cell in known})
    marks: list[Mark] = []
    for index, ((params, tokens), colour) in enumerate(zip(groups, ordered(len(groups)), strict=True)):
        own = sorted(
            (cell for cell in known if (cell.params, cell.tokens) == (params, tokens)), key=lambda cell: cell.batch or 0
        )
        aside = 1.02 ** (index - (len(groups) - 1) / 2)  # so that intervals at one batch do not hide each other
        label = f"{format_count(params)} parameters, {format_count(tokens)} tokens"
        marks.append(optima_of([float(cell.batch or 0) * aside for cell in own], own, colour, label))
        at_law = np.asarray(law.lr(params, tokens, grid))
        marks.append(Line(x=grid, y=at_law, colour=colour, group=label, hover=f"law at {label}", width=1.2))
    lrs: list[float] = []
    if shown is not None and shown.batch is not None:
        n, d = shown.params, shown.tokens
        marks += predicted(grid, lambda b: law.predict(n, d, level=LEVEL, batch=b), shown, shown.batch)
        lrs = [shown.lr, shown.lr_low, shown.lr_high]
    low, high = law.interval(LEVEL)["delta"]
    given = f" ({LEVEL:.0%} interval {low:.2f} to {high:.2f})" if high > low else ", which was given"
    caption = (
        "Triangles are the optima with their 90 % intervals, beside each other where they "
        "have one batch; lines are the law"
    )
    caption += "; the star is its prediction at the target, the band the law there with its interval" if shown else ""
    return Figure(
        title="Optimal LR over the batch",
        statement=f"The optimal LR goes as the batch to the power {law.delta:.2f}{given}.",
        caption=f"{caption}.",
        panels=[
            Panel(x=Axis("batch (tokens of one step)", scale="log", unit="count"), y=lr_axis(known, lrs), marks=marks)
        ],
        width=7.0,
        height=4.2,
    )
