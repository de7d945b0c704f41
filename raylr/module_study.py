"""A study of module-wise LRs: search the global LR, then that of each module, and compare both with several seeds.

search: global LR ──▶ seeds of it ──▶ modules, one by one or all at once ──▶ seeds of what was found ──▶ better or not?
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raylr.analysis.comparison import Arm, ArmRun, Comparison, compare_arms
from raylr.analysis.cost import Cost, cost_of
from raylr.errors import InputError, StudyError
from raylr.events import Listener
from raylr.execution.work import Work
from raylr.searchers.policies.axes_search import LR
from raylr.searchers.policies.types import RunId
from raylr.searches import search_settings
from raylr.spec import StudySpec
from raylr.spec.modules import SearchedAxis, module_grid, searched_axes
from raylr.stages import Stages
from raylr.store.files import write_atomic
from raylr.study import Study

if TYPE_CHECKING:
    from pathlib import Path

    from raylr.searchers.policies.modules import ModulesPolicy
    from raylr.searchers.policies.modules_stages import ModuleStage

ANSWER_FILE = "modules.json"
"""File of the folder of a study with `modules` that holds what it found."""
GLOBAL, MODULE_WISE = "one LR", "the module-wise setting"
"""Names of the two settings that are compared."""


@dataclass(frozen=True, kw_only=True)
class SizeModules:
    """What was found at one size."""

    size: str
    params: float
    tokens: int
    batch: int
    lr: float
    """The global LR; NaN while it is not known."""
    stages: Sequence[ModuleStage]
    """The stages that have ended, the global search first where there was one."""
    values: Mapping[str, float]
    """Value of every axis that was found; its start where it is not searched yet."""
    noise: float
    """Standard deviation of one run's loss by which the stages judged, nats; 0 if it is not known."""
    comparison: Comparison | None
    """The two settings beside each other; None without seeds, or where nothing was changed."""

    @property
    def global_stage(self) -> ModuleStage | None:
        """The search of the global LR; None if that was given."""
        return self.stages[0] if self.stages and not self.stages[0].names else None

    def answer(self, name: str) -> tuple[float, float, float] | None:
        """Value of an axis and the ends of its 90 % interval; None while it is not searched. `lr` is the global LR."""
        for stage in self.stages:
            if name in stage.answers:
                one = stage.answers[name]
                return one.value, one.low, one.high
        return None


@dataclass(frozen=True, kw_only=True)
class ModulesResult:
    """What a study of module-wise LRs has found."""

    spec: StudySpec
    """The study's spec."""
    directory: Path
    """The study's folder."""
    axes: Sequence[SearchedAxis]
    """What was searched, in its order."""
    sizes: Sequence[SizeModules]
    """In the order of the spec."""
    cost: Cost
    """Tokens and FLOPs that were spent, and those of the grid over the global LR and every axis."""


class ModuleStudy(Study):
    """Module-wise LRs as one resumable job (Zhou et al. 2026, Section 6.1). Arguments are those of `Study`.

    The spec has the section `modules`.

    Example:
        >>> from raylr.quickstart import quickstart_spec
        >>> plain = quickstart_spec().model_dump() | {"modules": {}, "target": None, "budgets": ["500k"]}
        >>> study = ModuleStudy(StudySpec.model_validate(plain), "runs/modules")
        >>> study.ending() is None
        True
    """

    ANSWER_FILE = ANSWER_FILE

    def run(self) -> ModulesResult:
        """Search and compare, as `Study.run`."""
        result: ModulesResult = super().run()
        return result

    def result(self, answer: ModulesResult | None = None) -> ModulesResult:
        """Put together what the study has found so far from its tables; nothing is trained or written.

        Raises:
            InputError: If no run has ended.
        """
        if answer is not None:
            return answer
        stages = Stages(self.folder, Listener())
        policy = stages.policy()
        names = Work(policy, stages.search_job(), stages.store).recall()
        rows: dict[str, dict[int, dict[str, Any]]] = {}
        for row in self.folder.rows().to_pylist():
            rows.setdefault(row["trial"], {})[int(row["tokens"])] = row
        if not rows:
            raise InputError("no run of the search has ended yet; run the study first")
        return ModulesResult(
            spec=self.spec,
            directory=self.directory,
            axes=searched_axes(self.spec),
            sizes=[_size(policy, one, names, rows) for one in search_settings(self.spec)],
            cost=cost_of(
                self.evaluations.read(), sizes=list(self.spec.sizes), grid=self.spec.lr.grid + module_grid(self.spec),
                budget=max(self.spec.token_budgets),
            ),
        )  # fmt: skip

    # -- inside --

    def _require_kind(self, spec: StudySpec) -> None:
        if spec.modules is None:
            raise StudyError("the spec has no section modules: it belongs to raylr.FittingStudy or raylr.TransferStudy")

    def _answer(self, stages: Stages) -> ModulesResult:
        result = self.result()
        write_atomic(self.directory / ANSWER_FILE, json.dumps(record(result), indent=1) + "\n")
        return result


Rows = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Run → tokens → its row in the table of evaluations."""


def _size(policy: ModulesPolicy, setting: Any, names: Mapping[RunId, str], rows: Rows) -> SizeModules:
    lr, tokens = policy.lr(setting.name), int(setting.tokens)
    arms = []
    for name, runs in zip((GLOBAL, MODULE_WISE), policy.replicate_runs(setting.name), strict=False):
        found = [_arm_run(names[run], rows, tokens) for run in runs if run in names]
        arms.append(Arm(name=name, lr=lr or math.nan, runs=[one for one in found if one is not None]))
    return SizeModules(
        size=setting.name, params=float(setting.params), tokens=tokens, batch=int(setting.batch), lr=lr or math.nan,
        stages=policy.stages(setting.name), values=policy.found(setting.name), noise=policy.noise(setting.name),
        comparison=compare_arms(arms[::-1]) if len(arms) == 2 and all(arm.runs for arm in arms) else None,
    )  # fmt: skip


def _arm_run(trial: str, rows: Rows, tokens: int) -> ArmRun | None:
    """Return a run with its curve; None if it has not ended."""
    curve = rows.get(trial, {})
    if not curve:
        return None
    at = sorted(curve)
    last = curve[at[-1]]
    if not last["diverged"] and at[-1] < tokens:
        return None
    losses = np.array([math.nan if curve[one]["loss"] is None else curve[one]["loss"] for one in at], float)
    return ArmRun(
        loss=math.nan if last["diverged"] else float(losses[-1]), seed=int(last["seed"] or 0), name=trial,
        tokens=np.array(at, float), curve=losses,
    )  # fmt: skip


def record(result: ModulesResult) -> dict[str, Any]:
    """Return what was found as JSON's types: for each size the global LR, the axes with intervals, the comparison."""
    return {
        "schema": 1,
        "method": result.spec.modules.method if result.spec.modules else None,
        "axes": [axis.name for axis in result.axes],
        "sizes": [
            {
                "size": one.size, "params": one.params, "tokens": one.tokens, "batch_tokens": one.batch,
                "lr": _entry(one.answer(LR), one.lr), "noise": one.noise,
                "axes": {axis.name: _entry(one.answer(axis.name), axis.start) for axis in result.axes},
                "comparison": _compared(one.comparison),
            }
            for one in result.sizes
        ],
    }  # fmt: skip


def _entry(answer: tuple[float, float, float] | None, value: float) -> dict[str, float | None]:
    value, low, high = answer or (value, math.nan, math.nan)
    return {"value": _finite(value), "low": _finite(low), "high": _finite(high)}


def _compared(found: Comparison | None) -> dict[str, Any] | None:
    if found is None:
        return None
    pair = found.pair(MODULE_WISE, GLOBAL)
    assert pair is not None
    return {
        "losses": {arm.name: [_finite(loss) for loss in arm.losses.tolist()] for arm in found.arms},
        "difference": _finite(pair.difference), "low": _finite(pair.low), "high": _finite(pair.high),
        "probability_module_wise_better": _finite(pair.probability), "better": found.best,
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
