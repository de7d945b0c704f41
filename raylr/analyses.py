"""What `raylr analyse` reads: the evaluations of a study, of a file of rows, or a coordinate check."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylr.errors import DamagedError, DataError, InputError
from raylr.store.files import names_in, storage_errors
from raylr.store.places import opened

if TYPE_CHECKING:
    from raylr.spec import StudySpec

REQUIRED = ("trial", "tokens", "lr", "params")
"""Columns that rows of a file must have."""


@dataclass(frozen=True, kw_only=True)
class MeasuredRuns:
    """Rows of the run table, one for each validation, by run and tokens.

    `qk_norm` in a row is whether its model normalises queries and keys; None where that is not known.
    """

    rows: list[dict[str, Any]]
    where: str

    def runs(self) -> dict[str, list[dict[str, Any]]]:
        """Return trial → its rows, by tokens."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            found.setdefault(str(row["trial"]), []).append(row)
        return found

    def kinds(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows with QK norm, without, and those of which it is not known, as far as there are any."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            norm = row.get("qk_norm")
            kind = ("with QK norm" if norm else "without QK norm") if isinstance(norm, bool) else "all runs"
            found.setdefault(kind, []).append(row)
        return found


def read_measured(path: Path | str) -> MeasuredRuns:
    """Return the evaluations of a study's folder, or of a file (JSON lines, CSV, Parquet) with one row for each.

    Args:
        path: The folder, or a file with the columns of `REQUIRED`; a folder with one `evaluations.jsonl` is one too.

    Raises:
        InputError: If there is nothing such.
        DataError: If a file lacks a column.
    """
    path = opened(path)
    file = path / "evaluations.jsonl" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        return _of_study(path)
    if not file.exists():
        raise InputError(f"there is no {path}; give a study's folder or a file of rows")
    rows = _of_file(file)
    if not rows:
        raise DataError(f"{file} has no rows")
    if missing := [name for name in REQUIRED if any(row.get(name) is None for row in rows)]:
        raise DataError(f"{file}: rows lack {', '.join(missing)}; each needs {', '.join(REQUIRED)}")
    return MeasuredRuns(rows=_ordered(rows), where=str(file))


def _of_study(path: Path) -> MeasuredRuns:
    from raylr.store.folder import open_folder

    folder = open_folder(path)
    rows = folder.rows().to_pylist()
    if not rows:
        raise InputError(f"nothing was measured yet in {path}")
    return measured_of(folder.spec, rows, str(path))


def measured_of(spec: StudySpec, rows: Iterable[Mapping[str, Any]], where: str) -> MeasuredRuns:
    """Return rows of the run table of a study, with whether their models normalise queries and keys.

    Args:
        spec: The study's spec.
        rows: Rows of its run table.
        where: The study's folder, for messages.
    """
    from raylr.trainables.models.spec import ModelSpec

    models = spec.models() | {target.name: spec.target_model(target) for target in spec.targets}
    norms = {name: model.qk_norm for name, model in models.items() if isinstance(model, ModelSpec)}
    return MeasuredRuns(rows=_ordered([{**row, "qk_norm": norms.get(row["size"])} for row in rows]), where=where)


def changes_in_checkpoints(path: Path) -> list[dict[str, Any]]:
    """Return what the probe `changes` would have measured at the checkpoints that a study keeps, in any order.

    Args:
        path: The study's folder.
    """
    from raylr.store.folder import CORPUS, open_folder
    from raylr.trainables.export.changes import changes_of
    from raylr.trainables.models.spec import ModelSpec
    from raylr.trainables.training.checkpoint import RunFolder

    folder = open_folder(path)
    rows = folder.rows().to_pylist()
    if folder.spec.external:
        return []
    of_run = {str(row["trial"]): row for row in rows}
    corpus = folder.spec.corpus.path or folder.path / CORPUS
    models = folder.spec.models()
    found = []
    for name in sorted(names_in(folder.checkpoints)):
        about, run = of_run.get(name), folder.checkpoints / name
        if about is None:
            continue
        model = models.get(about["size"])
        norm = model.qk_norm if isinstance(model, ModelSpec) else None
        known = {"trial": name, "size": about["size"], "qk_norm": norm}
        found += [known | changes_of(checkpoint, corpus) for checkpoint in RunFolder(run).whole()]
    return found


def _of_file(file: Path) -> list[dict[str, Any]]:
    from raylr.imports import parquet, text
    from raylr.imports.options import ImportOptions

    reader = next((one for one in (text, parquet) if one.recognises(file)), None)
    if reader is None:
        raise InputError(f"{file} is neither a study's folder nor a CSV, JSON lines or Parquet file")
    return [{name: _number(value) for name, value in row.values.items()}
            for source in reader.read(file, ImportOptions()) for row in source.rows]  # fmt: skip


def _number(value: Any) -> Any:
    """Return the number, or truth value, that a cell of a text file says; None for an empty one."""
    if not isinstance(value, str):
        return value
    if value.strip() == "" or value in ("true", "True", "false", "False"):
        return None if value.strip() == "" else value.lower() == "true"
    try:
        return float(value)
    except ValueError:
        return value


def _ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    order = {trial: place for place, trial in enumerate(dict.fromkeys(str(row["trial"]) for row in rows))}
    return sorted(rows, key=lambda row: (order[str(row["trial"])], float(row["tokens"])))


def read_check(folder: Path | str) -> list[Mapping[str, Any]] | None:
    """Return the checks that `raylr coord-check` wrote into a folder; None if it holds none.

    Raises:
        DamagedError: If its file cannot be read.
    """
    from raylr.coordinates import RESULT

    file = Path(folder) / RESULT
    if not file.is_file():
        return None
    with storage_errors(file, "read"):
        data = file.read_bytes()
    try:
        found: list[Mapping[str, Any]] = json.loads(data)["checks"]
        assert all({"variant", "axis", "rows", "measured"} <= {*check} for check in found)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise DamagedError(f"{file} is damaged: it holds no coordinate checks ({error})") from None
    return found
