"""All kinds of sources, and the one that a path is: `read_runs`.

One module reads each kind of source; all have `recognises(path)` and `read(path, options)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raylr.errors import DataError
from raylr.imports import mlflow, parquet, study, tensorboard, text, wandb
from raylr.imports.options import ImportOptions
from raylr.imports.run import ImportedRuns
from raylr.imports.runs import runs_from
from raylr.imports.units import check_units

SOURCES = {
    "CSV, JSON lines": text,
    "Parquet": parquet,
    "W&B": wandb,
    "MLflow": mlflow,
    "TensorBoard": tensorboard,
}
"""Kind of source -> its module, in the order in which they are tried."""


def read_runs(paths: Sequence[str | Path], options: ImportOptions | None = None) -> ImportedRuns:
    """Return the finished runs of files, folders and trackers.

    Args:
        paths: Files, folders, or `wandb:ENTITY/PROJECT`.
        options: What the sources do not say.

    Raises:
        DataError: If a path is no source, or what it holds cannot be read as runs; the message says what would be.
    """
    options = options or ImportOptions()
    if not paths:
        raise DataError("no files were given")
    parts = [part for path in paths for part in _read(path, options)]
    runs = [run for part in parts for run in part.runs]
    left_out: dict[str, list[str]] = {}
    for part in parts:
        for reason, where in part.left_out.items():
            left_out.setdefault(reason, []).extend(where)
    check_units(runs, "the files together")
    return ImportedRuns(runs=runs, notes=[note for part in parts for note in part.notes], left_out=left_out)


def _read(path: str | Path, options: ImportOptions) -> list[ImportedRuns]:
    if str(path).startswith(wandb.SCHEME):
        return [runs_from(rows, options) for rows in wandb.read_project(str(path), options)]
    path = Path(path)
    try:
        there = path.exists()
    except (OSError, ValueError):
        there = False
    if not there:
        raise DataError(f"there is no {path}")
    if study.recognises(path):
        return [study.read_study(path, options.by)]
    for source in SOURCES.values():
        if source.recognises(path):
            try:
                return [runs_from(rows, options) for rows in source.read(path, options)]
            except RecursionError:  # JSON's own limit lies above that of Python's functions in Python 3.12
                raise DataError(f"{path} holds values that are nested too deep") from None
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if text.recognises(one) or parquet.recognises(one))
        if files:
            return [part for file in files for part in _read(file, options)]
    raise DataError(
        f"{path} is not a known kind of source: a CSV, JSON lines or Parquet file, a folder of TensorBoard's "
        "events, an MLflow store, W&B's offline runs, a study"
    )
