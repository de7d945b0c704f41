import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from raylr.trainables.models.attention import rope_tables
from raylr.trainables.models.cpu_attention import BlockedAttention

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
