"""Folders that transformers 5 saved, for an environment that has transformers 4.

Version 5 renamed keys of config.json and classes of tokenizers. Version 4 reads such a folder with an error
(`TokenizersBackend does not exist`) or, worse, without one and wrongly: the RoPE base becomes 10,000. `readable_by`
makes a folder that has the same weights and tokenizer (as links) and both spellings in its two JSON files. The folder
that was given is never changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raylr.errors import CheckpointError, InputError
from raylr.trainables.export.config import both_spellings

SAME = frozenset(
    {
        *("bloom", "cohere", "deepseek_v2", "deepseek_v3", "ernie4_5", "falcon", "gemma", "gemma3_text", "glm4"),
        *("glm4_moe", "gpt2", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "hunyuan_v1_dense", "lfm2"),
        *("llama", "llama4_text", "mamba", "mistral", "mixtral", "mpt", "nemotron", "olmo", "olmo2", "olmoe", "opt"),
        *("phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2"),
    }
)
"""Architectures (`model_type`) whose logits in transformers 4.57.6, from such a folder, are those of 5.23.0 to 1e-5:
`benchmarks/older_transformers.py` measures it. Of the others that both know, gemma2 and olmo3 differ."""

ROPE_TYPES = frozenset({"default", "linear", "dynamic", "llama3", "yarn"})
"""Kinds of RoPE for which that was measured."""

_CONFIG, _TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
_TOKENIZER = "tokenizer.json"


def readable_by(model: Path, version: str, work: Path) -> tuple[Path, list[str]]:
    """Return a folder with the model that this version of transformers reads as it is meant.

    Args:
        model: A Hugging Face folder.
        version: The version of transformers that will read it; "" if there is none.
        work: A folder that is not in use otherwise, for the copy.

    Returns:
        The folder itself where it can be read as it is, otherwise one in `work`; and notes for a reader of the scores.

    Raises:
        InputError: Nothing makes it readable; the message says what can be done.
        CheckpointError: One of the two files is damaged.
    """
    if not version or int(version.partition(".")[0]) >= 5:
        return model, []
    config, tokenizer = _json(model / _CONFIG), _json(model / _TOKENIZER_CONFIG)
    if not _saved_by_5(config, tokenizer):
        return model, []
    _check(model, config, tokenizer, version)
    copy = work / "model"
    copy.mkdir(parents=True)
    for path in model.resolve().iterdir():
        if path.name not in (_CONFIG, _TOKENIZER_CONFIG):
            (copy / path.name).symlink_to(path)
    (copy / _CONFIG).write_text(json.dumps(both_spellings(config), indent=1))
    if tokenizer:
        (copy / _TOKENIZER_CONFIG).write_text(json.dumps(_for_4(tokenizer, model), indent=1, ensure_ascii=False))
    saved = config.get("transformers_version", "5")
    return copy, [f"the model was saved by transformers {saved} and read by {version}, from a rewritten configuration"]


def _saved_by_5(config: dict[str, Any], tokenizer: dict[str, Any]) -> bool:
    return (
        str(config.get("transformers_version", "")).startswith("5.")
        or ("rope_parameters" in config and "rope_theta" not in config)
        or "backend" in tokenizer
        or tokenizer.get("tokenizer_class") == "TokenizersBackend"
    )


def _check(model: Path, config: dict[str, Any], tokenizer: dict[str, Any], version: str) -> None:
    kind = config.get("model_type")
    reason = ""
    if kind not in SAME:
        reason = f"of the architecture {kind!r} it is not known that both compute the same"
    for rope in _ropes(config):
        if not isinstance(rope, dict) or rope.get("rope_type", "default") not in ROPE_TYPES:
            reason = f"its rope_parameters {json.dumps(rope)} have no known counterpart there"
    if tokenizer and not (model / _TOKENIZER).is_file() and "backend" in tokenizer:
        reason = f"its tokenizer is not in a {_TOKENIZER}"
    if reason:
        raise InputError(
            f"{model} was saved by transformers 5 and is to be read by {version}: {reason}; `raylr eval setup` makes "
            "an environment with transformers 5; for the backend lm-eval, `pip install 'transformers>=5'`"
        )


def _ropes(config: dict[str, Any]) -> list[Any]:
    rope = config.get("rope_parameters")
    if not rope:
        return []
    by_layer = isinstance(rope, dict) and all(isinstance(value, dict) for value in rope.values())
    return list(rope.values()) if by_layer else [rope]


def _for_4(tokenizer: dict[str, Any], model: Path) -> dict[str, Any]:
    """Return tokenizer_config.json for version 4.

    tokenizer.json holds all of a tokenizer: the class that adds nothing of its own reads it. Version 4 takes names for
    extra special tokens, version 5 a list, which 4 calls additional ones.
    """
    out = {key: value for key, value in tokenizer.items() if key not in ("backend", "is_local", "local_files_only")}
    extra = out.pop("extra_special_tokens", None)
    if isinstance(extra, list):
        out["additional_special_tokens"] = extra
    elif extra is not None:
        out["extra_special_tokens"] = extra
    if (model / _TOKENIZER).is_file():
        out["tokenizer_class"] = "PreTrainedTokenizerFast"
    return out


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
