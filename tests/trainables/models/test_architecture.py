import pytest
import torch

from raylr.errors import SpecError
from raylr.trainables.models.architecture import HUGGING_FACE, Architecture, Pattern, qwen3_moe, shapes_of
from raylr.trainables.models.hf import shapes_on_meta
from raylr.trainables.models.qwen3_moe import Qwen3MoE
from raylr.trainables.models.roles import role_of
from raylr.trainables.models.spec import ModelSpec

SIZE = {
    "hidden_size": 32, "layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 16, "experts": 4, "top_k": 2,
    "expert_size": 24, "vocab_size": 64,
}  # fmt: skip
COARSE = {
    "attention_in": "attention", "attention_out": "attention", "dense_in": "dense", "dense_out": "dense",
    "shared_gate": "dense",
}  # fmt: skip
"""Role here → role of `raylr.trainables.models.roles`, where the two differ."""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"qk_norm": False},
        {"shared_expert_size": 40},
        {"dense_layers": 1, "dense_size": 48},
        {"dense_layers": 3, "dense_size": 48, "shared_expert_size": 40},
        {"experts": 0, "top_k": 0, "expert_size": 0, "dense_size": 48},
    ],
)
def test_the_tensors_of_a_spec_are_those_of_the_network(options):
    spec = ModelSpec(**(SIZE | options))
    with torch.device("meta"):
        network = Qwen3MoE(spec)
    shapes = {name: tuple(param.shape) for name, param in network.named_parameters()}
    assert shapes_of(spec) == shapes
    tensors = qwen3_moe(spec).tensors(shapes)  # every tensor has a role, and no pattern is without a tensor
    for tensor in tensors:
        assert COARSE.get(tensor.role, tensor.role) == role_of(tensor.name, len(tensor.shape))
    fan_ins = {tensor.role: tensor.fan_in for tensor in tensors}
    assert fan_ins["attention_in"] == fan_ins["lm_head"] == 32
    assert fan_ins["attention_out"] == 4 * 16
    assert fan_ins.get("experts_out", 24) == 24
    assert fan_ins.get("router", 32) == 32
    assert fan_ins["embedding"] is None


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
         "intermediate_size": 48, "vocab_size": 64, "tie_word_embeddings": False}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "fan_ins"),
    [
        ({"model_type": "llama", **SMALL}, {"dense_in": 32, "dense_out": 48, "attention_out": 32}),
        ({"model_type": "qwen2", **SMALL}, {"dense_out": 48, "hidden_biases": None}),
        ({"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_inner": 48, "vocab_size": 64,
          "tie_word_embeddings": False}, {"dense_in": 32, "dense_out": 48, "attention_in": 32}),
        ({"model_type": "gpt_neox", **SMALL}, {"dense_out": 48, "attention_out": 32}),
        ({"model_type": "mixtral", **SMALL, "num_local_experts": 4},
         {"experts_in": 32, "experts_out": 48, "router": 32}),
        ({"model_type": "qwen3_moe", **SMALL, "head_dim": 24, "num_experts": 4, "moe_intermediate_size": 20},
         {"experts_in": 32, "experts_out": 20, "attention_out": 48, "qk_norms": None}),
    ],
    ids=lambda value: value.get("model_type") if isinstance(value, dict) else None,
)  # fmt: skip
def test_causal_lms_of_transformers(config, fan_ins):
    shapes, transposed = shapes_on_meta(config)
    found = {tensor.role: tensor.fan_in for tensor in HUGGING_FACE.tensors(shapes, transposed=transposed)}
    assert fan_ins.items() <= found.items()
    assert {"embedding", "lm_head", "hidden_norms", "final_norm", "attention_in"} <= {*found}
    assert HUGGING_FACE.layers(list(shapes)) == 2


def test_tied_embeddings_are_an_error():
    with pytest.raises(SpecError, match="are one tensor"):
        shapes_on_meta({"model_type": "llama", **SMALL, "tie_word_embeddings": True})


MLP = {"0.weight": (64, 8), "0.bias": (64,), "2.weight": (3, 64)}


@pytest.mark.parametrize(
    ("patterns", "layer", "words"),
    [
        ([("^0", "embedding")], "", "no pattern gives the tensor 2.weight"),
        ([("^0", "embedding"), ("^2", "lm_head"), ("^4", "hidden")], "", r"'\^4' \(hidden\) matches no tensor"),
        ([(".", "embedding"), ("^2", "lm_head")], "", "that an earlier pattern does not match"),
        ([("^0", "hidden"), ("^2", "lm_head")], "", "the role hidden of a matrix"),
        ([("^0", "in")], "", "no role 'in'"),
        ([("(", "hidden")], "", "is not a regular expression"),
        ([("^0", "embedding"), ("^2", "lm_head")], "layers", "must have one group"),
    ],
)
def test_what_does_not_fit_is_an_error(patterns, layer, words):
    with pytest.raises(SpecError, match=words):
        Architecture(
            name="mlp", layer=layer, patterns=tuple(Pattern(regex=regex, role=role) for regex, role in patterns)
        ).tensors(MLP)


def test_layers_that_are_not_found_are_an_error():
    mlp = Architecture(name="mlp", patterns=(), layer=r"layers\.(\d+)")
    with pytest.raises(SpecError, match="the depth ratio is unknown"):
        mlp.layers(list(MLP))


def test_a_pattern_before_the_built_in_ones():
    """gpt-oss has a tensor of its own, and experts with the fan-in before the fan-out."""
    shapes, transposed = shapes_on_meta({"model_type": "gpt_oss", **SMALL, "head_dim": 24, "num_local_experts": 4})
    with pytest.raises(SpecError, match=r"self_attn\.sinks"):
        HUGGING_FACE.tensors(shapes, transposed=transposed)
    sinks = Pattern(regex=r"\.sinks$", role="hidden_biases")
    own = Architecture(name="gpt-oss", patterns=(sinks, *HUGGING_FACE.patterns), layer=HUGGING_FACE.layer)
    found = {tensor.role: tensor.fan_in for tensor in own.tensors(shapes, transposed=transposed)}
    assert (found["experts_in"], found["experts_out"], found["attention_out"]) == (32, 48, 48)


def test_roles_from_a_mapping():
    found = Architecture.from_dict({
        "name": "net", "layer": r"^h\.(\d+)\.",
        "patterns": [{"regex": "^in", "role": "embedding", "optional": True}, {"regex": "^out", "role": "lm_head",
                                                                            "fan_in": -2}],
    })  # fmt: skip
    first, last = found.patterns
    assert (found.name, found.layer) == ("net", r"^h\.(\d+)\.")
    assert first == Pattern(regex="^in", role="embedding", optional=True)
    assert last == Pattern(regex="^out", role="lm_head", fan_in=-2)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"patterns": []}, "must be a list of mappings"),
        ({"patterns": [{"regex": "x"}]}, "needs regex and role"),
        ({"patterns": [{"regex": "x", "role": "lm_head", "fan_in": "last"}]}, "needs regex and role"),
        ({"patterns": [{"regex": "x", "rol": "lm_head"}]}, "did you mean 'role'"),
        ({"patterns": [{"regex": "x", "role": "head"}]}, "there is no role 'head'"),
        ({"pattern": []}, "no key 'pattern'"),
        ({"patterns": [{"regex": "x", "role": "lm_head"}], "layer": 3}, "must be a regular expression"),
    ],
)
def test_bad_mappings_of_roles(data, words):
    with pytest.raises(SpecError, match=words):
        Architecture.from_dict(data)
