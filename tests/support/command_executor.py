"""An executor without Ray that runs the commands and the functions of a study with another trainer, one by one."""

from collections.abc import Mapping
from typing import Any

from raylr.errors import TrainingError
from raylr.execution.executor import Trainable
from raylr.execution.work import Work
from raylr.external.trial import run_command


class StopRunError(Exception):
    """The search stops the run."""


class CommandExecutor:
    """Implements `Executor`. Its runs fail once, without another try."""

    def execute(self, trainable: Trainable, work: Work) -> None:
        while not work.finished:
            job = work.next()
            if job is None:
                break
            work.started(job)

            def report(row: Mapping[str, Any], job: Any = job) -> None:
                if work.report(job, row) is not None:
                    raise StopRunError

            error = None
            try:
                run_command(job.config, report)
            except StopRunError:
                pass
            except TrainingError as failure:
                error = str(failure)
            work.end(job, error=error, seconds=1.0)
