"""Specs to start from (`raylr init --for …`): what must be chosen is written, every other key is in a comment.

The comments are made from the models of the spec, so that no key is missing and each default is the real one.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from raylr.cli.spec_reference import field_docs, prose

WIDTH = 110
"""Columns of a line with its comment."""
COLUMN = 46
"""Column where comments begin, if the value leaves room."""

MOE = """\
name: study
corpus: {vocab_size: 1024}
model: {heads: 4, kv_heads: 2, head_dim: 16, experts: 8, top_k: 2, layers: 2}
sizes:
  S: {hidden_size: 32, expert_size: 32}
  M: {hidden_size: 48, expert_size: 48}
  L: {hidden_size: 72, expert_size: 72}
train: {seq_len: 128, batch_tokens: 2048, warmup_tokens: 40960, schedule: constant, validation_tokens: 8192}
budgets: [250k, 500k]
lr: {low: 1e-3, high: 2e-2}
search: {max_trials: 6}
target: {name: XL, model: {hidden_size: 112, expert_size: 112}, tokens: 1M, check: [0.333, 1, 3]}
resources: {cpus: 1}
"""
DENSE = """\
name: study
corpus: {vocab_size: 1024}
model: {heads: 4, kv_heads: 2, head_dim: 16, layers: 2}
sizes:
  S: {hidden_size: 32, dense_size: 96}
  M: {hidden_size: 48, dense_size: 144}
  L: {hidden_size: 72, dense_size: 216}
train: {seq_len: 128, batch_tokens: 2048, warmup_tokens: 40960, schedule: constant, validation_tokens: 8192}
budgets: [250k, 500k]
lr: {low: 1e-3, high: 2e-2}
search: {max_trials: 6}
target: {name: XL, model: {hidden_size: 112, dense_size: 336}, tokens: 1M, check: [0.333, 1, 3]}
resources: {cpus: 1}
"""
OWN = """\
name: study
command:
  run: ["{python}", train.py, --lr, "{lr}", --tokens, "{tokens}", --width, "{width}", --eval-every, "{eval_steps}"]
  read: {format: json, loss: val_loss, steps: step}
sizes:
  S: {params: 20M, args: {width: 256}}
  M: {params: 60M, args: {width: 512}}
  L: {params: 150M, args: {width: 768}}
train: {batch_tokens: 65536, schedule: constant}
budgets: [500M, 1B]
lr: {low: 3e-4, high: 3e-2}
search: {max_trials: 6}
target: {name: XL, model: {params: 1B, args: {width: 2048}}, tokens: 20B, check: []}
resources: {cpus: 1}
"""
RUNS = """\
run,size,params,tokens,batch_tokens,seq_len,lr,loss,seed,optimizer,schedule,weight_decay,beta1,beta2,warmup_tokens,state
a,S,20e6,5e8,65536,1024,1e-3,3.412,0,adamw,constant,0.1,0.9,0.95,1e7,finished
b,S,20e6,5e8,65536,1024,3e-3,3.371,0,adamw,constant,0.1,0.9,0.95,1e7,finished
c,S,20e6,5e8,65536,1024,1e-2,3.398,0,adamw,constant,0.1,0.9,0.95,1e7,finished
"""
"""A table of finished runs with every column that `raylr import` reads of one row per run; the rows are made up."""
BASES = {"moe": MOE, "dense": DENSE, "own-trainer": OWN}
HEADS = {
    "moe": ("A mixture of experts (Qwen3-MoE), trained by raylr. docs/spec.md describes every key.",),
    "dense": ("A dense model (Qwen3), trained by raylr. docs/spec.md describes every key.",),
    "own-trainer": (
        "Runs of another trainer, started by a command line; train.py stands for yours. docs/spec.md describes every",
        "key, docs/own_trainer.md the placeholders in braces and the presets of `read`.",
        "A function for Ray Tune takes the place of command: `trainable: package.module:function`.",
    ),
}
LEFT_OUT = {
    "moe": ("command", "trainable"),
    "dense": ("command", "trainable"),
    "own-trainer": ("corpus", "scores", "trainable"),
}
"""Keys that do not go with a kind of spec."""
EXAMPLES: dict[str, Any] = {"data": "questions", "target": "XL"}
"""Values of required keys in sections that are comments."""


def spec_template(kind: str) -> str:
    """Return the text of a spec to start from: `kind` is a key of `BASES`."""
    from raylr.spec.study import StudySpec

    base: dict[str, Any] = yaml.safe_load(BASES[kind])
    docs = field_docs(StudySpec)
    lines = [*(f"# {text}" for text in HEADS[kind]), "# A key in a comment has its default: remove the # to set it."]
    names = [name for name in StudySpec.model_fields if name not in LEFT_OUT[kind]]
    order = [*base, *(name for name in names if name not in base and _model(kind, name) is None), *names]
    for name in sorted(names, key=order.index):
        section = _model(kind, name)
        if name not in base:
            field = StudySpec.model_fields[name]
            if section is None:
                lines += [""] * (not lines[-1].startswith("# ")) + [
                    _line("# ", name, _default(name, field), docs.get(name, ""))
                ]
            else:
                lines += ["", f"# {name}:"]
                lines += [_line("#   ", *key) for key in _keys(section)]
            continue
        if section is None or not isinstance(base[name], dict) or name in ("model", "sizes"):
            lines += ["", *_value_lines(name, base[name], docs.get(name, ""))]
            if section is not None:
                given = {key for part in [base[name], *_parts(base["sizes"])] for key in part}
                rest = [key for key in _keys(section) if key[0] not in given and key[0] != "vocab_size"]
                lines += [_line("  # ", *key) for key in rest]
            continue
        lines += ["", f"{name}:"]
        inner = field_docs(section)
        for key, value in base[name].items():
            lines.append(_line("  ", key, value, inner.get(key, "")))
        lines += [_line("  # ", *key) for key in _keys(section) if key[0] not in base[name]]
    return "\n".join(lines) + "\n"


def _parts(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [part for part in value.values() if isinstance(part, Mapping)]


def _model(kind: str, name: str) -> type[BaseModel] | None:
    """Return the model of a section's keys; None for a key that is no section."""
    from raylr.evaluation.spec import ScoresSpec
    from raylr.spec.batches import LawSpec
    from raylr.spec.external import CommandSpec, ExternalTrain
    from raylr.spec.sections import CorpusSpec, LRRange, ResourceSpec, SearchSpec, TargetSpec
    from raylr.trainables.models.spec import ModelSpec
    from raylr.trainables.training.spec import TrainSpec

    sections: dict[str, type[BaseModel]] = {
        "corpus": CorpusSpec, "command": CommandSpec, "lr": LRRange, "search": SearchSpec, "law": LawSpec,
        "target": TargetSpec, "resources": ResourceSpec, "scores": ScoresSpec,
        "train": ExternalTrain if kind == "own-trainer" else TrainSpec,
    }  # fmt: skip
    return ModelSpec if kind != "own-trainer" and name == "model" else sections.get(name)


def _keys(section: type[BaseModel]) -> list[tuple[str, Any, str]]:
    docs = field_docs(section)
    return [(name, _default(name, field), docs.get(name, "")) for name, field in section.model_fields.items()]


def _default(name: str, field: FieldInfo) -> Any:
    from raylr.trainables.training.spec import OptimizerSpec

    if field.is_required():
        return EXAMPLES.get(name)
    value = field.get_default(call_default_factory=True)
    if isinstance(value, OptimizerSpec):  # may be written as its name
        return value.name
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _text(value: Any) -> str:
    """Return a value as YAML on one line, in the way that people write it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, float) and abs(value) < 1e-3 and value:
        mantissa, exponent = f"{value:e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}" if "." in f"{float(mantissa):g}" else f"{value:.1e}"
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n").strip()
    # A text in a flow list must not be cut at its commas and braces.
    return f'"{value}"' if isinstance(value, str) and set(value) & set("{}[],") and text == value else text


def _value_lines(name: str, value: Any, doc: str) -> list[str]:
    lines = textwrap.wrap(_sentence(doc), WIDTH - 2, initial_indent="## ", subsequent_indent="## ")
    if not isinstance(value, Mapping):
        return [*lines, f"{name}: {_text(value)}"]
    return [*lines, f"{name}:", *(f"  {key}: {_text(part)}" for key, part in value.items())]


def _line(indent: str, key: str, value: Any, doc: str) -> str:
    text = f"{indent}{key}: {_text(value)}"
    said = _sentence(doc)
    if not said:
        return text
    start = max(COLUMN, len(text) + 2)
    if start > WIDTH - 20:
        return f"{' ' * len(indent)}## {said}\n{text}"
    shown = textwrap.shorten(said, WIDTH - start, placeholder=" …")
    return f"{text:<{start}}# {shown}"


def _sentence(doc: str) -> str:
    """Return the first sentence of a docstring."""
    text = prose(doc).replace("`", "")
    return text.partition(". ")[0].removesuffix(".")
