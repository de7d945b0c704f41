import platform
from pathlib import Path

import pytest
import torch

from raylr.trainables.models import products
from raylr.trainables.models.cpu_kernels import linear

INTEL, ZEN_4, ZEN_5, UNKNOWN = ("GenuineIntel", 6), ("AuthenticAMD", 25), ("AuthenticAMD", 26), ("", 0)


@pytest.fixture(autouse=True)
def fresh():
    yield
    products.onednn_is_faster.cache_clear()
    products.onednn_is_twice_as_fast.cache_clear()


def on(processor: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_processor", lambda: processor)
    products.onednn_is_faster.cache_clear()
    products.onednn_is_twice_as_fast.cache_clear()


@pytest.mark.parametrize("processor", [INTEL, ZEN_4, ZEN_5, UNKNOWN])
@pytest.mark.parametrize(
    ("N", "p", "q"), [(50, 24, 40), (300, 130, 140), (300, 140, 130)], ids=["small", "wide", "tall"]
)
def test_products_by_each_library(
    monkeypatch: pytest.MonkeyPatch, processor: tuple[str, int], N: int, p: int, q: int
) -> None:
    on(processor, monkeypatch)
    assert products.onednn_is_faster() == (processor != INTEL)
    assert products.onednn_is_twice_as_fast() == (processor in (ZEN_5, UNKNOWN))
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(N, p, generator=draw), torch.randn(q, p, generator=draw)
    want = a.double() @ b.double().t()
    out, total, exact = torch.empty(N, q), torch.ones(N, q), torch.ones(N, q, dtype=torch.float64)
    products.product_into(out, a, b)
    for one in (total, exact):
        products.add_product(one, a, b)
        one -= 1
    transposed = a.t().contiguous().t()
    for got in (products.product(a, b), products.product(transposed, b), linear(a[None], b)[0], out, total, exact):
        assert torch.allclose(got.double(), want, atol=1e-4)
    got = products.product_of_columns(a.t().contiguous(), b.t().contiguous())
    assert torch.allclose(got.double(), want, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ("AMD64 Family 26 Model 2 Stepping 1, AuthenticAMD", ZEN_5),
        ("Intel64 Family 6 Model 143 Stepping 8, GenuineIntel", INTEL),
        ("arm", UNKNOWN),
    ],
)
def test_the_processor_where_there_is_no_proc(
    monkeypatch: pytest.MonkeyPatch, words: str, want: tuple[str, int]
) -> None:
    def none(*_: object, **__: object) -> None:
        raise FileNotFoundError("/proc/cpuinfo")

    monkeypatch.setattr(Path, "open", none)
    monkeypatch.setattr(platform, "processor", lambda: words)
    assert products._processor() == want


def test_the_processor_on_linux() -> None:
    listed = Path("/proc/cpuinfo")
    if not listed.exists() or not any(maker in listed.read_text() for maker in ("GenuineIntel", "AuthenticAMD")):
        pytest.skip("no x86 processor of Intel or AMD on Linux")
    maker, family = products._processor()
    assert maker in listed.read_text()
    assert family > 0
