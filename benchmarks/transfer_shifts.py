"""How far the optimal LR moves over width, depth, tokens and init std, with and without a rule, with intervals from seeds.

    python benchmarks/transfer_shifts.py                  # the table: transfer_shifts.csv, and widths_mup.csv (RAYLR_DATA)
    python benchmarks/transfer_shifts.py --make CORPUS    # trains what is missing in transfer_shifts.csv, a line a run

Models: raylr's Qwen3-MoE with QK norm, base of width 32 and 2 layers, 8 experts of which 2 are active, heads of 16 that
grow with the width; 512 tokens a batch, 20 steps of warmup, then a constant LR. LRs are multiples of 1e-3 by powers of
2. In each cell and seed runs are added until the lowest loss lies between two others; the optimum is that of
`fit_optimum`. Seeds differ in the initial weights and in the order of the text.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from replay_data import DATA
from scipy import stats

from raylr.analysis import fit_optimum

FILE = Path(__file__).with_name("transfer_shifts.csv")
BASE = (32, 2)
"""Width and layers of the base."""
STD = 0.02
STEPS = 256
"""Steps of a run; those of the base go on to 4 times that, which at a constant LR are longer runs of the same kind."""
SEQUENCES, SEQ_LEN, WARMUP = 8, 64, 20
LEAST_LRS = 4
LEVEL = 0.9


@dataclass(frozen=True)
class Cell:
    """One model under one rule."""

    rule: str
    width: int = BASE[0]
    layers: int = BASE[1]
    init_std: float = STD
    steps: int = STEPS
    start: int = 2
    """Where the search of the LR begins: 1e-3 · 2^start."""

    @property
    def key(self) -> tuple[str, int, int, float]:
        return self.rule, self.width, self.layers, self.init_std


RULES = ("standard", "completed_p")
ROUND = (
    Cell("base", steps=4 * STEPS),
    Cell("standard", width=128, start=0),
    Cell("completed_p", width=128),
    Cell("standard", layers=8, start=1),
    Cell("completed_p", layers=8),
    Cell("base", init_std=0.005, steps=2 * STEPS),
    Cell("completed_p", width=128, init_std=0.005),
)
"""Cells of one seed, in the order in which they are trained."""
BETWEEN = tuple(Cell(rule, width=64, start=1) for rule in RULES) + tuple(
    Cell(rule, layers=4, start=2) for rule in RULES
)
"""Cells between the ends of an axis, trained last."""


# -- training --


def make(corpus: str, seeds: int) -> None:
    """Train what is missing, seed by seed."""
    train = trainer(corpus)
    known = read()
    plan = [(seed, cell) for seed in range(seeds) for cell in ROUND] + [(s, c) for s in range(seeds) for c in BETWEEN]
    for seed, cell in plan:
        losses = known.setdefault((cell.key, seed), {})
        while (power := next_power(losses, cell)) is not None:
            found = train(cell, power, seed)
            losses[power] = found
            with FILE.open("a", newline="") as file:
                rows = csv.writer(file)
                if file.tell() == 0:
                    rows.writerow(["rule", "width", "layers", "init_std", "seed", "power", "lr", "steps", "loss"])
                for steps, loss in found.items():
                    rows.writerow([*cell.key, seed, power, 1e-3 * 2.0**power, steps, f"{loss:.6f}"])
            print(cell.key, seed, power, {steps: round(loss, 4) for steps, loss in found.items()}, flush=True)


def next_power(losses: Mapping[int, Mapping[int, float]], cell: Cell) -> int | None:
    """Return the next LR as a power of 2; None once the best lies inside for all numbers of steps."""
    for power in (cell.start, cell.start + 1, cell.start - 1):
        if power not in losses:
            return power
    powers = sorted(losses)
    for steps in sorted({steps for found in losses.values() for steps in found}):
        values = [losses[power].get(steps, math.inf) for power in powers]
        best = int(np.argmin([value if math.isfinite(value) else math.inf for value in values]))
        if best == 0:
            return powers[0] - 1
        if best == len(powers) - 1:
            return powers[-1] + 1
        if len(powers) < LEAST_LRS and steps == min(cell.steps, STEPS):
            return powers[0] - 1 if values[best - 1] < values[best + 1] else powers[-1] + 1
    return None


def trainer(corpus: str) -> Callable[[Cell, int, int], dict[int, float]]:
    """Return a function that trains a cell at an LR with a seed and returns steps -> validation loss."""
    import torch

    from raylr.trainables import ModelSpec, parametrize
    from raylr.trainables.data.corpus import Corpus, Windows
    from raylr.trainables.models.build import build

    torch.set_num_threads(1)
    texts = Corpus.open(corpus)
    held = torch.from_numpy(Windows(texts.validation, 128).batch(0, 128))

    def spec(width: int, layers: int, init_std: float) -> ModelSpec:
        return ModelSpec(hidden_size=width, layers=layers, heads=width // 16, kv_heads=width // 32, head_dim=16,
                         experts=8, top_k=2, expert_size=width, vocab_size=1024, init_std=init_std)  # fmt: skip

    def validate(model: torch.nn.Module) -> float:
        with torch.no_grad():
            model.eval()
            parts = [float(model(ids[:, :-1], ids[:, 1:]).cross_entropy) for ids in held.split(16)]
            model.train()
        return float(np.mean(parts))

    def train(cell: Cell, power: int, seed: int) -> dict[int, float]:
        lr, model = 1e-3 * 2.0**power, build(spec(cell.width, cell.layers, cell.init_std), seed=seed)
        rule = "standard" if cell.rule == "base" else cell.rule
        groups = parametrize(model, base=spec(*BASE, cell.init_std), rule=rule, lr=lr)
        optimizer = torch.optim.AdamW(groups, fused=True)
        warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
        windows, found = Windows(texts.train, SEQ_LEN, seed), dict[int, float]()
        for step in range(cell.steps):
            ids = torch.from_numpy(windows.batch(step * SEQUENCES, SEQUENCES))
            loss = model(ids[:, :-1], ids[:, 1:])
            loss.total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            warmup.step()
            if not math.isfinite(float(loss.cross_entropy.detach())):
                return found | {steps: math.nan for steps in (STEPS, cell.steps)}
            if step + 1 >= STEPS // 2 and math.log2((step + 1) / STEPS).is_integer():
                found[step + 1] = validate(model)
        return found

    return train


def read() -> dict[tuple[tuple[str, int, int, float], int], dict[int, dict[int, float]]]:
    """Return the measured losses: (cell, seed) -> power of the LR -> steps -> loss."""
    found: dict[tuple[tuple[str, int, int, float], int], dict[int, dict[int, float]]] = {}
    if not FILE.exists():
        return found
    for row in pd.read_csv(FILE).itertuples():
        cell = found.setdefault(((row.rule, row.width, row.layers, row.init_std), row.seed), {})
        cell.setdefault(row.power, {})[row.steps] = row.loss
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", metavar="CORPUS")
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    if args.make:
        make(args.make, args.seeds)
        return


if __name__ == "__main__":
    main()
