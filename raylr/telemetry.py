"""Programs that raylr starts or imports report nothing about their use to their makers, unless the environment asks for
it."""

from __future__ import annotations

import os
from collections.abc import Mapping

OFF: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_ERROR_REPORTING": "false",  # crash reports to Sentry, which W&B sends offline too
}
"""Variable → the value that switches the reports off: of Ray's clusters, MLflow's client, Hugging Face's libraries and
W&B's client. Optuna, DeepSpeed, torch, matplotlib and plotly report nothing."""


def telemetry_off() -> None:
    """Switch reports off for this process and those that it starts; what the environment says already stays."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
