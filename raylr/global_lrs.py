"""The global LRs of a study with `modules`, where it does not search them: given, or those of a finished study."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from raylr.errors import StudyError
from raylr.spec import StudySpec
from raylr.store.folder import open_folder

if TYPE_CHECKING:
    from raylr.analysis.studyfit import SettingOptimum

SAME = 1e-6
"""Numbers of parameters and of tokens that differ relatively by less are the same."""


def global_lrs(spec: StudySpec) -> dict[str, float]:
    """Return size → global LR; empty where the study searches them.

    Raises:
        StudyError: If `modules.study` has no optimum of a size at the budget.
    """
    given = spec.modules
    if given is None or (given.lr is None and given.study is None):
        return {}
    if isinstance(given.lr, dict):
        return dict(given.lr)
    if given.lr is not None:
        return dict.fromkeys(spec.sizes, given.lr)
    assert given.study is not None
    return _measured(spec, given.study)


def _measured(spec: StudySpec, folder: Path) -> dict[str, float]:
    from raylr.analysis.studyfit import fit_study

    there = open_folder(folder)
    if there.spec.transfer is not None or there.spec.modules is not None:
        raise StudyError(f"modules.study: {folder} is not a study that searches one LR of these sizes")
    ends = (there.spec.lr.low, there.spec.lr.high)
    optima = fit_study(there.rows(), there.spec.token_budgets, lr_range=ends).optima
    budget, out = max(spec.token_budgets), {}
    for name, model in spec.models().items():
        found = [one for one in optima if _same(one.params, model.params("total")) and _same(one.tokens, budget)]
        known = [one for one in found if math.isfinite(one.lr_opt) and one.lr_opt > 0]
        if not known:
            raise StudyError(
                f"modules.study: {folder} has {'no optimum' if not found else 'no known optimum'} of {name} at "
                f"{budget} tokens; it has {_listed(optima)}"
            )
        out[name] = float(f"{known[0].lr_opt:.4g}")
    return out


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=SAME)


def _listed(optima: list[SettingOptimum]) -> str:
    return ", ".join(f"{one.size} at {one.tokens:.0f}" for one in optima) or "none"
