"""`RunStore`: what a study has measured, by run. It answers for runs that are known, and takes what new runs report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from raylr.analysis.runs import Run, RunEnd
from raylr.errors import DamagedError
from raylr.store.plans import Plans
from raylr.store.table import Table

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class KnownEnd:
    """An end of a run, or of a segment of it, that is in the tables with all its evaluations."""

    end: RunEnd
    row: Row
    """The row of the table of trials."""
    curve: list[Row]
    """The run's evaluations up to there, by tokens."""


class RunStore:
    """The two tables of a study, read once and by run; what is added is written at once or with the next flush.

    Args:
        evaluations: One row per evaluation.
        trials: One row per end of a segment.
        failures: One row per failure of a run; None: they are not kept.
        plans: What the search decided, which is kept with the tables; None: it is not.

    Raises:
        DamagedError, StudyError, StorageError: As `Table.read`.
    """

    def __init__(
        self, evaluations: Table, trials: Table, failures: Table | None = None, plans: Plans | None = None
    ) -> None:
        self.evaluations, self.trials, self.failures, self.plans = evaluations, trials, failures, plans
        self._curves: dict[str, dict[int, Row]] = {}
        self._ends: dict[str, list[Row]] = {}
        for row in evaluations.read().to_pylist():
            self._curves.setdefault(row["trial"], {}).setdefault(row["tokens"], row)
        for row in trials.read().to_pylist():
            self._ends.setdefault(row["trial"], []).append(row)
        self._names = {name.partition("-")[0]: name for name in (*self._curves, *self._ends)}

    def known(self, run: str, *, tokens: int, stop_at: int) -> KnownEnd | None:
        """Return how a run ended, if that answers for a segment of it; None if it must be trained.

        A run that diverged has no later segment. One that was stopped early answers for the token count that its loss
        was predicted at. Any other answers for segments up to where it came.

        Args:
            run: Name of the run.
            tokens: Token count at which its loss counts.
            stop_at: Where the segment ends.
        """
        for row in sorted(self._ends.get(run, []), key=lambda row: int(row["tokens"])):
            end = run_end(row)
            if end is RunEnd.DIVERGED:
                answers = True
            elif end in (RunEnd.TRUNCATED, RunEnd.PRUNED):
                answers = row["target_tokens"] == tokens
            else:
                answers = row["tokens"] >= stop_at
            if answers:
                return None if self._lacks(row) else KnownEnd(end=end, row=row, curve=self._until(row))
        return None

    def curve(self, run: str) -> list[Row]:
        """Return all evaluations of a run, by tokens."""
        curve = self._curves.get(run, {})
        return [curve[tokens] for tokens in sorted(curve)]

    def named(self, run: Run) -> Run:
        """Return the run under the name that it has in the tables; a changed spec may give it another label."""
        known = self._names.get(run.identity)
        label = run.label if known is None else known.partition("-")[2]
        return run if label == run.label else replace(run, label=label)

    def ends(self, run: str) -> list[KnownEnd]:
        """Return the ends of a run's segments that are whole, by tokens."""
        rows = sorted(self._ends.get(run, []), key=lambda row: int(row["tokens"]))
        return [KnownEnd(end=run_end(row), row=row, curve=self._until(row)) for row in rows if not self._lacks(row)]

    def lost(self) -> dict[str, str]:
        """Return run -> what is missing, for the runs whose end is known and some of whose evaluations are not there.

        They are trained again when the study runs.
        """
        found: dict[str, str] = {}
        for run, rows in self._ends.items():
            for row in rows:
                if lacking := self._lacks(row):
                    found[run] = f"{lacking} of {row['evaluations']} evaluations up to {row['tokens']} tokens"
        return found

    def unfinished(self) -> list[str]:
        """Return the runs that have evaluations and no end."""
        return [run for run in self._curves if run not in self._ends]

    def add_evaluation(self, row: Mapping[str, Any]) -> None:
        """Take one evaluation; it is on disk after `FLUSH_SECONDS`, or when a segment ends."""
        self._curves.setdefault(row["trial"], {}).setdefault(row["tokens"], dict(row))
        self.evaluations.put([row])

    def add_end(self, row: Mapping[str, Any]) -> Row:
        """Write the end of a segment, after all evaluations; return the row with the number of its evaluations."""
        self.evaluations.flush()
        whole = {**row, "evaluations": len(self._until(row))}
        self._ends.setdefault(row["trial"], []).append(whole)
        self.trials.append([whole])
        return whole

    def add_failure(self, row: Mapping[str, Any]) -> None:
        """Write that a run failed, if failures are kept."""
        if self.failures is not None:
            self.failures.append([row])

    def flush_due(self) -> None:
        """Write what has waited long enough."""
        self.evaluations.flush_due()
        if self.plans is not None:
            self.plans.flush_due()

    def flush(self) -> None:
        """Write everything."""
        self.evaluations.flush()
        self.trials.flush()
        if self.plans is not None:
            self.plans.flush()

    def compact(self) -> None:
        """Write each table as one fragment."""
        self.evaluations.compact()
        self.trials.compact()
        if self.plans is not None:
            self.plans.compact()

    def _until(self, row: Mapping[str, Any]) -> list[Row]:
        curve = self._curves.get(row["trial"], {})
        return [curve[tokens] for tokens in sorted(curve) if tokens <= row["tokens"]]

    def _lacks(self, row: Mapping[str, Any]) -> int:
        return max(0, int(row["evaluations"] or 0) - len(self._until(row)))


def run_end(row: Mapping[str, Any]) -> RunEnd:
    """Return the end in a row of the table of trials. Raises DamagedError if it is not a known end."""
    try:
        return RunEnd(row["end"])
    except ValueError:
        raise DamagedError(
            f"the table of trials has the end {row['end']!r} for {row['trial']}, which does not exist"
        ) from None
