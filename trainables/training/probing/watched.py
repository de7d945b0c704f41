"""What probes see of the forward pass over the first validation batch: modules of the network, by hooks.

Layers and their blocks are found by the names and roles of the parameters, so that raylr's Qwen3-MoE, models of
transformers, DeepSpeed's expert-parallel layers and a user's own module are seen by the same code. Hooks read the
tensors that pass and no weights, which ZeRO 3 may have taken away. The first worker alone measures, on its first
sequences: they are the same in every layout.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from raylr.trainables.models.architecture import LAYER
from raylr.trainables.training.groups import role_of_parameter

Hook = Callable[[nn.Module, Any, Any, Any], None]
"""Takes module, arguments, keyword arguments and output."""


def layers_of(network: nn.Module) -> dict[int, str]:
    """Return index → path of the layers."""
    found: dict[int, str] = {}
    for name, _ in network.named_parameters():
        if match := re.search(LAYER, name):
            found.setdefault(int(match.group(1)), name[: match.end(1)])
    return dict(sorted(found.items()))


def blocks_of(network: nn.Module) -> dict[str, dict[int, str]]:
    """Return `attention` and `mlp` → index of the layer → path of the block, the child of the layer that has all its
    tensors of these roles; without layers in which several children have."""
    kinds = {"attention": "attention", "dense": "mlp", "experts_in": "mlp", "experts_out": "mlp", "router": "mlp"}
    children: dict[tuple[str, int], set[str]] = {}
    for name, param in network.named_parameters():
        match, kind = re.search(LAYER, name), kinds.get(role_of_parameter(network, name, param))
        if match and kind:
            child = f"{name[: match.end(1)]}.{name[match.end() :].partition('.')[0]}"
            children.setdefault((kind, int(match.group(1))), set()).add(child)
    found: dict[str, dict[int, str]] = {"attention": {}, "mlp": {}}
    taken = {kind: {path for (its, _), paths in children.items() if its == kind for path in paths} for kind in found}
    shared = taken["attention"] & taken["mlp"]
    for (kind, layer), paths in sorted(children.items(), key=lambda one: one[0][1]):
        path = next(iter(paths))
        if len(paths) == 1 and path not in shared and isinstance(network.get_submodule(path), nn.Module):
            found[kind][layer] = path
    return found


def routers_of(network: nn.Module) -> dict[int, tuple[str, int]]:
    """Return index of the layer → path of its router, and the number of its experts."""
    found: dict[int, tuple[str, int]] = {}
    for name, param in network.named_parameters():
        shape, match = tuple(getattr(param, "ds_shape", param.shape)), re.search(LAYER, name)
        if match and len(shape) == 2 and role_of_parameter(network, name, param) == "router":
            found.setdefault(int(match.group(1)), (name.rpartition(".")[0], shape[0]))
    return found


def measures() -> bool:
    """Return whether this process is the one that measures."""
    return not dist.is_initialized() or dist.get_rank() == 0


@contextmanager
def hooked(network: nn.Module, hooks: list[tuple[str, Hook]]) -> Iterator[None]:
    """Call hooks after the modules of these paths inside of the block, without gradients, in the first process."""
    if not measures():
        yield
        return
    handles = []
    for path, hook in hooks:
        made = torch.no_grad()(hook)
        handles.append(network.get_submodule(path).register_forward_hook(made, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
