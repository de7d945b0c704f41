import json
from pathlib import Path
from typing import Any

import pytest

from raylr.errors import CheckpointError, InputError
from raylr.evaluation.backends.transformers4 import readable_by

LLAMA = {
    "model_type": "llama",
    "transformers_version": "5.23.0",
    "dtype": "float32",
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
}
TOKENIZER = {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "extra_special_tokens": ["<|user|>"]}


@pytest.fixture
def folder(hugging_face: Path) -> Path:
    return hugging_face


def save(folder: Path, config: dict[str, Any], tokenizer: dict[str, Any] | None = None) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER if tokenizer is None else tokenizer))


def read(folder: Path, name: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((folder / name).read_text())
    return fields


@pytest.mark.parametrize("given", ["absolute", "relative"])
def test_a_copy_has_both_spellings_and_the_folder_stays(
    folder: Path, tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folder, LLAMA)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.chdir(tmp_path)
    where = folder if given == "absolute" else folder.relative_to(tmp_path)
    copy, notes = readable_by(where, "4.57.6", tmp_path / "work")
    assert notes == ["the model was saved by transformers 5.23.0 and read by 4.57.6, from a rewritten configuration"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {path.name for path in copy.iterdir()} == set(before)
    assert (copy / "model.safetensors").read_bytes() == b"weights"
    config = read(copy, "config.json")
    assert config == LLAMA | {"rope_theta": 5e5, "rope_scaling": None, "torch_dtype": "float32"}
    assert read(copy, "tokenizer_config.json") == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["<|user|>"],
    }


@pytest.mark.parametrize(
    ("config", "added"),
    [
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}},
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        ),
        (
            {"model_type": "phi", "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            {"rope_theta": 1e4, "partial_rotary_factor": 0.5, "rope_scaling": None},
        ),
        (
            {"model_type": "gpt_neox", "rope_parameters": {"rope_theta": 5e3, "partial_rotary_factor": 0.25}},
            {"rotary_emb_base": 5e3, "rotary_pct": 0.25, "rope_scaling": None},
        ),
        (
            {
                "model_type": "gemma3_text",
                "rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 2e4}},
            },
            {"rope_theta": 1e6, "rope_local_base_freq": 2e4, "rope_scaling": None},
        ),
        ({"model_type": "qwen3_moe", "num_local_experts": 8}, {"num_experts": 8, "rope_theta": 5e5}),
        ({"model_type": "gpt2", "rope_parameters": None}, {}),
    ],
)
def test_what_was_renamed(folder: Path, tmp_path: Path, config: dict[str, Any], added: dict[str, Any]) -> None:
    save(folder, LLAMA | config)
    found = read(readable_by(folder, "4.57.6", tmp_path / "work")[0], "config.json")
    assert {name: found[name] for name in added} == added
    assert {name: found[name] for name in LLAMA} == LLAMA | {key: config[key] for key in config if key in LLAMA}


@pytest.mark.parametrize(
    ("config", "tokenizer", "version"),
    [
        (LLAMA, TOKENIZER, "5.23.0"),
        (LLAMA, TOKENIZER, ""),
        ({"model_type": "llama", "transformers_version": "4.57.6", "rope_theta": 1e4}, {}, "4.57.6"),
        ({"model_type": "qwen3_moe", "rope_parameters": {"rope_theta": 1e4}, "rope_theta": 1e4}, {}, "4.57.6"),
        ({"model_type": "olmo3", "transformers_version": "4.57.6"}, {"tokenizer_class": "GPT2Tokenizer"}, "4.57.6"),
    ],
)
def test_a_folder_that_can_be_read_is_used_as_it_is(
    folder: Path, tmp_path: Path, config: dict[str, Any], tokenizer: dict[str, Any], version: str
) -> None:
    save(folder, config, tokenizer)
    assert readable_by(folder, version, tmp_path / "work") == (folder, [])
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "olmo3"}, "of the architecture 'olmo3' it is not known that both compute the same"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "have no known counterpart there"),
        ({"rope_parameters": "what"}, "have no known counterpart there"),
    ],
)
def test_what_would_be_misread_is_refused(folder: Path, tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    save(folder, LLAMA | config)
    with pytest.raises(InputError, match=rf"saved by transformers 5.* by 4\.57\.6: .*{reason}; `raylr eval setup`"):
        readable_by(folder, "4.57.6", tmp_path / "work")


def test_a_tokenizer_that_lies_in_no_file_is_refused(folder: Path, tmp_path: Path) -> None:
    save(folder, LLAMA, {"tokenizer_class": "LlamaTokenizer", "backend": "sentencepiece"})
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"its tokenizer is not in a tokenizer\.json"):
        readable_by(folder, "4.57.6", tmp_path / "work")


def test_a_damaged_file_is_named(folder: Path, tmp_path: Path) -> None:
    save(folder, LLAMA)
    (folder / "tokenizer_config.json").write_text("[1")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json cannot be read"):
        readable_by(folder, "4.57.6", tmp_path / "work")
