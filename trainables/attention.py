"""Causal attention with grouped queries: SDPA on an accelerator, row blocks of plain products on the CPU (faster
there).

Shapes: B batch, H query heads, K key/value heads, n = H / K, T positions, d head size; q [B, H, T, d], k and v [B, K,
T, d].
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCKS = 4
"""Row blocks of the CPU path: a row of block i of b sees (i + 1) / b of the columns, so 5/8 of the square is
computed."""


def causal_attention(q: Tensor, k: Tensor, v: Tensor, documents: Tensor | None = None) -> Tensor:
    """softmax(q·kᵀ/√d)·v over the past: [B, H, T, d]. `documents` [B, T], if given: attention stays within equal
    numbers."""
    if q.device.type == "cpu":
        return _blocked(q, k, v, documents)
    mask = None
    if documents is not None:
        T = q.shape[2]
        past = torch.ones(T, T, dtype=torch.bool, device=q.device).tril()
        mask = (documents[:, None, :, None] == documents[:, None, None, :]) & past
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)


def _blocked(q: Tensor, k: Tensor, v: Tensor, documents: Tensor | None) -> Tensor:
    B, H, T, d = q.shape
    K = k.shape[1]
    n, blocks = H // K, BLOCKS if T % BLOCKS == 0 else 1
    rows = T // blocks
    q = q.reshape(B * K, n, T, d) * d**-0.5
    k, v = k.reshape(B * K, T, d), v.reshape(B * K, T, d)
    future = torch.full((rows, rows), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    out = []
    for i in range(blocks):
        first, end = i * rows, (i + 1) * rows
        scores = torch.bmm(q[:, :, first:end].reshape(B * K, n * rows, d), k[:, :end].transpose(1, 2))
        scores = scores.view(B * K, n, rows, end) + F.pad(future, (first, 0))
        if documents is not None:
            other = documents[:, first:end, None] != documents[:, None, :end]
            scores = scores.view(B, K * n, rows, end).masked_fill(other[:, None], float("-inf")).view_as(scores)
        weights = F.softmax(scores, -1, dtype=torch.float32).to(v.dtype)
        out.append(torch.bmm(weights.view(B * K, n * rows, end), v[:, :end]).view(B * K, n, rows, d))
    return torch.cat(out, 2).view(B, H, T, d)
