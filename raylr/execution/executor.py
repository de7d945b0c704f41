"""`Executor`: what trains the runs of a study. Ray Tune is one (`raylr.execution.tune`); others implement `execute`.

    policy ──suggestions──▶ Work ──jobs──▶ Executor ──processes──▶ trainable
       ▲                      │   ◀─reports─          ◀─────────────
       └──────losses──────────┘──rows──▶ tables

An executor does not depend on learning rates or tables. It takes jobs from `Work`, runs the trainable for each, and
passes on what the trainable reports; `Work` answers whether the run is to be stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from raylr.analysis.runs import Run

if TYPE_CHECKING:
    from raylr.analysis.curves.schedule import Schedule
    from raylr.execution.work import Work

Config: TypeAlias = dict[str, Any]
Trainable: TypeAlias = Callable[[Config], Any]
"""Trains one segment of a run. How it reports is between it and the executor; each report is a flat mapping with at
least `loss` and `tokens`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One segment of a run, to be trained.

    Args:
        run: What is measured. A run that is resumed comes with the same identity.
        role: What the run is for: "search"; at a target "check", "arm" or "sweep".
        size: Name of its model size, for people.
        lr: Peak learning rate.
        tokens: Training tokens at which the loss of the whole run counts.
        stop_at: Tokens at which this segment ends; `tokens` for the last.
        setting: Name of what is searched, for people: the size, with its batch where it has several; empty for `size`.
        batch: Tokens of one optimizer step, where they are known.
        seed: Seed of the initial weights.
        config: Config of the trainable.
        handle: What the policy calls the run.
        columns: What every row of the run gets, beside what it reports.
        flops_per_token: FLOPs of training on one token: the table's for a trainable that reports none, and how the
            paces of different sizes are compared.
        eval_at: Token counts at which it is to report.
        log: File that takes what the run prints; its last lines are kept if it fails.
        ends_itself: Whether the trainable ends at `stop_at`; otherwise it is stopped there.
        axes: Values of the searched hyperparameters beside the LR, for people.
        schedule: Schedule by which the policy judges the losses: the loss at the end of a run that it truncated must be
            foretold from the same curve. None: what the reported LRs show.
        folder: The run's own folder, in which a checkpoint that it reports to Tune is noted.
    """

    run: Run
    role: str
    size: str
    lr: float
    tokens: int
    stop_at: int
    setting: str = ""
    batch: int | None = None
    seed: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    handle: Any = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    flops_per_token: float | None = None
    eval_at: Sequence[int] = ()
    log: Path | None = None
    ends_itself: bool = True
    axes: Mapping[str, float] = field(default_factory=dict)
    schedule: Schedule | None = None
    folder: Path | None = None

    @property
    def shown(self) -> str:
        """Name of what is searched, for people."""
        return self.setting or self.size


class Executor(Protocol):
    """Trains the jobs of a `Work` until there are no more."""

    def execute(self, trainable: Trainable, work: Work) -> None:
        """Train everything that `work` hands out, several jobs at a time where there is room.

        Calls `work.next()` for a job, `work.started` when it begins, `work.report` for every report, in their order,
        and `work.end` once when it has ended or failed. A decision that `work.report` returns ends the run at once.
        `work.next()` returns None while the policy waits for results; there are no more jobs once `work.finished`.

        Raises:
            KeyboardInterrupt: On Ctrl-C. What was reported until then is with `work` already.
        """
