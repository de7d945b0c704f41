import pytest

from raylr.errors import SpecError
from raylr.trainables.models.parametrization import QUANTITIES, Parametrization, parametrization
from raylr.trainables.models.spec import HFSpec, ModelSpec
from raylr.trainables.models.transfer import differences, network_of, transfer


def spec(width=32, **options):
    """A model whose heads and inner sizes grow with the width."""
    fields = {
        "hidden_size": width, "layers": 2, "heads": width // 16, "kv_heads": width // 32, "head_dim": 16, "experts": 4,
        "top_k": 2, "expert_size": width, "vocab_size": 64, "shared_expert_size": width, "dense_layers": 1,
        "dense_size": 2 * width,
    }  # fmt: skip
    return ModelSpec(**fields | options)


def by_role(found):
    return {one.role: one for one in found.tensors}


@pytest.mark.parametrize("name", ["standard", "mup", "completep", "completed_p"])
def test_transfers_compose_tensor_by_tensor(name):
    """Base → a → b multiplies every tensor as base → b does, also where fan-ins and hidden size grow differently."""
    rule = parametrization(name)
    base = network_of(spec(32), tokens=1e6, batch_tokens=1024)
    a = network_of(spec(64, layers=6, heads=8, expert_size=96), tokens=3e6, batch_tokens=4096)
    b = network_of(spec(160, layers=4, dense_size=96), tokens=2e6, batch_tokens=2048)
    whole, first, second = (transfer(*pair, rule) for pair in ((base, b), (base, a), (a, b)))
    of_first = by_role(first)
    for one, other in zip(whole.tensors, second.tensors, strict=True):
        for quantity in QUANTITIES:
            product = of_first[one.role].factors[quantity] * other.factors[quantity]
            assert product == pytest.approx(one.factors[quantity], rel=1e-12), (one.name, quantity)


def test_fan_in_of_the_last_matrices_is_a_choice():
    """The paper's 4B model and its proxy: heads fixed at 32 × 128."""
    fixed = {"heads": 4, "kv_heads": 2, "dense_size": 64, "expert_size": 32, "shared_expert_size": 64}
    base, target = network_of(spec(32, **fixed)), network_of(spec(128, **fixed | {"expert_size": 64}))
    own = by_role(transfer(base, target, parametrization("completed_p")))
    choices = dict.fromkeys(["attention_fan_in", "experts_fan_in", "dense_fan_in"], "hidden_size")
    literal = by_role(transfer(base, target, parametrization("completed_p", **choices)))
    for role, ratio in (("attention_out", 1), ("experts_out", 2), ("dense_out", 1)):
        assert own[role].factors["lr"] == own[role].factors["init_variance"] == 1 / ratio
        assert literal[role].factors["lr"] == literal[role].factors["init_variance"] == 0.25
        assert own[role].factors["eps"] == literal[role].factors["eps"] == 0.25
    for role in ("attention_in", "experts_in", "dense_in", "router", "lm_head"):
        assert own[role].factors == literal[role].factors


def test_table_10_on_every_tensor():
    """Width × 4, depth × 3, tokens × 4: the factors of Table 10, computed by hand."""
    base = network_of(spec(32, dense_layers=0, dense_size=0), tokens=1e6)
    target = network_of(spec(128, layers=6, dense_layers=0, dense_size=0), tokens=4e6)
    found = transfer(base, target, parametrization("completed_p"))
    third = pytest.approx(1 / 3)
    hidden = {"init_variance": 0.25, "lr": 0.125, "weight_decay": 2.0, "eps": pytest.approx(1 / 6)}
    vector = {"init_variance": 1.0, "lr": 0.5, "weight_decay": 0.5}
    expected = {
        "embed_tokens": vector | {"eps": 0.5},
        "lm_head": {"init_variance": 1 / 16, "lr": 0.125, "weight_decay": 2.0, "eps": 2.0},
        "model.norm": vector | {"eps": 2.0},
        "q_norm": vector | {"eps": pytest.approx(2 / 3)},
        "k_norm": vector | {"eps": pytest.approx(2 / 3)},
        "layernorm": vector | {"eps": pytest.approx(1 / 6)},
        "o_proj": hidden | {"residual": third},
        "down_proj": hidden | {"residual": third},
    }
    assert len(found.tensors) == 3 + 6 * 15
    for one in found.tensors:
        row = next((row for word, row in expected.items() if word in one.name), hidden)
        assert one.factors == {"forward": 1.0, "residual": 1.0} | row, one.name
    assert found.residual == third


def test_hugging_face_models():
    fields = {"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64,
              "tie_word_embeddings": False}  # fmt: skip
    base = network_of(HFSpec(hf=fields | {"hidden_size": 32, "intermediate_size": 48}))
    target = network_of(HFSpec(hf=fields | {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}))
    found = transfer(base, target, parametrization("completep"))
    assert dict(found.ratios) == {"width": 2.0, "depth": 1.5, "tokens": 1.0, "batch": 1.0}
    assert by_role(found)["dense_out"].factors["lr"] == 0.5
    assert {one.what for one in differences(base, target, found.rule)} == {"head_dim", "heads / hidden_size"}


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"qk_norm": False}, {}, "target has model.layers.0.self_attn.k_norm.weight, and the base has no tensor"),
        ({}, {"shared_expert_size": 0}, "base has model.layers.1.mlp.shared_expert.*, and the target has no tensor"),
    ],
)
def test_tensors_without_a_counterpart(one, other, words):
    with pytest.raises(SpecError, match=words.replace("k_norm", "[qk]_norm")):
        transfer(network_of(spec(**one)), network_of(spec(**other)), parametrization("mup"))


def test_ratios_that_do_not_follow():
    rule = parametrization("completed_p")
    with pytest.raises(SpecError, match="the base states tokens and the target does not"):
        transfer(network_of(spec(), tokens=1e6), network_of(spec()), rule)
    with pytest.raises(SpecError, match="batch_tokens of base and target are 0 and 1"):
        transfer(network_of(spec(), batch_tokens=0), network_of(spec(), batch_tokens=1), rule)
    with pytest.raises(SpecError, match="tied embeddings"):
        network_of(spec(tied_embeddings=True))


def test_what_no_rule_covers_is_named():
    base = network_of(spec(32), tokens=1e6, batch_tokens=1024)
    grown = network_of(spec(64, layers=4), tokens=2e6, batch_tokens=1024)
    assert differences(base, grown, parametrization("completed_p")) == []
    assert [one.what for one in differences(base, grown, parametrization("mup"))] == ["depth", "tokens"]
    changes = {"experts": 8, "top_k": 1, "vocab_size": 128, "head_dim": 32, "expert_size": 64, "dense_size": 32,
               "kv_heads": 2, "init_std": 0.01, "balance": "bias"}  # fmt: skip
    other = network_of(spec(32, **changes), tokens=1e6, batch_tokens=4096)
    found = {one.what for one in differences(base, other, parametrization("completed_p"))}
    assert found == {"experts", "top_k", "vocab_size", "head_dim", "init_std", "balance", "expert_size / hidden_size",
                     "dense_size / hidden_size", "heads / kv_heads", "batch"}  # fmt: skip


def test_one_residual_multiplier_or_an_error():
    table = {"terms": [{"quantity": "residual", "roles": ["attention_out"], "depth": -1, "source": "own"}]}
    found = transfer(network_of(spec()), network_of(spec(layers=4)), Parametrization.from_dict(table))
    with pytest.raises(SpecError, match="different residual multipliers"):
        _ = found.residual


def test_every_matrix_of_muon_has_the_ratios_of_its_own_shape():
    """Of a small mixture with fixed heads, by hand: the fused gate and up projections are two matrices."""
    fixed = {"heads": 4, "kv_heads": 2, "head_dim": 16}
    base, target = (
        network_of(spec(width, expert_size=size, dense_size=3 * width, **fixed), tokens=1e6, batch_tokens=1e3)
        for width, size in ((32, 16), (128, 192))
    )
    rule = parametrization("mup", optimizer="muon_match_rms_adamw", attention_fan_in="hidden_size")
    found = {one.role: one for one in transfer(base, target, rule).tensors if "k_proj" not in one.name}
    shapes = {  # (out, in) of base and target
        "attention_out": ((32, 64), (128, 64)),
        "dense_in": ((96, 32), (384, 128)),
        "experts_in": ((16, 32), (192, 128)),
        "experts_out": ((32, 16), (128, 192)),
    }
    for role, ((out, inp), (large_out, large_in)) in shapes.items():
        grown = (max(large_out, large_in) / max(out, inp)) ** 0.5
        want = (large_out / large_in / (out / inp)) ** 0.5 / grown
        assert found[role].factors["lr"] == pytest.approx(want), role
        assert found[role].by_muon
    assert found["router"].factors["lr"] == 0.25
    assert not found["router"].by_muon
    assert found["experts_in"].formula("lr") == "m_in^-0.5 · m_out^0.5 · m_max^-0.5"
