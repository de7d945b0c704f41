"""An executor without processes and a trainable without a model: studies that end in a second."""

import math
from collections.abc import Callable
from typing import Any

import synthetic

from raylr.execution.executor import Job, Trainable
from raylr.execution.work import Work

PARAMS = {"S": 100_000, "M": 250_000, "L": 600_000, "XL": 1_500_000}
SCALE = 25
"""Tokens of the made-up law per token of a test's spec, whose budgets are small."""
BATCH, DELTA = 512, 0.5
"""The optimum of the made-up law grows as (batch / BATCH)^DELTA."""
TOO_HIGH = 30.0
"""Learning rates diverge from this multiple of the optimum on."""


def report_of(job: Job, tokens: int) -> dict[str, Any]:
    """What the run reports at this token count: the same whenever, and however often, it is trained."""
    params, seen = PARAMS[job.size], SCALE * tokens
    lr = job.lr / ((job.batch or BATCH) / BATCH) ** DELTA
    diverged = lr > TOO_HIGH * synthetic.lr_opt(params, seen)
    noise = 1e-3 * math.sin(1e4 * math.log(job.lr) + tokens)
    return {
        "loss": math.nan if diverged else synthetic.loss(params, lr, seen) + noise,
        "tokens": tokens,
        "step": tokens // (job.batch or BATCH),
        "lr": job.lr,
        "current_lr": 0.5 * job.lr,
        "params": params,
        "params_active": params // 2,
        "flops": 6.0 * params * tokens,
        "run_end": "diverged" if diverged else None,
        "made_up": tokens / 7,
    }


class SerialExecutor:
    """Trains one job after the other.

    Args:
        before: Called with the job and the token count before each report; may raise. A RuntimeError is a run that
            failed, anything else ends the executor as a kill or a full disk does.
        report: What a run reports at a token count.
    """

    def __init__(
        self,
        before: Callable[[Job, int], None] | None = None,
        report: Callable[[Job, int], dict[str, Any]] = report_of,
    ) -> None:
        self.before, self.report_of = before or (lambda job, tokens: None), report
        self.trained: list[tuple[str, int]] = []
        """(name of the run, tokens) of every report."""

    def execute(self, trainable: Trainable, work: Work) -> None:
        """Implement `Executor`."""
        while not work.finished:
            job = work.next()
            if job is None:
                assert work.finished, "the policy waits although nothing is running"
                break
            work.started(job)
            error = None
            for tokens in job.config["eval_at"]:
                if tokens > job.stop_at:
                    break
                try:
                    self.before(job, tokens)
                except RuntimeError as failure:
                    error = str(failure)
                    break
                self.trained.append((job.run.name, tokens))
                report = self.report_of(job, tokens)
                if work.report(job, report) is not None or report["run_end"]:
                    break
            work.end(job, error=error, seconds=1.0)
