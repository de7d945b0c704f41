"""What a study's search has decided, kept beside what was measured: a study that is restored fits nothing again.

The table `plans` can be removed at any time: everything in it follows from the other tables. It is never trusted
further than that. A row counts for one version of the code that decides and for one state of a search
(`raylr.searchers.policies.memory`), and only as it was written; a table that is damaged or of another study is put
away, and made again.
"""

from __future__ import annotations

import hashlib
import json
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from raylr.errors import RaylrError
from raylr.store.files import remove_file
from raylr.store.table import Table

PLANS = "plans"
PLAN_SCHEMA = pa.schema([("key", pa.string()), ("code", pa.string()), ("value", pa.string())])
WRITE_SECONDS = 30.0
"""Decisions are on disk after this time; a kill loses no more of them, and they are made again."""
DECIDES = ("analysis", "searchers")
"""Packages of raylr whose code decides."""


@cache
def code_version() -> str:
    """Return a hash of the code that decides, with the version of NumPy."""
    here, found = Path(__file__).resolve().parent.parent, hashlib.sha256(version("numpy").encode())
    for package in DECIDES:
        folder = (here / package).resolve()
        for file in sorted(folder.rglob("*.py")):
            found.update(f"{package}/{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return found.hexdigest()[:16]


def seal(key: str, value: str) -> str:
    """Return a hash of a row and of the code that decided it: of another version, or changed, it is not recalled."""
    return hashlib.sha256(json.dumps([code_version(), key, value]).encode()).hexdigest()[:16]


def plans_table(study: Path, *, owner: str = "") -> Table:
    """Return the table of decisions of the study in folder `study`, whose spec has the identity `owner`."""
    return Table(Path(study) / PLANS, PLAN_SCHEMA, ("key",), owner=owner)


class Plans:
    """A `Memory` of a search, in a table of its study.

    Args:
        table: The table. It is read with the first request, and written by `flush_due` and `flush` alone.
    """

    def __init__(self, table: Table) -> None:
        self._table, self._since = table, time.monotonic()
        self._known: dict[str, str] | None = None
        self._new: dict[str, str] = {}
        self._stale = False
        """Whether the files hold something that is never to be read again."""

    def get(self, key: str) -> Any:
        """Implement `Memory`."""
        found = self._read().get(key)
        return None if found is None else json.loads(found)

    def put(self, key: str, value: Any) -> None:
        """Implement `Memory`."""
        self._read()[key] = self._new[key] = json.dumps(value)

    def flush_due(self) -> None:
        """`flush`, if the last one was `WRITE_SECONDS` ago."""
        if time.monotonic() - self._since >= WRITE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is new. Where that fails, nothing is reported here: writing the run table reports the same
        problem."""
        self._since = time.monotonic()
        if not self._new or not self._table.folder.parent.is_dir():  # a study that was removed is not made again
            return
        try:
            if self._stale:
                self._clear()
            rows = [{"key": key, "code": seal(key, value), "value": value} for key, value in self._new.items()]
            self._table.append(rows)
        except (RaylrError, OSError):
            self._stale = True
            return
        self._new = {}

    def compact(self) -> None:
        """Write all as one file."""
        self.flush()
        if not self._new and self._table.version():
            try:
                self._table.compact()
            except (RaylrError, OSError):
                self._stale = True

    def _read(self) -> dict[str, str]:
        if self._known is None:
            self._known = {}
            try:
                rows = self._table.read(columns=PLAN_SCHEMA.names).to_pylist()
            except (RaylrError, OSError):
                rows, self._stale = [], True
            for row in rows:
                if row["code"] == seal(row["key"], row["value"]):
                    self._known[row["key"]] = row["value"]
                else:
                    self._stale = True
            if self._stale:
                self._new = dict(self._known)
        return self._known

    def _clear(self) -> None:
        """Remove all files of the table; what is known is written again."""
        self._new = dict(self._known or {})
        old = self._table
        for name in old.version():
            remove_file(old.folder / name)
        self._table, self._stale = Table(old.folder, old.schema, old.key, owner=old.owner), False
