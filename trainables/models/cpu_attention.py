"""Causal grouped-query attention by row blocks, written out for the CPU as an autograd function.

Shapes: B batch, T positions, H query heads, K key/value heads, n = H / K, d head size.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from raylr.trainables.models.cpu_kernels import exact, unit_backward, unit_of


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
        cos, sin = _tables(cos, sin, heads, K)
        qk, v = qkv.view(B, T, heads + 2 * K, d).split((heads + K, K), dim=2)
        qk, unit, scale = _norm_and_rotate(qk, norm, eps, cos, sin)
        q, k = qk.split((heads, K), dim=2)
        q = _to_blocks(q, K, blocks, qkv.dtype)
        k, v = (_by_head(t, qkv.dtype) for t in (k, v))
        k_columns = _columns(k)
        future = _future(rows, q.dtype)
        out = torch.empty_like(q)
        weights = []
        for i in range(blocks):
            first, end = i * rows, (i + 1) * rows
            scores = torch.bmm(q[i], k_columns[..., :end])
            scores.view(B * K, -1, rows, end)[..., first:] += future
            if documents is not None:
                other = documents[:, first:end, None] != documents[:, None, :end]
                scores.view(B, -1, rows, end).masked_fill_(other[:, None], float("-inf"))
            weights.append(torch.softmax(scores, -1, out=scores))
            torch.bmm(scores, v[:, :end], out=out[i])
        ctx.save_for_backward(q, k, v, norm, unit, scale, cos, sin, *weights)
        ctx.heads = heads
        return _from_blocks(out, out.new_empty(B, T, heads, d), K).view(B, T, -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """See the class."""
        q, k, v, norm, unit, scale, cos, sin, *weights = ctx.saved_tensors
        B, T, _ = grad.shape
        H, d = ctx.heads, q.shape[-1]
        K = k.shape[0] // B
        blocks, rows = len(weights), T // len(weights)
        grad = _to_blocks(grad.reshape(B, T, H, d), K, blocks, grad.dtype)
        v_columns = _columns(v)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for i, p in reversed(list(enumerate(weights))):
            end = (i + 1) * rows
            dp = torch.bmm(grad[i], v_columns[..., :end])
            ds = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype)
            torch.bmm(ds, k[:, :end], out=dq[i])
            for total, its, other in ((dv, p, grad[i]), (dk, ds, q[i])):
                if end == T:
                    torch.bmm(its.transpose(1, 2), other, out=total)
                else:
                    total[:, :end] += torch.bmm(its.transpose(1, 2), other)
        dqk = q.new_empty(B, T, H + K, d, dtype=torch.promote_types(q.dtype, torch.float32))
        _from_blocks(dq, dqk[:, :, :H], K)
        dk, dv = (t.view(B, K, T, d).transpose(1, 2) for t in (dk, dv))
        dqk[:, :, H:] = dk
        dqkv = grad.new_empty(B, T, H + 2 * K, d)
        out_qk, out_v = dqkv.split((H + K, K), dim=2)
        dnorm = _norm_and_rotate_backward(dqk, norm, unit, scale, cos, sin, out_qk)
        out_v.copy_(dv)
        return dqkv.view(B, T, -1), dnorm, None, None, None, None, None, None


@lru_cache(maxsize=1)  # the same for all layers and steps, as `attention.rope_tables` keeps its tables
def _tables(cos: Tensor, sin: Tensor, heads: int, K: int) -> tuple[Tensor, Tensor]:
    """Tables [T, H + K, d] of RoPE for queries and keys side by side; those of the queries hold the factor 1/√d of the
    scores, there and back."""
    cos, sin = (table.repeat(1, heads + K, 1) for table in (cos, sin))
    for table in (cos, sin):
        table[:, :heads] *= table.shape[-1] ** -0.5
    return cos, sin


@lru_cache(maxsize=2)
def _future(rows: int, dtype: torch.dtype) -> Tensor:
    """-inf above the diagonal, [rows, rows]."""
    return torch.full((rows, rows), float("-inf"), dtype=dtype).triu_(1)


def _norm_and_rotate(
    x: Tensor, weight: Tensor | None, eps: float, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """RoPE of RMSNorm(x) over the last dimension, for x [B, T, heads, d], weight [heads, d] and tables [T, heads, d];
    the normalised x and its scale for the way back. All of them in fp32 or better."""
    y, unit, scale = exact(x), None, None
    if weight is not None:
        unit, scale = unit_of(y, eps)
        y = unit * weight
    return _rotate(y, cos, sin, 1), unit, scale


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
    grad = _rotate(grad, cos, sin, -1)
    if weight is None or unit is None or scale is None:
        out.copy_(grad)
        return None
    return unit_backward(grad, weight, unit, scale, out)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """RoPE in Hugging Face's layout (coordinate i turns with i + d/2); with sign -1 it turns back."""
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-sign)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
    return out


def _as_blocks(x: Tensor, K: int, blocks: int) -> Tensor:
    """[B, T, H, d] -> a view [blocks, B, K, n, rows, d]."""
    view: Tensor = x.unflatten(2, (K, -1)).unflatten(1, (blocks, -1)).permute(1, 0, 3, 4, 2, 5)
    return view


def _to_blocks(x: Tensor, K: int, blocks: int, dtype: torch.dtype) -> Tensor:
    """[B, T, H, d] -> a new [blocks, B·K, n·rows, d]."""
    view = _as_blocks(x, K, blocks)
    return x.new_empty(view.shape, dtype=dtype).copy_(view).view(blocks, x.shape[0] * K, -1, x.shape[-1])


def _from_blocks(x: Tensor, out: Tensor, K: int) -> Tensor:
    """Writes [blocks, B·K, n·rows, d] to `out` [B, T, H, d], and returns it."""
    view = _as_blocks(out, K, x.shape[0])
    view.copy_(x.view(view.shape))
    return out


def _columns(x: Tensor) -> Tensor:
    """[B·K, T, d] -> [B·K, d, T], laid out anew in bf16: products with it are then a fifth faster."""
    x = x.transpose(1, 2)
    return x.contiguous() if x.element_size() < 4 else x


def _by_head(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, T, K, d] -> a new [B·K, T, d]."""
    view = x.transpose(1, 2)
    return x.new_empty(view.shape, dtype=dtype).copy_(view).flatten(0, 1)
