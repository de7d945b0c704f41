"""The probe `changes`: how far activations have moved since initialisation, x_t − x_0, as training proceeds.

What the coordinate check observes over width, observed along a run (`raylr.trainables.training.observe`): the standard
deviation of the coordinates of x_t − x_0, on the first tokens of the validation text. x_0 belongs to the initial
weights, which a run that goes on from a checkpoint has for a moment too.

| column | what |
|---|---|
| activation_change/embeddings, activation_change/logits | word embeddings; output logits |
| activation_change/attention_logits/last | raw q·k/√d of the last layer (or `first`), without rotation of positions |
| activation_change/attention_logits_normed/last | the same after QK norm, where the network has one |
| activation_change/… | the other observables of `raylr.analysis.coordinates.OBSERVABLES` |

References:
    Zhou et al. 2026 (arXiv 2601.05049), Section 6.4, Figure 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from raylr.errors import SpecError
from raylr.trainables.models.architecture import HUGGING_FACE, Tensor
from raylr.trainables.training.observe import Observer, Place
from raylr.trainables.training.parametrize import network_module
from raylr.trainables.training.probes import Columns, Event, StepEvent
from raylr.trainables.training.probing.columns import NOTE

SEQUENCES, LENGTH = 1, 64
"""Sequences of the first validation batch, and tokens of each from its beginning. With a vocabulary of 150,000 their
logits are 38 MB."""
_USUAL = ("embeddings", "attention_logits", "logits")
"""What the paper's figures show."""


class ChangeProbe:
    """Makes a forward pass of its own (`probes.Starting`)."""

    def __init__(self) -> None:
        self._observer: Observer | None = None
        self._start: dict[Place, torch.Tensor] = {}

    def start(self, engine: Any, batch: tuple[Any, Any, Any]) -> None:
        """Observe the initial weights; all processes call this together."""
        self._observer = observer_of(engine.module, batch)
        self._start = self._observer.capture()

    def __call__(self, event: Event) -> Columns | None:
        """Return the columns of a validation that is due."""
        if isinstance(event, StepEvent) or not event.due:
            return None
        assert self._observer is not None
        columns: dict[str, float | str] = {**change_columns(self._start, self._observer.capture())}
        if missing := [name for name in _USUAL if not any(place[0] == name for place in self._start)]:
            named = ", ".join(missing)
            columns[f"{NOTE}/changes"] = (
                f"changes has no columns of {named}: nothing in this network is such by its name, or attention's "
                "projections are not called q_proj and k_proj"
            )
        return columns


def observer_of(module: nn.Module, batch: tuple[Any, Any, Any]) -> Observer:
    """Return what observes a network on the first tokens of a batch (what the network takes)."""
    ids, _, documents = batch
    cut = slice(0, SEQUENCES), slice(0, LENGTH)
    ids, documents = ids[cut], None if documents is None else documents[cut]
    network = network_module(module)
    return Observer(network, HUGGING_FACE, known_tensors(network), lambda _: module(ids, None, documents))


def change_columns(start: Mapping[Place, torch.Tensor], now: Mapping[Place, torch.Tensor]) -> dict[str, float]:
    """Return column → standard deviation of x_t − x_0."""
    return {
        "/".join(filter(None, ("activation_change", *place))): float((now[place].float() - x0.float()).std())
        for place, x0 in start.items()
    }


def known_tensors(network: nn.Module) -> tuple[Tensor, ...]:
    """Return the parameters whose role is known: by transformers' usual names, embeddings by what they are."""
    embeddings = {f"{prefix}.weight" for prefix, module in network.named_modules() if isinstance(module, nn.Embedding)}
    found: list[Tensor] = []
    for name, param in network.named_parameters():
        shape = tuple(getattr(param, "ds_shape", param.shape))
        if name in embeddings:
            found.append(Tensor(name=name, shape=shape, role="embedding", fan_in=None))
            continue
        with suppress(SpecError):
            found += HUGGING_FACE.tensors({name: shape})
    return tuple(found)
