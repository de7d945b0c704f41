"""`Work`: between a policy, the store and an executor. The policy suggests, the store answers what is known, the
executor trains the rest, and everything that is reported is recorded.

A policy starts from nothing whenever a study is started. It is given what is in the tables exactly as it was given it
when that was measured; as its suggestions follow from the results alone, it goes on where it was, and nothing is
trained twice. Of a run that was on its way when a study was killed, the policy gets what was measured before the run
continues, and reports up to there are not taken again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from raylr.analysis.curves.curve import Curve
from raylr.analysis.probes import NOTE
from raylr.analysis.runs import RunEnd
from raylr.events import Listener, LossMeasured, RunEnded, RunStarted
from raylr.execution.executor import Job
from raylr.execution.reports import current_lr, number, problem_of
from raylr.records.tail import last_lines
from raylr.searchers.policies.stopping import final_loss
from raylr.store.runs import KnownEnd, Row, RunStore

STOPPING = (RunEnd.TRUNCATED, RunEnd.PRUNED, RunEnd.DIVERGED)
"""Decisions that end a run at once. At the end of a segment the trainable ends the run, with a checkpoint."""

MARKS = ("loss_spikes", "grad_norm_spikes")
"""Columns of probes that the end of a run has, too."""


class Policy(Protocol):
    """What is needed of a policy (`raylr.searchers.policies.policy.Policy`)."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""

    def ask(self) -> Any:
        """Return what to train next; None while it waits for results."""

    def report(self, run: Any, tokens: float, loss: float, current_lr: float | None = None) -> RunEnd | None:
        """Take in a report and decide about the run, as `raylr.searchers.policies.policy.Policy.report`."""

    def tell(self, run: Any, end: RunEnd, loss: float | None = None, stderr: float = 0.0) -> None:
        """Take in the end of a segment, as `raylr.searchers.policies.policy.Policy.tell`."""


class FixedPolicy:
    """Suggests what is in a list, each once, and decides nothing.

    Args:
        suggestions: The suggestions, in their order.
    """

    def __init__(self, suggestions: Sequence[Any]) -> None:
        self._left = list(suggestions)

    @property
    def finished(self) -> bool:
        """Whether all were handed out."""
        return not self._left

    def ask(self) -> Any:
        """Return the next one; None after the last."""
        return self._left.pop(0) if self._left else None

    def report(self, run: Any, tokens: float, loss: float, current_lr: float | None = None) -> RunEnd | None:
        """Decide nothing; called as `Policy.report`."""

    def tell(self, run: Any, end: RunEnd, loss: float | None = None, stderr: float = 0.0) -> None:
        """Learn nothing; called as `Policy.tell`."""


class Work:
    """What is to be trained in one stage of a study.

    Args:
        policy: Suggests what to train.
        job_of: Makes a job of a suggestion.
        store: Knows what was measured, and takes what is.
        listener: Receives the events.
    """

    def __init__(
        self, policy: Policy, job_of: Callable[[Any], Job], store: RunStore, listener: Listener | None = None
    ) -> None:
        self.policy, self._job_of, self._store = policy, job_of, store
        self._listener = listener or Listener()
        self._ahead: Job | None = None
        self._last: dict[Job, Mapping[str, Any]] = {}
        self._curves: dict[Job, Curve] = {}
        self._decisions: dict[Job, RunEnd] = {}
        self._problems: dict[Job, str] = {}
        self._told: set[str] = set()
        self.errors: list[str] = []
        """A sentence for each run that failed; they are trained again when the study is started again."""

    # -- what an executor calls --

    def next(self) -> Job | None:
        """Return the next job; None while the policy waits for results, and when it has `finished`."""
        found, self._ahead = self._ahead, None
        return found or self._next()

    @property
    def finished(self) -> bool:
        """Whether there will be no more jobs."""
        return self._ahead is None and self.policy.finished

    def started(self, job: Job) -> None:
        """Note that a job began to train."""
        self._listener.run_started(
            RunStarted(run=job.run.name, role=job.role, size=job.shown, lr=job.lr, tokens=job.tokens, axes=job.axes)
        )

    def position(self, job: Job) -> int:
        """Return the tokens up to which the losses of a job are known."""
        return int(self._last.get(job, {}).get("tokens", 0))

    def tried_again(self, job: Job, reason: str) -> None:
        """Tell the user that a job ended early and is tried again from its last checkpoint.

        Args:
            job: The job.
            reason: Why it ended, as a sentence about "it".
        """
        self.note(job, f"{reason}; it is tried again from its last checkpoint")

    def note(self, job: Job, sentence: str) -> None:
        """Tell the user something about a job, as a sentence about "it"."""
        self._listener.message(f"{job.run.label or job.run.name}: {sentence}.")

    def report(self, job: Job, values: Mapping[str, Any]) -> RunEnd | None:
        """Record one report; return how the run is to end now, None to let it continue.

        A report at tokens that were reported before is that of a run that went back to a checkpoint: it is not taken.

        Args:
            job: The job.
            values: `loss` (nats per token, NaN if the run diverged), `tokens`, and any other metrics. The LR of the
                schedule at that step, under one of `LR_KEYS`, is given to the policy, too. A trial that has no loss
                may say why under `problem`.
        """
        if problem := problem_of(values):
            self._problems[job] = str(values.get("problem") or problem)
            self._last[job] = {}
            return RunEnd.NO_REPORT
        loss, tokens = number(values["loss"]), int(number(values["tokens"]))
        last = self._last.get(job)
        if last and tokens <= last["tokens"] and math.isfinite(loss):
            return None
        row = _evaluation_row(job, {**values, "loss": loss, "tokens": tokens})
        self._last[job] = row
        self._store.add_evaluation(row)
        self._listener.loss_measured(LossMeasured(run=job.run.name, tokens=tokens, loss=loss))
        self._tell_notes(row)
        return self._decide(job, row)

    def _tell_notes(self, row: Row) -> None:
        """Show what probes could not see, each sentence once."""
        notes = {str(value) for name, value in row.items() if name.startswith(f"{NOTE}/") and value is not None}
        for note in sorted(notes - self._told):
            self._listener.message(note)
        self._told |= notes

    def _decide(self, job: Job, row: Row) -> RunEnd | None:
        """Give a row to the policy; return how the run is to end now."""
        tokens, curve = row["tokens"], self._curves.setdefault(job, Curve(given=job.schedule))
        curve.add(tokens, number(row["loss"]))
        if row.get("current_lr") is not None:
            curve.note_lr(tokens, row["current_lr"])
        decision = self._reported(job, row)
        if row["diverged"]:
            return None
        if decision in STOPPING:
            self._decisions[job] = decision
            return decision
        if job.ends_itself or tokens < job.stop_at:
            return None
        if tokens < job.tokens:
            return RunEnd.PAUSED
        return RunEnd.COMPLETED if tokens > job.tokens else None

    def end(self, job: Job, *, error: str | None = None, seconds: float | None = None) -> None:
        """Record that a job has ended.

        Args:
            job: The job.
            error: Why it failed, in a sentence; None if it did not fail.
            seconds: How long it took.
        """
        last, curve = self._last.pop(job, None), self._curves.pop(job, Curve())
        decision = self._decisions.pop(job, None)
        end, problem = _end_of(job, last, decision, error)
        no_report = self._problems.pop(job, "")
        if problem:
            self._fail(job, end, (no_report if end is RunEnd.NO_REPORT else "") or problem, last)
            return
        assert last is not None
        loss, stderr = _final_loss(curve, job.tokens, end)
        row = self._store.add_end(
            {
                "trial": job.run.name,
                "role": job.role,
                "size": job.size,
                "batch": job.batch,
                "lr": job.lr,
                "tokens": last["tokens"],
                "target_tokens": job.tokens,
                "flops": last.get("flops"),
                "end": end.value,
                "loss": last["loss"],
                "target_loss": loss,
                "target_loss_stderr": stderr,
                "seconds": seconds,
                "config": job.run.config,
                **{name: last[name] for name in MARKS if last.get(name) is not None},
            }
        )
        self._tell(job, end, row)
        self._listener.run_ended(_event(job, row))

    def _fail(self, job: Job, end: RunEnd, problem: str, last: Mapping[str, Any] | None) -> None:
        """Record that a run failed, with the last lines that it printed."""
        text = f"{job.run.label or job.run.name}: {problem}"
        output = last_lines(job.log) if job.log is not None else ""
        self.errors.append(text)
        self._listener.message(f"{text}. The last lines of its output:\n{output}" if output else text)
        self._store.flush()
        self._store.add_failure(
            {
                "trial": job.run.name,
                "role": job.role,
                "size": job.size,
                "lr": job.lr,
                "tokens": last["tokens"] if last else 0,
                "end": end.value,
                "message": problem,
                "output": output,
                "at": time.time(),
            }
        )
        self.policy.tell(job.handle, end)

    def flush_due(self) -> None:
        """Write reports that have waited long enough; to be called every second or so."""
        self._store.flush_due()

    def keep(self) -> None:
        """Write every report that waits."""
        self._store.flush()

    # -- what a stage calls --

    def needs_training(self) -> bool:
        """Whether anything is left to train; everything that is known is given to the policy first."""
        self._ahead = self._ahead or self._next()
        return self._ahead is not None

    def recall(self) -> dict[Any, str]:
        """Give the policy everything that is in the tables; nothing is trained or written.

        Returns:
            What the policy calls a run → its name, for the runs that were suggested.
        """
        names = {}
        while (suggestion := self.policy.ask()) is not None:
            job = self._job_of(suggestion)
            names[job.handle] = job.run.name
            known = self._store.known(job.run.name, tokens=job.tokens, stop_at=job.stop_at)
            if known is not None:
                self._replay(job, known)
        return names

    # -- inside --

    def _next(self) -> Job | None:
        while (suggestion := self.policy.ask()) is not None:
            job = self._job_of(suggestion)
            known = self._store.known(job.run.name, tokens=job.tokens, stop_at=job.stop_at)
            if known is not None:
                self._replay(job, known)
            elif not self._continue(job):
                return job
        return None

    def _continue(self, job: Job) -> bool:
        """Give the policy what was measured of a run that has not ended; return whether that ends it."""
        for row in self._store.curve(job.run.name):
            self._last[job] = row
            decision = self._decide(job, row)
            if row["diverged"] or (decision is not None and decision in STOPPING):
                self.end(job)
                return True
        return False

    def _replay(self, job: Job, known: KnownEnd) -> None:
        for row in known.curve:
            self._reported(job, row)
        self._tell(job, known.end, known.row)
        self._listener.run_ended(_event(job, known.row, known=True))

    def _reported(self, job: Job, row: Mapping[str, Any]) -> RunEnd | None:
        """Give the policy a row of the table of evaluations; return what it decides."""
        lr = current_lr({"current_lr": row.get("current_lr")})
        known = () if lr is None else (lr,)
        return self.policy.report(job.handle, row["tokens"], number(row["loss"]), *known)

    def _tell(self, job: Job, end: RunEnd, row: Mapping[str, Any]) -> None:
        """Give the policy an end. It has the curve, and extrapolates it where the run was stopped early."""
        measured = end is RunEnd.COMPLETED
        self.policy.tell(job.handle, end, number(row["loss"]) if measured else None)


def _evaluation_row(job: Job, values: Mapping[str, Any]) -> Row:
    """The row of a report: everything that was reported, under its own name, beside what names the run.

    `lr` is the peak LR in every table. A trainable that reports the schedule's LR at that step under this name, or
    another one of `LR_KEYS`, finds it as `current_lr`.
    """
    row: Row = {**values, **job.columns}
    if job.flops_per_token is not None and row.get("flops") is None:
        row["flops"] = job.flops_per_token * row["tokens"]
    if (lr := current_lr(values)) is not None:
        row["current_lr"] = lr
    row["diverged"] = row.get("run_end") == RunEnd.DIVERGED or not math.isfinite(row["loss"])
    named = {"trial": job.run.name, "role": job.role, "size": job.size, "batch": job.batch}
    return row | named | {"lr": job.lr, "seed": job.seed}


def _end_of(job: Job, last: Mapping[str, Any] | None, decision: RunEnd | None, error: str | None) -> tuple[RunEnd, str]:
    """Return how a job ended, and what went wrong ("" if nothing did)."""
    if last and last["diverged"]:
        return RunEnd.DIVERGED, ""
    if decision is not None and error is None:
        return decision, ""
    if error is not None:
        return RunEnd.FAILED, error
    if not last:
        return RunEnd.NO_REPORT, "it ended without a report of `loss` and `tokens`"
    if last["tokens"] >= job.tokens:
        return RunEnd.COMPLETED, ""
    if last["tokens"] >= job.stop_at:
        return RunEnd.PAUSED, ""
    return RunEnd.FAILED, f"it ended after {last['tokens']} of {job.stop_at} tokens"


def _final_loss(curve: Curve, target: float, end: RunEnd) -> tuple[float | None, float | None]:
    """Return the loss at the target and its standard error; None where it is not known."""
    if end is RunEnd.COMPLETED:
        return curve.loss[-1], 0.0
    if end not in (RunEnd.TRUNCATED, RunEnd.PRUNED):
        return None, None
    known = curve.not_constant(target) is None  # else the rest of the schedule decides, and no fall can be foretold
    loss, stderr = final_loss(curve, target, end) if known else curve.extrapolate(target)
    return float(loss), float(stderr)


def _event(job: Job, row: Mapping[str, Any], *, known: bool = False) -> RunEnded:
    end = RunEnd(row["end"])
    cut = end in (RunEnd.TRUNCATED, RunEnd.PRUNED)
    return RunEnded(
        run=row["trial"],
        role=row["role"],
        size=job.shown,
        lr=row["lr"],
        axes=job.axes,
        end=end,
        tokens=row["tokens"],
        loss=number(row["loss"]),
        target_tokens=row["target_tokens"],
        target_loss=row["target_loss"] if cut else None,
        target_loss_stderr=row["target_loss_stderr"] if cut else None,
        known=known,
    )
