"""Coordinate checks on disk: what was measured, kept run by run, so that a check that was killed goes on.

The folder of a check has `coordinates/` (an append-only table, one row per activation and step), `check.json` and
`coord-check.html` with `figures/`. It may hold runs of any settings; a check finds its own by their identity.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from raylr.analysis.coordinates import LEVEL, CoordinateCheck
from raylr.errors import StudyError
from raylr.store.files import fetch, names_in, storage_errors, write_atomic
from raylr.store.table import Table

SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("observable", pa.string()),
        ("layer", pa.string()),
        ("step", pa.int64()),
        ("std", pa.float64()),
    ]
)
KEY = ("run", "observable", "layer", "step")
TABLE = "coordinates"
RESULT = "check.json"


class StoredResults:
    """What coordinate checks have measured in a folder (`raylr.trainables.coordinates.check.Results`).

    Args:
        folder: The folder; made with the first run.

    Raises:
        StudyError: If the folder holds other things, such as a study.
        DamagedError, StorageError: As `raylr.store.table.Table.read`.
    """

    def __init__(self, folder: Path) -> None:
        fetch(folder, (TABLE,))
        if folder.is_dir() and not (folder / TABLE).exists() and names_in(folder):
            raise StudyError(f"{folder} is not empty and holds no coordinate check; choose another folder")
        self._table = Table(folder / TABLE, SCHEMA, KEY)
        self._runs: dict[str, list[dict[str, Any]]] = {}
        for row in self._table.read().to_pylist():
            self._runs.setdefault(row.pop("run"), []).append(row)

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, run: str) -> list[dict[str, Any]] | None:
        """Return the rows of a run; None if it was not measured."""
        return self._runs.get(run)

    def put(self, run: str, rows: list[dict[str, Any]]) -> None:
        """Write the rows of a run; when this returns they survive a kill."""
        self._table.append([{"run": run, **row} for row in rows])
        self._runs[run] = rows


def write_results(folder: Path, checks: Sequence[CoordinateCheck], settings: dict[str, Any]) -> list[Path]:
    """Write the result of checks as JSON, and a page with their figures.

    Args:
        folder: The folder of the check.
        checks: What was found.
        settings: What was requested, for the readers of the JSON.

    Returns:
        The files written.

    Raises:
        StorageError: If they cannot be written.
    """
    from raylr.report.coordinates import write_page
    from raylr.trainables.coordinates.expected import INVISIBLE

    folder = Path(folder)
    with storage_errors(folder, "make"):
        folder.mkdir(parents=True, exist_ok=True)
    file = folder / RESULT
    write_atomic(file, json.dumps(as_json_of(checks, settings), indent=1, ensure_ascii=False))
    return [file, *write_page(folder, checks, INVISIBLE)]


def as_json_of(checks: Sequence[CoordinateCheck], settings: dict[str, Any]) -> dict[str, Any]:
    """Return checks as JSON's types."""
    from raylr.trainables.coordinates.expected import INVISIBLE

    return {"settings": settings, "level": LEVEL, "checks": [check.to_json() for check in checks],
            "cannot_see": INVISIBLE}  # fmt: skip
