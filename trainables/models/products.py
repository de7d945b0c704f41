"""Products of two matrices on the CPU, by the library that is the faster one on the processor."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import torch
from torch import Tensor

SMALL = 2**22
"""Multiplications below which a product goes to MKL on every processor. A call of oneDNN's costs 12 µs more than one of
MKL's (EPYC, AVX-512): as much as what it saves in products of this size."""


@functools.cache
def onednn_is_faster() -> bool:
    """Whether large fp32 products go to oneDNN rather than to the library that torch takes itself.

    That is MKL, which runs AVX2 code on processors of other makers than Intel: an EPYC with AVX-512 does 120 GFLOP/s on
    one thread by MKL and 270 by oneDNN. On Intel's processors MKL is the faster one in nearly every shape (weight
    gradients 183 to 213 against 98 to 145 GFLOP/s). By the maker and not by a trial, which decides otherwise in one of
    25 starts, and then a run that goes on has other digits.
    """
    onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return onednn and not (torch.backends.mkl.is_available() and "GenuineIntel" in _maker())


def _maker() -> str:
    """The processor's maker as the processor gives it (`GenuineIntel`, `AuthenticAMD`), among other words."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            return next((line for line in lines if line.startswith("vendor_id")), "")
    except OSError:  # not Linux; Windows has it here
        return platform.processor()


def _by_onednn(multiplications: int, a: Tensor) -> bool:
    return a.dtype == torch.float32 and a.device.type == "cpu" and multiplications >= SMALL and onednn_is_faster()


def product(a: Tensor, b: Tensor) -> Tensor:
    """a·bᵀ of two matrices, by the faster library (`onednn_is_faster`): oneDNN's product is what torch's compiler calls
    for a linear layer."""
    if _by_onednn(a.numel() * b.shape[0], a):
        out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
        return out
    return a @ b.t()


def product_of_columns(a: Tensor, b: Tensor) -> Tensor:
    """aᵀ·b of two tall matrices, [N, p] and [N, q]. By oneDNN the narrower one is the first operand: it wants that
    contiguous, and copying a transposed matrix is slow."""
    if a.shape[1] > b.shape[1] and _by_onednn(a.numel() * b.shape[1], a):
        return product(b.t(), a.t()).t()
    return product(a.t(), b.t())


def product_into(out: Tensor, a: Tensor, b: Tensor) -> None:
    """Writes a·bᵀ to `out`, which oneDNN's product cannot: its result is copied."""
    if _by_onednn(a.numel() * b.shape[0], a):
        out.copy_(product(a, b))
    else:
        torch.mm(a, b.t(), out=out)
