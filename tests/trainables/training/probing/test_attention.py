import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylr.trainables.models.build import build
from raylr.trainables.models.spec import HFSpec, ModelSpec
from raylr.trainables.training.probes import ValidationEvent
from raylr.trainables.training.probing.attention import QUERIES, AttentionProbe, positions

SPEC = ModelSpec(hidden_size=16, layers=2, heads=4, kv_heads=2, head_dim=8, experts=4, top_k=2, expert_size=16,
                 vocab_size=64)  # fmt: skip
IDS = torch.randint(64, (3, 24), generator=torch.Generator().manual_seed(0))


def seen(model: nn.Module, *inputs: Any) -> dict[str, Any]:
    probe, engine = AttentionProbe(), SimpleNamespace(module=model)
    with torch.no_grad():
        before = model(*inputs)
        with probe.watch(engine):
            out = model(*inputs)
        assert torch.equal(out, before)
    model(*inputs)  # unseen
    found = probe(ValidationEvent(engine=engine, row={"loss": 1.0}, memory={}))
    assert found is not None
    return dict(found)


@torch.no_grad()
def dense(logits_HTT: Tensor, allowed: Tensor) -> tuple[float, float]:
    logits = logits_HTT.masked_fill(~allowed, -math.inf)
    return float(logits.max()), float(torch.special.entr(logits.softmax(-1)).sum(-1).mean())


class Block(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.qkv = how, nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (4, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        T = x.shape[1]
        past = torch.ones(T, T, dtype=torch.bool).tril()
        if self.how == "causal":
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.how == "added mask":
            mask = torch.zeros(T, T).masked_fill(~past, torch.finfo(torch.float32).min)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            scores = (q @ k.transpose(-2, -1) / 2).masked_fill(~past, -1e38 * 3)
            out = torch.softmax(scores, dim=-1) @ v
        return x + out.transpose(1, 2).flatten(2)


class Own(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(64, 16)
        self.blocks = nn.ModuleList(Block(how) for _ in range(2))

    def forward(self, ids: Tensor) -> Tensor:
        x: Tensor = self.table(ids)
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("how", ["causal", "added mask", "softmax"])
def test_attention_of_a_network_of_ones_own(how: str) -> None:
    model = Own(how)
    found = seen(model, IDS)
    x, wanted = model.table(IDS[:1]), []
    for block in model.blocks:
        q, k, _ = (part[0].unflatten(-1, (4, 4)).transpose(0, 1) for part in block.qkv(x).chunk(3, -1))
        wanted.append(dense(q @ k.transpose(-2, -1) / 2, torch.ones(24, 24, dtype=torch.bool).tril()))
        x = block(x)
    assert found["attention_logit_max/layers"] == pytest.approx([one[0] for one in wanted], rel=1e-4)
    assert found["attention_entropy/layers"] == pytest.approx([one[1] for one in wanted], rel=1e-4)
    assert found["attention_logit_max"] == max(found["attention_logit_max/layers"])


@pytest.mark.parametrize("qk_norm", [True, False])
def test_raylrs_attention_and_that_of_transformers_show_the_same(qk_norm: bool) -> None:
    model = build(SPEC.model_copy(update={"qk_norm": qk_norm, "init_std": 0.3}), seed=0)
    found = seen(model, IDS)
    assert found["attention_logit_max"] > 0
    documents = torch.zeros(3, 24, dtype=torch.long)
    documents[:, 10:] = 1
    assert seen(model, IDS, None, documents)["attention_entropy"] < found["attention_entropy"]
    if not qk_norm:
        return
    fields = {
        "model_type": "qwen3_moe",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "vocab_size": 64,
        "norm_topk_prob": True,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": SPEC.rope_theta},
    }
    for implementation in ("sdpa", "eager"):
        theirs: Any = build(HFSpec(hf=fields | {"attn_implementation": implementation}), seed=0)
        theirs.network.load_state_dict(model.state_dict())
        other = seen(theirs.eval(), IDS)
        for name, value in found.items():
            assert other[name] == pytest.approx(value, rel=1e-3), (implementation, name)


def test_positions_are_spread_evenly_and_end_with_the_last() -> None:
    for length in (1, QUERIES, QUERIES + 1, 1000):
        at = positions(length)
        assert len(at) == len({*at.tolist()}) == min(length, QUERIES)
        assert at[-1] == length - 1
        assert at[0] >= 0
