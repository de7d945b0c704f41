"""What probes cost, and what they show on runs of more than 2,000 steps.

python benchmarks/probes.py overhead [--pairs 8] [--json FILE]     CPU time of a run with all probes and without
python benchmarks/probes.py runs --out FOLDER [--only NAME]        runs with and without QK norm, for `raylr analyse`

| key | what |
|---|---|
| probe_overhead | CPU time of steps and validations with all probes over that of the same run without, less 1 |
| probe_overhead_low, probe_overhead_high | 90 % interval of it, over the pairs of steps and validations (bootstrap) |
| steps_share | the part of it that is spent after steps; the rest is spent at validations |
| processor | the machine's |

A run is one of the quickstart's size M, with its 16 validations in 244 steps. The two of a pair are processes that take
turns, a step each, so that both meet the same processor: whole runs one after the other differ by 3 % without a cause.

`runs` trains widths S, M and L with QK norm and without, at two LRs, 2,048 steps of 1,024 tokens, and measures at even
distances in ln steps. FOLDER/evaluations.jsonl has one row for each measurement; runs that are there are not trained
again.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from raylr.quickstart import quickstart_spec
from raylr.trainables import ModelSpec, TrainSpec, build_corpus, python_stdlib_sources, train
from raylr.trainables.training.probes import Event, ValidationEvent
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


class Turns:
    """A probe that makes two processes take turns: each does one step, or one validation, while the other waits."""

    def __init__(self, mine: Connection, other: Connection, *, first: bool) -> None:
        self.mine, self.other, self.spent = mine, other, list[tuple[bool, float]]()
        self.first, self.began = first, math.nan

    def start(self, engine: Any, batch: tuple[Any, Any, Any]) -> None:
        """Wait for the other process, whose network is built by then, too."""
        self.other.send_bytes(b".")
        self.mine.recv_bytes()
        if not self.first:
            self.mine.recv_bytes()
        self.began = time.process_time()

    def __call__(self, event: Event) -> None:
        """Note what was spent, let the other process go on, and wait for it."""
        self.spent.append((isinstance(event, ValidationEvent), time.process_time() - self.began))
        self.other.send_bytes(b".")
        self.mine.recv_bytes()
        self.began = time.process_time()


def arm(probes: Sequence[str], corpus: Path, turns: Turns, results: Connection) -> None:
    """Train one run, taking turns, and send what each step and validation took."""
    usual, model, tokens = SPEC.train, list(SPEC.models().values())[1], SPEC.token_budgets[-1]
    assert isinstance(usual, TrainSpec)
    assert isinstance(model, ModelSpec)
    settings = usual.model_copy(update={"probes": tuple(probes)})
    train(
        lr=4e-3, model=model, train=settings, corpus=corpus, tokens=tokens, eval_at=SPEC.eval_at(tokens), threads=1,
        probes=[turns],
    )  # fmt: skip
    turns.other.send_bytes(b".")  # the other one waits after its last validation
    results.send(turns.spent)


def overhead(folder: Path, pairs: int) -> dict[str, Any]:
    """Measure pairs of runs that take turns; the one with probes is first in every other pair."""
    corpus, context = corpus_in(folder), get_context("spawn")
    differences, plain, validations = list[float](), list[float](), list[bool]()
    for pair in range(pairs):
        arms = ((), shipped.NAMES) if pair % 2 else (shipped.NAMES, ())
        ends = [context.Pipe(duplex=False) for _ in arms]
        found, processes = [context.Pipe(duplex=False) for _ in arms], []
        for i, probes in enumerate(arms):
            turns = Turns(ends[i][0], ends[1 - i][1], first=i == 0)
            processes.append(context.Process(target=arm, args=(probes, corpus, turns, found[i][1])))
            processes[-1].start()
        spent = dict(zip(map(bool, arms), (receive.recv() for receive, _ in found), strict=True))
        for process in processes:
            process.join()
        differences += [with_[1] - without[1] for with_, without in zip(spent[True], spent[False], strict=True)]
        plain += [seconds for _, seconds in spent[False]]
        validations += [validation for validation, _ in spent[False]]
        print(f"pair {pair + 1}: {sum(differences) / sum(plain):+.2%} so far", flush=True)
    more, base, at = np.array(differences), np.array(plain), np.array(validations)
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(at), np.flatnonzero(~at)]
    drawn = [np.concatenate([rng.choice(group, len(group)) for group in groups]) for _ in range(2000)]
    low, high = np.quantile([more[rows].sum() / base[rows].sum() for rows in drawn], (0.05, 0.95))
    return {
        "probe_overhead": more.sum() / base.sum(),
        "probe_overhead_low": low,
        "probe_overhead_high": high,
        "steps_share": more[~at].sum() / base.sum(),
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
        probe_interval=1,
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
    """Run the commands that were named."""
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
