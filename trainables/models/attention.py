"""Causal attention with grouped queries: SDPA on an accelerator, row blocks of plain products on the CPU (faster
there).

Shapes: B batch, T positions, H query heads, K key/value heads, d head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from raylr.trainables.models.cpu_attention import BlockedAttention

BLOCK_ROWS = 32
"""Rows of a block of the CPU path, where T is a multiple of it: a block computes the columns up to its own end only."""


Watcher = Callable[[Tensor, Tensor, Tensor | None], None]
"""Takes queries (times 1/√d) and keys [H, T, d] of one sequence, as their products are taken, and the pairs that are
allowed [T, T] (None: all of the past)."""
_WATCHERS: list[Watcher] = []


@contextmanager
def watch_attention(watcher: Watcher) -> Iterator[None]:
    """Give the first sequence of every `causal_attention` inside of the block to a function."""
    _WATCHERS.append(watcher)
    try:
        yield
    finally:
        _WATCHERS.remove(watcher)


@torch.no_grad()
def _show(
    qkv: Tensor, norm: Tensor | None, eps: float, rope: tuple[Tensor, Tensor], heads: int, documents: Tensor | None
) -> None:
    """Call the watchers with the first sequence of what `causal_attention` takes."""
    d = rope[0].shape[-1]
    kv_heads = (qkv.shape[-1] // d - heads) // 2
    qk = qkv[0].view(qkv.shape[1], -1, d)[:, : heads + kv_heads].float()
    if norm is not None:
        qk = F.rms_norm(qk, (d,), None, eps) * norm
    q, k = rotate(qk, *rope).transpose(0, 1).split((heads, kv_heads))
    allowed = None
    if documents is not None:
        allowed = (documents[0, :, None] == documents[0, None]).tril()
    for watcher in _WATCHERS:
        watcher(q * d**-0.5, k.repeat_interleave(heads // kv_heads, 0), allowed)


@lru_cache(maxsize=8)
def rope_tables(T: int, d: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the positions 0 to T-1.

    Args:
        T: Positions.
        d: Dimension of a head.
        theta: Base of the angles.
        device: Where the tables are.

    Returns:
        [T, 1, d] each, fp32.
    """
    inverse = 1.0 / (theta ** (torch.arange(0, d, 2, dtype=torch.float, device=device) / d))
    angles = torch.arange(T, device=device).float()[:, None] * inverse
    angles = torch.cat((angles, angles), -1)[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE of x [B, T, heads, d] in Hugging Face's layout: coordinate i is paired with i + d/2."""
    half = x.shape[-1] // 2
    return x * cos.to(x.dtype) + torch.cat((-x[..., half:], x[..., :half]), -1) * sin.to(x.dtype)


def causal_attention(
    qkv: Tensor,
    norm: Tensor | None,
    eps: float,
    rope: tuple[Tensor, Tensor],
    heads: int,
    documents: Tensor | None = None,
) -> Tensor:
    """softmax(q·kᵀ/√d)·v over the past, after QK norm and RoPE: [B, T, H·d].

    Args:
        qkv: The three projections side by side, [B, T, (H + 2K)·d].
        norm: Weights of the RMS norms of query and key heads, [H + K, d]; None: no norm.
        eps: Of the norms.
        rope: `rope_tables`.
        heads: Number of query heads H.
        documents: [B, T]; attention stays within equal numbers. None: over all.
    """
    if _WATCHERS:
        _show(qkv, norm, eps, rope, heads, documents)
    B, T, _ = qkv.shape
    if qkv.device.type == "cpu":
        blocks = T // BLOCK_ROWS if T % BLOCK_ROWS == 0 else 1
        out: Tensor = BlockedAttention.apply(qkv, norm, eps, *rope, documents, heads, blocks)
        return out
    d = rope[0].shape[-1]
    kv_heads = (qkv.shape[-1] // d - heads) // 2
    qk, v = qkv.view(B, T, -1, d).split((heads + kv_heads, kv_heads), dim=2)
    if norm is not None:
        qk = F.rms_norm(qk, (d,), None, eps) * norm
    mask = None
    if documents is not None:
        past = torch.ones(T, T, dtype=torch.bool, device=qkv.device).tril()
        mask = (documents[:, None, :, None] == documents[:, None, None, :]) & past
    q, k = rotate(qk, *rope).transpose(1, 2).split((heads, kv_heads), dim=1)
    v = v.transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)
    return out.transpose(1, 2).reshape(B, T, -1)
