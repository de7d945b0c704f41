"""The picture of a study that varies the batch: the optimal LR over the batch, with the law through it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from raylr.analysis.figures._drawing import new_figure, size_colours, styled
from raylr.analysis.figures.study import draw_cells, draw_prediction, finish_log
from raylr.analysis.laws.lr_law import LRPrediction
from raylr.analysis.studyfit import LEVEL, StudyFit
from raylr.analysis.units import format_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def over_batch(fit: StudyFit, prediction: LRPrediction | None) -> Figure:
    """Draw the optimal LR over the batch at each parameter count and token budget: points measured, lines the law.

    Args:
        fit: The fits of a study whose law has the batch in it.
        prediction: At the target (star), with the law's interval over the batch there (band); None for none.
    """
    law = fit.law
    known = [cell for cell in fit.optima if math.isfinite(cell.lr_opt) and cell.batch]
    figure, (ax,) = new_figure(1, 1, width=7.6, height=4.0)
    ends = [float(cell.batch or 0) for cell in known]
    if prediction is not None and prediction.batch is not None:
        ends.append(prediction.batch)
    grid = np.geomspace(min(ends) / 1.5, max(ends) * 1.5, 60)
    groups = sorted({(cell.params, cell.tokens) for cell in known})
    for index, ((params, tokens), colour) in enumerate(zip(groups, size_colours(len(groups)), strict=True)):
        own = sorted(
            (cell for cell in known if (cell.params, cell.tokens) == (params, tokens)), key=lambda cell: cell.batch or 0
        )
        aside = 1.02 ** (index - (len(groups) - 1) / 2)  # so that intervals at one batch do not hide each other
        label = f"{format_count(params)} parameters, {format_count(tokens)} tokens"
        draw_cells(ax, [float(cell.batch or 0) * aside for cell in own], own, colour, label)
        ax.plot(grid, np.asarray(law.lr(params, tokens, grid)), "-", color=colour, lw=1.2)
    if prediction is not None and prediction.batch is not None:
        band = [law.predict(prediction.params, prediction.tokens, level=LEVEL, batch=b) for b in grid]
        draw_prediction(ax, grid, band, prediction, prediction.batch)
    low, high = law.interval(LEVEL)["delta"]
    finish_log(ax, "batch (tokens of one step)", "optimal learning rate", "", legend=False)
    figure.legend(loc="outside right upper")  # beside the axes: the intervals at few batches leave no room inside
    ends_text = f" ({LEVEL:.0%} interval {low:.2f} to {high:.2f})" if high > low else ", given"
    ax.set_title(f"Optimal LR over the batch\nexponent of the law {law.delta:.2f}{ends_text}")
    return figure
