"""An executor that trains raylr's own models in this process, one run after the other, without Ray."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from raylr.evaluation.queue import EvaluationQueue
from raylr.execution.executor import Trainable
from raylr.execution.work import Work
from raylr.trainables import arguments, train
from raylr.trainables.training.arguments import KEYS


class StopRunError(Exception):
    """The search stops the run."""


class TrainingExecutor:
    """Implements `Executor`.

    Args:
        checkpoints: The folder of the runs' own checkpoints, as Ray's trials have one; None: a run that is killed
            begins again.
    """

    def __init__(self, checkpoints: Path | None = None) -> None:
        self.checkpoints = checkpoints

    def execute(self, trainable: Trainable, work: Work) -> None:
        while not work.finished:
            job = work.next()
            if job is None:
                break
            work.started(job)

            def report(row: dict[str, Any], checkpoint: Path | None, job: Any = job) -> None:
                if work.report(job, row) is not None:
                    raise StopRunError

            given = arguments({key: value for key, value in job.config.items() if key in KEYS})
            if job.config.get("queue_at"):  # a run whose checkpoints are scored keeps its own, as `train_trial` does
                study = Path(job.config["study"])
                queue = EvaluationQueue(study).folder_of(job.config["run"])
                given |= {"run_dir": study / "checkpoints" / job.config["run"], "queue_dir": queue}
            given["checkpoint_reports"] = False
            if self.checkpoints is not None:
                given["run_dir"] = self.checkpoints / job.run.name
            with suppress(StopRunError):
                train(**given, report=report, threads=1)
            work.end(job, seconds=1.0)
