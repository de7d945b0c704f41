"""MLflow: a local store (a folder of runs, or its SQLite file) by MLflow's own client."""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
from collections import ChainMap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from raylr.errors import DataError
from raylr.imports.names import match_columns
from raylr.imports.options import ImportOptions
from raylr.imports.rows import Row, Rows
from raylr.telemetry import telemetry_off

PAGE = 1000
"""Runs that the client returns at once."""
TABLES = ("alembic_version", "experiments", "runs", "params", "metrics", "latest_metrics")
"""Tables of every version of MLflow's SQLite store."""
HISTORIES = ("loss", "tokens", "current_lr", "step")


def recognises(path: Path) -> bool:
    """Return whether the path is a store of MLflow: a folder of experiments, or a SQLite file with its tables."""
    if path.is_file():
        return path.suffix in (".db", ".sqlite") and b"experiments" in path.read_bytes()[: 1 << 20]
    return path.is_dir() and any((one / "meta.yaml").is_file() for one in path.iterdir() if one.is_dir())


def read(path: Path, options: ImportOptions) -> list[Rows]:
    """Return the runs of a store: parameters, and the history of the metrics that describe a run.

    Raises:
        DataError: If the client is not installed or cannot read the store.
    """
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 refuses folders without it
    telemetry_off()
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise DataError(f"{path}: MLflow's client is not installed; pip install 'raylr[mlflow]'") from None
    with _uri(path) as uri:
        with _client_errors(path):
            client = MlflowClient(tracking_uri=uri)
            runs = _runs(client)
        columns, settings = _columns(runs)
        matches = match_columns(columns, options.columns, str(path), settings)
        wanted = [matches[name].column for name in HISTORIES if name in matches]
        with _client_errors(path):
            rows = [
                row
                for run in runs
                for row in _history(client, path, run, [name for name in wanted if name in run.data.metrics])
            ]
    return [Rows(rows=rows, columns=columns, where=str(path), history=True, config=frozenset(settings))]


@contextmanager
def _uri(path: Path) -> Iterator[str]:
    """Give the address of a store for the client: a folder's own, and that of a copy of an SQLite file.

    The client writes into the files that it reads: one of an older MLflow it upgrades, after which that MLflow refuses
    it, and where tables are missing it makes them.
    """
    if not path.is_file():
        yield path.resolve().as_uri()
        return
    with tempfile.TemporaryDirectory(prefix="raylr-mlflow-") as folder:
        copy = Path(folder) / "mlflow.db"
        try:
            with (
                closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base,
                closing(sqlite3.connect(copy)) as target,
            ):
                names = {row[0] for row in base.execute("select name from sqlite_master where type = 'table'")}
                if lacking := [name for name in TABLES if name not in names]:
                    raise DataError(f"{path} is no store of MLflow: it has no table {lacking[0]!r}")
                base.backup(target)
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter for names of tables
            raise DataError(f"{path} cannot be read as an SQLite file: {' '.join(str(error).split())[:200]}") from None
        yield f"sqlite:///{copy}"


@contextmanager
def _client_errors(path: Path) -> Iterator[None]:
    """Make one sentence of any exception of the client: a damaged store makes its parsers raise many types, which it
    logs with tracebacks, too."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    except Exception as error:
        raise DataError(f"{path} cannot be read by MLflow's client: {' '.join(str(error).split())[:200]}") from None
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _runs(client: Any) -> list[Any]:
    found: list[Any] = []
    experiments = [one.experiment_id for one in client.search_experiments()]
    token = None
    while experiments:
        page = client.search_runs(experiments, max_results=PAGE, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            break
    return found


def _columns(runs: list[Any]) -> tuple[list[str], set[str]]:
    reported = dict.fromkeys(name for run in runs for name in run.data.metrics)
    settings = dict.fromkeys(name for run in runs for name in _settings(run, reported))
    return [*settings, *reported, "step"], set(settings)


def _settings(run: Any, reported: Any) -> dict[str, Any]:
    found = {f"config.{name}" if name in reported else name: value for name, value in run.data.params.items()}
    return found | {"run_id": run.info.run_id, "state": run.info.status}


def _history(client: Any, path: Path, run: Any, metrics: list[str]) -> list[Row]:
    settings = _settings(run, run.data.metrics)
    steps: dict[int, dict[str, Any]] = {}
    for name in metrics:
        for point in sorted(client.get_metric_history(run.info.run_id, name), key=lambda one: one.timestamp):
            steps.setdefault(point.step, {"step": point.step})[name] = point.value
    where = f"{path.name}, run {run.info.run_name or run.info.run_id}"
    if not steps:
        return [Row(settings, where)]
    return [Row(ChainMap(values, settings), f"{where}, step {step}") for step, values in sorted(steps.items())]
