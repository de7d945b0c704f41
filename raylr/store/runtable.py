"""The run table: what was measured, as append-only Parquet fragments that a kill cannot tear.

A table is a folder. Every append writes one new fragment under a temporary name, flushes it to the disk and renames it;
a reader sees whole fragments only. Rows are identified by key columns: a row whose key is already there is not written
again, so that a run which is repeated after a kill leaves every evaluation in the table exactly once.

Two tables make a study: `evaluations` (one row per evaluation) and `trials` (one row per end of a trial).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

EVALUATION_KEY = ("trial", "tokens")
EVALUATION_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("role", pa.string()),  # "search", or "check": a run at the held-out size
        ("size", pa.string()),
        ("params", pa.int64()),
        ("params_active", pa.int64()),
        ("lr", pa.float64()),
        ("tokens", pa.int64()),
        ("step", pa.int64()),
        ("loss", pa.float64()),  # validation loss, nats per token
        ("train_loss", pa.float64()),
        ("aux_loss", pa.float64()),
        ("grad_norm", pa.float64()),
        ("tokens_per_second", pa.float64()),
        ("flops", pa.float64()),
        ("diverged", pa.bool_()),
        ("seed", pa.int64()),
    ]
)
TRIAL_KEY = ("trial", "tokens")  # a run that was stopped on its way and went on has a row for each of its ends
TRIAL_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("role", pa.string()),
        ("size", pa.string()),
        ("lr", pa.float64()),
        ("tokens", pa.int64()),  # reached
        ("target_tokens", pa.int64()),
        ("flops", pa.float64()),
        ("status", pa.string()),  # "completed", "frozen" (may go on), "truncated", "pruned" or "diverged"
        ("loss", pa.float64()),  # last measured
        ("target_loss", pa.float64()),  # at target_tokens: measured, or extrapolated where truncated
        ("target_loss_stderr", pa.float64()),
        ("seconds", pa.float64()),
        ("result", pa.string()),  # JSON: the last result as the searcher heard it
    ]
)


class FragmentTable:
    """An append-only table of Parquet fragments in one folder.

    `folder` is made if it is missing. Columns beyond `schema` are kept as they come; columns of `schema` that a row
    lacks are null. `key` names the columns that identify a row. Not for several writers at once: a study holds a lock.
    """

    def __init__(self, folder: Path, schema: pa.Schema, key: Sequence[str]) -> None:
        self.folder, self.schema, self.key = Path(folder), schema, tuple(key)
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = self.read(columns=list(self.key)).to_pylist()
        self._keys = {tuple(row[name] for name in self.key) for row in rows}
        fragments = self.fragments()
        self._next = int(fragments[-1].name.split("-")[0]) + 1 if fragments else 0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: tuple[object, ...]) -> bool:
        return key in self._keys

    def fragments(self) -> list[Path]:
        """Return the whole fragments in the order in which they were written."""
        return sorted(self.folder.glob("[0-9]*.parquet"))

    def append(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Write the rows whose key is not in the table yet as one fragment; return how many were written.

        When this returns, the rows survive a kill of the process and a crash of the machine.
        """
        fresh: dict[tuple[object, ...], dict[str, Any]] = {}
        for row in rows:
            key = tuple(row[name] for name in self.key)
            if key not in self._keys:
                fresh[key] = dict(row)
        if not fresh:
            return 0
        table = _typed(list(fresh.values()), self.schema)
        name = f"{self._next:08d}-{uuid.uuid4().hex[:8]}.parquet"
        temporary = self.folder / f".{name}.tmp"
        with temporary.open("wb") as sink:
            pq.write_table(table, sink)
            sink.flush()
            os.fsync(sink.fileno())
        temporary.rename(self.folder / name)
        _flush_folder(self.folder)
        self._next += 1
        self._keys.update(fresh)
        return len(fresh)

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """Read the table, `columns` of it or all. Raises ValueError naming a fragment that cannot be read."""
        parts = [self.schema.empty_table() if columns is None else self.schema.empty_table().select(columns)]
        for fragment in self.fragments():
            try:
                parts.append(pq.ParquetFile(fragment).read(columns=columns))
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{fragment} is damaged ({error}); move it away and run again") from error
        return pa.concat_tables(parts, promote_options="permissive")


def evaluations_table(study: Path) -> FragmentTable:
    """Open the table of evaluations of the study in folder `study`."""
    return FragmentTable(Path(study) / "evaluations", EVALUATION_SCHEMA, EVALUATION_KEY)


def trials_table(study: Path) -> FragmentTable:
    """Open the table of ended trials of the study in folder `study`."""
    return FragmentTable(Path(study) / "trials", TRIAL_SCHEMA, TRIAL_KEY)


def _typed(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    extra = {name: None for row in rows for name in row if name not in schema.names}
    arrays = {name: pa.array([row.get(name) for row in rows], schema.field(name).type) for name in schema.names}
    return pa.table(arrays | {name: pa.array([row.get(name) for row in rows]) for name in extra})


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
