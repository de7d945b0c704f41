"""The runs of a comparison at one target: several seeds at one LR, and a sweep of the target's own LR.

They lie in the tables of the study whose target it is, beside the runs of its check, and are trained as those are.
`ArmStages` trains them, the functions read them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylr.analysis.comparison import ArmRun, Spent
from raylr.analysis.curves.schedule import Schedule
from raylr.analysis.optimum.fit import fit_optimum
from raylr.analysis.runs import Setting
from raylr.analysis.units import format_lr, format_name
from raylr.execution.executor import Job
from raylr.execution.work import FixedPolicy
from raylr.searchers.policies.policy import Point
from raylr.searchers.policies.quadratic import QuadraticPolicy
from raylr.searchers.policies.stopping import StoppingRule
from raylr.searches import TWO_SIDED
from raylr.spec.batches import StudySetting
from raylr.spec.sections import TargetSpec
from raylr.stages import SEEDS, Stages
from raylr.study import Study

SAME_LR = 1.1
"""Runs whose LR is within this factor of an arm's are runs of it, as in `raylr.report.verdict`."""
SWEPT = 4.0
"""A sweep begins in a range of this factor to either side of the predicted LR: a little more than the usual check's."""


class ArmStages(Stages):
    """Further stages of a study, for a comparison. Arguments are those of `Stages`."""

    def arm(self, target: TargetSpec, lr: float, seeds: int, axes: Mapping[str, float] | None = None) -> None:
        """Train a target at one LR with several seeds, as an arm of a comparison.

        Args:
            target: One of the spec's targets.
            lr: As for `check`. A run of the check at this LR counts as that of the first seed.
            seeds: Number of runs. Seeds of the initial weights and of the order of the text both count up from those
                of the spec.
            axes: As for `check`.
        """
        model, tokens = self.spec.target_model(target), self.spec.tokens_of(target)
        train = self.spec.target_train(target)

        def job_of(seed: int, role: str = "arm") -> Job:
            seeded = {name: getattr(train, name) + seed for name in SEEDS if hasattr(train, name)}
            setting = StudySetting(name=target.name, size=target.name, train=train.model_copy(update=seeded))
            return self._job(role, setting, model, tokens, lr, None, None, 0, axes, target)

        checked = self.store.known(job_of(0, "check").run.name, tokens=tokens, stop_at=tokens)
        self._train(
            f"Training {format_name(target.name)} at LR {format_lr(lr)}",
            FixedPolicy(range(bool(checked), seeds)),
            job_of,
        )

    def sweep(self, target: TargetSpec, lr: float, most: int) -> None:
        """Search the LR of a target itself, beginning with what its check measured; `swept_lr` reads what it found.

        Args:
            target: The target of a study that fits.
            lr: The predicted LR, in the middle of the range.
            most: Most runs.
        """
        model, tokens = self.spec.target_model(target), self.spec.tokens_of(target)
        train = self.spec.target_train(target)
        setting = StudySetting(name=target.name, size=target.name, train=train)
        rows = [row for row in self.folder.rows().to_pylist() if (row["role"], row["size"]) == ("check", target.name)]
        known = {row["lr"]: row["loss"] for row in rows if row["tokens"] == tokens or row["diverged"]}
        policy = self._sweep_policy(target, lr, most, known)

        def job_of(suggestion: Any) -> Job:
            return self._job("sweep", setting, model, tokens, suggestion.lr, suggestion.run, None, suggestion.repeat)

        self._train(f"Sweeping the LR of {format_name(target.name)}", policy, job_of)

    def _sweep_policy(
        self, target: TargetSpec, lr: float, most: int, known: Mapping[float, float | None]
    ) -> QuadraticPolicy:
        model, search = self.spec.target_model(target), self.spec.search
        setting = Setting(
            name=target.name, params=float(model.params("total")), tokens=float(self.spec.tokens_of(target)),
            batch=float(self.spec.target_train(target).batch_tokens),
        )  # fmt: skip
        rule = StoppingRule(
            min_fraction=search.min_fraction if search.truncate else 1.0, tolerance=search.loss_tolerance,
            schedule=Schedule.named(self.spec.train.schedule),
        )  # fmt: skip
        points = [
            Point(lr=tried, setting=target.name, loss=math.nan if loss is None else loss)
            for tried, loss in sorted(known.items())
        ]
        return QuadraticPolicy(
            [setting], lr_range=(lr / SWEPT, lr * SWEPT), tolerance=search.tolerance, max_trials=most,
            extend=search.extend, seed=self.spec.seed, points=points, stopping=rule,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ArmPlace:
    """Where the runs of an arm are: in the tables of a study, at one of its targets."""

    study: Study
    target: TargetSpec
    lr: float
    """As `Stages.check` takes it."""
    axes: Mapping[str, float] | None = None
    """The proxy's other hyperparameters, in a transfer study."""

    def train(self, seeds: int) -> None:
        """Train the arm with so many seeds; runs that were made are not made again."""
        with self.study.folder.locked():
            stages = ArmStages(self.study.folder, self.study.progress, self.study.executor)
            stages.arm(self.target, self.lr, seeds, self.axes)
            stages.evaluate()

    def runs(self) -> tuple[list[ArmRun], Spent | None]:
        """Return the arm's runs that ended, one a seed, and what one of them takes; None without any."""
        tokens, groups = self.study.spec.tokens_of(self.target), dict[tuple[float, ...], list[Rows]]()
        for rows in runs_at(self.study, self.target, ("check", "arm")).values():
            if apart := self._apart(rows[-1]):
                groups.setdefault(apart, []).append(rows)
        if not groups:
            return [], None
        # A fit that was made again moves its LR by a little: the runs nearest to it are the arm's.
        nearest = groups[min(groups, key=lambda apart: (max(map(abs, apart)), apart))]
        by_seed: dict[int, Rows] = {}
        for rows in sorted(nearest, key=lambda rows: (rows[-1]["role"] != "check", rows[-1]["trial"])):
            if rows[-1]["diverged"] or rows[-1]["tokens"] >= tokens:
                by_seed.setdefault(int(rows[-1]["seed"] or 0), rows)
        found = [_run(seed, rows) for seed, rows in sorted(by_seed.items())]
        whole = [rows[-1] for rows in by_seed.values() if not rows[-1]["diverged"]]
        flops = [float(row["flops"]) for row in whole if row["flops"]]
        return found, Spent(tokens=float(tokens), flops=float(np.mean(flops)) if flops else math.nan)

    def _apart(self, row: Mapping[str, Any]) -> tuple[float, ...] | None:
        """Return how far a run's hyperparameters are from the arm's, in ln; None if they are others."""
        wanted = {"lr": self.lr, **(self.axes or {})}
        apart = tuple(math.log(float(row[name]) / value) for name, value in wanted.items() if value > 0)
        return apart if max(map(abs, apart)) <= math.log(SAME_LR) else None


Rows = list[dict[str, Any]]
"""The evaluations of one run, tokens rising."""


def runs_at(study: Study, target: TargetSpec, roles: Sequence[str]) -> dict[str, Rows]:
    """Return the evaluations of the runs of a study at one of its targets.

    Args:
        study: The study.
        target: One of its targets.
        roles: Roles of the runs, of `raylr.stages.AT_TARGET`.

    Returns:
        Name of the run -> its evaluations.
    """
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in study.folder.rows().to_pylist():
        if row["role"] in roles and row["size"] == target.name:
            found.setdefault(row["trial"], {})[int(row["tokens"])] = row
    return {trial: [rows[tokens] for tokens in sorted(rows)] for trial, rows in found.items()}


def swept_lr(study: Study, target: TargetSpec) -> tuple[float, Spent] | None:
    """Return the best LR by a sweep at the target and what its runs took; None without a sweep, or if it found none."""
    runs = runs_at(study, target, ("check", "sweep"))
    if not any(rows[-1]["role"] == "sweep" for rows in runs.values()):
        return None
    ends = {row["trial"]: row for row in sorted(study.trials.read().to_pylist(), key=lambda row: int(row["tokens"]))}
    losses = {
        trial: math.nan if rows[-1]["diverged"] else ends[trial]["target_loss"]
        for trial, rows in runs.items()
        if trial in ends
    }
    known = {trial: float(loss) for trial, loss in losses.items() if loss is not None}
    fit = fit_optimum([runs[trial][-1]["lr"] for trial in known], list(known.values()))
    if fit.status not in TWO_SIDED:
        return None
    spent = Spent(
        tokens=sum(float(rows[-1]["tokens"]) for rows in runs.values()),
        flops=sum(float(rows[-1]["flops"] or math.nan) for rows in runs.values()),
    )
    return float(f"{fit.lr:.6e}"), spent


def _run(seed: int, rows: Rows) -> ArmRun:
    losses = np.array([math.nan if row["loss"] is None else row["loss"] for row in rows], float)
    return ArmRun(
        loss=math.nan if rows[-1]["diverged"] else float(losses[-1]), seed=seed, name=rows[-1]["trial"],
        tokens=np.array([row["tokens"] for row in rows], float), curve=losses,
    )  # fmt: skip
