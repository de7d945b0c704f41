import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import MODEL, run

from raylr.errors import InputError
from raylr.trainables import HFSpec, ModelSpec, TrainSpec
from raylr.trainables.data.corpus import Corpus
from raylr.trainables.models.hf import HuggingFaceModel
from raylr.trainables.models.qwen3_moe import Qwen3MoE
from raylr.trainables.models.spec import model_spec
from raylr.trainables.training import metrics
from raylr.trainables.training.groups import parameter_groups

MOE: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


DEEPSEEK = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
DEEPSEEK |= {"first_k_dense_replace": 1, "kv_lora_rank": 8}


def test_numbers_are_those_of_our_own_spec() -> None:
    spec = HFSpec(hf=MOE)
    for kind in ("total", "active", "non_embedding"):
        assert spec.params(kind) == MODEL.params(kind)
    assert spec.flops_per_token(64) == pytest.approx(MODEL.flops_per_token(64), rel=0.01)
    assert spec.vocab_size == 400
    assert HFSpec(hf=LLAMA).params("active") == HFSpec(hf=LLAMA).params("total")


@pytest.mark.parametrize(
    ("model_type", "fields", "inactive"),
    [
        ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 1}, 2 * 3 * 3 * 32 * 48),
        (
            "deepseek_v3",
            {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
            2 * 3 * 32 * 16,
        ),
        ("gpt2", {}, 0),
    ],
)
def test_other_architectures_are_counted(model_type: str, fields: dict[str, Any], inactive: int) -> None:
    small = (
        {"first_k_dense_replace": 1, "kv_lora_rank": 8, "moe_intermediate_size": 16}
        if model_type == "deepseek_v3"
        else {}
    )
    spec = HFSpec(hf=LLAMA | {"model_type": model_type, "tie_word_embeddings": False} | small | fields)
    assert spec.params("total") - spec.params("active") == inactive
    assert spec.flops_per_token(64) > 6 * (spec.params("active") - spec.params("total") + spec.params("non_embedding"))


def test_losses_are_those_of_our_own_model() -> None:
    theirs, model = HuggingFaceModel(MOE, seed=3), Qwen3MoE(MODEL)
    model.load_state_dict(theirs.network.state_dict())
    torch.manual_seed(0)
    ids = torch.randint(0, 400, (2, 33))
    with torch.no_grad():
        one, other = (m(ids[:, :-1], ids[:, 1:]) for m in (theirs, model))
    assert torch.allclose(torch.stack(one), torch.stack(other), rtol=1e-5)


def test_documents_do_not_see_each_other() -> None:
    model = HuggingFaceModel(LLAMA, seed=0, within_documents=True)
    torch.manual_seed(0)
    ids = torch.randint(0, 400, (1, 32))
    documents = (torch.arange(32) >= 10).long()[None]
    changed = torch.cat(((ids[:, :10] + 1) % 400, ids[:, 10:]), 1)
    with torch.no_grad():
        apart = model(ids, None, documents) - model(changed, None, documents)
    assert float(apart[0, 10:].abs().max()) == 0.0
    with pytest.raises(InputError, match="cross_document_attention=False"):
        HuggingFaceModel(MOE, seed=0, within_documents=True)


def test_groups_of_a_dense_model() -> None:
    groups = parameter_groups(HuggingFaceModel(LLAMA, seed=0), TrainSpec(seq_len=8, batch_tokens=8))
    assert {g["role"] for g in groups} == {"embedding", "attention", "dense", "hidden_norms", "final_norm"}


def test_seed_decides_and_bad_configurations_are_refused(tmp_path: Path) -> None:
    first, second, other = (HuggingFaceModel(LLAMA, seed=s).state_dict() for s in (0, 0, 1))
    name = "network.model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])
    with pytest.raises(InputError, match="it has no model_type"):
        HFSpec(hf={"hidden_size": 3}).params()
    with pytest.raises(InputError, match="is not a configuration that transformers reads"):
        HFSpec(hf=str(tmp_path)).params()
    assert isinstance(model_spec({"hf": LLAMA}), HFSpec)
    assert isinstance(model_spec(MODEL.model_dump()), ModelSpec)


def test_a_corpus_of_another_tokenizer_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    spec = HFSpec(hf=str(tmp_path))
    spec.check_tokenizer(corpus.tokenizer_path)
    own = tmp_path / "tokenizer.json"
    own.write_text(corpus.tokenizer_path.read_text())
    spec.check_tokenizer(corpus.tokenizer_path)
    tokens = json.loads(own.read_text())
    tokens["added_tokens"][0]["content"] = "<end>"
    own.write_text(json.dumps(tokens))
    with pytest.raises(InputError, match="tokenised by another tokenizer"):
        run(corpus.path, model=spec)


@pytest.mark.slow
@pytest.mark.parametrize("config", [MOE, LLAMA], ids=["qwen3_moe", "llama"])
def test_trains_in_the_same_loop(corpus: Corpus, config: dict[str, Any]) -> None:
    rows = run(corpus.path, model=HFSpec(hf=config), steps=20)
    assert rows[-1][metrics.LOSS] < rows[0][metrics.LOSS]
