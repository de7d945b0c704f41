"""Experiment trackers: what the run table gets, Weights & Biases or MLflow may get too, through Ray's own callbacks."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Literal

from ray.tune import Callback

from raylr.errors import InputError
from raylr.telemetry import telemetry_off

Tracker = Literal["wandb", "mlflow"]


def check_trackers(names: Sequence[Tracker]) -> None:
    """Raise InputError for a tracker whose package is not installed, before anything is trained."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"trackers: {name} is not installed; `pip install 'raylr[{name}]'` brings it")


def tracker_callbacks(names: Sequence[Tracker], project: str) -> list[Callback]:
    """Return Tune callbacks that log every trial's reports under `project`; where to is up to WANDB_* and MLFLOW_*."""
    check_trackers(names)
    telemetry_off()
    if "mlflow" in names:
        _reach_mlflow()
    callbacks: list[Callback] = []
    for name in names:
        if name == "wandb":
            from ray.air.integrations.wandb import WandbLoggerCallback

            callbacks.append(WandbLoggerCallback(project=project, log_config=True))
        else:
            from ray.air.integrations.mlflow import MLflowLoggerCallback

            callbacks.append(MLflowLoggerCallback(experiment_name=project))
    return callbacks


def _reach_mlflow() -> None:
    """Raise InputError if MLflow's store cannot be used, before anything is trained."""
    import mlflow

    try:
        mlflow.MlflowClient().search_experiments(max_results=1)
    except (mlflow.exceptions.MlflowException, ImportError) as error:
        where = mlflow.get_tracking_uri()
        raise InputError(f"trackers: mlflow cannot use MLFLOW_TRACKING_URI={where}: {error}") from error
