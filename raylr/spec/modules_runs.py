"""The runs of a study with `modules`: their model and training settings, and what the run table says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylr.spec.batches import TrainSettings
from raylr.spec.external import ExternalModel
from raylr.spec.modules import SearchedAxis, present_roles, searched_axes
from raylr.spec.study import StudySpec
from raylr.spec.transfer import Model
from raylr.spec.transfer_runs import with_init_std
from raylr.trainables.models.roles import MODULE_OF, roles_of_key

MEASURED = {"lr_multipliers": "lr", "weight_decay_multipliers": "weight_decay"}
"""Table of `train` -> its name in a run's identity."""


def placed_modules(
    spec: StudySpec, model: Model, train: TrainSettings, axes: Mapping[str, float]
) -> tuple[Model, TrainSettings]:
    """Return model and training settings of a run with these values of the axes.

    Factors of `train` that the spec has already are multiplied.

    Args:
        spec: A spec with `modules`.
        model: Model of the size.
        train: Training settings, with the seed.
        axes: Value of each axis.
    """
    known = searched_axes(spec)
    if isinstance(model, ExternalModel):
        return model.with_args({axis.column: axes[axis.name] for axis in known}), train
    changed: dict[str, Any] = {}
    for axis in known:
        value = axes[axis.name]
        if axis.name == "init_std":
            model = with_init_std(model, value)
        elif not axis.table:
            changed[axis.name] = value
        elif value != 1.0:
            table = changed.setdefault(axis.table, dict(getattr(train, axis.table)))
            for role in _roles(axis, model):
                table[role] = value * _factor(getattr(train, axis.table), role)
    return model, train.model_copy(update=changed)


def values_of(spec: StudySpec, model: Model, measured: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the values of the axes of a run that was measured; None if it does not say them.

    Args:
        spec: A spec with `modules`.
        model: Model of the size.
        measured: What identifies the run (`raylr.analysis.runs.Run.measured`).
    """
    values: dict[str, Any] = {}
    for axis in searched_axes(spec):
        if spec.external:
            values[axis.name] = measured.get("args", {}).get(axis.column)
        elif axis.name == "init_std":
            there = measured["model"]
            values[axis.name] = there["hf"].get("initializer_range") if "hf" in there else there.get("init_std")
        elif not axis.table:
            values[axis.name] = measured["train"].get(axis.name)
        else:
            role = _roles(axis, model)[0]
            base = _factor(getattr(spec.train, axis.table), role)
            factor = measured.get("multipliers", {}).get(MEASURED[axis.table], {}).get(role, 1.0)
            values[axis.name] = factor / base if base else None
    return None if None in values.values() else {name: float(value) for name, value in values.items()}


def module_columns(spec: StudySpec, axes: Mapping[str, float]) -> dict[str, float]:
    """Return the columns of the run table that say what a run was given beside its LR."""
    return {axis.column: axes[axis.name] for axis in searched_axes(spec)}


def _roles(axis: SearchedAxis, model: Model) -> list[str]:
    present = present_roles(model)
    return [role for key in axis.keys for role in roles_of_key(key, axis.name) if role in present]


def _factor(table: Mapping[str, float], role: str) -> float:
    return float(table.get(role, table.get(MODULE_OF[role], 1.0)))
