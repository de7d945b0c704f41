"""A study of a made-up loss that faults disturb, trained in this process or by `faulty_trainer` under Ray Tune."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import faulty_trainer
import yaml

from raylr.cli.app import sentence
from raylr.execution.executor import Job, Trainable
from raylr.execution.work import Work
from raylr.spec import StudySpec
from raylr.study import LAW_FILE, FittingStudy

SPEC = f"""
name: faulty
trainable: {{function: "faulty_trainer:train", folder: {Path(faulty_trainer.__file__).parent}}}
sizes:
  S: {{params: 100k}}
  M: {{params: 250k}}
train: {{batch_tokens: 500, schedule: constant}}
budgets: [24k, 40k]
validations: 8
lr: [3e-4, 1e-1]
search: {{max_trials: 4, truncate: false}}
resources: {{hang_seconds: 4}}
"""


def spec_with(**changes: Any) -> StudySpec:
    return StudySpec.model_validate(yaml.safe_load(SPEC) | changes)


class DirectExecutor:
    """Trains the function's runs in this process, one after the other, without Tune: what it reports is what
    `faulty_trainer` would, and a run goes on behind what is known of it.

    Args:
        before: Called with the job and the tokens before each report.
        loss: The loss of a run at a number of tokens.
    """

    def __init__(
        self,
        before: Callable[[Job, int], None] = lambda job, tokens: None,
        loss: Callable[[Mapping[str, Any], int], float] = faulty_trainer.loss_at,
    ) -> None:
        self._before, self._loss = before, loss
        self.measured: list[tuple[str, int]] = []

    def execute(self, trainable: Trainable, work: Work) -> None:
        """Implement `Executor`."""
        while not work.finished and (job := work.next()) is not None:
            work.started(job)
            for tokens in job.config["eval_at"]:
                if work.position(job) < tokens <= job.stop_at:
                    self._before(job, tokens)
                    self.measured.append((job.run.name, tokens))
                    loss = self._loss(job.config["given"], tokens)
                    if work.report(job, {"loss": loss, "tokens": tokens}) is not None or loss != loss:
                        break
            work.end(job, seconds=1.0)


def study_in(folder: Path, executor: Any = None, spec: StudySpec | None = None) -> FittingStudy:
    made = executor or DirectExecutor()
    return FittingStudy(spec or spec_with(), folder, executor=lambda callbacks: made)


def seen(error: Exception) -> str:
    """What a user of the command line sees of an error: a sentence, or it is a bug."""
    found = sentence(error)
    assert found is not None, f"a bug: {error!r}"
    return f"raylr: {found[0]}"


def rows_of(study: FittingStudy) -> list[str]:
    """The losses that a study measured."""
    names = ("trial", "size", "lr", "tokens", "loss")
    return sorted(json.dumps([row[name] for name in names]) for row in study.evaluations.read().to_pylist())


def assert_same(study: FittingStudy, undisturbed: FittingStudy) -> bool:
    """Whether two studies measured the same, each loss once, and ended with the same law byte for byte; return True."""
    assert rows_of(study) == rows_of(undisturbed)
    assert (study.directory / LAW_FILE).read_bytes() == (undisturbed.directory / LAW_FILE).read_bytes()
    return True
