"""The weights in a checkpoint's DeepSpeed files, whole and under the names of `Qwen3MoE`.

ZeRO stages 0 to 2 keep whole tensors in the type that the model ran in, AutoEP's experts in a file each. Stage 3 keeps
a slice of each fp32 tensor for every worker: slices of a tensor are spread over the workers of its sub-group (all of
them, or for AutoEP's experts those that hold the same experts), each of ceil(size / workers) numbers, the last padded.

Shapes: E experts, L experts that one worker holds, f expert size, h hidden size. AutoEP's w1, w2, w3 are gate [f, h],
down [h, f] and up [f, h] of each expert.
"""

from __future__ import annotations

import errno
import math
import os
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raylr.errors import CheckpointError, first_line
from raylr.trainables.training.engine import quiet
from raylr.trainables.training.unpickling import only_tensors

WHOLE = "mp_rank_00_model_states.pt"
EXPERT = re.compile(r"layer_\d+_expert_\d+_mp_rank_00_model_states\.pt")
ROUTER, ROUTER_ALIAS = ".mlp.router.gate.weight", ".mlp.gate.gate.weight"
"""AutoEP's names of the router, which it stores under both."""


class _Slice(NamedTuple):
    """A worker's part of a tensor."""

    first_expert: int
    """Of the worker, in a tensor of experts; 0 in others."""
    place: int
    """Among the workers that share the tensor."""
    values: Tensor
    shape: tuple[int, ...]
    """Of the tensor that these workers share."""


def read_weights(folder: Path, *, trust: bool = False) -> dict[str, Tensor]:
    """Read all weights and persistent buffers in a checkpoint's `engine` folder, in the type that the model ran in.

    One worker's file is read after the other, memory-mapped: optimizer states stay on the disk.

    Args:
        folder: The `engine` folder.
        trust: Whether the files may hold pickled objects other than tensors, which are then executed.

    Returns:
        Tensors by the names of `Qwen3MoE`, or of the Hugging Face model.

    Raises:
        CheckpointError: If something is missing, does not fit together, or is not a tensor; names the file or the
            tensor.
    """
    if (folder / WHOLE).is_file():
        weights = _tensors(_load(folder / WHOLE, trust).get("module"), folder / WHOLE)
        for path in sorted(folder.iterdir()):
            if EXPERT.fullmatch(path.name):
                weights |= _tensors(_load(path, trust), path)
    else:
        weights = _gathered(folder, trust)
    return _fused_experts(_plain_routers(weights))


def _load(path: Path, trust: bool, classes: bool = False) -> dict[str, Any]:
    """Read a file; `classes`: it may hold objects of DeepSpeed's classes, as optimizer files do."""
    with only_tensors(path, trust=trust, deepspeed_classes=classes):
        try:
            loaded: dict[str, Any] = torch.load(path, map_location="cpu", mmap=True, weights_only=not trust)
        except (MemoryError, pickle.UnpicklingError):
            raise
        except Exception as error:  # torch's reader of zip files and its unpickler raise many types
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # the disk's, and not the file's
                raise
            raise CheckpointError(f"checkpoint: {path} cannot be read ({first_line(error)})") from None
    return loaded


def _tensors(found: Any, path: Path) -> dict[str, Tensor]:
    """Return what a file holds, which must be tensors by their names."""
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"checkpoint: {path} does not hold the tensors of a model by their names")
    return dict(found)


def _gathered(folder: Path, trust: bool) -> dict[str, Tensor]:
    """The tensors of a stage 3 checkpoint."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed's own classes are in the optimizers' files
    slices: dict[str, list[_Slice]] = {}
    first: dict[str, Any] = {}
    rank, workers = 0, 1
    while rank < workers:
        model = _load(_file(folder, f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"), trust)
        with quiet():
            file = _file(folder, f"*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
            optimizer = _load(file, trust, classes=True)["optimizer_state_dict"]
        first = first or model
        workers = int(model["dp_world_size"])
        for name, piece in _slices(model, optimizer, rank, workers):
            slices.setdefault(name, []).append(piece)
        rank += 1
    types = {name: tensor.dtype for name, tensor in first["module"].items()}
    named = {name: _joined(name, pieces) for name, pieces in slices.items()}
    usual = types[next(iter(named))]
    weights = {name: tensor.to(types.get(name, usual)) for name, tensor in named.items()}
    weights |= {name: first["module"][name] for name in first["buffer_names"]}
    return weights | {name: weights[of] for name, of in (first["shared_params"] or {}).items()}


def _file(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise CheckpointError(f"checkpoint: {folder} holds no {pattern}: it is not DeepSpeed's, or not whole")
    return found[0]


def _slices(model: dict[str, Any], optimizer: dict[str, Any], rank: int, workers: int) -> Iterator[tuple[str, _Slice]]:
    """The slices that worker `rank` holds: sub-groups of the optimizer hold whole tensors' slices, in the order of the
    parameter groups."""
    experts = {layer["module_path"]: int(layer["global_expert_start"]) for layer in model.get("ds_autoep_layers", ())}
    shapes = iter([(name, tuple(shape)) for group in model["param_shapes"] for name, shape in group.items()])
    everyone = {"partition_count": workers, "partition_rank": rank}
    layouts = optimizer.get("ds_zero_partition_groups") or [everyone] * len(optimizer["fp32_flat_groups"])
    for values, layout in zip(optimizer["fp32_flat_groups"], layouts, strict=True):
        at = 0
        while at < values.numel():
            name, shape = next(shapes)
            size = math.ceil(math.prod(shape) / layout["partition_count"])
            if at + size > values.numel():
                raise CheckpointError(
                    f"checkpoint: {name} of shape {shape} does not fit into worker {rank}'s part of it"
                )
            first = experts.get(name.rpartition(".experts.")[0], 0) if ".experts." in name else 0
            yield name, _Slice(first, layout["partition_rank"], values[at : at + size], shape)
            at += size
    left = [name for name, _ in shapes]
    if left:
        raise CheckpointError(f"checkpoint: worker {rank} holds no part of {left[0]} ({len(left)} tensors in all)")


def _joined(name: str, slices: list[_Slice]) -> Tensor:
    """The whole tensor, [E, ...] for experts."""
    parts = []
    for first in sorted({piece.first_expert for piece in slices}):
        own = {piece.place: piece for piece in slices if piece.first_expert == first}
        shape = own[min(own)].shape
        flat = torch.cat([own[place].values for place in sorted(own)])
        if flat.numel() < math.prod(shape):
            raise CheckpointError(
                f"checkpoint: {name} has {flat.numel()} of {math.prod(shape)} numbers: a worker's is missing"
            )
        parts.append(flat[: math.prod(shape)].view(shape))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _plain_routers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for name, tensor in weights.items():
        if name.endswith(ROUTER):
            out[name.removesuffix(ROUTER) + ".mlp.gate.weight"] = tensor
        elif not name.endswith(ROUTER_ALIAS):
            out[name] = tensor
    return out


def _fused_experts(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """AutoEP's w1, w2, w3, one for all experts ([E, f, h]) or one for each (a number behind the name), as
    `gate_up_proj` [E, 2f, h] and `down_proj` [E, h, f]."""
    stacks: dict[str, dict[str, dict[int, Tensor]]] = {}
    out = {}
    for name, tensor in weights.items():
        found = re.fullmatch(r"(.*\.mlp\.experts)\.(w[123])(?:\.(\d+))?", name)
        if found is None:
            out[name] = tensor
        else:
            experts = dict(enumerate(tensor)) if found[3] is None else {int(found[3]): tensor}
            stacks.setdefault(found[1], {}).setdefault(found[2], {}).update(experts)
    for layer, parts in stacks.items():
        numbers = {part: sorted(of) for part, of in parts.items()}
        if set(parts) != {"w1", "w2", "w3"} or any(held != list(range(len(held))) for held in numbers.values()):
            raise CheckpointError(f"checkpoint: {layer} lacks experts, it has {numbers}")
        whole = {part: torch.stack([of[e] for e in sorted(of)]) for part, of in parts.items()}
        out[f"{layer}.gate_up_proj"] = torch.cat((whole["w1"], whole["w3"]), 1)
        out[f"{layer}.down_proj"] = whole["w2"]
    return out
