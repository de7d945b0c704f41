"""How far the optimal LR moves over width, depth, tokens and init std, with and without a rule; intervals from seeds.

    python benchmarks/transfer_shifts.py                  # the table: transfer_shifts.csv; widths_mup.csv (RAYLR_DATA)
    python benchmarks/transfer_shifts.py --make CORPUS    # trains what is missing in transfer_shifts.csv

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
from typing import Any

import numpy as np
import pandas as pd
from replay_data import DATA
from scipy import stats
from scipy.stats import linregress

from raylr.analysis import fit_optimum
from raylr.analysis.status import Status

FILE = Path(__file__).with_name("transfer_shifts.csv")
BASE = (32, 2)
"""Width and layers of the base."""
STD = 0.02
STEPS = 256
"""Steps of a run; those of the base go on to 4 times that, which at a constant LR are longer runs of the same kind."""
SEQUENCES, SEQ_LEN, WARMUP = 8, 64, 20
LEAST_LRS = 3
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
        """What tells it from other cells."""
        return self.rule, self.width, self.layers, self.init_std


_WIDE = [Cell("standard", width=128, start=0), Cell("completed_p", width=128)]
_DEEP = [Cell("completed_p", layers=8), Cell("standard", layers=8, start=1)]
_SMALL = [Cell("base", init_std=0.005, steps=2 * STEPS), Cell("completed_p", width=128, init_std=0.005)]
ORDER: tuple[tuple[range, Sequence[Cell]], ...] = (
    (range(1), [Cell("base", steps=4 * STEPS)]),
    (range(3), [Cell("base", steps=2 * STEPS), *_WIDE]),
    (range(4), [Cell("base", steps=2 * STEPS), _DEEP[0]]),
    (range(2), _SMALL),
    (range(4), _DEEP[1:]),
    (range(2, 4), [*_SMALL, *_WIDE]),
)
"""Seeds and cells in the order in which they are trained: what is cut short is the least needed."""


# -- training --


def make(corpus: str, least: int) -> None:
    """Train what is missing for so many LRs in each cell and seed."""
    train, known = trainer(corpus), read()
    for seed, cell in [(seed, cell) for seeds, cells in ORDER for seed in seeds for cell in cells]:
        losses = known.setdefault((cell.key, seed), {})
        while (power := next_power(losses, cell, least)) is not None:
            found = train(cell, power, seed)
            losses[power] = found
            with FILE.open("a", newline="") as file:
                rows = csv.writer(file)
                if file.tell() == 0:
                    rows.writerow(["rule", "width", "layers", "init_std", "seed", "power", "lr", "steps", "loss"])
                for steps, loss in found.items():
                    rows.writerow([*cell.key, seed, power, 1e-3 * 2.0**power, steps, f"{loss:.6f}"])
            print(cell.key, seed, power, {steps: round(loss, 4) for steps, loss in found.items()}, flush=True)


def next_power(losses: Mapping[int, Mapping[int, float]], cell: Cell, least: int) -> int | None:
    """Return the next LR as a power of 2; None once the best lies inside for all numbers of steps."""
    for power in (cell.start, cell.start + 1, cell.start - 1):
        if power not in losses:
            return power
    powers = sorted(losses)
    last = [STEPS * 2**k for k in range(int(math.log2(cell.steps / STEPS)) + 1)]
    for steps in last:
        values = [losses[power].get(steps, math.inf) for power in powers]
        best = int(np.argmin([value if math.isfinite(value) else math.inf for value in values]))
        if best == 0:
            return powers[0] - 1
        if best == len(powers) - 1:
            return powers[-1] + 1
        if len(powers) < least:
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
                return found | dict.fromkeys((STEPS, cell.steps), math.nan)
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


# -- reading --


def optimum(lr: np.ndarray, loss: np.ndarray) -> float:
    """Return ln LR* by raylr's fit; NaN where the best LR lies at an end of those that were run."""
    fit = fit_optimum(lr, loss)
    return math.nan if fit.status in (Status.EDGE_LOW, Status.EDGE_HIGH, Status.DIVERGED) else math.log(fit.lr)


def parabola(lr: np.ndarray, loss: np.ndarray, window: float = 1.6) -> float:
    """Return ln LR* of the parabola through the LRs within a factor e^window of the best."""
    x, y = np.log(lr[np.isfinite(loss)]), loss[np.isfinite(loss)]
    middle = x[y.argmin()]
    near = np.abs(x - middle) <= window
    c = np.polyfit(x[near] - middle, y[near], 2)
    return float(middle - c[1] / 2 / c[0])


WAYS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"fit_optimum": optimum, "parabola": parabola}


@dataclass(frozen=True)
class Row:
    """How an optimum moves along an axis, in one row of the table."""

    name: str
    places: np.ndarray
    """[points], doublings along the axis."""
    optima: np.ndarray
    """[seeds, points], ln LR*; NaN where a seed has none."""
    reach: tuple[float, float] | None = None
    """Where the shift is to lie."""

    @property
    def slopes(self) -> np.ndarray:
        """[seeds], shift of ln LR* for each doubling; seeds without two ends are left out."""
        return np.array([linregress(self.places, one).slope for one in self.optima if np.isfinite(one).all()])

    @property
    def span(self) -> float:
        """Root of the sum of squares of the places around their mean: sd of an optimum / sd of the slope."""
        return float(np.sqrt(((self.places - self.places.mean()) ** 2).sum()))


def rows_of(frame: pd.DataFrame, way: Callable[[np.ndarray, np.ndarray], float]) -> Iterator[Row]:
    """Yield the rows of the table."""

    def at(seed: int, width: int, layers: int, rule: str, std: float, steps: int) -> float:
        rule = "base" if (width, layers) == BASE else rule
        part = frame[(frame.seed == seed) & (frame.width == width) & (frame.layers == layers) & (frame.rule == rule)]
        part = part[(part.init_std == std) & (part.steps == steps)]
        return way(part.lr.to_numpy(float), part.loss.to_numpy(float)) if len(part) >= LEAST_LRS else math.nan

    seeds = sorted(frame.seed.unique())

    def row(name: str, ratios: list[int], cells: list[dict[str, Any]], reach: tuple[float, float] | None = None) -> Row:
        usual: dict[str, Any] = {"width": BASE[0], "layers": BASE[1], "std": STD, "steps": STEPS, "rule": "base"}
        optima = [[at(seed, **usual | cell) for cell in cells] for seed in seeds]
        return Row(name, np.log2(ratios), np.array(optima), reach)

    within = (-0.15, 0.15)
    for rule, reach in (("standard", (-0.9, -0.5)), ("completed_p", within)):
        for ratios in ([1, 4], [1, 2, 4]):
            cells = [{"rule": rule, "width": BASE[0] * ratio} for ratio in ratios]
            yield row(f"width ×{ratios}, {rule}", ratios, cells, reach)
    cells = [{"rule": "completed_p", "width": BASE[0] * ratio, "std": 0.005} for ratio in (1, 4)]
    yield row("width ×[1, 4], completed_p, init std 0.005", [1, 4], cells, within)
    for rule, goal in (("standard", None), ("completed_p", within)):
        for ratios in ([1, 4], [1, 2, 4]):
            cells = [{"rule": rule, "layers": BASE[1] * ratio} for ratio in ratios]
            yield row(f"depth ×{ratios}, {rule}", ratios, cells, goal)
    for ratios in ([1, 2], [1, 2, 4]):
        yield row(f"tokens ×{ratios}, base", ratios, [{"steps": STEPS * ratio} for ratio in ratios])
    yield row("tokens ×[1, 2], base, init std 0.005", [1, 2], [{"steps": STEPS * k, "std": 0.005} for k in (1, 2)])
    yield row("init std 0.005 → 0.02, base", [1, 4], [{"std": 0.005}, {"std": STD}])
    cells = [{"rule": "completed_p", "width": 4 * BASE[0], "std": std} for std in (0.005, STD)]
    yield row("init std 0.005 → 0.02, width ×4, completed_p", [1, 4], cells)


def show(rows: Sequence[Row]) -> None:
    """Print the rows: shift per doubling with its interval, the noise being pooled over rows of one kind."""
    kept = [row for row in rows if row.slopes.size]
    noise: dict[bool, tuple[float, int]] = {}
    for nested in (False, True):  # budgets are read off one run, so that the noise of a seed is common to them
        own = [row for row in kept if row.name.startswith("tokens") is nested and row.slopes.size > 1]
        dof = sum(row.slopes.size - 1 for row in own)
        squares = sum(float(((row.slopes - row.slopes.mean()) ** 2).sum()) * row.span**2 for row in own)
        noise[nested] = (math.sqrt(squares / dof) if dof else math.nan, dof)
    print(
        f"sd of ln LR* between seeds: {noise[False][0]:.2f} ({noise[False][1]} dof), {noise[True][0]:.2f} along a run"
    )
    for row in kept:
        sd, dof = noise[row.name.startswith("tokens")]
        slopes = row.slopes
        half = stats.t(dof).ppf(0.5 + LEVEL / 2) * sd / row.span / math.sqrt(slopes.size) if dof else math.inf
        mean = float(slopes.mean())
        low, high = mean - half, mean + half
        between = f"({low:+.2f} to {high:+.2f})" if dof else "(no interval)"
        text = f"{row.name:46s} {mean:+.2f} {between}  {slopes.size} seeds: "
        text += " ".join(f"{slope:+.2f}" for slope in slopes)
        if dof and row.name.startswith("tokens"):
            text += f"; exponent {mean / math.log(2):+.2f} ({low / math.log(2):+.2f} to {high / math.log(2):+.2f})"
        if row.reach:
            inside = row.reach[0] <= low and high <= row.reach[1]
            outside = high < row.reach[0] or low > row.reach[1]
            text += f"; to lie in {row.reach[0]:+.2f} to {row.reach[1]:+.2f}: "
            text += "yes" if inside else "no" if outside else "cannot tell"
        print(f"  {text}")


def published() -> None:
    """Print the shifts of widths_mup.csv."""
    path = DATA / "widths_mup.csv"
    if not path.exists():
        print(f"{path} is not there: skipped")
        return
    print("widths_mup.csv: shift of ln LR* for each doubling of the width (one seed; the standard error of the line)")
    for name, part in pd.read_csv(path).groupby("parametrization", sort=False):
        found = []
        for way in (optimum, parabola):
            cells = [
                (width, way(cell.lr.to_numpy(float), cell.loss.to_numpy(float)))
                for width, cell in part.groupby("width")
            ]
            known = np.array([(math.log2(float(width)), best) for width, best in cells if math.isfinite(best)])
            line = linregress(known[:, 0], known[:, 1])
            found.append(f"{line.slope:+.2f} ± {line.stderr:.2f} ({len(known)} widths)")
        print(f"  {name:42s} {found[0]}, parabola {found[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", metavar="CORPUS")
    parser.add_argument("--lrs", type=int, default=LEAST_LRS, help="LRs of a cell and seed at least")
    args = parser.parse_args()
    if args.make:
        make(args.make, args.lrs)
        return
    frame = pd.read_csv(FILE)
    for name, way in WAYS.items():
        print(f"shift of ln LR* for each doubling, {LEVEL:.0%} interval from the seeds, optima by {name}")
        show(list(rows_of(frame, way)))
    published()


if __name__ == "__main__":
    main()
