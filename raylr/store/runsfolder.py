"""`RunsFolder`: finished runs that were imported, in the two tables of a study, without a spec.

runs.json       version of the format
evaluations/    one row per evaluation of the runs whose curve is known      } append-only Parquet fragments, as in a
trials/         one row per run: its settings, how it ended, its final loss   } study's folder

A run is known by what was measured: its settings, LR and seed, or its source's own name for it. Of runs that have
neither a name nor a seed, those with equal losses are the same run, others are repetitions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raylr.analysis.runs import Run, RunEnd, identity_of
from raylr.errors import DamagedError, StudyError
from raylr.remote.copies import local_path, with_addresses
from raylr.store.columns import to_table
from raylr.store.files import exclusive, fetch, names_in, storage_errors, write_atomic
from raylr.store.places import refuse_copy
from raylr.store.runtable import (
    EVALUATION_SCHEMA,
    EVALUATIONS,
    RUNS_FILE,
    TRIAL_SCHEMA,
    TRIALS,
    evaluations_table,
    trials_table,
)

if TYPE_CHECKING:
    from raylr.imports.run import ImportedRun

LOCK_FILE = ".lock"
FORMAT = 1
"""Version of the folder's format."""
BY = "by."
"""Begins the columns that a user named to keep runs apart."""
ROLE = "search"
SAME_LOSS = 1e-9
"""Relative difference of losses below which two runs without a name are the same: exports write 8 digits or more."""


@dataclass(frozen=True, kw_only=True)
class Added:
    """What an import changed."""

    new: int
    known: int
    """Runs that were in the folder before."""
    notes: list[str] = field(default_factory=list)


class RunsFolder:
    """A folder of finished runs. Making the object reads and writes nothing.

    Args:
        path: The folder; made with the first runs.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = local_path(path)

    @staticmethod
    def at(path: Path) -> bool:
        """Return whether there is such a folder."""
        return (Path(path) / RUNS_FILE).is_file()

    def check(self) -> None:
        """Raise StudyError unless the folder is one of runs, or free for them. At an address, read it as it is now."""
        fetch(self.path, (EVALUATIONS, TRIALS))
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise StudyError(f"{self.path} is a file; choose another folder for the runs")
        if not self.at(self.path):
            if names_in(self.path):
                raise StudyError(f"{self.path} is not empty and holds no imported runs; choose another folder")
            return
        try:
            about = json.loads((self.path / RUNS_FILE).read_text(encoding="utf-8"))
            known = about["format"] == FORMAT
        except (ValueError, KeyError, TypeError):
            raise DamagedError(f"{self.path / RUNS_FILE} is damaged: it does not say its format") from None
        if not known:
            raise StudyError(f"{self.path} holds runs of another version of raylr, {about.get('raylr')}")

    def add(self, runs: Sequence[ImportedRun]) -> Added:
        """Append the runs that are new.

        Raises:
            StudyError: If the folder holds something else, or is in Ray's copy of a job's working directory.
            StudyLockedError: If another process is adding runs.
            StorageError: If it cannot be written.
        """
        self.check()
        refuse_copy(self.path)
        with storage_errors(self.path, "make"):
            self.path.mkdir(parents=True, exist_ok=True)
        with exclusive(self.path / LOCK_FILE, f"another process is adding runs to {with_addresses(str(self.path))}"):
            self.check()
            trials = trials_table(self.path)
            before = trials.read().to_pylist()
            evaluations, ends, notes = rows_of(runs, before)
            if not self.at(self.path):
                about = {"format": FORMAT, "kind": "runs", "raylr": version("raylr")}
                write_atomic(self.path / RUNS_FILE, json.dumps(about) + "\n")
            evaluations_table(self.path).append(evaluations)
            new = trials.append(ends)
            return Added(new=new, known=len(runs) - new, notes=notes)

    def trials(self) -> list[dict[str, Any]]:
        """Return one row per run: the last that is known of it."""
        self.check()
        return last_of_each(trials_table(self.path).read().to_pylist())

    def evaluations(self) -> pa.Table:
        """Return the table of evaluations."""
        self.check()
        return evaluations_table(self.path).read()


def last_of_each(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the row of each run that came furthest."""
    last: dict[str, dict[str, Any]] = {}
    for row in rows:
        old = last.get(row["trial"])
        if old is None or int(row["tokens"] or 0) >= int(old["tokens"] or 0):
            last[row["trial"]] = row
    return list(last.values())


def rows_of(
    runs: Sequence[ImportedRun], before: Sequence[dict[str, Any]] = ()
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Return rows of the two tables for runs, and notes about runs that are in them with another loss.

    Args:
        runs: The runs.
        before: Rows of the table of trials.
    """
    losses: dict[str, list[tuple[str, float]]] = {}  # settings -> (identity, loss) of the runs without a name
    known = {row["trial"]: row for row in before}
    for row in before:
        if row.get("settings"):
            losses.setdefault(row["settings"], []).append((row["trial"], _loss(row["target_loss"])))
    evaluations: list[dict[str, Any]] = []
    trials: list[dict[str, Any]] = []
    changed: list[str] = []
    for run in runs:
        measured = _measured(run)
        settings = identity_of(measured)
        label = run.run or run.size or ""
        if run.run is not None:
            measured |= {"run": run.run}
            if run.curve:  # a name and its curve: the run may go on, and is the same run then
                measured.pop("tokens", None)
        elif run.seed is None:
            measured |= {"replicate": _replicate(losses.setdefault(settings, []), run.loss)}
        whole = Run(measured=measured, label=label)
        old = known.get(whole.name)
        if run.run is None and run.seed is None and old is None:
            losses[settings].append((whole.name, run.loss))
        tokens = int(run.tokens or 0)
        if old is not None and int(old["tokens"] or 0) == tokens and not _same(_loss(old["target_loss"]), run.loss):
            changed.append(f"{run.where}: {run.loss:.6g}, in the table {_loss(old['target_loss']):.6g}")
        row = _trial_row(run, whole, settings)
        known.setdefault(whole.name, row)
        trials.append(row)
        evaluations += _evaluation_rows(run, row)
    notes = []
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        notes.append(
            f"{len(changed)} runs are in the table with another loss, which is kept ({'; '.join(changed[:3])}{more}); "
            "import into a new folder to take the new ones"
        )
    return evaluations, trials, notes


def _replicate(known: list[tuple[str, float]], loss: float) -> int:
    """Return the number of the run with this loss among those of its setting and LR; a new one if there is none."""
    return next((i for i, (_, one) in enumerate(known) if _same(one, loss)), len(known))


def _same(a: float, b: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or abs(a - b) <= SAME_LOSS * max(abs(a), abs(b))


def _loss(value: Any) -> float:
    return math.nan if value is None else float(value)


def _measured(run: ImportedRun) -> dict[str, Any]:
    """Return what tells a run from others."""
    return {
        "purpose": "imported", "params": run.params, "params_active": run.params_active, "size": run.size,
        "tokens": run.target_tokens, "batch": run.batch, "batch_kind": run.batch_kind, "lr": run.lr, "seed": run.seed,
        "conditions": dict(run.conditions), "by": dict(run.by),
    }  # fmt: skip


def _trial_row(run: ImportedRun, whole: Run, settings: str) -> dict[str, Any]:
    known = run.end in (RunEnd.COMPLETED, RunEnd.TRUNCATED)
    row: dict[str, Any] = {
        "trial": whole.name,
        "role": ROLE,
        "size": run.size,
        "lr": run.lr,
        "tokens": int(run.tokens or 0),
        "target_tokens": None if run.target_tokens is None else int(run.target_tokens),
        "status": run.end.value,
        "end": run.end.value,
        "loss": run.loss,
        "target_loss": run.loss if known else None,
        "target_loss_stderr": run.loss_stderr if known else None,
        "evaluations": len(run.curve),
        "config": whole.config,
        "params": None if run.params is None else int(run.params),
        "params_active": None if run.params_active is None else int(run.params_active),
        "batch": None if run.batch is None else round(run.batch),
        "batch_kind": run.batch_kind,
        "seed": run.seed,
        "name": run.run,
        "source": run.where,
        "settings": settings if run.run is None and run.seed is None else None,
    }
    return row | dict(run.conditions) | {f"{BY}{name}": value for name, value in run.by.items()}


def _evaluation_rows(run: ImportedRun, row: dict[str, Any]) -> list[dict[str, Any]]:
    kept = ("trial", "role", "size", "params", "params_active", "lr", "seed")
    return [
        {
            **{name: row[name] for name in kept},
            "tokens": int(point.tokens),
            "step": None if point.step is None else int(point.step),
            "loss": point.loss,
            "current_lr": point.current_lr,
            "diverged": not math.isfinite(point.loss),
        }
        for point in run.curve
    ]


def in_memory(runs: Sequence[ImportedRun]) -> tuple[list[dict[str, Any]], pa.Table]:
    """Return rows of trials and the table of evaluations of runs that no folder holds."""
    evaluations, trials, _ = rows_of(runs)
    return last_of_each(trials), to_table(evaluations, EVALUATION_SCHEMA, EVALUATIONS)


def trials_as_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return rows of trials as an Arrow table."""
    return to_table(list(rows), TRIAL_SCHEMA, TRIALS)
