"""Made-up laws whose optimum after a decay is known: do 90 % intervals hold it?

    python benchmarks/decayed_truths.py [--count 12] [--first 100] [--laws "LR-area law" …] [--json out.json]

Four LRs a factor 2 apart have stable curves, and two of them (at random) a branch with the decay that is asked for, at
30 or 50 % of the budget, as a study has them. Each truth is

    L = l0 + a (LR area)^-alpha + b (floor at the peak LR) - b (what the fall of the LR has taken away so far) + noise

with one of the responses to a fall in `RESPONSES`; draws whose best LR after the decay lies outside of the four LRs
do not count, since no interval is closed there. Draws 0 to 99 of the first three responses were looked at while the
intervals were made; the other two and draws from 100 on were not.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from laws_tables import Out, row

from raylr.analysis import Decay
from raylr.analysis.surface.decayed import Branch, annealing_of, decayed_optimum

STEPS, LRS = 50000.0, (2.5e-4, 5e-4, 1e-3, 2e-3)
FRACTIONS = (0.2, 0.6)
REPORTS, PIECES = 100, 200
"""Reports of a whole run, and pieces of its fall."""
NOISE = 0.001
INSIDE = (3.5e-4, 2e-3)
Response = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Steps and LR area (in 1e-3 x steps) since a fall, and the LR to which it fell (in 1e-3) -> share of the fall that has
been taken away."""


@dataclass(frozen=True)
class Truth:
    """A made-up law."""

    l0: float
    a: float
    alpha: float
    b: float
    power: float
    """The floor grows as this power of the LR."""
    response: Response
    levels: dict[float, float]
    """Deviation of the runs of each LR from the law, nats."""

    def loss(self, lr: float, steps: np.ndarray, budget: float, decay: Decay | None) -> np.ndarray:
        """Losses at `steps` of a run of `budget` steps; None: at a constant LR."""
        grid, eta, area, fall = self._path(lr, budget, decay)
        taken = np.zeros(grid.size)
        for at in np.flatnonzero(fall > 0):
            later = slice(at, None)
            taken[later] += fall[at] * self.response(grid[later] - grid[at], area[later] - area[at], eta[at : at + 1])
        y = self.l0 + self.a * area**-self.alpha + self.b * ((1e3 * lr) ** self.power - taken)
        return np.asarray(np.interp(steps, grid, y) + self.levels.get(lr, 0.0))

    def end(self, lr: float, budget: float, decay: Decay) -> float:
        """Loss at the end of a run."""
        grid, eta, area, fall = self._path(lr, budget, decay)
        taken = float(fall @ self.response(grid[-1] - grid, area[-1] - area, eta))
        floor = self.b * ((1e3 * lr) ** self.power - taken)
        return float(self.l0 + self.a * area[-1] ** -self.alpha + floor + self.levels.get(lr, 0.0))

    def _path(self, lr: float, budget: float, decay: Decay | None) -> tuple[np.ndarray, ...]:
        grid = np.linspace(0.0, budget, 2001)[1:]
        eta = 1e3 * lr * (np.ones(grid.size) if decay is None else decay.factor(grid, budget))
        return grid, eta, np.cumsum(eta) * (grid[1] - grid[0]), np.append(0.0, -np.diff(eta**self.power))


def _area(steps: np.ndarray, area: np.ndarray, eta: np.ndarray, *, delay: float) -> np.ndarray:
    return 1 - np.exp(-steps / delay)


def _multi_power(
    steps: np.ndarray, area: np.ndarray, eta: np.ndarray, *, rate: float, beta: float, gamma: float
) -> np.ndarray:
    return 1 - (1 + rate * np.maximum(eta, 1e-3) ** -gamma * area / 1e4) ** -beta


def _exponential(steps: np.ndarray, area: np.ndarray, eta: np.ndarray, *, delay: float) -> np.ndarray:
    return 1 - np.exp(-area / delay)


def _stretched(steps: np.ndarray, area: np.ndarray, eta: np.ndarray, *, delay: float, beta: float) -> np.ndarray:
    return 1 - np.exp(-((area / delay) ** beta))


def _two_speeds(steps: np.ndarray, area: np.ndarray, eta: np.ndarray, *, fast: float, slow: float) -> np.ndarray:
    return 1 - 0.5 * np.exp(-steps / fast) - 0.5 * np.exp(-steps / slow)


def _delay(rng: np.random.Generator, low: float = 0.01, high: float = 0.5) -> float:
    return float(STEPS * np.exp(rng.uniform(math.log(low), math.log(high))))


RESPONSES: dict[str, Callable[[np.random.Generator], Response]] = {
    "LR-area law": lambda rng: partial(_area, delay=_delay(rng)),
    "multi-power law": lambda rng: partial(
        _multi_power, rate=float(np.exp(rng.uniform(math.log(0.3), math.log(30)))), beta=rng.uniform(0.4, 0.6),
        gamma=rng.uniform(0.4, 0.6),
    ),
    "exponential in the area": lambda rng: partial(_exponential, delay=_delay(rng)),
    "stretched": lambda rng: partial(_stretched, delay=_delay(rng), beta=rng.uniform(0.4, 0.8)),
    "two speeds": lambda rng: partial(_two_speeds, fast=_delay(rng, 0.005, 0.05), slow=_delay(rng, 0.05, 0.5)),
}  # fmt: skip


def made_up(name: str, fraction: float, number: int) -> tuple[Truth, float, np.random.Generator]:
    """Return the law of a number, its best LR after the decay at `STEPS`, and a generator for what is measured."""
    rng = np.random.default_rng([number, *name.encode(), round(100 * fraction)])
    grid, decay = np.geomspace(LRS[0] / 2, LRS[-1] * 2, 61), Decay(fraction=fraction)
    while True:
        truth = Truth(
            l0=rng.uniform(2.0, 3.0), a=rng.uniform(3.0, 12.0), alpha=rng.uniform(0.2, 0.45), b=rng.uniform(0.02, 0.4),
            power=rng.uniform(0.5, 1.0), response=RESPONSES[name](rng),
            levels={lr: 0.001 * rng.standard_normal() for lr in LRS},
        )  # fmt: skip
        y = np.array([truth.end(float(lr), STEPS, decay) for lr in grid])
        best = float(grid[int(np.argmin(y))])
        if INSIDE[0] <= best <= INSIDE[1]:
            return truth, best, rng


def answered(truth: Truth, fraction: float, rng: np.random.Generator) -> tuple[float, float, float, np.ndarray]:
    """Return the best LR after the decay, the ends of its interval, and z of the predicted losses' differences."""
    decay = Decay(fraction=fraction)
    steps = np.linspace(0.0, STEPS, REPORTS + 1)[2:]
    stable = [(lr, steps, truth.loss(lr, steps, STEPS, None) + NOISE * rng.standard_normal(steps.size)) for lr in LRS]
    branches = []
    for lr in rng.choice(LRS, 2, replace=False):
        budget = STEPS * float(rng.choice([0.3, 0.5]))
        at = np.linspace(budget * (1 - fraction), budget, 9)[1:]
        loss = truth.loss(float(lr), at, budget, decay) + NOISE * rng.standard_normal(at.size)
        branches.append(Branch(lr=float(lr), budget=budget, tokens=at, loss=loss))
    fit = annealing_of(stable, branches, decay)
    found = decayed_optimum(fit, decay, STEPS, LRS)
    mean, covariance = fit.ends([decay.path(lr, STEPS) for lr in LRS])
    true = np.array([truth.end(lr, STEPS, decay) for lr in LRS])
    apart = np.diff(mean - true) / np.sqrt(np.diag(np.diff(np.diff(covariance, axis=0), axis=1)))
    return found.lr, *found.interval(), apart


def decayed_truths(count: int, first: int, names: list[str]) -> Out:
    """Print and return the coverage, a row for each response and fraction."""
    print(f"\nmade-up laws, {count} draws from {first} on: the best LR after a linear decay, from two branches")
    row("decay, law", "inside 90 %", "open", "half width", "error of ln lr, rms", "mean", "z of differences, rms")
    out: Out = {}
    for fraction in FRACTIONS:
        for name in names:
            each, z = [], []
            for number in range(first, first + count):
                truth, best, rng = made_up(name, fraction, number)
                lr, low, high, apart = answered(truth, fraction, rng)
                closed = 0 < low < high < math.inf
                width = 0.5 * math.log(high / low) if closed else math.nan
                each.append((low <= best <= high, not closed, width, math.log(lr / best)))
                z.append(apart)
            inside, opened, width, error = np.array(each, float).T
            middle = f"{np.nanmedian(width):.2f}" if np.isfinite(width).any() else ""
            spread = float(np.sqrt(np.mean(np.square(z))))
            row(f"{fraction:.0%}, {name}", f"{inside.mean():.0%}", f"{opened.mean():.0%}", middle,
                f"{np.sqrt(np.mean(error**2)):.2f}", f"{error.mean():+.2f}", f"{spread:.2f}")  # fmt: skip
            key = f"truths_{round(100 * fraction)}_{name.replace(' ', '_').replace('-', '_')}"
            out |= {f"{key}_inside": float(inside.mean()), f"{key}_error": float(np.sqrt(np.mean(error**2)))}
    return out


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12, help="draws of each law and fraction")
    parser.add_argument("--first", type=int, default=100, help="number of the first draw")
    parser.add_argument("--laws", nargs="*", default=list(RESPONSES), choices=list(RESPONSES))
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    found = decayed_truths(args.count, args.first, args.laws)
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
