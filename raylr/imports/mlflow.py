"""MLflow: a local store (a folder of runs, or its SQLite file) by MLflow's own client."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raylr.errors import DataError
from raylr.imports.names import match_columns
from raylr.imports.options import ImportOptions
from raylr.imports.rows import Row, Rows
from raylr.telemetry import telemetry_off

PAGE = 1000
"""Runs that the client returns at once."""
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
    uri = f"sqlite:///{path.resolve()}" if path.is_file() else path.resolve().as_uri()
    with _client_errors(path):
        client = MlflowClient(tracking_uri=uri)
        runs = _runs(client)
    columns, settings = _columns(runs)
    matches = match_columns(columns, options.columns, str(path), settings)
    wanted = [matches[name].column for name in HISTORIES if name in matches]
    with _client_errors(path):
        rows = [
            row for run in runs for row in _history(client, run, [name for name in wanted if name in run.data.metrics])
        ]
    return [Rows(rows=rows, columns=columns, where=str(path), history=True, config=frozenset(settings))]


@contextmanager
def _client_errors(path: Path) -> Iterator[None]:
    """Make one sentence of what the client raises: whatever a damaged store makes its parsers raise."""
    try:
        yield
    except Exception as error:
        raise DataError(f"{path} cannot be read by MLflow's client: {' '.join(str(error).split())[:200]}") from None


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


def _history(client: Any, run: Any, metrics: list[str]) -> list[Row]:
    settings = _settings(run, run.data.metrics)
    steps: dict[int, dict[str, Any]] = {}
    for name in metrics:
        for point in sorted(client.get_metric_history(run.info.run_id, name), key=lambda one: one.timestamp):
            steps.setdefault(point.step, {"step": point.step})[name] = point.value
    where = f"run {run.info.run_name or run.info.run_id}"
    if not steps:
        return [Row(settings, where)]
    return [Row(ChainMap(values, settings), f"{where}, step {step}") for step, values in sorted(steps.items())]
