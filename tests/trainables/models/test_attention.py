import pytest
import torch
import torch.nn.functional as F

from raylr.trainables.models.attention import causal_attention, rope_tables, rotate


@pytest.mark.parametrize(("T", "normed"), [(128, True), (64, False), (50, True)])
@pytest.mark.parametrize("packed", [False, True])
def test_equals_sdpa(T: int, normed: bool, packed: bool) -> None:
    torch.manual_seed(0)
    B, H, K, d = 2, 4, 2, 16
    qkv, rope = torch.randn(B, T, (H + 2 * K) * d), rope_tables(T, d, 1e6, torch.device("cpu"))
    norm = torch.rand(H + K, d) if normed else None
    documents = torch.randint(0, 2, (B, T)).cumsum(1) if packed else None
    q, k, v = qkv.view(B, T, -1, d).split((H, K, K), dim=2)
    if norm is not None:
        q, k = F.rms_norm(q, (d,), None, 1e-6) * norm[:H], F.rms_norm(k, (d,), None, 1e-6) * norm[H:]
    mask = torch.ones(T, T, dtype=torch.bool).tril()
    if documents is not None:
        mask = mask & (documents[:, None, :, None] == documents[:, None, None, :])
    q, k, v = rotate(q, *rope).transpose(1, 2), rotate(k, *rope).transpose(1, 2), v.transpose(1, 2)
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2).reshape(B, T, -1)
    assert torch.allclose(causal_attention(qkv, norm, 1e-6, rope, H, documents), want, atol=1e-5)


def test_rope_depends_on_distance_alone() -> None:
    cos, sin = rope_tables(32, 8, 1e4, torch.device("cpu"))
    a, b = torch.randn(1, 1, 1, 8).expand(1, 32, 1, 8), torch.randn(1, 1, 1, 8).expand(1, 32, 1, 8)
    products = (rotate(a, cos, sin)[0, :, 0] @ rotate(b, cos, sin)[0, :, 0].t()).numpy()
    assert products[3, 1] == pytest.approx(products[30, 28], abs=1e-4)
