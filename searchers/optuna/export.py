"""`export`: finished runs as Optuna studies, for optuna-dashboard."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from raylr.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One trial for `export`."""

    setting: str
    """Its setting (model and budget); each becomes a study."""
    lr: float
    """Its learning rate."""
    tokens: Sequence[float]
    """Tokens of its evaluations, (n,)."""
    loss: Sequence[float]
    """Losses at them, (n,)."""
    final: float | None = None
    """The loss that counts (measured or extrapolated); None or NaN for a diverged run."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What else to show, JSON values."""


def export(
    runs: Iterable[FinishedRun], storage: str, *, name: str, lr_range: tuple[float, float] | None = None
) -> list[str]:
    """Write finished runs into an Optuna storage for optuna-dashboard.

    Each setting becomes the study `name/setting`, whose trials have `lr`, the loss curve as intermediate values at
    their tokens, and the attributes. Studies of the same name are replaced.

    Args:
        runs: The runs.
        storage: URL of the storage, such as `sqlite:///study.db`.
        name: Begins the names of the studies.
        lr_range: Range to show; it is widened to the lrs of each setting, since a search may leave its range.

    Returns:
        The names of the studies.

    Raises:
        InputError: Without runs.
    """
    by_setting: dict[str, list[FinishedRun]] = {}
    for run in runs:
        by_setting.setdefault(run.setting, []).append(run)
    if not by_setting:
        raise InputError("no runs to export")
    names = []
    for setting, members in by_setting.items():
        lrs = [r.lr for r in members] + list(lr_range or ())
        low, high = min(lrs), max(lrs)
        full = f"{name}/{setting}" if setting else name
        if full in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=full, storage=storage)
        study = optuna.create_study(study_name=full, storage=storage, direction="minimize")
        study.add_trials([_trial_of(run, low, high) for run in members])
        names.append(full)
    return names


def _trial_of(run: FinishedRun, low: float, high: float) -> FrozenTrial:
    good = run.final is not None and math.isfinite(run.final)
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if good else TrialState.FAIL,
        value=run.final if good else None,
        params={"lr": run.lr},
        distributions={"lr": FloatDistribution(low, high, log=True)},
        intermediate_values={round(t): float(v) for t, v in zip(run.tokens, run.loss, strict=True) if math.isfinite(v)},
        user_attrs=dict(run.attributes),
    )
