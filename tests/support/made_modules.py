"""Studies of module-wise LRs on a made-up loss, without Ray and torch, that end in a second."""

import math

import numpy as np
import yaml
from serial_executor import SerialExecutor

from raylr.module_study import ModuleStudy
from raylr.spec import StudySpec

SPEC = """
name: modules
model: {head_dim: 8, experts: 4, top_k: 2, layers: 1}
sizes:
  S: {hidden_size: 16, heads: 2, kv_heads: 1, expert_size: 16}
train: {seq_len: 32, batch_tokens: 512, warmup_tokens: 4096, validation_tokens: 512, repeat_data: true}
budgets: 40k
lr: {low: 1e-3, high: 1e-1}
modules: {}
"""
LR = 8e-3
BEST = {"lm_head": 0.5, "router": 1.0, "hidden": 1.3, "embedding": 2.0}
"""Optimum of each module over LR; the loss is a sum, so the global optimum is their weighted geometric mean."""
CURVATURE = {"lm_head": 0.03, "router": 0.01, "hidden": 0.08, "embedding": 0.02}
NOISE = 5e-4
GLOBAL = LR * math.exp(sum(CURVATURE[name] * math.log(best) for name, best in BEST.items()) / sum(CURVATURE.values()))
"""The best LR of all modules."""


def report(best=None, noise=NOISE, diverges=30.0):
    """What a run reports; `best` are the modules' optima over LR."""
    optima = best or BEST

    def of(job, tokens):
        off = {name: math.log(job.lr * job.columns[f"lr_multiplier_{name}"] / LR / one) for name, one in optima.items()}
        height = sum(CURVATURE[name] * value**2 for name, value in off.items())
        lost = max(off.values()) > math.log(diverges)
        name = int.from_bytes(job.run.name.encode(), "little") % 2**32
        scatter = noise * np.random.default_rng([name, job.seed]).standard_normal()
        loss = 2.2 + 4 * (25 * tokens / 2e4) ** -0.35 + height + scatter
        return {
            "loss": math.nan if lost else loss, "tokens": tokens, "step": tokens // 512, "lr": job.lr,
            "params": 100_000, "params_active": 50_000, "flops": 6e5 * tokens, "run_end": "diverged" if lost else None,
        }  # fmt: skip

    return of


def spec_of(corpus, **changes):
    data = yaml.safe_load(SPEC)
    data["corpus"] = {"path": str(corpus.path)}
    data["modules"] |= changes.pop("modules", {})
    return StudySpec.model_validate(data | changes)


def study_of(spec, folder, executor=None, **options):
    made = executor or SerialExecutor(report=report(**options))
    return ModuleStudy(spec, folder, executor=lambda callbacks: made)
