"""AdamW's state by tensor of the network, wherever ZeRO keeps it.

DeepSpeed holds weights, m and v of a tensor in one of three ways: whole (stage 0), as a part of one flat vector of a
parameter group (stages 1 and 2), or as a shard of each tensor (stage 3, padded at its end). Each process reads the part
that it has; over all processes every element is read equally often, so that means over all parts are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Part:
    """The part of a tensor that this process has: views, not to be changed, all of one length."""

    name: str
    weight: Tensor
    """In fp32 also where the network is in bf16."""
    exp_avg: Tensor
    """m, the running mean of the gradients."""
    exp_avg_sq: Tensor
    """v, the running mean of their squares."""
    steps: int
    """Steps that m and v have seen."""
    betas: tuple[float, float]
    eps: float
    lr_multiplier: float


def adamw_parts(engine: Any) -> Iterator[Part]:
    """Yield the parts of all tensors that AdamW trains, as far as this process has them; no process waits for another.

    Args:
        engine: DeepSpeed's engine, of which `raylr.trainables.training.engine.running_engine` made the optimizer.

    Yields:
        Nothing for tensors of another optimizer, or before the first step.
    """
    optimizer = engine.optimizer
    if hasattr(optimizer, "bit16_groups"):
        yield from _of_stages_1_and_2(engine.module, optimizer)
    elif hasattr(optimizer, "get_local_fp32_param"):
        yield from _of_stage_3(engine.module, optimizer)
    else:
        yield from _whole(engine.module, optimizer)


def _part(name: str, group: Mapping[str, Any], state: Mapping[str, Any], tensors: tuple[Tensor, ...]) -> Part:
    weight, exp_avg, exp_avg_sq = (tensor.detach().reshape(-1) for tensor in tensors)
    return Part(
        name=name,
        weight=weight,
        exp_avg=exp_avg,
        exp_avg_sq=exp_avg_sq,
        steps=int(state["step"]),
        betas=group["betas"],
        eps=group["eps"],
        lr_multiplier=group["lr_multiplier"],
    )


def _known(state: Mapping[str, Any]) -> bool:
    return "exp_avg" in state and "exp_avg_sq" in state


def _whole(module: nn.Module, optimizer: Any) -> Iterator[Part]:
    names = {param: name for name, param in module.named_parameters()}
    of_adamw = getattr(optimizer, "adamw", optimizer)  # beside Muon
    for group in of_adamw.param_groups:
        for param in group["params"]:
            state = of_adamw.state.get(param, {})
            if _known(state):
                yield _part(names[param], group, state, (param, state["exp_avg"], state["exp_avg_sq"]))


def _of_stages_1_and_2(module: nn.Module, zero: Any) -> Iterator[Part]:
    names = {param: name for name, param in module.named_parameters()}
    for params, flat, group in zip(
        zero.bit16_groups, zero.single_partition_of_fp32_groups, zero.optimizer.param_groups, strict=True
    ):
        state = zero.optimizer.state.get(flat, {})
        if not _known(state):
            continue
        for param in params:
            mapping = param._hp_mapping
            if mapping is None:  # another process has all of it
                continue
            at = mapping.get_hp_fragment_address()
            views = tuple(
                tensor.narrow(0, at.start, at.numel) for tensor in (flat, state["exp_avg"], state["exp_avg_sq"])
            )
            yield _part(names[param], group, state, views)


def _of_stage_3(module: nn.Module, zero: Any) -> Iterator[Part]:
    param: Any
    for name, param in module.named_parameters():
        sub_group = zero.grad_position[zero.get_param_id(param)][0]
        state = zero.optimizer.state.get(zero.fp32_partitioned_groups_flat[sub_group], {})
        if not _known(state):
            continue
        group = zero.optimizer.param_groups[zero.sub_group_to_group_id[sub_group]]
        shard = param.ds_tensor.numel()
        rank = torch.distributed.get_rank(getattr(param, "ds_process_group", None))
        real = max(0, min(shard, param.ds_numel - rank * shard))
        if real:
            views = tuple(zero.get_local_fp32_param(param, key)[:real] for key in (None, "exp_avg", "exp_avg_sq"))
            yield _part(name, group, state, views)
