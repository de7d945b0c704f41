"""Whether a run that raised an error counts against its learning rate. No Ray, no state.

A run that fails may have failed because of its learning rate (a trainable that raises when its loss is NaN) or for any
other reason (a lost machine). The other results decide: a failure that repeats, at an lr above all that trained, counts
as divergence; one at or below an lr that trained is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from raylr.analysis.runs import RunEnd
from raylr.searchers.policies.types import RunState

SAME = 1e-6
"""Learning rates whose logarithms differ by less are the same."""


class Rounds(Protocol):
    """What is needed of the search in one setting."""

    runs: list[RunState]
    queue: list[float]
    max_trials: int
    finished: bool

    def pending(self) -> int:
        """Runs that have not stopped."""

    def tried(self) -> int:
        """Runs begun."""

    def repeat(self, run: RunState) -> None:
        """Add a run like `run` to this round."""


def contradicted(run: RunState, runs: Sequence[RunState]) -> bool:
    """Return whether a run at the same lr or a higher one trained, so that `run` failed for another reason."""
    return any(o.log_lr >= run.log_lr - SAME and o.others == run.others and _trained(o) for o in runs)


def repeat_failed(search: Rounds) -> None:
    """Between two rounds: repeat each failed run once, and count a second failure at one lr as divergence.

    Args:
        search: The search in one setting; changed in place.
    """
    if search.queue or search.finished or search.pending():
        return
    for run in [r for r in search.runs if r.end is RunEnd.FAILED]:
        twins = [r for r in search.runs if abs(r.log_lr - run.log_lr) < SAME and r.others == run.others]
        if contradicted(run, search.runs):
            continue
        if len(twins) > 1:
            run.end = RunEnd.DIVERGED
        elif search.tried() + len(search.queue) < search.max_trials:
            search.repeat(run)


def without_repeats(runs: Sequence[RunState]) -> None:
    """For searches that cannot repeat runs: count failures above all that trained as divergence, in place."""
    for run in runs:
        if run.end is RunEnd.FAILED and not contradicted(run, runs):
            run.end = RunEnd.DIVERGED


def _trained(run: RunState) -> bool:
    stopped = run.end in (RunEnd.PAUSED, RunEnd.COMPLETED, RunEnd.TRUNCATED, RunEnd.PRUNED)
    return run.measured or (stopped and bool(run.curve.tokens))
