import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from raylr.trainables.models import cpu_experts
from raylr.trainables.models.cpu_experts import Mixture

D = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed)).requires_grad_()


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
        monkeypatch.setattr(cpu_experts, "PART_BYTES", size)
        inputs = random(40, 4), random(5, 6, 4, seed=1), random(5, 4, 3, seed=2), random(40, 2, seed=3)
        out = Mixture.apply(*inputs, order, counts)
        out.square().sum().backward()
        found.append([out.detach(), *(one.grad for one in inputs)])
    for other in found[1:]:
        assert all(torch.equal(one, its) for one, its in zip(found[0], other, strict=True))
    assert not found[0][2][4].any()


@pytest.mark.parametrize("sizes", [[32], [32, 32, 64, 32], [64, 512, 32]])
def test_parts_are_small_and_hold_everything_once(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_experts, "PART_BYTES", 96 * 10)
    parts = cpu_experts._parts(sizes, 10)
    experts = [expert for its, _ in parts for expert in range(*its.indices(len(sizes)))]
    assert experts == list(range(len(sizes)))
    assert [row for _, rows in parts for row in range(rows.start, rows.stop)] == list(range(sum(sizes)))
    for its, rows in parts:
        assert sum(sizes[its]) == rows.stop - rows.start
        assert rows.stop - rows.start <= 96 or its.stop - its.start == 1
