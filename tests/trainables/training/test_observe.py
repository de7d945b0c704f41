import pytest
import torch
from torch import nn

from raylr.trainables.coordinates.subject import language_model, made_ids
from raylr.trainables.models.architecture import HUGGING_FACE, qwen3_moe
from raylr.trainables.models.build import build
from raylr.trainables.models.hf import HuggingFaceModel, shapes_and_orientation
from raylr.trainables.models.spec import ModelSpec
from raylr.trainables.training.observe import Observer

SPEC = ModelSpec(hidden_size=16, layers=2, heads=4, kv_heads=2, head_dim=8, experts=4, top_k=2, expert_size=16,
                 vocab_size=64)  # fmt: skip
IDS = made_ids(64, 2, 16, 0)


def observe(model, architecture, network=None):
    subject, network = language_model(model, IDS), network or model
    shapes, transposed = shapes_and_orientation(network)
    tensors = architecture.tensors(shapes, transposed=transposed)
    return Observer(network, architecture, tensors, lambda _: subject.forward(model)).capture()


@pytest.mark.parametrize("qk_norm", [True, False])
def test_activations_are_those_of_the_forward_pass(qk_norm):
    spec = SPEC.model_copy(update={"qk_norm": qk_norm})
    model = build(spec, seed=0)
    for layer in model.model.layers:
        layer.multiplier = 0.5
    seen = observe(model, qwen3_moe(spec))
    x = model.model.embed_tokens(torch.from_numpy(IDS[:, :-1]))
    torch.testing.assert_close(seen["embeddings", ""], x)
    stream = x + seen["layer_outputs", "first"] + seen["layer_outputs", "last"]
    torch.testing.assert_close(seen["residual_stream", "last"], stream)
    for layer in ("first", "last"):  # what attention and experts add, multiplier included, is what the block adds
        added = seen["attention_outputs", layer] + seen["mlp_outputs", layer]
        torch.testing.assert_close(added, seen["layer_outputs", layer])
    torch.testing.assert_close(seen["logits", ""], model.lm_head(model.model.norm(stream)))
    assert (("attention_logits_normed", "last") in seen) is qk_norm
    normed = model.model.layers[0].input_layernorm(x)
    attention = model.model.layers[0].self_attn
    q = attention.q_proj(normed)[1, 9].view(4, 8)[3]
    k = attention.k_proj(normed)[1, 5].view(2, 8)[1]
    past = torch.ones(16, 16).tril().bool()
    place = int(past.flatten().cumsum(0)[9 * 16 + 5]) - 1
    torch.testing.assert_close(seen["attention_logits", "first"][1, 3, place], q @ k / 8**0.5)
    if qk_norm:
        expected = attention.q_norm(q) @ attention.k_norm(k) / 8**0.5
        torch.testing.assert_close(seen["attention_logits_normed", "first"][1, 3, place], expected)
    assert seen["router_logits", "last"].shape == (32, 4)
    assert not model.model.layers[0]._forward_hooks  # nothing stays behind
    assert model.training


@pytest.mark.slow
def test_a_model_of_transformers_with_the_same_weights_shows_the_same():
    fields = {"model_type": "qwen3_moe", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
              "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4,
              "num_experts_per_tok": 2, "moe_intermediate_size": 16, "vocab_size": 64, "norm_topk_prob": True,
              "tie_word_embeddings": False, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}  # fmt: skip
    ours, theirs = build(SPEC, seed=0), HuggingFaceModel(fields, seed=1)
    theirs.network.load_state_dict(ours.state_dict())
    mine, other = observe(ours, qwen3_moe(SPEC)), observe(theirs, HUGGING_FACE, theirs.network)
    assert mine.keys() == other.keys()
    for place, value in mine.items():
        torch.testing.assert_close(other[place].flatten(), value.flatten(), rtol=1e-4, atol=1e-5)


def test_a_network_without_layers_shows_its_hidden_matrices():
    from raylr.trainables.models.architecture import Architecture, Pattern

    model = nn.Sequential(nn.Embedding(64, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 64, bias=False))
    roles = (("^0", "embedding"), ("^1", "hidden"), ("^2", "lm_head"))
    architecture = Architecture(name="net", patterns=tuple(Pattern(regex=regex, role=role) for regex, role in roles))
    seen = observe(model, architecture)
    assert {*seen} == {("embeddings", ""), ("hidden", "1"), ("logits", "")}
