import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from raylr.trainables.models.experts import _composed, grouped_products_possible, mixture


def inputs(f: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    experts = torch.rand(50, 6).topk(3, -1).indices
    experts[experts == 4] = 5  # one expert without tokens
    return torch.randn(50, 16), torch.randn(6, 2 * f, 16), torch.randn(6, 16, f), experts, torch.rand(50, 3)


def naive(x: Tensor, gate_up: Tensor, down: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for token in range(x.shape[0]):
        for expert, weight in zip(experts[token], weights[token], strict=True):
            gate, up = (gate_up[expert] @ x[token]).chunk(2)
            out[token] += weight * (down[expert] @ (F.silu(gate) * up))
    return out


@pytest.mark.parametrize("f", [8, 7])
def test_both_ways_equal_a_loop_over_tokens(f: int) -> None:
    x, gate_up, down, experts, weights = inputs(f)
    want = naive(x, gate_up, down, experts, weights)
    got, load = mixture(x, gate_up, down, experts, weights)
    assert torch.allclose(got, want, atol=1e-3, rtol=1e-4)
    assert load.tolist() == [int((experts == e).sum()) for e in range(6)]
    order = experts.reshape(-1).sort(stable=True).indices
    assert grouped_products_possible(x, gate_up, down) == (f == 8)
    assert torch.allclose(_composed(x, gate_up, down, weights, order, load), want, atol=1e-3, rtol=1e-4)
