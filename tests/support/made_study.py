"""Studies on a made-up loss, without Ray and torch, that end in a second."""

import json

import yaml
from serial_executor import SerialExecutor

from raylr.analysis.laws.lr_law import LRLaw
from raylr.spec import StudySpec
from raylr.study import FittingStudy

SPEC = """
name: tiny
corpus: {vocab_size: 300}
model: {heads: 2, kv_heads: 1, head_dim: 8, experts: 4, top_k: 2, layers: 1}
sizes:
  S: {hidden_size: 8, expert_size: 8}
  M: {hidden_size: 16, expert_size: 16}
train: {seq_len: 32, batch_tokens: 512, warmup_tokens: 4096, validation_tokens: 512, repeat_data: true}
budgets: [20k, 40k]
lr: {low: 3e-4, high: 1e-1}
search: {max_trials: 4}
target: {name: XL, model: {hidden_size: 24, expert_size: 24}, tokens: 50k, check: [0.333, 1, 3]}
"""
SURFACE = {"search": {"method": "surface", "max_trials": 5, "rungs": [0.25, 0.5, 1], "budget": 2}, "target": None}


def spec_of(texts, **changes):
    data = yaml.safe_load(SPEC)
    data["corpus"]["files"] = [str(texts)]
    return StudySpec.model_validate(data | changes)


def study_of(spec, folder, executor=None):
    made = executor or SerialExecutor()
    return FittingStudy(spec, folder, executor=lambda callbacks: made)


def no_executor(callbacks):
    raise AssertionError("something was trained")


def contents(folder):
    """Every file with its content and time."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    }


def same_study(one, other):
    """Whether two studies measured the same. How long a run took is not known if its end was decided by what an earlier
    process measured."""
    for a, b in ((one.evaluations, other.evaluations), (one.trials, other.trials)):
        rows = [
            sorted((json.dumps(row | {"seconds": None}, sort_keys=True) for row in table.read().to_pylist()), key=str)
            for table in (a, b)
        ]
        assert rows[0] == rows[1]
    laws = [LRLaw.from_json((study.directory / "law.json").read_text()) for study in (one, other)]
    assert laws[0] == laws[1]
