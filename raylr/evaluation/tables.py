"""What evaluations keep on disk: the table of scored questions and the table of attempts.

OUT/
  evals/           the scored questions, a `raylr.store.table.Table` for each evaluation
  evals.parquet    the same in one file, written at the end of every evaluation
  attempts/        the evaluations of a study, also those that failed: a `Table`
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raylr.analysis.scores.scores import QUESTION_KEY, QUESTION_SCHEMA
from raylr.store.files import digest, exclusive, write_atomic
from raylr.store.table import Table

EVALS, EVALS_FILE, ATTEMPTS = "evals", "evals.parquet", "attempts"
_FOLDER = ("run", "checkpoint", "backend", "mode", "model_hash")
"""Columns that rows share a folder by: adding to one evaluation does not read all others."""

ATTEMPT_SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("checkpoint", pa.string()),  # <run>/step-…
        ("measurement", pa.string()),  # `ScoresSpec.measurement`
        ("attempt", pa.int64()),  # from 0
        ("end", pa.string()),  # of `AttemptEnd`
        ("reason", pa.string()),  # of a failure; "" otherwise
        ("tokens", pa.int64()),  # null if it failed
        ("seconds", pa.float64()),
        ("startup_seconds", pa.float64()),
        ("questions", pa.int64()),
    ]
)
ATTEMPT_KEY = ("run", "checkpoint", "measurement", "attempt")


class AttemptEnd(StrEnum):
    """How one evaluation of a checkpoint ended."""

    SCORED = "scored"
    """All questions were scored."""
    FAILED = "failed"
    """It failed; the next run of the study tries it again."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One evaluation of a checkpoint. A failure is data, never an exception."""

    run: str
    checkpoint: str
    """Name of the checkpoint for people: run and step."""
    end: AttemptEnd
    reason: str = ""
    """Why it failed, one sentence; "" otherwise."""
    tokens: int | None = None
    """Tokens that the checkpoint was trained on; None if it failed."""
    seconds: float | None = None
    """Wall time of the whole evaluation, s."""
    startup_seconds: float | None = None
    """Wall time until the first question could be scored, s."""
    questions: int | None = None
    """Questions scored in this evaluation."""

    @property
    def scored(self) -> bool:
        """Whether there are scores."""
        return self.end is AttemptEnd.SCORED


class AttemptTable:
    """The evaluations of a study, successful or not.

    Args:
        folder: The study's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.table = Table(Path(folder) / ATTEMPTS, ATTEMPT_SCHEMA, ATTEMPT_KEY)

    def append(self, attempt: Attempt, *, measurement: str, number: int) -> None:
        """Add attempt `number` (from 0) at measuring `measurement` of its checkpoint."""
        self.table.append([asdict(attempt) | {"measurement": measurement, "attempt": number}])

    def read(self) -> pa.Table:
        """Return all attempts (`ATTEMPT_SCHEMA`), in the order in which they ended."""
        return self.table.read()


def failures(folder: Path) -> dict[str, str]:
    """Return checkpoint -> reason, of the checkpoints whose last evaluation failed; writes nothing."""
    last = {row["checkpoint"]: row for row in AttemptTable(folder).read().to_pylist()}
    return {name: row["reason"] for name, row in last.items() if row["end"] == AttemptEnd.FAILED}


class QuestionTable:
    """The scored questions of a study, or of any folder that evaluations share. Making the object writes nothing.

    The questions of each evaluation are a table of their own, so that adding to one does not read the others.

    Args:
        folder: The study's folder, or any other.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder) / EVALS
        self._tables: dict[str, Table] = {}

    def append(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Write the questions that are not in the table yet; return how many. They survive a kill and a crash."""
        parts: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            parts.setdefault(_part(row), []).append(row)
        return sum(self._table(name).append(part) for name, part in parts.items())

    def read(self, evaluation: Mapping[str, Any] | None = None) -> pa.Table:
        """Return the questions (`QUESTION_SCHEMA`).

        Args:
            evaluation: The run, checkpoint, backend, mode and model_hash that they must have; None: all questions.

        Raises:
            DamagedError, StorageError: A file cannot be read; the message names it.
        """
        tables = self.tables() if evaluation is None else [self._table(_part(evaluation))]
        parts = [table.read() for table in tables]
        return pa.concat_tables([QUESTION_SCHEMA.empty_table(), *parts], promote_options="permissive")

    def tables(self) -> list[Table]:
        """Return the table of each evaluation."""
        return [self._table(path.name) for path in sorted(self.folder.glob("*/"))]

    def finish(self, evaluation: Mapping[str, Any]) -> Path:
        """Compact the questions of an evaluation that has ended, write `evals.parquet` anew, and return its path."""
        self._table(_part(evaluation)).compact()
        path = self.folder.parent / EVALS_FILE
        with exclusive(self.folder.parent / ".evals.lock", f"another process writes {path}", timeout=-1):
            sink = pa.BufferOutputStream()
            pq.write_table(self.read(), sink)
            write_atomic(path, sink.getvalue().to_pybytes())
        return path

    def _table(self, name: str) -> Table:
        if name not in self._tables:
            self._tables[name] = Table(self.folder / name, QUESTION_SCHEMA, QUESTION_KEY)
        return self._tables[name]


def _part(row: Mapping[str, Any]) -> str:
    return digest(json.dumps([row[name] for name in _FOLDER]).encode())
