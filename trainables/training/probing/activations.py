"""The probe `activations`: RMS of the residual stream after every layer, and of what attention and MLP add to it.

Measured on the first validation sequence.

| column | what |
|---|---|
| activation_rms/residual | RMS of the residual stream after the last layer; the list has it after each |
| activation_rms/attention, activation_rms/mlp | mean over layers of the RMS of the block's output |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from raylr.trainables.models.interface import added_to_residual, first_tensor
from raylr.trainables.training.probes import Columns, Event, StepEvent
from raylr.trainables.training.probing.columns import NOTE, with_layers
from raylr.trainables.training.probing.watched import Hook, blocks_of, hooked, layers_of


class ActivationProbe:
    """Sees the first validation batch (`probes.Watching`)."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[int, Tensor]] = {}

    @contextmanager
    def watch(self, engine: Any) -> Iterator[None]:
        """See the forward pass inside of the block."""
        network: nn.Module = engine.module
        layers = layers_of(network)
        self._seen = {"residual": {}, "attention": {}, "mlp": {}}
        hooks = [(path, self._hook("residual", layer)) for layer, path in layers.items()]
        for kind, blocks in blocks_of(network).items():
            hooks += [
                (path, self._hook(kind, layer, network.get_submodule(layers[layer]))) for layer, path in blocks.items()
            ]
        with hooked(network, hooks):
            yield

    def _hook(self, kind: str, layer: int, owner: nn.Module | None = None) -> Hook:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            x = first_tensor(out)
            if layer not in self._seen[kind] and isinstance(x, Tensor) and x.is_floating_point():
                one = (x[:1] if x.dim() > 2 else x).float()
                one = one if owner is None else added_to_residual(owner, one)
                self._seen[kind][layer] = torch.linalg.vector_norm(one) / one.numel() ** 0.5

        return hook

    def __call__(self, event: Event) -> Columns | None:
        """Return the columns of what was seen."""
        if isinstance(event, StepEvent) or not event.due:
            return None
        columns: dict[str, Any] = {}
        for kind, seen in self._seen.items():
            if not seen:
                continue
            layers = {layer: float(value) for layer, value in seen.items()}
            whole = layers[max(layers)] if kind == "residual" else sum(layers.values()) / len(layers)
            columns |= with_layers(f"activation_rms/{kind}", whole, layers)
        self._seen = {}
        if not columns and not layers_of(event.engine.module):
            columns[f"{NOTE}/activations"] = (
                "activations has no columns: the names of this network's parameters show no repeated layers "
                "(layers.0., blocks.0., h.0.)"
            )
        return columns
