"""The runs of a spec: model and training settings that further hyperparameters make of a size or a target.

What searches more than the LR (`transfer`, `modules`) has its axes here, so that stages and tables need not know which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylr.spec import transfer_runs
from raylr.spec.batches import TrainSettings
from raylr.spec.modules import searched_axes
from raylr.spec.modules_runs import module_columns, placed_modules, values_of
from raylr.spec.study import StudySpec
from raylr.spec.transfer import Model, TransferTarget


def placed(
    spec: StudySpec, model: Model, train: TrainSettings, axes: Mapping[str, float], target: TransferTarget | None = None
) -> tuple[Model, TrainSettings, dict[str, Any]]:
    """Return model and training settings of a run with these hyperparameters, and their columns in the run table.

    Args:
        spec: A spec with `transfer` or `modules`.
        model: Model of the size or of the target.
        train: Training settings, with batch and seed.
        axes: The hyperparameters that were searched beside the LR.
        target: The target of a transfer, whose rule multiplies them; None for a run of the search.
    """
    if spec.modules is not None:
        return *placed_modules(spec, model, train, axes), module_columns(spec, axes)
    model, train = transfer_runs.placed(spec, model, train, axes, target)
    return model, train, transfer_runs.transfer_columns(spec, train, axes, target)


def axes_of(spec: StudySpec, size: str, measured: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the searched hyperparameters beside the LR of a run that was measured; None if it does not say them.

    Args:
        spec: The spec.
        size: Name of the size or the target.
        measured: What identifies the run (`raylr.analysis.runs.Run.measured`).
    """
    if spec.transfer is not None:
        return transfer_runs.axes_of(spec, measured)
    return {} if spec.modules is None else values_of(spec, spec.models()[size], measured)


def axis_columns(spec: StudySpec) -> list[str]:
    """Return the columns of the run table that hold the hyperparameters that are searched beside the LR."""
    if spec.modules is not None:
        return [axis.column for axis in searched_axes(spec)]
    return list(spec.transfer.axes) if spec.transfer else []


def axis_ranges(spec: StudySpec) -> dict[str, tuple[float, float]]:
    """Return the hyperparameters that are searched beside the LR, by the policy's names, with their ranges."""
    if spec.modules is not None:
        return {axis.name: (axis.low, axis.high) for axis in searched_axes(spec)}
    return dict(spec.transfer.axes) if spec.transfer else {}
