"""How fast a training step is, beside Hugging Face's model under the same DeepSpeed engine, and what a trial costs.

Everything is timed in one process on one thread; the contenders take turns step by step, and the fastest step of each
counts, so that other load on the machine hits all alike. Run: `python benchmarks/throughput.py [--rounds 12] [--json
FILE]`.

| key | what |
|---|---|
| bf16_ratio_to_hf, fp32_ratio_to_hf | tokens/s over those of transformers' Qwen3MoeForCausalLM with its fastest experts
|
| fp32_peak_share | FLOP/s of a step over those of torch.mm (best 1024³ product); fp32_onednn_share: over oneDNN's |
| quickstart_ratio_to_hf | the fp32 ratio for the quickstart's four models (geometric mean) |
| memory_growth, start_seconds | resident memory over 20 trials in one process; time from a trial's start to its first
step |
| eval_share, other_share | validation's, and everything else's, share of a trial's time after its first step |
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import torch

from raylr.trainables import HFSpec, ModelSpec, TrainSpec, metrics, train
from raylr.trainables.data import build_corpus, python_stdlib_sources
from raylr.trainables.engine import bring_up, running_engine
from raylr.trainables.hf import HuggingFaceModel
from raylr.trainables.kernels import product
from raylr.trainables.model import build

LARGE = ModelSpec(
    hidden_size=128,
    layers=4,
    heads=8,
    kv_heads=2,
    head_dim=32,
    experts=16,
    top_k=4,
    expert_size=64,
    vocab_size=4096,
)
QUICKSTART = [
    ModelSpec(
        hidden_size=hidden,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=16,
        experts=8,
        top_k=2,
        expert_size=hidden,
        vocab_size=1024,
    )
    for hidden in (32, 48, 72, 112)
]
"""The quickstart's four sizes (raylr.quickstart)."""
HF_EXPERTS = ("eager", "grouped_mm")


def hf_fields(spec: ModelSpec) -> dict[str, Any]:
    """The same model as a configuration of transformers."""
    return {
        "model_type": "qwen3_moe",
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "num_experts": spec.experts,
        "num_experts_per_tok": spec.top_k,
        "moe_intermediate_size": spec.expert_size,
        "norm_topk_prob": True,
        "tie_word_embeddings": spec.tied_embeddings,
        "router_aux_loss_coef": spec.aux_loss,
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_theta},
    }


def contenders(stack: ExitStack, spec: ModelSpec, run: TrainSpec) -> dict[str, Any]:
    """One engine for our model and one for each way that transformers computes experts."""
    models: dict[str, torch.nn.Module] = {"raylr": build(spec, run)}
    for experts in HF_EXPERTS:
        model = build(HFSpec(hf=hf_fields(spec)), run)
        assert isinstance(model, HuggingFaceModel)
        chosen: Any = model.network
        chosen.set_experts_implementation(experts)
        models[experts] = model
    return {name: stack.enter_context(running_engine(model, run, {})) for name, model in models.items()}


def matmul_rate(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
    """FLOP/s of one fp32 product of 1024 by 1024 matrices."""
    a = torch.ones(1024, 1024)
    began = time.perf_counter()
    multiply(a, a)
    return 2 * 1024**3 / (time.perf_counter() - began)


def race(spec: ModelSpec, run: TrainSpec, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Tokens a second of each contender, and the rates of torch's and oneDNN's products measured between their
    steps."""
    ids = torch.randint(0, spec.vocab_size, (run.sequences_per_worker, run.seq_len + 1))

    def step(engine: Any) -> float:
        began = time.perf_counter()
        engine.backward(engine(ids[:, :-1], ids[:, 1:]).total)
        engine.step()
        return time.perf_counter() - began

    with ExitStack() as stack:
        engines = contenders(stack, spec, run)
        seconds, rate = dict.fromkeys(engines, math.inf), {"torch": 0.0, "onednn": 0.0}
        for turn in range(rounds + 2):
            for name, engine in engines.items():
                taken = step(engine)
                if turn >= 2:
                    seconds[name] = min(seconds[name], taken)
                rate["torch"] = max(rate["torch"], matmul_rate(torch.mm))
                rate["onednn"] = max(rate["onednn"], matmul_rate(product))
    return {name: run.batch_tokens / taken for name, taken in seconds.items()}, rate


def ratio(speeds: dict[str, float]) -> float:
    """Ours over the fastest of transformers'."""
    return speeds["raylr"] / max(speed for name, speed in speeds.items() if name != "raylr")


def trials(say: Callable[[str], None]) -> dict[str, float]:
    """What surrounds the steps: 20 short trials and a longer one."""
    spec = QUICKSTART[1]
    with tempfile.TemporaryDirectory() as folder:
        corpus = build_corpus(python_stdlib_sources(), Path(folder) / "corpus", vocab_size=1024).path

        def trial(steps: int, evals: int) -> tuple[float, dict[str, Any]]:
            run = TrainSpec(seq_len=128, batch_tokens=2048, warmup_steps=2, validation_tokens=16_384)
            points = [2048 * steps * (i + 1) // evals for i in range(evals)]
            began = time.perf_counter()
            rows = train(lr=1e-3, model=spec, train=run, corpus=corpus, tokens=points[-1], eval_at=points, threads=1)
            return time.perf_counter() - began, rows[-1]

        def spent(row: dict[str, Any]) -> float:
            return float(row[metrics.TRAIN_SECONDS] + row[metrics.EVAL_SECONDS])

        starts, memory = [], []
        for _ in range(23):
            wall, row = trial(2, 1)
            starts.append(wall - spent(row))
            memory.append(psutil.Process().memory_info().rss)
        wall, row = trial(240, 10)
        start = sorted(starts)[len(starts) // 2]
    out = {
        "memory_growth": memory[-1] / memory[2] - 1,
        "start_seconds": start,
        "eval_share": row[metrics.EVAL_SECONDS] / (wall - start),
        "other_share": max(0.0, wall - start - spent(row)) / (wall - start),
    }
    say(
        f"memory over 20 trials {out['memory_growth']:+.2%}, start of a trial {start:.2f} s, validation "
        f"{out['eval_share']:.1%} and "
        f"other {out['other_share']:.1%} of a trial of 240 steps with 10 validations of 16k tokens"
    )
    return out


def main() -> None:
    """Run everything, print a table, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    bring_up(1)
    results: dict[str, Any] = {}
    large = {dtype: TrainSpec(seq_len=256, batch_tokens=4096, dtype=dtype) for dtype in ("fp32", "bf16")}
    for dtype, run in large.items():
        speeds, rate = race(LARGE, run, arguments.rounds)
        results[f"{dtype}_ratio_to_hf"] = ratio(speeds)
        results[f"{dtype}_tokens_per_second"] = speeds
        if dtype == "fp32":
            reached = speeds["raylr"] * LARGE.flops_per_token(256)
            results["fp32_peak_share"] = reached / rate["torch"]
            results["fp32_onednn_share"] = reached / rate["onednn"]
            results["fp32_matmul_flops"] = rate
        print(f"{dtype}:", ", ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items()), "tokens/s", flush=True)
    small = [race(spec, TrainSpec(seq_len=128, batch_tokens=2048), arguments.rounds)[0] for spec in QUICKSTART]
    results["quickstart_ratio_to_hf"] = math.prod(map(ratio, small)) ** (1 / len(small))
    results["quickstart_tokens_per_second"] = small
    results |= trials(lambda line: print(line, flush=True))
    for key in (
        "bf16_ratio_to_hf",
        "fp32_ratio_to_hf",
        "fp32_peak_share",
        "fp32_onednn_share",
        "quickstart_ratio_to_hf",
    ):
        print(f"{key:24} {results[key]:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
