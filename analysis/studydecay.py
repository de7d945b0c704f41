"""The optima after a decay of a study's run table: from the branches of its trunks, and where an LR has none from the
annealing law that its trunk and the other branches determine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from raylr.analysis.curves.schedule import Decay
from raylr.analysis.surface.decayed import Branch, DecayedOptimum, annealing_of, decayed_optimum

if TYPE_CHECKING:
    from raylr.analysis.studyfit import FittedRun

DECAY = "decay"
"""Role of a branch in the run table. Its rows have `budget`, the tokens at which its decay ends, and `trunk_tokens`,
those at which it left its trunk."""


def decayed_optima(
    table: pa.Table, trunks: Sequence[FittedRun], budgets: Sequence[int], decay: Decay,
    lr_range: tuple[float, float] | None = None,
) -> dict[int, DecayedOptimum]:  # fmt: skip
    """Return the optimum after the decay at each budget, for one size at one batch.

    Args:
        table: The run table.
        trunks: The size's runs at a constant LR; those of them that diverged bound the optimum from above.
        budgets: Token budgets, those of the decay included.
        decay: How the LR falls.
        lr_range: LR range of the search.

    Returns:
        Budget -> optimum.
    """
    rows = _branch_rows(table, {run.trial for run in trunks})
    branches, ends = [], [(float(budget), lr, loss) for budget in budgets for lr, loss in _diverged(trunks)]
    for (_, budget), part in rows.groupby(["trial", "budget"], sort=True):
        part = part.drop_duplicates("tokens", keep="last").sort_values("tokens")
        lr, loss, tokens = float(part["lr"].iloc[0]), part["loss"].to_numpy(float), part["tokens"].to_numpy(float)
        if bool(part["diverged"].fillna(False).any()):
            ends.append((float(budget), lr, math.nan))
        else:
            branches.append(Branch(lr=lr, budget=float(budget), tokens=tokens, loss=loss))
            if tokens[-1] >= budget:
                ends.append((float(budget), lr, float(loss[-1])))
    whole = [run for run in trunks if not run.diverged]
    annealing = annealing_of([(run.lr, run.tokens, run.loss) for run in whole], branches, decay)
    return {
        budget: decayed_optimum(
            annealing, decay, float(budget), [run.lr for run in whole],
            measured=[(lr, loss) for at, lr, loss in ends if at == float(budget)], lr_range=lr_range,
        )
        for budget in budgets
    }  # fmt: skip


def _diverged(trunks: Sequence[FittedRun]) -> list[tuple[float, float]]:
    return [(run.lr, math.nan) for run in trunks if run.diverged]


def _branch_rows(table: pa.Table, trunks: set[str]) -> pd.DataFrame:
    """The rows of the branches of these trunks."""
    if not {"budget", "trunk"} <= set(table.column_names):
        return pd.DataFrame({name: np.empty(0) for name in ("trial", "budget", "tokens", "loss", "lr", "diverged")})
    keep = pc.and_(pc.equal(table["role"], DECAY), pc.is_in(table["trunk"], pa.array(sorted(trunks), pa.string())))
    return table.filter(pc.fill_null(keep, False)).to_pandas()
