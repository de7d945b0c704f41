import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from tiny_runs import BATCH, MODEL, call_workers, run, train_spec
from tokenizers import Tokenizer, processors
from torch import Tensor

from raylr.errors import InputError
from raylr.trainables import HFSpec, ModelSpec, TrainSpec
from raylr.trainables.data.corpus import Corpus, Windows
from raylr.trainables.export.hf import (
    ORIGIN,
    _tokenizer_files,
    export_checkpoint,
    find_checkpoint,
    position,
)
from raylr.trainables.export.weights import read_weights
from raylr.trainables.models.qwen3_moe import Qwen3MoE
from raylr.trainables.models.spec import model_spec
from raylr.trainables.training.checkpoint import STATE, TOKENIZER

IDS = torch.randint(0, 400, (2, 96), generator=torch.Generator().manual_seed(0))
DENSE_TIED = MODEL.model_copy(
    update={"dense_layers": 1, "dense_size": 48, "tied_embeddings": True, "residual_multiplier": 0.7, "vocab_size": 411}
)
DENSE = ModelSpec(
    hidden_size=32, layers=2, heads=4, kv_heads=2, head_dim=8, dense_size=48, vocab_size=400, tied_embeddings=True
)
WORKERS = """
import json, sys
from pathlib import Path
import tiny_runs
with tiny_runs.forked(2):
    for name, fields in json.loads(sys.argv[1]).items():
        tiny_runs.run(Path(sys.argv[2]), run_dir=Path(sys.argv[3]) / name, **fields)
"""
SEVERAL: dict[str, dict[str, Any]] = {
    "stage 2": {"workers": 2, "zero_stage": 2},
    "stage 3": {"workers": 2, "zero_stage": 3},
    "experts": {"workers": 2, "expert_parallel": 2},
    "experts 3": {"workers": 2, "expert_parallel": 2, "zero_stage": 3},
    "experts bf16": {"workers": 2, "expert_parallel": 2, "zero_stage": 3, "dtype": "bf16"},
}


def hugging_face(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(network: Any, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        out = network(ids)
    found: Tensor = out if isinstance(out, Tensor) else out.logits
    return found


def own_logits(checkpoint: Path, spec: ModelSpec) -> Tensor:
    """Of the model as raylr runs it, in fp32, from the checkpoint's weights."""
    model = Qwen3MoE(spec)
    weights = read_weights(find_checkpoint(checkpoint) / "engine")
    if spec.tied_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights)
    return logits(model.eval())


def validation_loss(network: Any, corpus: Corpus, spec: TrainSpec) -> float:
    """Over the validation sequences of a run, all of one length."""
    rows = torch.from_numpy(Windows(corpus.validation, spec.seq_len).batch(0, spec.validation_tokens // spec.seq_len))
    return float(torch.nn.functional.cross_entropy(logits(network, rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()))


@pytest.fixture(scope="module")
def checkpoint(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run folder of a short run of `MODEL`."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    run(corpus.path, run_dir=folder, schedule="wsd", decay_fraction=0.5)
    yield folder
    import deepspeed

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()


@pytest.mark.slow
def test_logits_and_loss_stay_and_all_readers_find_what_they_need(
    corpus: Corpus, checkpoint: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    out = export_checkpoint(checkpoint, tmp_path / "deep" / "hf")
    network = hugging_face(out)
    assert type(network).__name__ == "Qwen3MoeForCausalLM"
    torch.testing.assert_close(logits(network), own_logits(checkpoint, MODEL), atol=1e-5, rtol=0)
    state = json.loads((find_checkpoint(checkpoint) / STATE).read_text())
    spec = train_spec(schedule="wsd", decay_fraction=0.5)
    assert validation_loss(network, corpus, spec) == pytest.approx(state["history"][-1]["loss"], abs=1e-5)

    config = json.loads((out / "config.json").read_text())
    for one, other in (("num_experts", "num_local_experts"), ("dtype", "torch_dtype")):
        assert config[one] == config[other]
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == MODEL.rope_theta
    names = json.loads((out / "model.safetensors").read_bytes()[8:].split(b"}}")[0].decode() + "}}")
    assert "model.layers.1.mlp.experts.3.down_proj.weight" in names

    text = 'def f(x):\n    return "Ω"'
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.encode(text) == Tokenizer.from_file(str(corpus.tokenizer_path)).encode(text).ids
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == corpus.eos_id == config["eos_token_id"]
    assert json.loads((out / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"

    origin = json.loads((out / ORIGIN).read_text())
    assert (origin["run"], origin["tokens"], origin["phase"]) == ("plain", 12 * BATCH, "decay")
    assert origin["loss"] == state["history"][-1]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (DENSE_TIED, {}),
        (DENSE_TIED, {"zero_stage": 3}),
        (DENSE, {}),
        (MODEL, {"zero_stage": 1, "dtype": "bf16"}),
        (MODEL, {"zero_stage": 2, "dtype": "bf16"}),
    ],
)
def test_other_models_stages_and_types(
    corpus: Corpus, tmp_path: Path, model: ModelSpec, fields: dict[str, Any]
) -> None:
    run(corpus.path, model=model, run_dir=tmp_path / "run", steps=4, **fields)
    out = export_checkpoint(tmp_path / "run", tmp_path / "hf")
    want = "bfloat16" if fields.get("dtype") == "bf16" else "float32"
    assert json.loads((out / "config.json").read_text())["dtype"] == want
    assert json.loads((out / "config.json").read_text())["model_type"] == ("qwen3_moe" if model.experts else "qwen3")
    torch.testing.assert_close(logits(hugging_face(out)), own_logits(tmp_path / "run", model), atol=1e-5, rtol=0)
    wide = export_checkpoint(tmp_path / "run", tmp_path / "wide", dtype="fp32", context=77)
    assert json.loads((wide / "config.json").read_text())["max_position_embeddings"] == 77
    torch.testing.assert_close(logits(hugging_face(wide)), logits(hugging_face(out)), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_several_workers_and_expert_parallel(corpus: Corpus, tmp_path: Path) -> None:
    fields = {name: {**of, "steps": 4} for name, of in SEVERAL.items()}
    call_workers(WORKERS, json.dumps(fields), str(corpus.path), str(tmp_path))
    for name, of in SEVERAL.items():
        network = hugging_face(export_checkpoint(tmp_path / name, tmp_path / f"{name} hf"))
        torch.testing.assert_close(logits(network), own_logits(tmp_path / name, MODEL), atol=1e-5, rtol=0)
        state = json.loads((find_checkpoint(tmp_path / name) / STATE).read_text())
        trained = state["history"][-1][
            "loss"
        ]  # as the engine on two workers measured it, its activations in bf16 there
        loss = validation_loss(network, corpus, train_spec(**of))
        assert loss == pytest.approx(trained, abs=1e-3 if "bf16" in name else 1e-5), name

    lost = next((tmp_path / "experts" / "step-0000000004" / "engine").glob("layer_1_expert_2_*"))
    lost.unlink()
    with pytest.raises(InputError, match="is missing or damaged"):
        export_checkpoint(tmp_path / "experts", tmp_path / "never")
    with pytest.raises(InputError, match=r"layers.1.mlp.experts lacks experts"):
        read_weights(lost.parent)
    other = tmp_path / "stage 3" / "step-0000000004" / "engine"
    next(other.glob("zero_pp_rank_1_*_optim_states.pt")).unlink()
    with pytest.raises(InputError, match=r"holds no \*zero_pp_rank_1"):
        read_weights(other)


@pytest.mark.slow
def test_a_hugging_face_model_keeps_its_layout(corpus: Corpus, tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    fields = {"model_type": "llama", "vocab_size": 400, "intermediate_size": 48, "tie_word_embeddings": True}
    spec = HFSpec(hf=shape | fields)
    for stage in (0, 3):
        run(corpus.path, model=spec, run_dir=tmp_path / f"run{stage}", steps=4, zero_stage=stage)
        out = export_checkpoint(tmp_path / f"run{stage}", tmp_path / f"hf{stage}")
        network = hugging_face(out)
        assert type(network).__name__ == "LlamaForCausalLM"
        config = json.loads((out / "config.json").read_text())
        assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
        assert config["torch_dtype"] == config["dtype"] == "float32"
        state = json.loads((find_checkpoint(tmp_path / f"run{stage}") / STATE).read_text())
        trained = state["history"][-1]["loss"]
        assert validation_loss(network, corpus, train_spec()) == pytest.approx(trained, abs=1e-5)


@pytest.mark.slow
def test_a_folder_is_kept_or_refused_never_overwritten(
    corpus: Corpus, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export_checkpoint(checkpoint, tmp_path / "hf")
    before = (out / "model.safetensors").stat().st_mtime_ns
    assert export_checkpoint(find_checkpoint(checkpoint), out) == out
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds the export of"):
        export_checkpoint(checkpoint, out, dtype="bf16")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    with pytest.raises(InputError, match="is not an export of raylr"):
        export_checkpoint(checkpoint, tmp_path / "mine")

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("huggingface_hub.save_torch_state_dict", full)
    with pytest.raises(OSError, match="No space left") as error:
        export_checkpoint(checkpoint, tmp_path / "full")
    assert (error.value.errno, error.value.filename) == (28, str(tmp_path / "full"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "mine"]


@pytest.mark.slow
def test_what_is_not_this_model_is_refused(corpus: Corpus, checkpoint: Path, tmp_path: Path) -> None:
    wider = MODEL.model_copy(update={"expert_size": 24})
    with pytest.raises(InputError, match=r"gate_up_proj of shape \[4, 32, 32\] where the model has \[4, 48, 32\]"):
        export_checkpoint(checkpoint, tmp_path / "out", model=wider)
    deeper = MODEL.model_copy(update={"layers": 3})
    with pytest.raises(InputError, match=r"lacks model.layers.2.self_attn.q_proj.weight \(11 differences"):
        export_checkpoint(checkpoint, tmp_path / "out", model=deeper)
    with pytest.raises(InputError, match=r"has model.layers.1\..*which the model has not"):
        export_checkpoint(checkpoint, tmp_path / "out", model=MODEL.model_copy(update={"layers": 1}))

    big = Tokenizer.from_file(str(corpus.tokenizer_path))
    big.add_tokens(["one more"])
    big.save(str(tmp_path / "big.json"))
    with pytest.raises(InputError, match="has 401 tokens, the model a vocabulary of 400"):
        export_checkpoint(checkpoint, tmp_path / "out", tokenizer=tmp_path / "big.json")
    with pytest.raises(InputError, match=r"there is no .*nowhere"):
        export_checkpoint(checkpoint, tmp_path / "out", tokenizer=tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()

    with pytest.raises(InputError, match="is a Hugging Face model"):
        find_checkpoint(export_checkpoint(checkpoint, tmp_path / "hf"))
    shutil.copytree(checkpoint, tmp_path / "two" / "a")
    shutil.copytree(checkpoint, tmp_path / "two" / "b")
    state = tmp_path / "two" / "b" / find_checkpoint(checkpoint).name / STATE
    state.write_text(state.read_text().replace('"identity": "', '"identity": "0'))
    with pytest.raises(InputError, match="checkpoints of 2 runs; name one, as a/step-"):
        find_checkpoint(tmp_path / "two")
    assert find_checkpoint(tmp_path / "two" / "a") == tmp_path / "two" / "a" / "step-0000000012"


@pytest.mark.slow
def test_a_checkpoint_of_an_older_raylr_needs_model_and_tokenizer(
    corpus: Corpus, checkpoint: Path, tmp_path: Path
) -> None:
    old = shutil.copytree(find_checkpoint(checkpoint), tmp_path / "old")
    state = json.loads((old / STATE).read_text())
    named = model_spec(state.pop("run")["model"])
    (old / STATE).write_text(json.dumps(state))
    table = json.loads((old / "complete.json").read_text())
    (old / "complete.json").write_text(json.dumps({k: v for k, v in table.items() if k not in (STATE, TOKENIZER)}))
    (old / TOKENIZER).unlink()
    with pytest.raises(InputError, match="does not say which model"):
        export_checkpoint(old, tmp_path / "hf")
    with pytest.raises(InputError, match="give tokenizer"):
        export_checkpoint(old, tmp_path / "hf", model=named)
    out = export_checkpoint(old, tmp_path / "hf", model=named, tokenizer=corpus.path)
    torch.testing.assert_close(logits(hugging_face(out)), own_logits(checkpoint, MODEL), atol=1e-5, rtol=0)


def test_position_in_the_run() -> None:
    train = {"seq_len": 32, "batch_tokens": 256, "warmup_steps": 4, "schedule": "wsd", "decay_fraction": 0.25}
    found = {}
    for step in (2, 4, 15, 16):
        state = {"step": step, "history": [], "run": {"train": train, "tokens": 20 * 256, "lr": 0.1}}
        found[step] = position(state)["phase"]
    assert found == {2: "stable", 4: "stable", 15: "stable", 16: "decay"}
    cosine = {"step": 9, "history": [], "run": {"train": train | {"schedule": "cosine"}, "tokens": 5120, "lr": 0.1}}
    assert position(cosine) == {"step": 9, "tokens": 2304, "phase": None, "loss": None, "lr": 0.1, "seq_len": 32}


def test_folders_without_a_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no checkpoint at"):
        find_checkpoint(tmp_path / "none")
    (tmp_path / "step-0000000004").mkdir()
    with pytest.raises(InputError, match="holds no whole checkpoint"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("trained", [True, False])
def test_the_exported_tokenizer_adds_the_bos_that_was_trained(corpus: Corpus, tmp_path: Path, trained: bool) -> None:
    """A tokenizer that adds a BOS was either used so in training, or must not add it in an evaluation."""
    from transformers import AutoTokenizer

    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path))
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "<|endoftext|>"], special_tokens=[("<s>", 400), ("<|endoftext|>", 0)]
    )
    tokenizer.save(str(tmp_path / TOKENIZER))
    files = _tokenizer_files(tmp_path, {"eos_id": 0, "prefix": [400] if trained else []}, None, 401)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = AutoTokenizer.from_pretrained(tmp_path)
    plain = tokenizer.encode("a b", add_special_tokens=False).ids
    assert found("a b").input_ids == ([400, *plain] if trained else plain)
    assert (found.bos_token, found.eos_token) == ("<s>" if trained else None, "<|endoftext|>")
