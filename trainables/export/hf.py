"""From a training checkpoint to a Hugging Face folder that transformers 4.57 and 5, OpenCompass, lm-eval, LMDeploy and
vLLM read.

A `ModelSpec` becomes a `Qwen3MoeForCausalLM`, weights in safetensors with each expert separate, or, without experts, a
`Qwen3ForCausalLM`; a Hugging Face model keeps its own layout. transformers 5 renamed keys of config.json that version 4
needs (4 would use rope_theta=10000 without a word): both spellings are written. `raylr.json` records where the weights
are from.

The folder appears whole or not at all, and only if the weights are exactly those that the architecture has.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from raylr.errors import CheckpointError, InputError
from raylr.remote.copies import with_addresses
from raylr.trainables.export.config import both_spellings, check_expressible, qwen3_config
from raylr.trainables.export.weights import read_weights
from raylr.trainables.models.spec import HFSpec, ModelSpec, ModuleSpec, model_spec
from raylr.trainables.training import metrics
from raylr.trainables.training.checkpoint import (
    COMPLETE,
    CONFIG,
    PREFIX,
    TOKENIZER,
    described,
    fetch_checkpoint,
    load_state,
    verify,
)
from raylr.trainables.training.schedule import lr_factor
from raylr.trainables.training.spec import TrainSpec

ORIGIN = "raylr.json"
DTypeName = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CONTEXT = 4096
"""Least max_position_embeddings of an export. RoPE itself has no longest sequence, but programs cut prompts there, and
five examples before a question take more tokens than small models are trained on at a time."""
SHARD = "5GB"
_PREFIX_HF = "network."


def find_checkpoint(path: str | Path) -> Path:
    """Find a checkpoint.

    Args:
        path: A checkpoint's own folder, or a folder above it (a run's, a Ray Tune trial's): the latest whole one is
            taken.

    Raises:
        CheckpointError: If there is none, if the folder holds several runs, and if a checkpoint that was named is
            damaged.
    """
    root = Path(path)
    fetch_checkpoint(root)
    if not root.is_dir():
        raise CheckpointError(f"there is no checkpoint at {root}")
    if (root / COMPLETE).is_file():
        problem = verify(root)
        if problem:
            raise CheckpointError(f"checkpoint: {problem}")
        return root
    if (root / CONFIG).is_file():
        raise CheckpointError(f"{root} is a Hugging Face model, not a training checkpoint of raylr")
    found: dict[Path, dict[str, Any]] = {}
    for pattern in (f"{PREFIX}*", "checkpoint_*", f"*/{PREFIX}*", "*/checkpoint_*"):
        found |= {folder: load_state(folder) for folder in root.glob(pattern) if (folder / COMPLETE).is_file()}
    if not found:
        raise CheckpointError(f"{root} holds no whole checkpoint (folders with a {COMPLETE}, as {PREFIX}0000000100)")
    runs = {state.get("identity"): folder.relative_to(root) for folder, state in found.items()}
    if len(runs) > 1:
        raise CheckpointError(
            f"{root} holds checkpoints of {len(runs)} runs; name one, as {min(map(str, runs.values()))}"
        )
    newest = sorted(found, key=lambda folder: (found[folder]["step"], folder.name), reverse=True)
    for folder in newest:
        if not verify(folder):
            return folder
    raise CheckpointError(f"checkpoint: {verify(newest[0])}")


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    model: ModelSpec | HFSpec | None = None,
    tokenizer: str | Path | None = None,
    dtype: DTypeName | None = None,
    context: int | None = None,
    trust_checkpoint: bool = False,
) -> Path:
    """Write the model of a training checkpoint (`find_checkpoint`) into the folder `out` and return it.

    Args:
        checkpoint: A checkpoint, a run's folder or a Ray Tune trial's.
        out: The folder to make. An `out` that already is this export is kept.
        model: Needed only for checkpoints that do not name their model (an older raylr's).
        tokenizer: A tokenizer.json, needed only for the same.
        dtype: Of the weights; None: as the model ran.
        context: max_position_embeddings; None: the training length, at least `CONTEXT`. A Hugging Face model keeps its
            own.
        trust_checkpoint: Whether the checkpoint may hold pickled objects other than tensors. They are executed: only
            for checkpoints of people that you trust.

    Returns:
        `out`.

    Raises:
        CheckpointError: If the checkpoint is damaged, of another model, or holds more than tensors.
        InputError: For a network of one's own, a model that Qwen3-MoE cannot express (naming what), a tokenizer larger
            than the vocabulary, and an `out` that holds something else.
        OSError: If the disk is full; nothing is left behind.
    """
    folder = find_checkpoint(checkpoint)
    state = load_state(folder)
    run = state.get("run", {})
    if model is None:
        if "model" not in run:
            raise CheckpointError(f"{folder} does not say which model it holds (an older raylr wrote it): give model")
        with described(folder):
            found = model_spec({key: value for key, value in run["model"].items() if key != "tensors"})
        if isinstance(found, ModuleSpec):
            raise InputError(
                f"{folder} holds a network of your own, {found.module}: Hugging Face has no architecture for it, so it "
                "cannot be exported or scored"
            )
        model = found
    with described(folder):
        place = position(state)
    vocabulary = _tokenizer_files(folder, run, tokenizer, model.vocab_size)
    origin = {
        "format": 1,
        "checkpoint": with_addresses(str(folder.absolute())),
        "digest": hashlib.blake2b((folder / COMPLETE).read_bytes(), digest_size=16).hexdigest(),
        "dtype": dtype,
        "context": context,
        "tokenizer": hashlib.blake2b(vocabulary[TOKENIZER].encode(), digest_size=16).hexdigest(),
        "raylr": version("raylr"),
        "run": folder.parent.name,
        **place,
    }
    target = Path(out)
    if _is_export(target, origin):
        return target
    if isinstance(model, ModelSpec):
        check_expressible(model)
    weights = read_weights(folder / "engine", trust=trust_checkpoint)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        if isinstance(model, ModelSpec):
            length = context or max(CONTEXT, int(origin["seq_len"] or 0))
            _write_qwen3(model, weights, work, dtype, length, run)
        else:
            _write_own_layout(model, weights, work, dtype)
        for name, text in vocabulary.items():
            (work / name).write_text(text, encoding="utf-8")
        (work / ORIGIN).write_text(json.dumps(origin, indent=1))
        work.chmod(0o755)
        if target.exists():
            target.rmdir()
        work.rename(target)
    except SafetensorError as error:
        raise _system_error(error, target) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _system_error(error: SafetensorError, target: Path) -> Exception:
    """Return the system's error, which safetensors hides in a text such as "… (os error 28)" for a full disk."""
    found = re.search(r"os error (\d+)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1])), str(target)) if found else error


def position(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return where in its run a checkpoint is.

    Args:
        state: Its `state.json`.

    Returns:
        `step`, `tokens`, `phase` ("stable" or "decay"; None where there are no such phases), `loss` (validation, nats
        per token; None if it was not measured there), `lr` (peak) and `seq_len`.
    """
    step, run = int(state["step"]), state.get("run")
    rows = [row for row in state["history"] if row[metrics.STEP] == step and not metrics.diverged(row)]
    where = {"step": step, "loss": rows[-1][metrics.LOSS] if rows else None}
    if run is None:
        return where | {
            "tokens": rows[-1][metrics.TOKENS] if rows else None,
            "phase": None,
            "lr": None,
            "seq_len": None,
        }
    spec = TrainSpec.model_validate(run["train"])
    tokens = step * spec.batch_tokens
    falling = tokens > spec.warmup and lr_factor(spec, step - 1, int(run["tokens"])) < 1
    phase = None if spec.schedule == "cosine" else "decay" if falling else "stable"
    return where | {"tokens": tokens, "phase": phase, "lr": run["lr"], "seq_len": spec.seq_len}


def _is_export(target: Path, origin: Mapping[str, Any]) -> bool:
    """Whether `target` already holds this export. Raises InputError if it holds anything else."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    if (target / ORIGIN).is_file():
        there = json.loads((target / ORIGIN).read_text())
        same = ("digest", "dtype", "context", "tokenizer")
        if all(there.get(key) == origin[key] for key in same):
            return True
        raise InputError(f"{target} holds the export of {there.get('checkpoint')}; choose another folder")
    raise InputError(f"{target} exists and is not an export of raylr; choose another folder")


def _write_qwen3(
    spec: ModelSpec, weights: dict[str, Tensor], work: Path, dtype: str | None, context: int, run: Mapping[str, Any]
) -> None:
    from huggingface_hub import save_torch_state_dict

    from raylr.trainables.models.qwen3_moe import Qwen3MoE

    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in Qwen3MoE(spec).state_dict().items()}
    if spec.tied_embeddings:  # stored once or twice, depending on the stage
        wanted.pop("lm_head.weight")
        weights.pop("lm_head.weight", None)
    _compare(wanted, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    kind = DTYPES[dtype] if dtype else weights["model.embed_tokens.weight"].dtype
    own = _hugging_face_names(weights, spec.residual_multiplier)
    tensors = {name: tensor.to(kind, copy=True).contiguous() for name, tensor in own}  # copies: some share storage
    save_torch_state_dict(tensors, work, max_shard_size=SHARD, metadata={"format": "pt"})
    eos_id, bos_id = run.get("eos_id"), next(iter(run.get("prefix", ())), None)
    config = qwen3_config(spec, context=context, dtype=kind, eos_id=eos_id, bos_id=bos_id)
    (work / CONFIG).write_text(json.dumps(config, indent=1))
    generation = {"bos_token_id": bos_id, "eos_token_id": eos_id, "pad_token_id": eos_id}
    (work / "generation_config.json").write_text(json.dumps(generation, indent=1))


def _hugging_face_names(weights: Mapping[str, Tensor], residual: float) -> Iterator[tuple[str, Tensor]]:
    """Each expert separate, and the factor on what blocks add to the residual stream folded into their last
    matrices."""
    for name, tensor in weights.items():
        if residual != 1.0 and name.endswith(("o_proj.weight", "down_proj.weight", "down_proj")):
            tensor = tensor.float() * residual
        layer, expert_tensor, kind = name.partition(".mlp.experts.")
        if not expert_tensor:
            yield name, tensor
            continue
        for number, expert in enumerate(tensor):
            parts = zip(("gate_proj", "up_proj"), expert.chunk(2), strict=True)
            for part, matrix in parts if kind == "gate_up_proj" else (("down_proj", expert),):
                yield f"{layer}.mlp.experts.{number}.{part}.weight", matrix


def _compare(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Raises CheckpointError unless names and shapes are the same."""
    problems = [f"lacks {name}" for name in wanted if name not in found]
    problems += [f"has {name}, which the model has not" for name in found if name not in wanted]
    problems += [
        f"has {name} of shape {list(found[name])} where the model has {list(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    if problems:
        more = f" ({len(problems)} differences in all)" if len(problems) > 1 else ""
        raise CheckpointError(f"the checkpoint is not of this model: it {problems[0]}{more}")


def _write_own_layout(spec: HFSpec, weights: dict[str, Tensor], work: Path, dtype: str | None) -> None:
    """A Hugging Face model as its class saves it, config.json in both spellings."""
    from transformers import AutoModelForCausalLM

    from raylr.trainables.models.hf import configuration

    plain = {name.removeprefix(_PREFIX_HF): tensor for name, tensor in weights.items()}
    kind = DTYPES[dtype] if dtype else next(t.dtype for t in plain.values() if t.is_floating_point())
    network = AutoModelForCausalLM.from_config(configuration(spec.hf), dtype=kind)
    state = network.state_dict()
    given = {tensor.data_ptr() for name, tensor in state.items() if name in plain}
    tied = {name for name, tensor in state.items() if name not in plain and tensor.data_ptr() in given}
    _compare(
        {name: tuple(tensor.shape) for name, tensor in state.items() if name not in tied},
        {name: tuple(tensor.shape) for name, tensor in plain.items()},
    )
    network.load_state_dict(plain, strict=not tied)
    network.tie_weights()
    network.save_pretrained(work, max_shard_size=SHARD)
    config = json.loads((work / CONFIG).read_text())
    (work / CONFIG).write_text(json.dumps(both_spellings(config), indent=1))


def _tokenizer_files(folder: Path, run: Mapping[str, Any], given: str | Path | None, vocab_size: int) -> dict[str, str]:
    """File name -> text: the tokenizer and what the AutoTokenizers of transformers 4 and 5 need to read it."""
    from raylr.trainables.data.tokenizer import read_tokenizer, set_prefix, tokens_around, vocabulary_size

    path = Path(given) if given is not None else folder / TOKENIZER
    path = path / TOKENIZER if path.is_dir() else path
    if not path.is_file():
        hint = "" if given is not None else " (an older raylr wrote the checkpoint): give tokenizer, its corpus' folder"
        raise InputError(f"there is no {path}{hint}")
    tokenizer = read_tokenizer(path)
    text = path.read_text(encoding="utf-8")
    if vocabulary_size(tokenizer) > vocab_size:
        raise InputError(
            f"the tokenizer {path} has {vocabulary_size(tokenizer)} tokens, the model a vocabulary of {vocab_size}: it "
            "is not the one that the model was trained with"
        )
    prefix = tuple(run.get("prefix", ()))
    if tokens_around(tokenizer) != (prefix, ()):  # what was trained decides, not what the tokenizer would add
        set_prefix(tokenizer, prefix)
        text = tokenizer.to_str()
    eos_id = run.get("eos_id")
    eos = tokenizer.id_to_token(eos_id) if eos_id is not None else None
    special = {"eos_token": eos, "pad_token": eos} if eos is not None else {}
    if prefix:
        special["bos_token"] = str(tokenizer.id_to_token(prefix[0]))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": bool(prefix),
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),
        **special,
    }
    return {
        TOKENIZER: text,
        "tokenizer_config.json": json.dumps(config, indent=1, ensure_ascii=False),
        "special_tokens_map.json": json.dumps(special, indent=1, ensure_ascii=False),
    }
