"""How fast a training step is, beside Hugging Face's model under the same DeepSpeed engine, and what a trial costs.

Everything is timed in one process on one thread; the contenders take turns step by step, and the fastest step of each
counts, so that other load on the machine slows all of them. Run: `python benchmarks/throughput.py [--rounds 12] [--json
FILE]`.

| key | what |
|---|---|
| bf16_ratio_to_hf, fp32_ratio_to_hf | tokens/s over those of transformers' Qwen3MoeForCausalLM with its fastest experts
|
| bf16_ratio_to_compiled, fp32_ratio_to_compiled | the same over that model under torch.compile |
| fp32_peak_share | FLOP/s of a step over those of torch.mm (best 1024³ product); fp32_onednn_share: over oneDNN's |
| quickstart_ratio_to_hf | the fp32 ratio for the quickstart's four models (geometric mean) |
| memory_growth, start_seconds | resident memory over 20 trials in one process; time from a trial's start to its first
step |
| eval_share, other_share | validation's, and everything else's, share of a trial's time after its first step: the
quickstart's second model, its budget and its validations (median of three trials) |
| report_share | the same of a trial under Ray Tune, between its first and last report: what reporting costs |
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # prints nothing at verbose=0

import psutil  # type: ignore[import-untyped]
import torch

from raylr.quickstart import quickstart_spec
from raylr.trainables import (
    HFSpec,
    ModelSpec,
    TrainSpec,
    arguments,
    build_corpus,
    pretrain,
    python_stdlib_sources,
    train,
)
from raylr.trainables.models.build import build
from raylr.trainables.models.hf import HuggingFaceModel
from raylr.trainables.models.products import product
from raylr.trainables.training import metrics
from raylr.trainables.training.engine import bring_up, running_engine

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
QUICKSTART = quickstart_spec()
assert isinstance(QUICKSTART.train, TrainSpec)
USUAL = QUICKSTART.train
SMALL = [one for one in (*QUICKSTART.models().values(), QUICKSTART.target_model()) if isinstance(one, ModelSpec)]
"""The quickstart's four sizes."""
HF_EXPERTS = ("eager", "grouped_mm")
COMPILED = "compiled grouped_mm"
"""Transformers' model under `torch.compile`, which takes about a minute to start; with eager experts it is slower."""


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


def contenders(stack: ExitStack, spec: ModelSpec, run: TrainSpec, kinds: Sequence[str]) -> dict[str, Any]:
    """One engine for our model and one for each way that transformers computes experts."""
    models: dict[str, torch.nn.Module] = {"raylr": build(spec, seed=run.seed)}
    for experts in kinds:
        model = build(HFSpec(hf=hf_fields(spec)), seed=run.seed)
        assert isinstance(model, HuggingFaceModel)
        chosen: Any = model.network
        chosen.set_experts_implementation(experts.removeprefix("compiled "))
        if experts == COMPILED:
            chosen.compile()
        models[experts] = model
    return {name: stack.enter_context(running_engine(model, run)) for name, model in models.items()}


def matmul_rate(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
    """FLOP/s of one fp32 product of 1024 by 1024 matrices."""
    a = torch.ones(1024, 1024)
    began = time.perf_counter()
    multiply(a, a)
    return 2 * 1024**3 / (time.perf_counter() - began)


def race(
    spec: ModelSpec, run: TrainSpec, rounds: int, kinds: Sequence[str] = HF_EXPERTS
) -> tuple[dict[str, float], dict[str, float]]:
    """Tokens a second of each contender, and the rates of torch's and oneDNN's products measured between their steps.

    Each round has a batch of its own, as training has: a batch that comes again routes the same numbers of tokens to
    each expert again, and kernels that were compiled for these numbers are found in their cache.
    """

    def step(engine: Any, ids: torch.Tensor) -> float:
        began = time.perf_counter()
        engine.backward(engine(ids[:, :-1], ids[:, 1:]).total)
        engine.step()
        return time.perf_counter() - began

    with ExitStack() as stack:
        engines = contenders(stack, spec, run, kinds)
        seconds, rate = dict.fromkeys(engines, math.inf), {"torch": 0.0, "onednn": 0.0}
        for turn in range(rounds + 2):
            ids = torch.randint(0, spec.vocab_size, (run.sequences_per_worker, run.seq_len + 1))  # routing changes
            for name, engine in engines.items():
                taken = step(engine, ids)
                if turn >= 2:
                    seconds[name] = min(seconds[name], taken)
                rate["torch"] = max(rate["torch"], matmul_rate(torch.mm))
                rate["onednn"] = max(rate["onednn"], matmul_rate(product))
    return {name: run.batch_tokens / taken for name, taken in seconds.items()}, rate


def ratio(speeds: dict[str, float]) -> float:
    """Ours over the fastest of transformers' without `torch.compile`."""
    return speeds["raylr"] / max(speeds[name] for name in HF_EXPERTS)


def in_process(lr: float, config: dict[str, Any]) -> tuple[list[dict[str, Any]], float]:
    """The rows of a trial without Ray, and its seconds from start to end."""
    began = time.perf_counter()
    rows = train(**arguments({"lr": lr, **config}), threads=1)
    return rows, time.perf_counter() - began


def busy(row: dict[str, Any]) -> float:
    """Seconds of a trial so far in training steps and validation."""
    return float(row[metrics.TRAIN_SECONDS] + row[metrics.EVAL_SECONDS])


def under_tune(lr: float, config: dict[str, Any], storage: Path) -> float:
    """Seconds between the first and the last report of a Tune trial that went into neither training nor validation, as
    a share of all: reporting."""
    from ray import tune

    tuner = tune.Tuner(
        tune.with_resources(pretrain, {"CPU": 1}),
        param_space={"lr": lr, **config, "run_dir": str(storage / "run")},
        tune_config=tune.TuneConfig(metric=metrics.LOSS, mode="min"),
        run_config=tune.RunConfig(name="trial", storage_path=str(storage), verbose=0),
    )
    (result,) = tuner.fit()
    table = result.metrics_dataframe
    assert table is not None
    first, last = table.iloc[0].to_dict(), table.iloc[-1].to_dict()
    wall = last["time_total_s"] - first["time_total_s"]
    return float((wall - busy(last) + busy(first)) / wall)


def trials() -> dict[str, float]:
    """What surrounds the steps: 20 short trials, and trials of the quickstart's shape without and with Ray Tune."""
    import ray

    out: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus = build_corpus(python_stdlib_sources(), folder / "corpus", vocab_size=1024).path
        usual = {"model": SMALL[1].model_dump(), "corpus": str(corpus), "train": USUAL.model_dump()}
        starts, memory = [], []
        for _ in range(23):
            rows, wall = in_process(1e-3, {**usual, "tokens": 2 * USUAL.batch_tokens})
            starts.append(wall - busy(rows[-1]))
            memory.append(psutil.Process().memory_info().rss)
        out["memory_growth"] = memory[-1] / memory[2] - 1
        out["start_seconds"] = sorted(starts)[len(starts) // 2]
        points = QUICKSTART.eval_at(QUICKSTART.token_budgets[-1])
        long = {**usual, "tokens": points[-1], "eval_at": points}
        ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
        shares = []
        for turn in range(3):
            rows, wall = in_process(1e-3, long)
            working = wall - out["start_seconds"]
            reporting = under_tune(1e-3, long, folder / f"tune{turn}")
            shares.append((rows[-1][metrics.EVAL_SECONDS] / working, 1 - busy(rows[-1]) / working, reporting))
        ray.shutdown()
        for name, values in zip(("eval_share", "other_share", "report_share"), zip(*shares, strict=True), strict=True):
            out[name] = max(0.0, sorted(values)[1])
    return out


def main() -> None:
    """Run everything, print a table, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bring_up(1)
    results: dict[str, Any] = {}
    large = {dtype: TrainSpec(seq_len=256, batch_tokens=4096, dtype=dtype) for dtype in ("fp32", "bf16")}
    for dtype, run in large.items():
        speeds, rate = race(LARGE, run, options.rounds, (*HF_EXPERTS, COMPILED))
        results[f"{dtype}_ratio_to_hf"] = ratio(speeds)
        results[f"{dtype}_ratio_to_compiled"] = speeds["raylr"] / speeds[COMPILED]
        results[f"{dtype}_tokens_per_second"] = speeds
        if dtype == "fp32":
            reached = speeds["raylr"] * LARGE.flops_per_token(256)
            results["fp32_peak_share"] = reached / rate["torch"]
            results["fp32_onednn_share"] = reached / rate["onednn"]
            results["fp32_matmul_flops"] = rate
        print(f"{dtype}:", ", ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items()), "tokens/s", flush=True)
    small = [race(spec, USUAL, options.rounds)[0] for spec in SMALL]
    results["quickstart_ratio_to_hf"] = math.prod(map(ratio, small)) ** (1 / len(small))
    results["quickstart_tokens_per_second"] = small
    results |= trials()
    for key, value in results.items():
        if isinstance(value, float):
            print(f"{key:24} {value:.3f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
