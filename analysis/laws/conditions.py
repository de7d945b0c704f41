"""The conditions under which the runs behind a law were trained: everything but model size, tokens and learning rate.

A law does not hold for runs under other conditions. It therefore stores them, and a prediction for a target whose
conditions are given names each one that differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from raylr.analysis.units import format_count
from raylr.errors import InputError, nearest

OBJECTIVES = ("stable", "decayed")
"""Losses that an optimum may refer to."""
TOLERANCE = 0.01
"""Relative difference below which two numbers count as equal: budgets are rounded to whole batches."""

_COUNTS = ("batch_tokens", "warmup_tokens", "seq_len")
_NAMES = {
    "batch_tokens": "batch",
    "schedule": "schedule",
    "warmup_tokens": "warmup",
    "weight_decay": "weight decay",
    "optimizer": "optimizer",
    "beta1": "β₁",
    "beta2": "β₂",
    "seq_len": "sequence length",
    "objective": "objective",
    "decay_shape": "shape of the decay",
    "decay_fraction": "share of the decay",
    "final_lr_ratio": "final LR over its peak",
}
_WORDS = ("schedule", "optimizer", "objective", "decay_shape")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the runs of a law had in common. None means that it is not known, or that it differed between the runs.

    Raises:
        InputError: a number is negative, NaN or infinite, or the objective is unknown.

    Example:
        >>> runs = Conditions(batch_tokens=4e6, schedule="constant", optimizer="adamw")
        >>> runs.differences(Conditions(batch_tokens=8e6, optimizer="adamw"))
        ['batch 8M tokens (runs of the law: 4M tokens)']
    """

    batch_tokens: float | None = None
    """Tokens of one optimizer step."""
    schedule: str | None = None
    """Shape of the LR over the run, such as `constant`, `wsd`, `cosine` or `linear`."""
    warmup_tokens: float | None = None
    """Tokens over which the LR rises to its peak."""
    weight_decay: float | None = None
    """Weight decay of the hidden weights."""
    optimizer: str | None = None
    """Name of the optimizer."""
    beta1: float | None = None
    """Decay rate of the first moment."""
    beta2: float | None = None
    """Decay rate of the second moment."""
    seq_len: float | None = None
    """Tokens of one sequence."""
    objective: str | None = None
    """`stable` (the optimum is that of the loss at a constant LR) or `decayed` (of the loss after the LR's decay)."""
    decay_shape: str | None = None
    """Shape of the decay of a `wsd` schedule, such as `linear`."""
    decay_fraction: float | None = None
    """Share of the tokens that it takes."""
    final_lr_ratio: float | None = None
    """LR at the end of the decay over the peak LR."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if field.name in _WORDS:
                if not isinstance(value, str) or not value.strip():
                    raise InputError(f"conditions: {field.name} must be a name, got {value!r}")
            elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e30:
                raise InputError(f"conditions: {field.name} must be a number from 0 on, got {value!r}")
            else:
                object.__setattr__(self, field.name, float(value))  # so that a file gives back an equal object
        if self.objective is not None and self.objective not in OBJECTIVES:
            raise InputError(f"conditions: unknown objective {self.objective!r}{nearest(self.objective, OBJECTIVES)}")

    def differences(self, target: "Conditions") -> list[str]:
        """Return one phrase for each condition that both have and in which `target` differs from these runs."""
        out = []
        for field in fields(self):
            own, other = getattr(self, field.name), getattr(target, field.name)
            if own is not None and other is not None and not _equal(own, other):
                name = _NAMES[field.name]
                out.append(f"{name} {_shown(field.name, other)} (runs of the law: {_shown(field.name, own)})")
        return out

    @classmethod
    def common(cls, conditions: Sequence["Conditions"]) -> "Conditions":
        """Return what all of `conditions` have in common; what differs or is missing in one of them is None."""
        out = {}
        for field in fields(cls):
            values = [getattr(each, field.name) for each in conditions]
            if values and all(value is not None and _equal(value, values[0]) for value in values):
                out[field.name] = values[0]
        return cls(**out)


def _equal(a: float | str, b: float | str) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return str(a).lower() == str(b).lower()
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))


def _shown(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{format_count(value)} tokens" if name in _COUNTS else f"{value:g}"
