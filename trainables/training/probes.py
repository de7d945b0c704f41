"""The place in the training loop where others can look: probes.

A probe is a function that `raylr.trainables.train` calls with a `StepEvent` after every optimizer step and with a
`ValidationEvent` after every validation, on every worker. It may read the engine and must not change it: a run with
probes has the weights of a run without. What it returns after a validation is added to the row that is reported.

A probe that is a `Watching` also sees the forward pass over the first validation batch, one that is a `Starting` the
initial weights. Those that come with raylr are in `raylr.trainables.training.probing`; `train.probes` of a spec
switches them on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from raylr.errors import InputError
from raylr.trainables.training import metrics
from raylr.trainables.training.probing.columns import NOTE, cell


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
    memory: dict[str, Any]
    """What probes must remember of the run, as values that JSON can hold, each under a key of its own. It is part of
    the run's checkpoints."""


@dataclass(frozen=True, kw_only=True)
class ValidationEvent:
    """The validation loss was measured (or the run has diverged, and it is NaN)."""

    engine: Any
    """DeepSpeed's engine."""
    row: Mapping[str, Any]
    """The row that is going to be reported (names of `raylr.trainables.training.metrics`)."""
    memory: dict[str, Any]
    """As in `StepEvent`."""
    due: bool = True
    """Whether probes that cost time are to measure now (`probe_interval`)."""


Event = StepEvent | ValidationEvent
Columns = Mapping[str, float | str | Sequence[Any]]
"""Name → number, text, or list (which the row holds as JSON)."""
Probe = Callable[[Event], Columns | None]


@runtime_checkable
class Watching(Protocol):
    """A probe that sees a forward pass."""

    def watch(self, engine: Any) -> AbstractContextManager[Any]:
        """Return a context that is entered around the forward pass over this worker's first validation batch, where
        that is due."""
        ...


@runtime_checkable
class Starting(Protocol):
    """A probe that looks at the initial weights."""

    def start(self, engine: Any, batch: tuple[Any, Any, Any]) -> None:
        """Take the engine with its initial weights, before a checkpoint is loaded, and the first validation batch (what
        the network takes)."""
        ...


def probe_start(probes: Sequence[Probe], engine: Any, batch: tuple[Any, Any, Any]) -> None:
    """Call all probes that are `Starting`."""
    for probe in probes:
        if isinstance(probe, Starting):
            probe.start(engine, batch)


@contextmanager
def watching(probes: Sequence[Probe], engine: Any) -> Iterator[None]:
    """Let all probes that are `Watching` see the forward pass inside of the block."""
    with ExitStack() as stack:
        for probe in probes:
            if isinstance(probe, Watching):
                stack.enter_context(probe.watch(engine))
        yield


def probe_step(probes: Sequence[Probe], event: StepEvent) -> None:
    """Call all probes after an optimizer step; what they return is ignored."""
    for probe in probes:
        probe(event)


def probe_validation(probes: Sequence[Probe], event: ValidationEvent) -> dict[str, float | str]:
    """Call all probes after a validation.

    Returns:
        Their columns, to be added to the row.

    Raises:
        InputError: If two probes, or a probe and the loop, use one name.
    """
    columns: dict[str, float | str] = {}
    noted = event.memory.setdefault("noted", [])
    for probe in probes:
        for name, value in (probe(event) or {}).items():
            if name.startswith(f"{NOTE}/"):
                if name in noted:
                    continue
                noted.append(name)
            if name in columns or name in metrics.ALL:
                raise InputError(f"probes: the column {name!r} exists already; give it another name")
            columns[name] = cell(value)
    return columns
