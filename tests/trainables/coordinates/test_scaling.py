import pytest

from raylr.errors import SpecError
from raylr.trainables.coordinates.scaling import scaled
from raylr.trainables.models.spec import HFSpec, ModelSpec

BASE = ModelSpec(hidden_size=32, layers=2, heads=4, kv_heads=2, head_dim=16, experts=8, top_k=2, expert_size=24,
                 vocab_size=64, shared_expert_size=8, dense_layers=1, dense_size=48)  # fmt: skip
LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
         "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 64, "head_dim": 8}  # fmt: skip


def test_all_inner_sizes_grow_with_the_width_and_a_head_keeps_its_size():
    wide = scaled(BASE, width=4)
    assert (wide.hidden_size, wide.expert_size, wide.shared_expert_size, wide.dense_size) == (128, 96, 32, 192)
    assert (wide.heads, wide.kv_heads, wide.head_dim, wide.layers, wide.experts, wide.vocab_size) == (
        16,
        8,
        16,
        2,
        8,
        64,
    )
    fixed = scaled(BASE, width=4, heads="fixed")
    assert (fixed.hidden_size, fixed.heads, fixed.kv_heads) == (128, 4, 2)
    deep = scaled(BASE, depth=3)
    assert (deep.layers, deep.dense_layers, deep.hidden_size) == (6, 3, 32)
    assert scaled(BASE) == BASE


def test_models_of_transformers_are_scaled_by_their_configuration():
    wide = scaled(HFSpec(hf=LLAMA), width=2).hf
    assert [wide[key] for key in LLAMA if key != "model_type"] == [64, 128, 8, 4, 2, 64, 8]
    assert scaled(HFSpec(hf=LLAMA), depth=2).hf["num_hidden_layers"] == 4
    assert scaled(HFSpec(hf=LLAMA), width=2, heads="fixed").hf["num_attention_heads"] == 4


def test_what_cannot_be_scaled_is_an_error():
    with pytest.raises(SpecError, match=r"kv_heads=2 × 0\.25 is not a whole number"):
        scaled(BASE, width=0.25)
    with pytest.raises(SpecError, match=r"layers=2 × 1\.25"):
        scaled(BASE, depth=1.25)
    gpt2 = {"model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_layer": 2, "vocab_size": 64}
    with pytest.raises(SpecError, match="larger heads"):
        scaled(HFSpec(hf=gpt2), width=2, heads="fixed")
