import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from raylr.trainables.models.routing import Choice, highest

D = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def composed(logits: Tensor, bias: Tensor | None, k: int) -> tuple[Tensor, Tensor, Tensor]:
    probs = logits.softmax(-1)
    experts = torch.topk(probs if bias is None else probs + bias, k, -1).indices
    chosen = probs.gather(-1, experts)
    return probs, chosen / chosen.sum(-1, keepdim=True), experts


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("biased", [False, True])
def test_choice_is_that_of_plain_operations(k: int, biased: bool) -> None:
    bias = torch.tensor([0.3, 0.0, -0.5, 0.1, 0.0], dtype=D) if biased else None
    found = []
    for choose in (Choice.apply, composed):
        logits = random(7, 5)
        probs, weights, experts = choose(logits, bias, k)
        ((probs * random(7, 5, seed=1)).sum() + (weights * random(7, k, seed=2)).sum()).backward()
        found.append((probs, weights, experts, logits.grad))
    assert all(torch.allclose(one, other) for one, other in zip(*found, strict=True))
    assert gradcheck(lambda x: Choice.apply(x, bias, k)[:2], (random(7, 5),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_choice_where_one_result_is_used(dtype: torch.dtype) -> None:
    for number, k in ((0, 2), (1, 2), (1, 1)):
        logits = random(6, 4).detach().to(dtype).requires_grad_()
        out = Choice.apply(logits, None, k)
        assert [one.dtype for one in out] == [torch.float32, dtype, torch.int64]
        out[number].float().square().sum().backward()
        assert logits.grad is not None
        assert logits.grad.dtype == dtype
        assert bool(logits.grad.any()) == (number == 0 or k > 1)  # one weight is always 1


@pytest.mark.parametrize(("E", "k"), [(1, 1), (2, 2), (5, 3), (8, 2), (16, 16), (128, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_highest_is_topk(E: int, k: int, dtype: torch.dtype) -> None:
    for seed, spread in enumerate((1e-6, 1.0, 1e6)):
        scores = (random(E, 300, seed=seed).detach() * spread).to(dtype)
        before = scores.clone()
        want, got = torch.topk(scores, k, 0), highest(scores, k)
        assert all(torch.equal(one, other) for one, other in zip(want, got, strict=True))
        assert torch.equal(scores, before)


def test_highest_of_equal_scores_and_of_none() -> None:
    _, experts = highest(torch.zeros(4, 3), 3)
    assert experts.t().tolist() == [[0, 1, 2]] * 3
    values, experts = highest(torch.tensor([[0.1, float("nan")], [0.3, 0.1], [0.2, 0.4]]), 2)
    assert experts[:, 0].tolist() == [1, 2]
    assert values[:, 1].isnan().all()
    assert ((experts >= 0) & (experts < 3)).all()
