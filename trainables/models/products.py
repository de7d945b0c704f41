"""Products of two matrices on the CPU, by the library that is the faster one on the processor."""

from __future__ import annotations

import functools
import itertools
import platform
import re
from pathlib import Path

import torch
from torch import Tensor

SMALL = 2**22
"""Multiplications below which a product goes to MKL on every processor. A call of oneDNN's costs 12 µs more than one of
MKL's (EPYC, AVX-512): as much as what it saves in products of this size."""
ZEN_5 = 26
"""AMD's family of processors whose 512-bit units are as wide as their registers."""


@functools.cache
def onednn_is_faster() -> bool:
    """Whether large fp32 products go to oneDNN rather than to the library that torch takes itself.

    That is MKL, which runs AVX2 code on processors of other makers than Intel. On Intel's processors MKL is the faster
    one in nearly every shape (weight gradients 183 to 213 against 98 to 145 GFLOP/s). By the maker and not by a trial,
    which decides otherwise in one of 25 starts, and then a run that goes on has other digits.
    """
    onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return onednn and not (torch.backends.mkl.is_available() and "Intel" in _processor()[0])


@functools.cache
def onednn_is_twice_as_fast() -> bool:
    """Whether oneDNN is worth a copy of its result, or of a transposed operand, which MKL does not need.

    An EPYC with AVX-512 units of the full width does 120 GFLOP/s on one thread by MKL and 270 by oneDNN; one of Zen 4,
    whose units take two cycles for 512 bits, 100 and 108: there oneDNN with a copy is the slower one (weight gradients
    of experts 82 to 101 GFLOP/s by MKL and 64 to 93 by oneDNN).
    """
    maker, family = _processor()
    return onednn_is_faster() and ("AMD" not in maker or family >= ZEN_5)


def _processor() -> tuple[str, int]:
    """The processor's maker (`GenuineIntel`, `AuthenticAMD`; "" if it is not known) and family (0)."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            first = "".join(itertools.takewhile(str.strip, lines))
    except OSError:  # not Linux; Windows has the same words here
        first = platform.processor()
    maker, family = re.search(r"GenuineIntel|AuthenticAMD", first), re.search(r"(?i)family\s*:?\s*(\d+)", first)
    return maker[0] if maker else "", int(family[1]) if family else 0


def _by_onednn(multiplications: int, a: Tensor, *, copied: bool) -> bool:
    """Whether a product is oneDNN's, given whether it, or its first operand, would have to be copied."""
    fits = multiplications >= SMALL and a.dtype == torch.float32 and a.device.type == "cpu"
    return fits and (onednn_is_twice_as_fast() if copied else onednn_is_faster())


def product(a: Tensor, b: Tensor) -> Tensor:
    """a·bᵀ of two matrices, by the faster library (`onednn_is_faster`): oneDNN's product is what torch's compiler calls
    for a linear layer."""
    if _by_onednn(a.numel() * b.shape[0], a, copied=not a.is_contiguous()):
        out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
        return out
    return a @ b.t()


def product_of_columns(a: Tensor, b: Tensor) -> Tensor:
    """aᵀ·b of two tall matrices, [N, p] and [N, q], as [p, q], transposed in memory where p > q: each library is the
    faster with the narrower one as the first operand."""
    return product(b.t(), a.t()).t() if a.shape[1] > b.shape[1] else product(a.t(), b.t())


def product_into(out: Tensor, a: Tensor, b: Tensor) -> None:
    """Writes a·bᵀ to `out`, which oneDNN's product cannot: its result is copied."""
    if _by_onednn(a.numel() * b.shape[0], a, copied=True):
        out.copy_(product(a, b))
    else:
        torch.mm(a, b.t(), out=out)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds a·bᵀ to `total`, which may be of a more exact type."""
    if a.dtype == total.dtype and not _by_onednn(a.numel() * b.shape[0], a, copied=True):
        total.addmm_(a, b.t())
    else:
        total.add_(product(a, b))
