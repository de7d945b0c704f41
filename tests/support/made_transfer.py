"""Transfer studies on a made-up loss, without Ray and torch, that end in a second."""

import math

import yaml
from serial_executor import SerialExecutor

from raylr.spec import StudySpec
from raylr.transfer_study import TransferStudy

SPEC = """
name: carried
corpus: {vocab_size: 300}
model: {head_dim: 8, experts: 4, top_k: 2, layers: 1}
sizes:
  proxy: {hidden_size: 16, heads: 2, kv_heads: 1, expert_size: 16}
train: {seq_len: 32, batch_tokens: 512, warmup_tokens: 4096, validation_tokens: 512, repeat_data: true}
budgets: 40k
lr: {low: 1e-3, high: 1e-1}
transfer:
  init_std: [0.004, 0.1]
  targets:
    - {name: wide, model: {hidden_size: 64, heads: 8, kv_heads: 4, expert_size: 64}, tokens: 80k}
    - {name: deep, model: {hidden_size: 16, heads: 2, kv_heads: 1, expert_size: 16, layers: 4}, tokens: 40k, check: []}
"""
LR, STD, SLOPE = 8e-3, 0.02, -0.5
"""Optimum of the proxy, and how the best LR moves with the init std."""


def report(miss=1.0, diverges=30.0):
    """What a run reports: the target's optimum lies at `miss` times the proxy's; above `diverges` times it is lost."""

    def of(job, tokens):
        std = job.columns["init_std"]
        best = LR * (miss if job.role == "check" else 1.0)
        x, y = math.log(job.lr / best), math.log(std / STD)
        height = 0.06 * (x - SLOPE * y) ** 2 + 0.01 * y**2
        lost = job.lr > diverges * best
        loss = 2.2 + 4 * (25 * tokens / 2e4) ** -0.35 + height + 1e-4 * math.sin(1e4 * x + 1e3 * y + tokens)
        return {
            "loss": math.nan if lost else loss, "tokens": tokens, "step": tokens // 512, "lr": job.lr,
            "params": 100_000, "params_active": 50_000, "flops": 6e5 * tokens, "run_end": "diverged" if lost else None,
        }  # fmt: skip

    return of


def spec_of(texts, **changes):
    data = yaml.safe_load(SPEC)
    data["corpus"]["files"] = [str(texts)]
    data["transfer"] |= changes.pop("transfer", {})
    return StudySpec.model_validate(data | changes)


def study_of(spec, folder, executor=None, **options):
    made = executor or SerialExecutor(report=report(**options))
    return TransferStudy(spec, folder, executor=lambda callbacks: made)
