"""The batches of a study: the key `batches`, the settings that it makes of the sizes, and the law's section."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pydantic
from pydantic import Field

from raylr.analysis.runs import setting_names
from raylr.analysis.units import format_count, parse_count
from raylr.spec.external import ExternalTrain
from raylr.spec.fields import Section, shorten
from raylr.trainables.training.spec import TrainSpec

if TYPE_CHECKING:
    from raylr.analysis.laws.conditions import Conditions

TrainSettings: TypeAlias = TrainSpec | ExternalTrain
Exponent = float | Literal["fit", "prior"]


class LawSpec(Section):
    """How the LR law is fitted. Nothing that is measured depends on it: a finished study may be given other values."""

    batch_exponent: Exponent | None = Field(default=None)
    """Exponent δ of the batch in the law: a number (0: the optimum does not depend on the batch; 0.5: the square root),
    "fit" (from the study's optima alone) or "prior" (the optima and a prior of 0.5 ± 0.5). By default "prior" where
    the batches of the sizes or of the target differ, and no batch in the law where all are one."""

    @pydantic.field_validator("batch_exponent")
    @classmethod
    def _small(cls, value: Exponent | None) -> Exponent | None:
        if isinstance(value, float) and abs(value) > 5:
            raise ValueError(f"{value:g} is not an exponent of a batch; published ones lie between -0.4 and 0.6")
        return value


@dataclass(frozen=True, kw_only=True)
class StudySetting:
    """One search of a study: a size at one batch."""

    name: str
    """For people: the size, with the batch where the size has several."""
    size: str
    train: TrainSettings
    """The training settings, with the batch of this search."""


def with_batches(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain data of a spec with `batches` as a mapping size → list, and with `train.batch_tokens`.

    A list holds for all sizes. A size that a mapping leaves out has the batch of `train`.

    Raises:
        ValueError: If the batches are not counts, or a size has none.
    """
    train, sizes, given = data.get("train"), data.get("sizes"), data.get("batches")
    if isinstance(train, Mapping) and isinstance(train.get("batch_tokens"), list | tuple):
        raise ValueError(
            "train.batch_tokens is one number; several batches are written as `batches: [2048, 8192]` at the top level"
        )
    if given is None or not isinstance(train, Mapping) or not isinstance(sizes, Mapping) or not sizes:
        return {**data}
    own = train.get("batch_tokens")
    named = given if isinstance(given, Mapping) else dict.fromkeys(sizes, given)
    unknown = [name for name in named if name not in sizes]
    if unknown:
        raise ValueError(f"batches names {shorten(unknown[0])}, which is not a size; the sizes are {', '.join(sizes)}")
    missing = [name for name in sizes if name not in named]
    if missing and own is None:
        raise ValueError(f"batches names no batch of size {shorten(missing[0])}, and train has no batch_tokens")
    each = {name: _counts(f"batches.{name}", named.get(name, own)) for name in sizes}
    flat = sorted({batch for batches in each.values() for batch in batches})
    base = flat[0] if own is None else _counts("train.batch_tokens", own)[0]
    if base not in flat:
        raise ValueError(f"train.batch_tokens {base} is not one of the batches {flat}; leave it out")
    return {**data, "train": {**train, "batch_tokens": base}, "batches": each if len(flat) > 1 else {}}


def _counts(key: str, value: Any) -> list[int]:
    parts = value if isinstance(value, list | tuple) else [value]
    out = []
    for part in parts:
        try:
            number = parse_count(part)
            whole = int(number)
        except (ValueError, OverflowError, TypeError):
            raise ValueError(f"{key}: {shorten(part)} is not a count of tokens") from None
        if isinstance(part, bool) or whole != number or whole < 1:
            raise ValueError(f"{key}: {shorten(part)} is not a whole number of tokens above zero")
        out.append(whole)
    if not out:
        raise ValueError(f"{key} is empty; name at least one batch")
    if len(set(out)) < len(out):
        raise ValueError(f"{key} names a batch twice: {out}")
    return sorted(out)


def train_at(train: TrainSettings, batch: int, key: str) -> TrainSettings:
    """Return the training settings at another batch, checked again; everything else, the weight decay too, stays.

    Raises:
        ValueError: If the batch does not go with the other settings; the message names `key`.
    """
    if batch == train.batch_tokens:
        return train
    try:
        return type(train).model_validate({**train.model_dump(), "batch_tokens": batch})
    except pydantic.ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise ValueError(f"{key}: {reason}") from None


def settings_of(train: TrainSettings, sizes: Sequence[str], batches: Mapping[str, Sequence[int]]) -> list[StudySetting]:
    """Return the searches of a study, in the order of its sizes, batches rising."""
    pairs = [(size, batch) for size in sizes for batch in batches.get(size, (train.batch_tokens,))]
    names = setting_names(pairs)
    return [
        StudySetting(name=names[size, batch], size=size, train=train_at(train, batch, f"batches.{size}"))
        for size, batch in pairs
    ]


def common_batch(batches: Sequence[int]) -> int:
    """Return the least number of tokens that is a whole number of each batch.

    Budgets and validations are whole numbers of it, so that runs of all batches are measured at the same tokens.
    """
    return math.lcm(*batches)


def conditions_of(train: TrainSettings, objective: str) -> Conditions:
    """Return what a law stores about runs with these training settings."""
    from raylr.analysis.laws.conditions import Conditions

    if isinstance(train, ExternalTrain):
        return train.conditions(objective)
    return Conditions(
        batch_tokens=float(train.batch_tokens),
        schedule=train.schedule,
        warmup_tokens=float(train.warmup),
        weight_decay=train.weight_decay,
        optimizer=train.optimizer.label,
        beta1=train.betas[0],
        beta2=train.betas[1],
        seq_len=float(train.seq_len),
        # A schedule that lowers the LR ends every run decayed, so that its final losses are not of a stable phase.
        objective=objective if train.schedule == "constant" else "decayed",
        decay_shape=train.decay_shape if train.schedule == "wsd" else None,
        decay_fraction=train.decay_fraction if train.schedule == "wsd" else None,
        final_lr_ratio=None if train.schedule == "constant" else train.final_lr_ratio,
    )


def exponent_warnings(
    settings: Sequence[StudySetting], params: Mapping[str, float], tokens: float, exponent: str
) -> list[str]:
    """Return a sentence if the optima of these searches are expected to say less about δ than its prior does.

    Args:
        settings: The searches.
        params: Size → parameters.
        tokens: Largest budget; the optima at smaller ones come from the same runs and count for nothing here.
        exponent: "fit" or "prior".
    """
    from raylr.analysis.laws.design import batch_exponent_sd
    from raylr.analysis.laws.lr_fit import DEFAULT_PRIORS

    batches = [float(setting.train.batch_tokens) for setting in settings]
    mean, sd = DEFAULT_PRIORS.delta
    alone = batch_exponent_sd([params[setting.size] for setting in settings], [tokens] * len(batches), batches)
    if alone < sd:
        return []
    shown = f"{format_count(min(batches))} to {format_count(max(batches))} tokens"
    result = (
        f"its interval will be that of the prior ({mean:g} ± {sd:g})" if exponent == "prior" else "it will be noise"
    )
    return [
        f"Batches of {shown} at these sizes cannot tell the exponent of the batch from the noise of the optima (they "
        f"give it to ±{alone:.2g}): {result}; take batches further apart, or more sizes with several."
    ]
