"""How often equal settings are called different, and different ones distinguished, when runs share seeds.

    python benchmarks/compare_seeds.py                # made-up losses, and the seeds of real runs (RAYLR_DATA)

Made-up: losses of seeds with a correlation rho between the arms; the difference in the last columns is 3 standard
errors of the paired difference. Real: two LRs of one model that were run with the same seeds. The mean difference is
taken out (and residuals are scaled by √(n / (n − 1)) for that), and the sign of each seed's difference is drawn anew:
two settings that are equal, with the scatter and the correlation between seeds that real runs have.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from replay_data import DATA

from raylr.analysis import compare_runs
from raylr.analysis.comparison import FALSE_BETTER, Arm, ArmRun, compare_arms

DRAWS = 400
SHIFTS = Path(__file__).with_name("transfer_shifts.csv")


def made_up() -> None:
    """Print the share of false and of right decisions, unpaired and with shared seeds."""
    rng = np.random.default_rng(0)
    print("made-up, two arms: called different, unpaired / seeds shared; equal arms, then 3 standard errors apart")
    for runs, rho in itertools.product((2, 3, 6), (0.0, 0.5, 0.9, 0.98)):
        found = np.zeros(4)
        for _ in range(DRAWS):
            seed = math.sqrt(rho) * rng.standard_normal(runs)
            a, b = seed + math.sqrt(1 - rho) * rng.standard_normal((2, runs))
            labels = range(runs), range(runs)
            for k, shift in enumerate((0.0, 3 * math.sqrt(2 * (1 - rho) / runs))):
                found[2 * k] += compare_runs(a, b + shift).better is not None
                found[2 * k + 1] += compare_runs(a, b + shift, seeds=labels).better == ("a" if k else "b") or (
                    k == 0 and compare_runs(a, b, seeds=labels).better is not None
                )
        shown = " / ".join(f"{value:.1%}" for value in found / DRAWS)
        print(f"  {runs} seeds, rho {rho:4.2f}: {shown}", flush=True)
    print(f"made-up, three equal arms of 3 seeds: any called better (at most {FALSE_BETTER:.0%})")
    for rho in (0.0, 0.5, 0.9):
        false = 0
        for _ in range(DRAWS):
            losses = math.sqrt(rho) * rng.standard_normal(3) + math.sqrt(1 - rho) * rng.standard_normal((3, 3))
            runs_of = [[ArmRun(loss=x, seed=seed) for seed, x in enumerate(row)] for row in losses]
            arms = [Arm(name=str(k), runs=each) for k, each in enumerate(runs_of)]
            false += any(one.better for one in compare_arms(arms).pairs)
        print(f"  rho {rho:4.2f}: {false / DRAWS:.1%}", flush=True)


def pairs() -> Iterator[tuple[str, np.ndarray]]:
    """Yield losses [2, seeds] of two LRs that were run with the same seeds, next to each other in the LR."""
    tables: Sequence[tuple[str, Path, list[str], str]] = (
        ("moe_curves", DATA / "moe_curves.csv", ["tokens"], "val_loss"),
        ("small_sweeps", DATA / "small_sweeps.csv", ["model", "optimizer"], "loss"),
        ("transfer_shifts", SHIFTS, ["rule", "width", "layers", "init_std", "steps"], "loss"),
    )
    for name, path, by, column in tables:
        if not path.exists():
            print(f"  {path} is not there: skipped")
            continue
        frame = pd.read_csv(path)
        if "tokens" in by:  # every tenth evaluation of the second half of the runs
            times = np.sort(frame["tokens"].unique())
            frame = frame[frame["tokens"].isin(times[len(times) // 2 :: 10])]
        for _, part in frame.groupby(by):
            table = part.pivot_table(index="lr", columns="seed", values=column).dropna(axis=0)
            if table.shape[1] < 2:
                continue
            near = table[table.mean(axis=1) < 1.5 * table.mean(axis=1).min()]
            for first, second in itertools.pairwise(near.to_numpy()):
                yield name, np.stack([first, second])


def real() -> None:
    """Print, for each table, the correlation of seeds and the share of false decisions."""
    rng = np.random.default_rng(0)
    found: dict[str, list[tuple[float, float, float, int, float]]] = {}
    for name, losses in pairs():
        seeds = losses.shape[1]
        residuals = (losses - losses.mean(axis=1, keepdims=True)) * math.sqrt(seeds / (seeds - 1))
        half, level = (residuals[0] - residuals[1]) / 2, (residuals[0] + residuals[1]) / 2
        if not half.any():
            continue
        labels = range(seeds), range(seeds)
        false = np.zeros(2)
        draws = 20
        for _ in range(draws):
            signed = half * rng.choice([-1, 1], seeds)
            a, b = level + signed, level - signed
            false += [compare_runs(a, b).better is not None, compare_runs(a, b, seeds=labels).better is not None]
        correlation = compare_runs(*losses, seeds=labels).correlation
        moved = compare_runs(*losses, seeds=labels).better is not None
        found.setdefault(name, []).append((*(false / draws), correlation, seeds, float(moved)))
    print("real: false decisions unpaired / seeds shared; mean correlation; decided as measured")
    for name, values in found.items():
        unpaired, shared, correlation, seeds, moved = np.mean(values, axis=0)
        print(f"  {name:16s} {len(values):3d} pairs of {seeds:.1f} seeds: {unpaired:.1%} / {shared:.1%};"
              f" correlation {correlation:.2f}; {moved:.0%}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["made-up", "real"])
    what = parser.parse_args().what
    if what != "real":
        made_up()
    if what != "made-up":
        real()


if __name__ == "__main__":
    main()
