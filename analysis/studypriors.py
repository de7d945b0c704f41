"""The losses of a study's sizes at each budget, fitted in the order of the search: each with the prior that it had."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from raylr.analysis.across import in_turn
from raylr.analysis.curves.schedule import Schedule
from raylr.analysis.optimum import OptimumFit, OptimumPrior, fit_optimum
from raylr.analysis.runs import Setting
from raylr.analysis.surface.surface import LossSurface

if TYPE_CHECKING:
    from raylr.analysis.studyfit import FittedRun


def falling_schedule(runs: Sequence[FittedRun], given: Schedule | None) -> Schedule | None:
    """Return a schedule of the runs in which the LR falls, if there is one.

    A run that was stopped before its decay shows a constant LR; the schedule that was given still says that it falls.
    """
    falling = [one for one in (*(run.schedule for run in runs), given) if one is not None and not one.constant]
    return falling[0] if falling else None


def fit_in_turn(
    by_size: dict[str, list[FittedRun]], params: dict[str, int], surfaces: dict[str, LossSurface],
    budgets: Sequence[int], given: Schedule | None, lr_range: tuple[float, float] | None,
) -> dict[int, dict[str, OptimumFit]]:  # fmt: skip
    """Fit the losses of all sizes at each budget.

    Args:
        by_size: The runs of each size.
        params: Parameters of each size.
        surfaces: The surface of each size; where a size has a prior, its surface is replaced by one that has it.
        budgets: Token budgets.
        given: Schedule that was given for all runs.
        lr_range: LR range of the search.

    Returns:
        Fits by budget and size. Where the LR falls they are those of the final losses, and empty at smaller budgets.
        A size without a finite loss at a budget has no optimum there: a prior alone says where to look, and measures
        nothing.
    """

    def fit(budget: int, setting: Setting, prior: OptimumPrior | None) -> OptimumFit:
        size, runs = setting.name, by_size[setting.name]
        if falling_schedule(runs, given) is None:
            if prior is not None and surfaces[size].at(budget).curves is not None:
                known = {**surfaces[size].priors, float(budget): prior}
                surfaces[size] = replace(surfaces[size], priors=known, _sections={})
            return surfaces[size].at(budget)
        ended = [run for run in runs if budget == max(budgets) and (run.diverged or run.tokens[-1] >= budget)]
        loss = [math.nan if run.diverged else float(run.loss[-1]) for run in ended]
        if not np.isfinite(loss).any():
            prior = None
        return fit_optimum([run.lr for run in ended], loss, lr_range=lr_range if ended else None, prior=prior)

    settings = [Setting(name=k, params=params[k], tokens=1, batch=own[0].batch) for k, own in by_size.items()]
    return {at: in_turn(settings, partial(fit, at)) for at in budgets}
