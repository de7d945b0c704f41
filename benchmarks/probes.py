"""What probes cost, and what they show on runs of more than 2,000 steps.

python benchmarks/probes.py overhead [--pairs 8] [--json FILE]     CPU time of a run with all probes and without
python benchmarks/probes.py runs --out FOLDER [--only NAME]        runs with and without QK norm, for `raylr analyse`

| key | what |
|---|---|
| probe_overhead | CPU time of a run with all probes over that of the same run without, less 1: median of pairs |
| probe_overhead_low, probe_overhead_high | interval of that median at 90 % (order statistics) |
| inside_share | CPU time of the probes after steps and validations (not: hooks) over that of the run |
| processor | the machine's |

A run is one of the quickstart's size M, with its 16 validations in 244 steps; those of a pair follow each other.

`runs` trains widths S, M and L with QK norm and without, at two LRs, 2,048 steps of 1,024 tokens, and measures at even
distances in ln steps. FOLDER/evaluations.jsonl has one row for each measurement; runs that are there are not trained
again.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from raylr.quickstart import quickstart_spec
from raylr.trainables import ModelSpec, TrainSpec, build_corpus, python_stdlib_sources, train
from raylr.trainables.training.probes import Event
from raylr.trainables.training.probing import shipped

SPEC = quickstart_spec()
STEPS, BATCH, POINTS = 2048, 1024, 24
LRS = (2e-3, 4e-3)


def processor() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor()


def corpus_in(folder: Path) -> Path:
    """Return a corpus of the standard library's sources, made with the first call."""
    path = folder / "corpus"
    if not (path / "manifest.json").exists():
        build_corpus(python_stdlib_sources(), path, vocab_size=1024)
    return path


class Timed:
    """The probes that come with raylr, with the CPU time that they take after steps and validations."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, probe: Any) -> Any:
        """Return the probe, timed."""
        called = type(probe).__call__
        timed = self

        class Wrapped(type(probe)):  # type: ignore[misc]
            def __call__(self, event: Event) -> Any:
                began = time.process_time()
                found = called(self, event)
                timed.seconds += time.process_time() - began
                return found

        probe.__class__ = Wrapped
        return probe


def overhead(folder: Path, pairs: int) -> dict[str, Any]:
    """Measure pairs of runs, the one with probes first in every other pair."""
    usual = SPEC.train
    assert isinstance(usual, TrainSpec)
    model = list(SPEC.models().values())[1]
    tokens = SPEC.token_budgets[-1]
    corpus = corpus_in(folder)
    make, timed = shipped.shipped_probes, Timed()

    def seconds(probes: Sequence[str]) -> float:
        settings = usual.model_copy(update={"probes": tuple(probes)})
        began = time.process_time()
        train(
            lr=4e-3, model=model, train=settings, corpus=corpus, tokens=tokens, eval_at=SPEC.eval_at(tokens), threads=1
        )  # type: ignore[arg-type]
        return time.process_time() - began

    import raylr.trainables.training.loop as loop

    loop.shipped_probes = lambda names: [timed.around(probe) for probe in make(names)]  # type: ignore[assignment]
    seconds(())  # imports
    ratios, inside = [], []
    for pair in range(pairs):
        found = {}
        for probes in ((), shipped.NAMES) if pair % 2 else (shipped.NAMES, ()):
            timed.seconds = 0.0
            found[bool(probes)] = seconds(probes)
            if probes:
                inside.append(timed.seconds / found[True])
        ratios.append(found[True] / found[False] - 1)
        print(f"pair {pair + 1}: {found[False]:.2f} s without, {found[True]:.2f} s with, {ratios[-1]:+.2%}", flush=True)
    ranked = sorted(ratios)
    low = int(stats.binom.ppf(0.05, pairs, 0.5))
    return {
        "probe_overhead": statistics.median(ranked),
        "probe_overhead_low": ranked[max(low - 1, 0)],
        "probe_overhead_high": ranked[min(pairs - low, pairs - 1)],
        "inside_share": statistics.median(inside),
        "pairs": pairs,
        "processor": processor(),
    }


def cases() -> dict[str, dict[str, Any]]:
    """Return name → size, model and LR of the runs."""
    sizes = {name: model for name, model in SPEC.models().items() if isinstance(model, ModelSpec)}
    found = {}
    for lr in reversed(LRS):
        for size in ("M", "S", "L"):
            for norm in (True, False):
                model = sizes[size].model_copy(update={"qk_norm": norm})
                found[f"{size}-{'norm' if norm else 'plain'}-{lr:g}"] = {"size": size, "model": model, "lr": lr}
    return found


def runs(folder: Path, only: Sequence[str]) -> None:
    """Train the runs that the folder lacks."""
    file = folder / "evaluations.jsonl"
    known = {json.loads(line)["trial"] for line in file.read_text().splitlines()} if file.exists() else set()
    corpus = corpus_in(folder)
    settings = TrainSpec(
        seq_len=128,
        batch_tokens=BATCH,
        warmup_steps=100,
        validation_tokens=8192,
        repeat_data=True,
        probes=shipped.NAMES,
    )
    steps = sorted({round(step) for step in np.geomspace(8, STEPS, POINTS)})
    for name, case in cases().items():
        if name in known or (only and name not in only):
            continue
        began = time.perf_counter()
        rows = train(
            lr=case["lr"], model=case["model"], train=settings, corpus=corpus, tokens=STEPS * BATCH,
            eval_at=[step * BATCH for step in steps], threads=1,
        )  # fmt: skip
        about = {"trial": name, "size": case["size"], "batch": BATCH, "qk_norm": case["model"].qk_norm}
        with file.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(about | row) + "\n" for row in rows)
        print(f"{name}: loss {rows[-1]['loss']:.4f} after {time.perf_counter() - began:.0f} s", flush=True)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "runs"))
    parser.add_argument("--out", type=Path, default=Path("runs/probes"))
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.what == "runs":
        runs(given.out, given.only)
        return
    found = overhead(given.out, given.pairs)
    for key, value in found.items():
        print(f"{key:24} {value:.4f}" if isinstance(value, float) else f"{key:24} {value}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
