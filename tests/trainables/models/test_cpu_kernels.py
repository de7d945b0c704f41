import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from raylr.trainables.models.cpu_kernels import Linear, RMSNormalise, cross_entropy, linear

D = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed)).requires_grad_()


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


def test_norm_gradients() -> None:
    assert gradcheck(lambda x, w: RMSNormalise.apply(x, w, 1e-6), (random(5, 4), random(4, seed=1)))


@pytest.mark.parametrize("shape", [(40, 32), (4, 5, 6, 32)])
def test_norm_of_bf16_is_that_of_fp32_rounded(shape: tuple[int, ...]) -> None:
    x, grad = random(*shape).detach().bfloat16(), random(*shape, seed=1).detach().bfloat16()
    weight = random(32, seed=2).detach().bfloat16()
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        leaves = [t.to(dtype, copy=True).requires_grad_() for t in (x.detach(), weight.detach())]
        y = RMSNormalise.apply(*leaves, 1e-6)
        y.backward(grad.to(dtype))
        found.append([t.to(torch.bfloat16) for t in (y, *(leaf.grad for leaf in leaves))])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_linear_gradients() -> None:
    assert gradcheck(lambda x, w: Linear.apply(x, w), (random(2, 5, 4), random(3, 4, seed=1)))
    assert linear(random(2, 4).bfloat16(), random(3, 4).bfloat16()).dtype == torch.bfloat16
