"""The four places where a training step spends its time, written out for the CPU as autograd functions.

Each is the plain composition of torch operations (in `attention`, `experts` and `qwen3_moe`, which use it off the CPU)
with its derivative by hand: fewer passes over memory, results written in place, blocks that stay in cache. Gradients
are checked against finite differences and against the compositions in the tests.

Shapes: N tokens, h hidden size, V vocabulary; B batch, T positions, H query heads, K key/value heads, n = H / K, d head
size; E experts, k experts a token, f expert size, M = N·k rows sorted by expert.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from raylr.trainables.models.products import add_product, product, product_into, product_of_columns

LOGIT_BYTES = 4 * 2**20
"""Size of the block of fp32 logits that `LinearCrossEntropy` holds at a time."""

PART_BYTES = 2 * 2**20
"""What `Mixture` has in work at a time: about an L2 cache (1 MiB on Zen 4, 2 MiB on Sapphire Rapids)."""

VECTOR = 32
"""Floats that torch's loops take at a time (two AVX-512 registers); the rest of a strided row is done one by one."""

PADDING = 32
"""Rows of an expert are padded to a multiple of this: few different shapes need few compiled kernels."""


class Linear(Function):
    """x·Wᵀ for x [..., a] and W [b, a], by `product` there and back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """See the class."""
        ctx.save_for_backward(x, weight)
        return product(x.flatten(0, -2), weight).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        x, weight = ctx.saved_tensors
        grad = grad.flatten(0, -2)
        return product(grad, weight.t()).view_as(x), product_of_columns(grad, x.flatten(0, -2))


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """`F.linear` without a bias, by the fastest product that the device has."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        out: Tensor = Linear.apply(x, weight)
        return out
    return F.linear(x, weight)


class LinearCrossEntropy(Function):
    """Mean cross-entropy of softmax(x·Wᵀ) and mean squared log-partition, without holding all logits.

    Forward (x [N, h], weight [V, h], labels [N], z, needed) gives (total = cross_entropy + z · mean lse²,
    cross_entropy), in fp32. The gradients are made in the forward pass if they are `needed`, block by block, and scaled
    in the backward pass; the second output has no gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, z: float, needed: bool) -> tuple[Tensor, Tensor]:
        """See the class."""
        N, V = x.shape[0], weight.shape[0]
        rows = max(64, LOGIT_BYTES // (4 * V))
        exact = torch.promote_types(x.dtype, torch.float32)
        dx = torch.empty_like(x) if needed else None
        dw = weight.new_zeros(weight.t().shape, dtype=exact) if needed else None  # as for `product_of_columns`
        cross_entropy, squares = x.new_zeros((), dtype=exact), x.new_zeros((), dtype=exact)
        for first in range(0, N, rows):
            part, target = x[first : first + rows], labels[first : first + rows, None]
            logits = product(part, weight).to(exact)
            top, at_target = logits.amax(-1), logits.gather(1, target)[:, 0]
            probs = torch.softmax(logits, -1, out=logits)
            lse = top - probs.amax(-1).log_()
            cross_entropy += (lse - at_target).sum()
            if z:
                squares += lse.square().sum()
            if dx is None or dw is None:
                continue
            if z:
                probs.mul_(1 + 2 * z * lse[:, None])
            probs.scatter_add_(1, target, probs.new_full((1, 1), -1.0).expand_as(target))
            dlogits = probs.to(x.dtype)
            product_into(dx[first : first + rows], dlogits, weight.t())
            add_product(dw, part.t(), dlogits.t())
            del logits, probs, dlogits  # the next block takes their memory, which is in cache
        if dx is not None and dw is not None:
            ctx.save_for_backward(dx, dw)
        ctx.scale = 1.0 / N
        cross_entropy = cross_entropy / N
        ctx.mark_non_differentiable(cross_entropy)
        return cross_entropy + z * squares / N if z else cross_entropy.clone(), cross_entropy

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """See the class."""
        dx, dw = ctx.saved_tensors
        scale = (grad_total * ctx.scale).item()
        return dx * scale, dw.t().mul(scale).to(dx.dtype), None, None, None


def cross_entropy(x: Tensor, weight: Tensor, labels: Tensor, z: float = 0.0) -> tuple[Tensor, Tensor]:
    """`LinearCrossEntropy` without its gradients where none are needed (validation: a third of the products).

    Args:
        x: Hidden states, [N, h].
        weight: Output embedding, [V, h].
        labels: Token ids, [N].
        z: Coefficient of the z-loss.

    Returns:
        The loss with z-loss, and the mean cross-entropy.
    """
    total, mean = LinearCrossEntropy.apply(x, weight, labels, z, torch.is_grad_enabled())
    return total, mean


class BlockedAttention(Function):
    """Causal grouped-query attention by row blocks, from the projections on: QK norm, RoPE, softmax(q·kᵀ/√d)·v.

    Forward takes qkv [B, T, (H + 2K)·d], the weights [H + K, d] of the norms of q and k side by side (None: no norm)
    and their eps, cos and sin [T, 1, d] in fp32, documents [B, T] or None (attention stays within equal numbers), H,
    and the number of row blocks; it gives [B, T, H·d]. A block's rows see the columns up to its end only; the query
    heads of one key head are stacked as rows of one product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        norm: Tensor | None,
        eps: float,
        cos: Tensor,
        sin: Tensor,
        documents: Tensor | None,
        heads: int,
        blocks: int,
    ) -> Tensor:
        """See the class."""
        B, T, _ = qkv.shape
        d = cos.shape[-1]
        K = (qkv.shape[-1] // d - heads) // 2
        rows = T // blocks
        cos, sin = (table.repeat(1, heads + K, 1) for table in (cos, sin))
        for table in (cos, sin):
            table[:, :heads] *= d**-0.5  # the scale of the scores, there and back
        qk, v = qkv.view(B, T, heads + 2 * K, d).split((heads + K, K), dim=2)
        qk, unit, scale = _norm_and_rotate(qk, norm, eps, cos, sin)
        q, k = qk.split((heads, K), dim=2)
        q = _to_blocks(q, K, blocks)
        k, v = (t.transpose(1, 2).reshape(B * K, T, d) for t in (k, v))
        future = torch.full((rows, rows), float("-inf"), dtype=q.dtype).triu_(1)
        out = torch.empty_like(q)
        weights = []
        for i in range(blocks):
            first, end = i * rows, (i + 1) * rows
            scores = torch.bmm(q[i], k[:, :end].transpose(1, 2))
            scores.view(B * K, -1, rows, end)[..., first:] += future
            if documents is not None:
                other = documents[:, first:end, None] != documents[:, None, :end]
                scores.view(B, -1, rows, end).masked_fill_(other[:, None], float("-inf"))
            weights.append(torch.softmax(scores, -1, out=scores))
            torch.bmm(scores, v[:, :end], out=out[i])
        ctx.save_for_backward(q, k, v, norm, unit, scale, cos, sin, *weights)
        ctx.heads = heads
        return _from_blocks(out, B, T, heads).reshape(B, T, -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """See the class."""
        q, k, v, norm, unit, scale, cos, sin, *weights = ctx.saved_tensors
        B, T, _ = grad.shape
        H, d = ctx.heads, q.shape[-1]
        K = k.shape[0] // B
        blocks, rows = len(weights), T // len(weights)
        grad = _to_blocks(grad.reshape(B, T, H, d), K, blocks)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for i, p in reversed(list(enumerate(weights))):
            end = (i + 1) * rows
            dp = torch.bmm(grad[i], v[:, :end].transpose(1, 2))
            ds = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype)
            torch.bmm(ds, k[:, :end], out=dq[i])
            for total, its, other in ((dv, p, grad[i]), (dk, ds, q[i])):
                if end == T:
                    torch.bmm(its.transpose(1, 2), other, out=total)
                else:
                    total[:, :end] += torch.bmm(its.transpose(1, 2), other)
        dqk = grad.new_empty(B, T, H + K, d)
        dqk[:, :, :H] = _from_blocks(dq, B, T, H)
        dqk[:, :, H:], dv = (t.view(B, K, T, d).transpose(1, 2) for t in (dk, dv))
        dqkv = grad.new_empty(B, T, H + 2 * K, d)
        out_qk, out_v = dqkv.split((H + K, K), dim=2)
        dnorm = _norm_and_rotate_backward(dqk, norm, unit, scale, cos, sin, out_qk)
        out_v.copy_(dv)
        return dqkv.view(B, T, -1), dnorm, None, None, None, None, None, None


def _norm_and_rotate(
    x: Tensor, weight: Tensor | None, eps: float, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """RoPE of RMSNorm(x) over the last dimension, for x [B, T, heads, d], weight [heads, d] and tables [T, heads, d];
    the normalised x and its scale for the way back."""
    y, unit, scale = _exact(x), None, None
    if weight is not None:
        unit, scale = _unit(y, eps)
        y = unit * weight
    return _rotate(y, cos, sin).to(x.dtype), unit, scale


def _norm_and_rotate_backward(
    grad: Tensor,
    weight: Tensor | None,
    unit: Tensor | None,
    scale: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    out: Tensor,
) -> Tensor | None:
    """Writes the gradient of x to `out` and returns that of the weight (None without a norm)."""
    grad = _rotate(_exact(grad), cos, -sin)
    if weight is None or unit is None or scale is None:
        out.copy_(grad)
        return None
    return _unit_backward(grad, weight, unit, scale, out)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE in Hugging Face's layout (coordinate i turns with i + d/2); with -sin it turns back."""
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out


def _exact(x: Tensor) -> Tensor:
    """x in fp32 or better: small operations on bf16 are slower than the two conversions, and less exact."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _unit(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x / √(mean x² + eps) over the last dimension, and 1 / √(mean x² + eps)."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return x * scale, scale


def _unit_backward(grad: Tensor, weight: Tensor, unit: Tensor, scale: Tensor, out: Tensor) -> Tensor:
    """Writes the gradient of x through unit(x) · weight to `out` and returns that of the weight; `grad` is [..., d],
    the weight as many of its last dimensions as it has."""
    along = grad * unit
    dweight = along.view(-1, *weight.shape).sum(0).to(weight.dtype)
    inward = along.mul_(weight).sum(-1, keepdim=True).div_(-unit.shape[-1])
    torch.mul((grad * weight).addcmul_(unit, inward), scale, out=out)
    return dweight


class RMSNormalise(Function):
    """x / √(mean x² + eps) · weight over the last dimension, in fp32 inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See the class."""
        unit, scale = _unit(_exact(x), eps)
        ctx.save_for_backward(unit, scale, weight)
        return (unit * weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """See the class."""
        unit, scale, weight = ctx.saved_tensors
        out = torch.empty_like(grad)
        return out, _unit_backward(_exact(grad), weight, unit, scale, out), None


def _to_blocks(q: Tensor, K: int, blocks: int) -> Tensor:
    """[B, T, H, d] -> a new [blocks, B·K, n·rows, d]."""
    B, T, H, d = q.shape
    q = q.reshape(B, blocks, T // blocks, K, H // K, d).permute(1, 0, 3, 4, 2, 5)
    return q.clone(memory_format=torch.contiguous_format).view(blocks, B * K, -1, d)


def _from_blocks(x: Tensor, B: int, T: int, H: int) -> Tensor:
    """[blocks, B·K, n·rows, d] -> [B, T, H, d]."""
    blocks, BK, _, d = x.shape
    x = x.view(blocks, B, BK // B, H * B // BK, T // blocks, d).permute(1, 0, 4, 2, 3, 5)
    return x.reshape(B, T, H, d)


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
        back = torch.empty_like(order)
        back[order] = place
        back = back.view_as(weights)
        token = torch.zeros(sum(sizes), dtype=order.dtype)
        token[place] = order // weights.shape[1]
        scale = weights.new_zeros(len(token))
        scale[place] = weights.reshape(-1).index_select(0, order)
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
            gate, up = gate_up_rows[rows].chunk(2, -1)
            dy = grad.index_select(0, its)
            dinner = _products(x.new_empty(len(its), gate.shape[1]), dy, down[experts].transpose(1, 2), sizes)
            gate = _whole(gate)
            active = F.silu(gate)
            inner = active * up
            torch.sum(dinner * inner, -1, out=dscale[rows])
            _products_of_rows(ddown[experts], dy, inner.mul_(weight), sizes)
            dinner.mul_(weight)
            dboth = x.new_empty(len(its), gate_up.shape[1])
            dgate, dup = dboth.chunk(2, -1)
            torch.mul(dinner, active, out=dup)
            its_grad = dinner if gate.is_contiguous() else dgate
            dgate.copy_(torch.ops.aten.silu_backward(dinner.mul_(up), gate, grad_input=its_grad))
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


def _places(counts: list[int]) -> tuple[Tensor, list[int]]:
    """Place of each of the M sorted rows among the padded ones, [M], and each expert's number of those."""
    sizes = [max(PADDING, -(-count // PADDING) * PADDING) for count in counts]
    padding_before = [0, *itertools.accumulate(size - count for size, count in zip(sizes, counts, strict=True))][:-1]
    shifts = torch.repeat_interleave(torch.tensor(padding_before), torch.tensor(counts))
    return torch.arange(sum(counts)) + shifts, sizes


def _weighted_sum(back: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
    """Σ over the k choices of weight · y[back]: [N, h]. One pass where torch has one (fp32, fp64, bf16)."""
    return F.embedding_bag(back, y, mode="sum", per_sample_weights=weights)
