"""Dropless mixture of experts: tokens sorted by expert, one product per expert on contiguous rows.

Shapes: N tokens, h hidden size, E experts, k experts a token, f expert size; gate_up [E, 2f, h], down [E, h, f].
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from raylr.trainables.models.cpu_experts import Mixture


def grouped_products_possible(*operands: Tensor) -> bool:
    """Whether `F.grouped_mm` takes these operands: rows must begin at multiples of 16 bytes."""
    return all(t.shape[-1] * t.element_size() % 16 == 0 for t in operands)


def mixture(x: Tensor, gate_up: Tensor, down: Tensor, experts_Nk: Tensor, weights_Nk: Tensor) -> tuple[Tensor, Tensor]:
    """Sum weight · down(silu(gate(x)) · up(x)) over a token's experts.

    Args:
        x: Hidden states, [N, h].
        gate_up: [E, 2f, h].
        down: [E, h, f].
        experts_Nk: The experts of each token.
        weights_Nk: Their weights.

    Returns:
        [N, h], and the tokens of each expert, [E].
    """
    flat = experts_Nk.reshape(-1)
    load_E = torch.bincount(flat, minlength=gate_up.shape[0])
    if x.device.type == "cpu":
        order = torch.from_numpy(flat.numpy().astype(np.uint16).argsort(kind="stable"))  # a radix sort: 1/10 the time
        y_Nh: Tensor = Mixture.apply(x, gate_up, down, weights_Nk, order, load_E.tolist())
        return y_Nh, load_E
    order = torch.sort(flat, stable=True).indices
    return _composed(x, gate_up, down, weights_Nk, order, load_E), load_E


def _composed(x: Tensor, gate_up: Tensor, down: Tensor, weights_Nk: Tensor, order: Tensor, load_E: Tensor) -> Tensor:
    N, k = weights_Nk.shape
    rows = x.index_select(0, order // k)
    if grouped_products_possible(x, gate_up, down):
        ends = torch.cumsum(load_E, 0, dtype=torch.int32)
        gate, up = F.grouped_mm(rows, gate_up.transpose(-2, -1), offs=ends).chunk(2, -1)
        y = F.grouped_mm(F.silu(gate) * up, down.transpose(-2, -1), offs=ends)
    else:
        parts = []
        for part, w_in, w_out in zip(rows.split(load_E.tolist()), gate_up.unbind(0), down.unbind(0), strict=True):
            gate, up = F.linear(part, w_in).chunk(2, -1)
            parts.append(F.linear(F.silu(gate) * up, w_out))
        y = torch.cat(parts)
    back = torch.empty_like(order)
    back[order] = torch.arange(order.numel(), device=order.device)
    return (y.index_select(0, back).view(N, k, -1) * weights_Nk.unsqueeze(-1)).sum(1).to(x.dtype)
