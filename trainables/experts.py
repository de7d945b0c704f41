"""Dropless mixture of experts: tokens sorted by expert, one product per expert on contiguous rows.

Shapes: N tokens, h hidden size, E experts, k experts a token, f expert size; gate_up [E, 2f, h], down [E, h, f].
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def grouped_products_possible(x: Tensor, *weights: Tensor) -> bool:
    """Whether `F.grouped_mm` takes these operands: rows must begin at multiples of 16 bytes."""
    return all(t.shape[-1] * t.element_size() % 16 == 0 for t in (x, *weights))


def route(experts_Nk: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The order that sorts (token, choice) pairs by expert, [N·k], and the number of pairs of each of `count` experts,
    [E]."""
    flat = experts_Nk.reshape(-1)
    order = torch.sort(flat, stable=True).indices
    return order, torch.zeros(count, dtype=torch.int64, device=flat.device).scatter_add_(0, flat, torch.ones_like(flat))


def mixture(x: Tensor, gate_up: Tensor, down: Tensor, experts_Nk: Tensor, weights_Nk: Tensor) -> Tensor:
    """Sum over a token's experts of weight · down(silu(gate(x)) · up(x)): [N, h]."""
    N, k = experts_Nk.shape
    order, counts = route(experts_Nk, gate_up.shape[0])
    rows = x.index_select(0, order // k)
    if grouped_products_possible(x, gate_up, down):
        ends = torch.cumsum(counts, 0, dtype=torch.int32)
        gate, up = F.grouped_mm(rows, gate_up.transpose(-2, -1), offs=ends).chunk(2, -1)
        y = F.grouped_mm(F.silu(gate) * up, down.transpose(-2, -1), offs=ends)
    else:
        parts = []
        for part, w_in, w_out in zip(rows.split(counts.tolist()), gate_up.unbind(0), down.unbind(0), strict=True):
            gate, up = F.linear(part, w_in).chunk(2, -1)
            parts.append(F.linear(F.silu(gate) * up, w_out))
        y = torch.cat(parts)
    back = torch.empty_like(order)
    back[order] = torch.arange(order.numel(), device=order.device)
    return (y.index_select(0, back).view(N, k, -1) * weights_Nk.unsqueeze(-1)).sum(1).to(x.dtype)
