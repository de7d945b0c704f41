"""Activations of a network by the roles of its tensors, captured in a forward pass: what a coordinate check and the
probe `changes` observe.

Nothing here depends on a model's class: layers, their blocks and their matrices are found by the names and roles of the
parameters (`raylr.trainables.models.architecture`), so that raylr's Qwen3-MoE, models of transformers and a user's own
module are observed by the same code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from raylr.trainables.models.architecture import Architecture
from raylr.trainables.models.architecture import Tensor as Parameter
from raylr.trainables.models.interface import added_to_residual, first_tensor
from raylr.trainables.models.parametrization import ROUTERS

Place = tuple[str, str]
"""(observable, layer): a key of `raylr.analysis.coordinates.OBSERVABLES`, and `first`, `last`, a module's name or
""."""


class Observer:
    """Captures the activations of one network.

    Args:
        model: The network.
        architecture: Roles of its tensors; `layer` finds the layers.
        tensors: Its parameters with their roles.
        forward: Runs the network on the batch of the check and returns its output (logits).
    """

    def __init__(
        self,
        model: nn.Module,
        architecture: Architecture,
        tensors: tuple[Parameter, ...],
        forward: Callable[[nn.Module], Tensor],
    ) -> None:
        self._model, self._forward = model, forward
        self._modules = dict(model.named_modules())
        self._hooks: list[tuple[str, Callable[..., None]]] = []
        self._seen: dict[Place, Tensor] = {}
        layers = _layers(architecture, tensors)
        ends = {layers[0]: "first", layers[-1]: "last"} if layers else {}
        self._last = layers[-1] if layers else None
        blocks: dict[tuple[str, str], str] = {}
        embeddings = [tensor.name.rpartition(".")[0] for tensor in tensors if tensor.role == "embedding"]
        words = embeddings[:1]  # the others, such as those of positions, are shown with their names
        for tensor in tensors:
            owner = tensor.name.rpartition(".")[0]
            layer = next((path for path in ends if tensor.name.startswith(f"{path}.")), None)
            if tensor.role == "embedding" and len(tensor.shape) > 1:
                self._watch(owner, self._output("embeddings", "" if owner in words else owner))
            elif tensor.role == "hidden":
                self._watch(owner, self._output("hidden", owner))
            elif tensor.role in ROUTERS[:1] and layer:
                self._watch(owner, self._product("router_logits", ends[layer], tensor.name))
            elif tensor.role in ("attention_out", "dense_out", "experts_out") and layer:
                block = tensor.name[len(layer) + 1 :].partition(".")[0]
                name = "attention_outputs" if tensor.role == "attention_out" else "mlp_outputs"
                blocks[layer, name] = f"{layer}.{block}"
        for (layer, name), path in blocks.items():
            self._watch(path, self._addition(name, ends[layer], layer))
            if name == "attention_outputs" and _projections(self._modules[path]) is not None:
                self._watch(path, self._attention(ends[layer]))
        for layer, end in ends.items():
            self._watch(layer, self._difference(end, layer))

    def capture(self) -> dict[Place, Tensor]:
        """Return the activations on the batch of the check, without gradients and in evaluation mode."""
        training, self._seen = self._model.training, {}
        handles = [self._modules[path].register_forward_hook(hook, with_kwargs=True) for path, hook in self._hooks]
        try:
            self._model.eval()
            with torch.no_grad():
                self._seen["logits", ""] = self._forward(self._model).detach().clone()
        finally:
            self._model.train(training)
            for handle in handles:
                handle.remove()
        return self._seen

    def _watch(self, path: str, hook: Callable[..., None]) -> None:
        self._hooks.append((path, hook))

    def _output(self, name: str, layer: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            self._seen[name, layer] = first_tensor(out).clone()

        return hook

    def _product(self, name: str, layer: str, parameter: str) -> Callable[..., None]:
        """Router logits from the module's input: routers return probabilities, choices or logits, as they please."""

        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            weight = self._model.get_parameter(parameter)
            with gathered(weight):
                self._seen[name, layer] = _input(args, kwargs) @ weight.T

        return hook

    def _addition(self, name: str, layer: str, owner: str) -> Callable[..., None]:
        """What a block adds to the residual stream: its output times the multiplier that the layer has, if any."""

        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            self._seen[name, layer] = added_to_residual(self._modules[owner], first_tensor(out))

        return hook

    def _difference(self, layer: str, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            self._seen["layer_outputs", layer] = first_tensor(out) - _input(args, kwargs)
            if path == self._last:
                self._seen["residual_stream", "last"] = first_tensor(out).clone()

        return hook

    def _attention(self, layer: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            found = _projections(module)
            assert found is not None
            q_proj, k_proj, size = found
            x = _input(args, kwargs)
            q, k = q_proj(x), k_proj(x)
            self._seen["attention_logits", layer] = _logits(_heads(q, size), _heads(k, size))
            q_norm, k_norm = getattr(module, "q_norm", None), getattr(module, "k_norm", None)
            if not isinstance(q_norm, nn.Module) or not isinstance(k_norm, nn.Module):
                return
            whole = q.shape[-1] != size and next(q_norm.parameters()).shape[-1] == q.shape[-1]  # OLMo 2: over all heads
            q, k = (
                (_heads(q_norm(q), size), _heads(k_norm(k), size))
                if whole
                else (q_norm(_heads(q, size)), k_norm(_heads(k, size)))
            )
            self._seen["attention_logits_normed", layer] = _logits(q, k)

        return hook


def _layers(architecture: Architecture, tensors: tuple[Parameter, ...]) -> list[str]:
    """Paths of the repeated layers, by their index."""
    found: dict[int, str] = {}
    for tensor in tensors:
        if architecture.layer and (match := re.search(architecture.layer, tensor.name)):
            found.setdefault(int(match.group(1)), tensor.name[: match.end(1)])
    return [found[index] for index in sorted(found)]


def _projections(module: nn.Module) -> tuple[nn.Module, nn.Module, int] | None:
    """Projections to queries and keys and the size of a head, if the module has them under their usual names."""
    q_proj, k_proj = getattr(module, "q_proj", None), getattr(module, "k_proj", None)
    if not isinstance(q_proj, nn.Linear) or not isinstance(k_proj, nn.Linear):
        return None
    heads = next((getattr(module, name) for name in ("heads", "num_heads", "n_heads") if hasattr(module, name)), None)
    size = getattr(module, "head_dim", None) or (q_proj.out_features // heads if heads else None)
    return (q_proj, k_proj, int(size)) if size else None


def _heads(x: Tensor, size: int) -> Tensor:
    """[B, T, H·d] → [B, T, H, d]."""
    heads: Tensor = x.unflatten(-1, (-1, size))
    return heads


def _logits(q: Tensor, k: Tensor) -> Tensor:
    """q·k/√d of the past, without the rotation of positions: it keeps lengths, and has nothing to do with width."""
    T = q.shape[1]
    k = k.repeat_interleave(q.shape[2] // k.shape[2], 2)
    logits_BHST = torch.einsum("bshd,bthd->bhst", q, k) / q.shape[-1] ** 0.5
    past: Tensor = logits_BHST[:, :, torch.ones(T, T, dtype=torch.bool, device=q.device).tril()]
    return past


def gathered(weight: nn.Parameter) -> AbstractContextManager[Any]:
    """Return a context in which a parameter that ZeRO 3 has spread over processes is whole."""
    status = getattr(weight, "ds_status", None)
    if status is None or status.name == "AVAILABLE":
        return nullcontext()
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters

    found: AbstractContextManager[Any] = GatheredParameters([weight])
    return found


def _input(args: Any, kwargs: Any) -> Tensor:
    found: Tensor = args[0] if args else kwargs["hidden_states"]
    return found
