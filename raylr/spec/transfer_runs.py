"""The runs of a study with `transfer`: their model and training settings, and what the run table says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylr.spec.batches import TrainSettings
from raylr.spec.external import ExternalModel
from raylr.spec.study import StudySpec
from raylr.spec.transfer import RATIOS, Model, TransferTarget, parametrization_of, target_ratios
from raylr.trainables.models.spec import AnyModelSpec, HFSpec, ModelSpec


def placed(
    spec: StudySpec, model: Model, train: TrainSettings, axes: Mapping[str, float], target: TransferTarget | None = None
) -> tuple[Model, TrainSettings]:
    """Return model and training settings of a run with these hyperparameters of the proxy, at a target under the rule.

    Args:
        spec: A spec with `transfer`.
        model: The proxy's or the target's model.
        train: Training settings, with batch and seed.
        axes: `init_std`, and `weight_decay` where it is searched.
        target: The target; None for a run of the search.
    """
    decay = axes.get("weight_decay", train.weight_decay)
    if isinstance(model, ExternalModel):
        ratios = dict.fromkeys(RATIOS, 1.0) if target is None else target_ratios(spec, target)
        more = {**axes, **ratios} | ({} if decay is None else {"weight_decay": decay})
        return model.with_args(more), train.model_copy(update={"weight_decay": decay})
    changed: dict[str, Any] = {"weight_decay": decay}
    if target is not None:
        changed["parametrization"] = parametrization_of(spec, target)
    return with_init_std(model, axes["init_std"]), train.model_copy(update=changed)


def with_init_std(model: AnyModelSpec, std: float) -> AnyModelSpec:
    """Return the model with another std of its initial weights."""
    if isinstance(model, ModelSpec):
        return model.model_copy(update={"init_std": std})
    assert isinstance(model, HFSpec)  # `check_transfer` refuses networks whose tensors it does not know
    from raylr.trainables.models.hf import configuration

    return HFSpec(hf={**configuration(model.hf).to_dict(), "initializer_range": std})


def axes_of(spec: StudySpec, measured: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the searched hyperparameters beside the LR of a run that was measured; None if it does not say them.

    Args:
        spec: A spec with `transfer`.
        measured: What identifies the run (`raylr.analysis.runs.Run.measured`).
    """
    assert spec.transfer is not None
    if spec.external:
        found = measured.get("args", {})
    else:
        model = measured["model"]
        std = model["hf"].get("initializer_range") if "hf" in model else model.get("init_std")
        found = {"init_std": std, "weight_decay": measured["train"].get("weight_decay")}
    values = {name: found.get(name) for name in spec.transfer.axes}
    return None if None in values.values() else {name: float(value) for name, value in values.items()}


def transfer_columns(
    spec: StudySpec, train: TrainSettings, axes: Mapping[str, float], target: TransferTarget | None
) -> dict[str, Any]:
    """Return the columns of the run table that say what a run of a transfer study was given beside its LR.

    `init_std` and `weight_decay` are the proxy's, which the rule multiplies at a target; `parametrization` is the name
    of the rule, None for the proxy.

    Args:
        spec: The spec of the study.
        train: Training settings of the run.
        axes: Searched hyperparameters and their values.
        target: The target that the run trains; None: the proxy.
    """
    assert spec.transfer is not None
    rule = None if target is None else spec.transfer.table().name
    return {**axes, "weight_decay": train.weight_decay, "parametrization": rule}
