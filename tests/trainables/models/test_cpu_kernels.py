import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from raylr.trainables.models import cpu_kernels
from raylr.trainables.models.attention import rope_tables
from raylr.trainables.models.cpu_kernels import (
    BlockedAttention,
    Linear,
    Mixture,
    RMSNormalise,
    cross_entropy,
    linear,
)

D = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_attention_gradients(blocks: int, normed: bool, packed: bool) -> None:
    qkv, norms = random(2, 8, 8 * 4), (random(6, 4, seed=1),) if normed else ()
    cos, sin = (t.to(D) for t in rope_tables(8, 4, 1e4, torch.device("cpu")))
    documents = torch.tensor([[0] * 3 + [1] * 5, [0] * 8]) if packed else None

    def attend(x: Tensor, *weights: Tensor) -> Tensor:
        out: Tensor = BlockedAttention.apply(x, *(weights or (None,)), 1e-6, cos, sin, documents, 4, blocks)
        return out

    assert gradcheck(attend, (qkv, *norms))


@pytest.mark.parametrize("z", [0.0, 0.1])
def test_cross_entropy_gradients(z: float) -> None:
    labels = torch.tensor([0, 8, 3, 3, 1, 2])
    assert gradcheck(lambda x, w: cross_entropy(x, w, labels, z)[0], (random(6, 4), random(9, 4, seed=1)))


def test_cross_entropy_in_blocks_is_that_of_all_logits() -> None:
    x, w = random(700, 16), random(5000, 16, seed=1)
    labels = torch.randint(0, 5000, (700,), generator=torch.Generator().manual_seed(2))
    logits = x @ w.t()
    want = torch.nn.functional.cross_entropy(logits, labels)
    total, got = cross_entropy(x, w, labels, 0.01)
    assert torch.allclose(got, want)
    with torch.no_grad():
        assert torch.equal(cross_entropy(x, w, labels, 0.01)[1], got)
    assert torch.allclose(total, want + 0.01 * logits.logsumexp(-1).square().mean())


def test_cross_entropy_of_a_hopeless_token_is_finite() -> None:
    x, w = torch.tensor([[1.0, 0.0]]), torch.tensor([[500.0, 0.0], [-500.0, 0.0], [0.0, 0.0]])
    total, _ = cross_entropy(x, w, torch.tensor([1]))
    assert float(total) == pytest.approx(1000.0)


@pytest.mark.parametrize("chosen", [[[0, 1], [1, 0], [0, 1]], [[0, 2], [2, 0], [1, 2]], [[2, 0], [2, 0], [2, 0]]])
def test_mixture_gradients(chosen: list[list[int]]) -> None:
    experts = torch.tensor(chosen).reshape(-1)
    order, counts = experts.sort(stable=True).indices, torch.bincount(experts, minlength=3).tolist()
    inputs = random(3, 4), random(3, 6, 4, seed=1), random(3, 4, 3, seed=2), random(3, 2, seed=3)
    assert gradcheck(lambda *tensors: Mixture.apply(*tensors, order, counts), inputs)


def test_experts_one_by_one_are_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    experts = torch.randint(0, 5, (40 * 2,), generator=torch.Generator().manual_seed(0)) % 4  # nothing to the fifth
    order, counts = experts.sort(stable=True).indices, torch.bincount(experts, minlength=5).tolist()
    found = []
    for size in (1, 5_000, 10**9):
        monkeypatch.setattr(cpu_kernels, "PART_BYTES", size)
        inputs = random(40, 4), random(5, 6, 4, seed=1), random(5, 4, 3, seed=2), random(40, 2, seed=3)
        out = Mixture.apply(*inputs, order, counts)
        out.square().sum().backward()
        found.append([out.detach(), *(one.grad for one in inputs)])
    for other in found[1:]:
        assert all(torch.equal(one, its) for one, its in zip(found[0], other, strict=True))
    assert not found[0][2][4].any()


@pytest.mark.parametrize("sizes", [[32], [32, 32, 64, 32], [64, 512, 32]])
def test_parts_are_small_and_hold_everything_once(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_kernels, "PART_BYTES", 96 * 10)
    parts = cpu_kernels._parts(sizes, 10)
    experts = [expert for its, _ in parts for expert in range(*its.indices(len(sizes)))]
    assert experts == list(range(len(sizes)))
    assert [row for _, rows in parts for row in range(rows.start, rows.stop)] == list(range(sum(sizes)))
    for its, rows in parts:
        assert sum(sizes[its]) == rows.stop - rows.start
        assert rows.stop - rows.start <= 96 or its.stop - its.start == 1


def test_norm_gradients() -> None:
    assert gradcheck(lambda x, w: RMSNormalise.apply(x, w, 1e-6), (random(5, 4), random(4, seed=1)))


def test_linear_gradients() -> None:
    assert gradcheck(lambda x, w: Linear.apply(x, w), (random(2, 5, 4), random(3, 4, seed=1)))
    assert linear(random(2, 4).bfloat16(), random(3, 4).bfloat16()).dtype == torch.bfloat16
