from pathlib import Path

import pytest
import torch

from raylr.trainables.models import products
from raylr.trainables.models.cpu_kernels import linear


@pytest.mark.parametrize("maker", ["vendor_id\t: GenuineIntel", "vendor_id\t: AuthenticAMD", ""])
@pytest.mark.parametrize(
    ("N", "p", "q"), [(50, 24, 40), (300, 130, 140), (300, 140, 130)], ids=["small", "wide", "tall"]
)
def test_products_by_each_library(monkeypatch: pytest.MonkeyPatch, maker: str, N: int, p: int, q: int) -> None:
    monkeypatch.setattr(products, "_maker", lambda: maker)
    products.onednn_is_faster.cache_clear()
    try:
        assert products.onednn_is_faster() == ("Intel" not in maker)
        draw = torch.Generator().manual_seed(0)
        a, b = torch.randn(N, p, generator=draw), torch.randn(q, p, generator=draw)
        want = a.double() @ b.double().t()
        out = torch.empty(N, q)
        products.product_into(out, a, b)
        for got in (products.product(a, b), products.product(a.t().contiguous().t(), b), linear(a[None], b)[0], out):
            assert torch.allclose(got.double(), want, atol=1e-4)
        got = products.product_of_columns(a.t().contiguous(), b.t().contiguous())
        assert torch.allclose(got.double(), want, atol=1e-4)
    finally:
        products.onednn_is_faster.cache_clear()


def test_the_maker_of_this_processor_is_known_on_linux() -> None:
    if Path("/proc/cpuinfo").exists() and "vendor_id" in Path("/proc/cpuinfo").read_text():
        assert products._maker().startswith("vendor_id")
