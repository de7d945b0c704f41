"""The place in the training loop where others can look: probes.

A probe is a function that `raylr.trainables.train` calls with a `StepEvent` after every optimizer step and with a
`ValidationEvent` after every validation, on every worker. It may read the engine and must not change it: a run with
probes has the weights of a run without. What it returns after a validation is added to the row that is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylr.errors import InputError
from raylr.trainables.training import metrics


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """An optimizer step was made."""

    engine: Any
    """DeepSpeed's engine; `engine.module` is the network, `engine.optimizer` the optimizer."""
    step: int
    """Steps made so far, this one included."""
    tokens: int
    """Training tokens used so far."""
    current_lr: float
    """LR of this step, schedule included, multipliers excluded."""
    train_loss: float
    """Cross-entropy of this step's batch in nats per token; NaN or infinite if the run has diverged."""
    grad_norm: float
    """Global gradient norm of this step, before clipping."""


@dataclass(frozen=True, kw_only=True)
class ValidationEvent:
    """The validation loss was measured (or the run has diverged, and it is NaN)."""

    engine: Any
    """DeepSpeed's engine."""
    row: Mapping[str, Any]
    """The row that is going to be reported (names of `raylr.trainables.training.metrics`)."""


Event = StepEvent | ValidationEvent
Probe = Callable[[Event], Mapping[str, float] | None]


def probe_step(probes: Sequence[Probe], event: StepEvent) -> None:
    """Call all probes after an optimizer step; what they return is ignored."""
    for probe in probes:
        probe(event)


def probe_validation(probes: Sequence[Probe], event: ValidationEvent) -> dict[str, float]:
    """Call all probes after a validation.

    Returns:
        Their columns, to be added to the row.

    Raises:
        InputError: If two probes, or a probe and the loop, use one name.
    """
    columns: dict[str, float] = {}
    for probe in probes:
        for name, value in (probe(event) or {}).items():
            if name in columns or name in metrics.ALL:
                raise InputError(f"probes: the column {name!r} exists already; give it another name")
            columns[name] = float(value)
    return columns
