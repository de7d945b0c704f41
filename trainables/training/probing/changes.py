"""The probe `changes`: how far activations have moved since initialisation, x_t − x_0, as training proceeds.

What the coordinate check observes over width, observed along a run (`raylr.trainables.training.observe`): the standard
deviation of the coordinates of x_t − x_0, on the first tokens of the validation text. x_0 belongs to the initial weights,
which a run that goes on from a checkpoint has for a moment too.

| column | what |
|---|---|
| activation_change/embeddings, activation_change/logits | word embeddings; output logits |
| activation_change/attention_logits/last | raw q·k/√d of the last layer; also `first`, and without the rotation of positions |
| activation_change/attention_logits_normed/last | the same after QK norm, where the network has one |
| activation_change/… | the other observables of `raylr.analysis.coordinates.OBSERVABLES` |

References:
    Zhou et al. 2026 (arXiv 2601.05049), Section 6.4, Figure 10.
"""

from __future__ import annotations

from typing import Any

import torch

from raylr.errors import SpecError
from raylr.trainables.models.architecture import HUGGING_FACE
from raylr.trainables.models.hf import transposed_names
from raylr.trainables.training.observe import Observer, Place
from raylr.trainables.training.parametrize import network_module
from raylr.trainables.training.probes import Columns, Event, StepEvent
from raylr.trainables.training.probing.columns import NOTE

SEQUENCES, LENGTH = 2, 64
"""Sequences of the first validation batch, and tokens of each from its beginning. With a vocabulary of 150,000 their
logits are 77 MB."""


class ChangeProbe:
    """Makes a forward pass of its own (`probes.Starting`)."""

    def __init__(self) -> None:
        self._observer: Observer | None = None
        self._start: dict[Place, torch.Tensor] = {}
        self._problem = ""

    def start(self, engine: Any, batch: tuple[Any, Any, Any]) -> None:
        """Observe the initial weights; all processes call this together."""
        ids, _, documents = batch
        cut = slice(0, SEQUENCES), slice(0, LENGTH)
        ids, documents = ids[cut], None if documents is None else documents[cut]
        network = network_module(engine.module)
        shapes = {name: tuple(getattr(param, "ds_shape", param.shape)) for name, param in network.named_parameters()}
        try:
            tensors = HUGGING_FACE.tensors(shapes, transposed=transposed_names(network))
        except SpecError as error:
            self._problem = str(error)
            return
        self._observer = Observer(network, HUGGING_FACE, tensors, lambda _: engine.module(ids, None, documents))
        self._start = self._observer.capture()

    def __call__(self, event: Event) -> Columns | None:
        """Return the columns of a validation that is due."""
        if isinstance(event, StepEvent) or not event.due:
            return None
        if self._observer is None:
            return {f"{NOTE}/changes": f"changes has no columns: {self._problem}"}
        now = self._observer.capture()
        return {
            "/".join(filter(None, ("activation_change", *place))): float((now[place].float() - x0.float()).std())
            for place, x0 in self._start.items()
        }
