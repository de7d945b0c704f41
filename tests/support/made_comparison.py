"""A fitting and a transfer study with one target in common, on made-up losses, without Ray and torch."""

import hashlib
import math

import synthetic
import yaml
from serial_executor import SCALE, SerialExecutor

from raylr.spec import StudySpec
from raylr.study import FittingStudy
from raylr.trainables.models.spec import ModelSpec
from raylr.transfer_study import TransferStudy

SHARED = """
corpus: {vocab_size: 300}
model: {head_dim: 8, experts: 4, top_k: 2, layers: 1}
train: {seq_len: 32, batch_tokens: 512, warmup_tokens: 4096, validation_tokens: 512, repeat_data: true}
"""
FITTING = """
name: fitted
sizes:
  S: {hidden_size: 16, heads: 2, kv_heads: 1, expert_size: 16}
  M: {hidden_size: 32, heads: 4, kv_heads: 2, expert_size: 32}
budgets: [20k, 40k]
lr: {low: 3e-4, high: 1e-1}
search: {max_trials: 4}
target:
  name: wide
  model: {hidden_size: 64, heads: 8, kv_heads: 4, expert_size: 64}
  tokens: 80k
  check: [1, 3]
"""
TRANSFER = """
name: carried
sizes:
  proxy: {hidden_size: 16, heads: 2, kv_heads: 1, expert_size: 16}
budgets: 40k
lr: {low: 1e-3, high: 1e-1}
transfer:
  init_std: [0.004, 0.1]
  targets:
    - {name: large, model: {hidden_size: 64, heads: 8, kv_heads: 4, expert_size: 64}, tokens: 80k, check: [1]}
"""
LR, STD = 8e-3, 0.02
"""Optimum of the proxy and of the target under the rule."""
NOISE = 3e-3
"""Half-width of the noise between seeds at the target."""


def report(gain=0.1, noise=NOISE, lost=None):
    """What a run reports: at the target, the transferred hyperparameters are `gain` nats better than the best LR of the
    standard parametrization; `lost` says whether a job diverges."""

    def of(job, tokens):
        params, seen = ModelSpec(**job.config["model"]).params("total"), SCALE * tokens
        std = job.columns.get("init_std")
        seed = f"{job.size} {job.seed} {job.config['train']['data_seed']} {std} {job.lr:.5e}"
        place = int(hashlib.blake2b(seed.encode(), digest_size=4).hexdigest(), 16) / 2**31 - 1
        best = synthetic.lr_opt(params, seen)
        if std is None:
            loss = synthetic.loss(params, job.lr, seen)
        else:
            x, y = math.log(job.lr / LR), math.log(std / STD)
            loss = synthetic.loss(params, best, seen) + 0.06 * (x + 0.5 * y) ** 2 + 0.01 * y**2
            loss -= gain * (job.size == "large")
        diverged = bool(lost and lost(job))
        loss += place * (noise if job.size in ("wide", "large") else 1e-3)
        return {
            "loss": math.nan if diverged else loss, "tokens": tokens, "step": tokens // 512,
            "lr": job.lr, "params": params, "params_active": params // 2, "flops": 6.0 * params * tokens,
            "run_end": "diverged" if diverged else None,
        }  # fmt: skip

    return of


def spec_of(text, texts, **changes):
    data = yaml.safe_load(SHARED) | yaml.safe_load(text)
    data["corpus"]["files"] = [str(texts)]
    return StudySpec.model_validate(data | changes)


def studies_of(texts, folder, executor=None, **options):
    """The two studies, nothing trained yet."""
    made = executor or SerialExecutor(report=report(**options))
    one = FittingStudy(spec_of(FITTING, texts), folder / "fitting", executor=lambda callbacks: made)
    other = TransferStudy(spec_of(TRANSFER, texts), folder / "transfer", executor=lambda callbacks: made)
    return one, other
