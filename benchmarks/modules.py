"""How good is a search of the learning rate of each module, around the best global one?

    python benchmarks/modules.py [--count 50] [--noise 0 0.1 0.3] [--methods greedy joint] [--json out.json]

Made-up losses over the LRs of four modules with known optima: curvatures that differ by a factor of up to 20,
correlations between modules of up to 0.7, a skew, and noise (in percent of the loss, as between seeds; small MoE models
have 0.1 to 0.4 %). First the global LR is searched, which counts for both methods and for the grid; then the modules.
Printed for each noise and method:

* runs after the global search, the three replicates of its LR among them, beside the 28 of a greedy grid of 7 LRs a
  module (the three replicates of what was found, which the grid would need too, are not counted);
* cover: the share of 90 % intervals that hold the optimum of their module. Of the loss over all modules ("joint"), and
  for a greedy stage also of the loss over its module alone while the others are held ("held");
* width: the median of ln of the intervals' ratio, an open end counting as 3 from the starting place;
* what is lost at the answer, as a share of what is lost at the global optimum.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from raylr.searchers import RunEnd
from raylr.searchers.policies.modules import ModulesPolicy
from raylr.searchers.policies.modules_stages import ModuleAxis, ModuleStage

Array = NDArray[np.float64]
MODULES = ("lm_head", "router", "hidden", "embedding")
GRID = 7 * len(MODULES)
LEVEL = 3.0
OPEN = 3.0
REPLICATES = 3
RATIOS = (0.0, 0.05, 0.1, 0.2, 0.4, math.inf)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One made-up loss over ln of the modules' LRs."""

    best: Array
    loss: Callable[[Array], float]


def made_up(index: int) -> Problem:
    """Return problem number `index`: a positive definite quadratic in ln LR, skewed along the diagonal."""
    rng, d = np.random.default_rng([index, 7]), len(MODULES)
    best = rng.normal(0.0, 0.5, d)
    share = np.exp(rng.uniform(math.log(0.05), 0.0, d))
    curvature = share / share.sum() * LEVEL * math.exp(rng.uniform(math.log(0.004), math.log(0.03)))
    correlation = np.eye(d)
    while True:
        i, k = np.triu_indices(d, 1)
        correlation[i, k] = correlation[k, i] = rng.uniform(-0.5, 0.7, i.size)
        if np.linalg.eigvalsh(correlation)[0] > 0.1:
            break
    h, skew, one = np.sqrt(np.outer(curvature, curvature)) * correlation, rng.uniform(0.05, 0.4), np.ones(d)
    whole = float(one @ h @ one)

    def loss(x: Array) -> float:
        u = x - best
        t = float(one @ h @ u) / whole
        return LEVEL + float(u @ h @ u) + (2 * (math.expm1(skew * t) - skew * t) / skew**2 - t * t) * whole

    return Problem(best=best, loss=loss)


@dataclass
class Tally:
    """What the searches of one method at one noise gave."""

    runs: list[int] = field(default_factory=list)
    joint: list[bool] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    width: list[float] = field(default_factory=list)
    gain: list[float] = field(default_factory=list)
    ratio: list[float] = field(default_factory=list)
    """Scatter of a run over what a factor e of the global LR costs."""

    def summary(self) -> dict[str, float]:
        """Return the numbers that are printed."""
        return {
            "runs": float(np.mean(self.runs)),
            "most_runs": float(max(self.runs)),
            "runs_of_grid": float(np.mean(self.runs)) / GRID,
            "cover_joint": float(np.mean(self.joint)),
            "cover_held": float(np.mean(self.held)) if self.held else math.nan,
            "width": float(np.median(self.width)),
            "lost": float(np.exp(np.mean(np.log(self.gain)))),
            "worse": float(np.mean(np.array(self.gain) > 1)),
        }


def search(problem: Problem, method: str, noise: float, seed: int, tally: Tally) -> None:
    """Run one search and add what it gave."""
    rng = np.random.default_rng([seed, 8])
    policy = ModulesPolicy(
        axes={name: ModuleAxis(low=0.2, high=5.0) for name in MODULES}, lr_range=(0.05, 20.0),
        method="greedy" if method == "greedy" else "joint", whole=True, extend=True, replicates=REPLICATES,
    )  # fmt: skip
    while not policy.finished:
        one = policy.ask()
        assert one is not None
        x = np.log(one.lr * np.array([one.axes[name] for name in MODULES]))
        policy.tell(one.run, RunEnd.COMPLETED, problem.loss(x) + LEVEL * noise / 100 * rng.standard_normal())
    lr, found = policy.lr(), policy.recommend()
    assert lr is not None
    stages = [one for one in policy.stages() if one.names]
    tally.runs.append(REPLICATES + sum(len(one.runs) for one in stages))
    for stage in stages:
        _add(problem, math.log(lr), stage, tally)
    answer = np.log(lr * np.array([found.axes[name].value for name in MODULES]))
    start = problem.loss(np.full(len(MODULES), math.log(lr))) - LEVEL
    best = minimize_scalar(lambda v: problem.loss(np.full(len(MODULES), v)), bounds=(-6, 6), method="bounded")
    cost = [problem.loss(np.full(len(MODULES), float(best.x) + side)) - float(best.fun) for side in (-1, 1)]
    tally.ratio.append(LEVEL * noise / 100 / float(np.mean(cost)))
    tally.gain.append(max(problem.loss(answer) - LEVEL, 1e-9) / max(start, 1e-9))


def _add(problem: Problem, log_lr: float, stage: ModuleStage, tally: Tally) -> None:
    place = log_lr + np.log([stage.held[name] for name in MODULES])
    for name, answer in stage.answers.items():
        k = MODULES.index(name)
        low, high = _ends(answer.low, answer.high)
        tally.width.append(high - low)
        tally.joint.append(low <= problem.best[k] - log_lr <= high)
        if len(stage.names) == 1:
            unit = np.eye(len(MODULES))[k]
            held = place - unit * place[k]
            along = minimize_scalar(lambda v, a=held, e=unit: problem.loss(a + e * v), bounds=(-6, 6), method="bounded")
            tally.held.append(low <= float(along.x) - log_lr <= high)


def _ends(low: float, high: float) -> tuple[float, float]:
    return (math.log(low) if low > 0 else -OPEN), (math.log(high) if high < math.inf else OPEN)


def by_noise(tallies: list[Tally]) -> dict[str, float]:
    """Return how often searches ended worse than one LR, by the scatter over what a factor e of the LR costs."""
    ratio, gain = (np.concatenate([getattr(one, name) for one in tallies]) for name in ("ratio", "gain"))
    out = {}
    for low, high in itertools.pairwise(RATIOS):
        at = (ratio >= low) & (ratio < high)
        if at.any():
            out[f"{low:g} to {high:g}"] = float(np.mean(gain[at] > 1))
            print(f"scatter of {low:g} to {high:g} of what a factor e costs: {at.sum()} searches, "
                  f"{out[f'{low:g} to {high:g}']:.0%} worse than one LR")  # fmt: skip
    return out


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="made-up losses")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--noise", type=float, nargs="*", default=[0.0, 0.1, 0.3], help="percent of the loss")
    parser.add_argument("--methods", nargs="*", default=["greedy", "joint"])
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    report: dict[str, dict[str, float]] = {}
    tallies: dict[str, list[Tally]] = {method: [] for method in args.methods}
    print(f"{'noise':>6} {'method':>7} {'runs':>6} {'of grid':>8} {'cover':>6} {'held':>6} {'width':>6} {'lost':>6}"
          f" {'worse':>6}")  # fmt: skip
    for noise in args.noise:
        for method in args.methods:
            tally = Tally()
            for i in range(args.first, args.first + args.count):
                search(made_up(i), method, noise, i, tally)
            tallies[method].append(tally)
            one = report[f"{method} at {noise:g} %"] = tally.summary()
            shares = " ".join(f"{one[name]:>6.0%}" for name in ("cover_joint", "cover_held"))
            print(
                f"{noise:>5.1f}% {method:>7} {one['runs']:>6.1f} {one['runs_of_grid']:>8.0%} {shares} "
                f"{one['width']:>6.2f} {one['lost']:>6.2f} {one['worse']:>6.0%}",
                flush=True,
            )
            if args.json is not None:
                args.json.write_text(json.dumps(report, indent=1) + "\n")
    for method, found in tallies.items():
        print(f"\n{method}, all noises")
        report[f"{method} by noise over cost"] = by_noise(found)
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
