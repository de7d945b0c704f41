"""What to evaluate in a study, with what, and when: the section `evaluation` of a spec."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from raylr.analysis.scores.suites import Subject, resolve
from raylr.analysis.units import parse_count
from raylr.trainables.training.checkpoint import COMPLETE, PREFIX
from raylr.trainables.training.spec import TrainSpec

WAITING = "waiting"
"""Folder of a study in which checkpoints wait for their evaluation, a folder for each run."""
Tokens = Annotated[int, BeforeValidator(lambda value: value if value is None else round(parse_count(value)))]


def waiting(study: Path) -> list[Path]:
    """Return the whole checkpoints that wait in a study's folder, by run and step."""
    found = sorted(study.glob(f"{WAITING}/*/{PREFIX}*"))
    return [path for path in found if (path / COMPLETE).is_file()]


class EvaluationSpec(BaseModel):
    """Scores of MMLU and CMMLU along training, and what may be used for them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path
    """Folder of the questions: mmlu/ and cmmlu/ as OpenCompass lays them out."""
    suites: tuple[Literal["mmlu", "cmmlu"], ...] = ("mmlu", "cmmlu")
    subjects: tuple[str, ...] | None = None
    """Names of subjects, as anatomy or cmmlu/anatomy. None: all that `data` has."""
    limit: int | None = Field(default=None, ge=1)
    """Questions a subject, from its first. None: all."""
    every: Tokens | None = Field(default=None, gt=0)
    """Tokens between two evaluations of a run; each is made at the nearest point at which the run measures its loss.
    None: at the end alone. A run is evaluated where its decay begins, too."""
    runs: Literal["check", "all"] = "check"
    """Which runs: those of the check at the target, or the search's too."""
    backend: Literal["lm-eval", "opencompass"] = "lm-eval"
    """lm-eval runs in this environment; opencompass in its own (`raylr eval setup`)."""
    batch_size: int = Field(default=8, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    cpus: float = Field(default=1, ge=0)
    """CPUs of one evaluation. Evaluations run beside the trials, in what these leave free."""
    gpus: float = Field(default=0, ge=0)
    resources: dict[str, float] = Field(default_factory=dict)
    """Custom Ray resources of one evaluation, for machines that are kept for it."""
    in_flight: int = Field(default=1, ge=1)
    """Evaluations at the same time, at most."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        resolve(self.suites, self.subjects)
        if self.gpus == 0 and self.device == "cuda":
            raise ValueError("device cuda needs gpus above 0: Ray gives an evaluation no GPU otherwise")
        return self

    def concerns(self, role: str) -> bool:
        """Whether runs of this role ("search" or "check") are evaluated."""
        return role == "check" or self.runs == "all"

    def chosen(self) -> list[Subject]:
        """Return the subjects to score. Raises InputError for a subject, a suite or a folder that is not there."""
        from raylr.evaluation.run import choose_subjects

        return choose_subjects(self.suites, self.subjects, self.data)[0]

    def points(self, train: TrainSpec, tokens: int, eval_at: Sequence[int]) -> list[int]:
        """Return the token counts of a run of `tokens` at which its checkpoint is evaluated, rising.

        Each is the nearest of `eval_at`, so that the run table has a loss beside the score.
        """
        wanted = [tokens] if self.every is None else [*range(self.every, tokens, self.every), tokens]
        if train.schedule == "wsd":
            wanted.append(max(train.warmup, round(tokens * (1 - train.decay_fraction))))
        return sorted({min(eval_at, key=lambda point: abs(point - goal)) for goal in wanted})

    def asked(self) -> str:
        """Return a hash of what one evaluation measures: two that share it need not both be made."""
        names = {"data", "suites", "subjects", "limit", "backend", "dtype"}
        return hashlib.blake2b(self.model_dump_json(include=names).encode(), digest_size=8).hexdigest()

    def options(self) -> dict[str, Any]:
        """Return the arguments of `raylr.evaluation.run.evaluate` that every evaluation has in common.

        Raises ValueError if the questions or what the backend needs are not there.
        """
        if self.backend == "opencompass":
            from raylr.evaluation.environment import find

            find()
        else:
            from raylr.evaluation.backends.lm_eval import check_installed

            check_installed()
        names = ("limit", "backend", "batch_size", "device", "dtype")
        shared = {name: getattr(self, name) for name in names}
        return shared | {"data": self.data.resolve(), "subjects": self.chosen()}

    def task_resources(self) -> dict[str, Any]:
        """Return what one evaluation asks of Ray."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": dict(self.resources)}
