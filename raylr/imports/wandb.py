"""W&B: folders of offline runs, and a project by its API (`wandb:ENTITY/PROJECT`). Exports are CSV or JSON lines."""

from __future__ import annotations

from collections import ChainMap
from pathlib import Path
from typing import Any

from raylr.errors import DataError
from raylr.imports.names import FIELDS, plain
from raylr.imports.options import ImportOptions
from raylr.imports.rows import Row, Rows
from raylr.imports.text import flat, named_values
from raylr.records import wire
from raylr.records.wandb import CONFIG, EXIT, HISTORY, RUN, items
from raylr.store.files import storage_errors

SCHEME = "wandb:"
FILES = "run-*.wandb"
COUNT, RUN_ID = "_step", "run_id"
"""Number of a row, which W&B counts and which is the step only where a trainer reports none; the run's id."""
NAMES = {field: {plain(name) for names in FIELDS[field] for name in names.split()} for field in ("step", "run")}


def recognises(path: Path) -> bool:
    """Return whether there are offline runs below the folder."""
    if path.is_file():
        return path.suffix == ".wandb"
    return path.is_dir() and next(path.rglob(FILES), None) is not None


def read(path: Path, options: ImportOptions) -> list[Rows]:
    """Return the history of all offline runs below a folder. Raises DataError for a damaged file."""
    rows: list[Row] = []
    settings, reported = dict[str, None](), dict[str, None]()
    for file in sorted(path.rglob(FILES)) if path.is_dir() else [path]:
        config, history = _run(file)
        own = dict.fromkeys(name for values in history for name in values)
        reported |= own
        config = {f"config.{name}" if name in own else name: value for name, value in config.items()}
        settings |= dict.fromkeys(config)
        rows += [Row(ChainMap(values, config), f"{file.name}, row {i}") for i, values in enumerate(history, 1)]
    if not rows:
        raise DataError(f"{path}: its W&B runs have no history")
    if any(name != COUNT and plain(name) in NAMES["step"] for name in reported):  # a step of the trainer's own
        reported.pop(COUNT, None)
    # A file is a run; what Ray Tune calls its trial, or a trainer its run, is no other one.
    columns = [
        name for name in dict.fromkeys([*settings, *reported]) if name == RUN_ID or plain(name) not in NAMES["run"]
    ]
    return [Rows(rows=rows, columns=columns, where=str(path), history=True, config=frozenset(settings))]


def _run(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a run's settings, with its id and state, and its history."""
    with storage_errors(file, "read"):
        data = file.read_bytes()
    config: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    about: dict[str, Any] = {RUN_ID: file.stem.removeprefix("run-"), "state": "running"}
    try:
        for record, _ in wire.level_records(data):
            for number, value in wire.fields(record):
                if not isinstance(value, bytes):
                    continue
                if number == HISTORY:
                    history.append(flat(items(value, joint=".")))
                elif number == CONFIG:
                    config |= flat(items(value, joint="."))
                elif number == RUN:
                    config |= _start(value, about)
                elif number == EXIT:
                    codes = dict(wire.fields(value))
                    about["state"] = "failed" if codes.get(1, 0) else "finished"
    except wire.TornError as error:
        raise DataError(f"{file} cannot be read as a W&B file: {error}") from None
    config = {name: value for name, value in config.items() if not name.startswith("_wandb")}
    named = {k: v for k, v in named_values(str(about.get("run_name", ""))).items() if k not in config}
    return named | config | about, history


def _start(data: bytes, about: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a run began with, and take its id and name."""
    config: dict[str, Any] = {}
    for number, value in wire.fields(data):
        if number == 1:
            about[RUN_ID] = wire.text(value)
        elif number == 4 and isinstance(value, bytes):
            config |= flat(items(value, joint="."))
        elif number == 8:
            about["run_name"] = wire.text(value)
    return config


def read_project(name: str, options: ImportOptions) -> list[Rows]:
    """Return the runs of a project by W&B's API: settings and last values of each.

    Args:
        name: `wandb:ENTITY/PROJECT`.
        options: As for `read`.

    Raises:
        DataError: If the client is not installed, or the project cannot be read.
    """
    try:
        import wandb
    except ImportError:
        raise DataError(f"{name}: the W&B client is not installed; pip install 'raylr[wandb]'") from None
    try:
        found = [
            (run.id, run.state, flat(dict(run.config)), flat(dict(run.summary)))
            for run in wandb.Api().runs(name[len(SCHEME) :])
        ]
    except Exception as error:  # the client raises its own, requests' and ValueErrors
        raise DataError(f"{name} cannot be read: {' '.join(str(error).split())[:200]}") from None
    rows = [
        Row(
            {f"config.{k}": v for k, v in config.items()} | summary | {"run_id": run, "state": state},
            f"{name}, run {run}",
        )
        for run, state, config, summary in found
    ]
    settings = {column for row in rows for column in row.values if column.startswith("config.")}
    columns = list(dict.fromkeys(column for row in rows for column in row.values))
    return [Rows(rows=rows, columns=columns, where=name, config=frozenset([*settings, "run_id", "state"]))]
