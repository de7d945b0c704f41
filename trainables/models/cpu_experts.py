"""The mixture of experts, written out for the CPU as an autograd function.

Shapes: N tokens, h hidden size; E experts, k experts a token, f expert size, M = N·k rows sorted by expert.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from raylr.trainables.models.products import product_into

PART_BYTES = 2 * 2**20
"""What `Mixture` has in work at a time: about an L2 cache (1 MiB on Zen 4, 2 MiB on Sapphire Rapids)."""

VECTOR = 32
"""Floats that torch's loops take at a time (two AVX-512 registers); the rest of a strided row is done one by one."""

PADDING = 32
"""Rows of an expert are padded to a multiple of this: few different shapes need few compiled kernels."""


class Mixture(Function):
    """Sum over a token's experts of weight · down(silu(gate(x)) · up(x)): [N, h].

    Forward takes x [N, h], gate_up [E, 2f, h], down [E, h, f], weights [N, k], order [M] (which sorts the token-choice
    pairs by expert) and the number of rows of each expert. Inside, each expert's rows are padded with rows of weight 0,
    which add nothing to any sum. A few experts are computed from their rows to their results before the next ones
    (`_parts`), so that what passes between their products stays in cache.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gate_up: Tensor, down: Tensor, weights: Tensor, order: Tensor, counts: list[int]
    ) -> Tensor:
        """See the class."""
        place, sizes = _places(counts)
        choices = order.numpy()
        places, tokens = np.empty_like(choices), np.zeros(sum(sizes), dtype=choices.dtype)
        places[choices] = place
        tokens[place] = choices // weights.shape[1]
        back, token = torch.from_numpy(places).view_as(weights), torch.from_numpy(tokens)
        scale = weights.new_zeros(len(token))
        scale[torch.from_numpy(place)] = weights.reshape(-1).index_select(0, order)
        y = x.new_empty(len(token), x.shape[1])
        gate_up_rows = x.new_empty(len(token), gate_up.shape[1])
        parts = _parts(sizes, x.element_size() * (x.shape[1] + 2 * gate_up.shape[1]))
        for experts, rows in parts:
            its_sizes, both = sizes[experts], gate_up_rows[rows]
            _products(both, x.index_select(0, token[rows]), gate_up[experts], its_sizes)
            gate, up = both.chunk(2, -1)
            _products(y[rows], F.silu(_whole(gate)).mul_(up), down[experts], its_sizes)
        ctx.save_for_backward(x, gate_up, down, token, scale[:, None], back, gate_up_rows)
        ctx.sizes, ctx.parts = sizes, parts
        return _weighted_sum(back, y, weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None, None]:
        """See the class."""
        x, gate_up, down, token, scale, back, gate_up_rows = ctx.saved_tensors
        dgate_up, ddown = torch.empty_like(gate_up), torch.empty_like(down)
        drows, dscale = x.new_empty(len(token), x.shape[1]), scale.new_empty(len(token))
        for experts, rows in ctx.parts:
            sizes, its, weight = ctx.sizes[experts], token[rows], scale[rows]
            both = gate_up_rows[rows]
            if (
                both.element_size() < 4
            ):  # half of a short row is a cache line or two: a copy of all streams, halves wait
                both = both.clone()
            gate, up = both.chunk(2, -1)
            dy = grad.index_select(0, its)
            dinner = _products(x.new_empty(len(its), gate.shape[1]), dy, down[experts].transpose(1, 2), sizes)
            gate = _whole(gate)
            active = F.silu(gate)
            inner = active * up
            torch.sum(dinner * inner, -1, out=dscale[rows])
            inner.mul_(weight)
            dinner.mul_(weight)
            dboth = x.new_empty(len(its), gate_up.shape[1])
            dgate, dup = dboth.chunk(2, -1)
            torch.mul(dinner, active, out=dup)
            its_grad = dinner if gate.is_contiguous() else dgate
            dgate.copy_(torch.ops.aten.silu_backward(dinner.mul_(up), gate, grad_input=its_grad))
            _products_of_rows(ddown[experts], dy, inner, sizes)
            _products(drows[rows], dboth, gate_up[experts].transpose(1, 2), sizes)
            _products_of_rows(dgate_up[experts], dboth, x.index_select(0, its), sizes)
        dweights = dscale.index_select(0, back.view(-1)).view_as(back)
        return _weighted_sum(back, drows, None), dgate_up, ddown, dweights, None, None


def _whole(columns: Tensor) -> Tensor:  # copied where `VECTOR` does not divide their number
    return columns.contiguous() if columns.shape[-1] % VECTOR else columns


def _parts(sizes: list[int], row_bytes: int) -> list[tuple[slice, slice]]:
    """Consecutive experts, and their rows, that need at most `PART_BYTES` together; or one that needs more."""
    parts, expert, row = [], 0, 0
    while expert < len(sizes):
        first, begin = expert, row
        while expert < len(sizes) and (expert == first or (row + sizes[expert] - begin) * row_bytes <= PART_BYTES):
            row += sizes[expert]
            expert += 1
        parts.append((slice(first, expert), slice(begin, row)))
    return parts


def _products(out: Tensor, rows: Tensor, weights: Tensor, sizes: list[int]) -> Tensor:
    """Writes rows·Wᵀ of each expert to `out`, with weights [E, q, p] and the number of rows of each; returns `out`."""
    for its, part, weight in zip(out.split(sizes), rows.split(sizes), weights.unbind(), strict=True):
        product_into(its, part, weight)
    return out


def _products_of_rows(out: Tensor, a: Tensor, b: Tensor, sizes: list[int]) -> None:
    """Writes aᵀ·b of the rows of each expert to `out` [E, p, q]."""
    for its, one, other in zip(out.unbind(), a.split(sizes), b.split(sizes), strict=True):
        product_into(its, one.t(), other.t())


def _places(counts: list[int]) -> tuple[np.ndarray, list[int]]:
    """Place of each of the M sorted rows among the padded ones, [M], and each expert's number of those. By NumPy, whose
    calls on a few thousand integers cost a fifth of torch's."""
    sizes = [max(PADDING, -(-count // PADDING) * PADDING) for count in counts]
    padding_before = [0, *itertools.accumulate(size - count for size, count in zip(sizes, counts, strict=True))][:-1]
    return np.arange(sum(counts)) + np.repeat(np.array(padding_before, dtype=np.int64), counts), sizes


def _weighted_sum(back: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
    """Σ over the k choices of weight · y[back]: [N, h]. One pass where torch has one (fp32, fp64, bf16)."""
    return F.embedding_bag(back, y, mode="sum", per_sample_weights=weights)
