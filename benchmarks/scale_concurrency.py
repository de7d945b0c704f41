"""What the search loses when runs go on side by side, replayed on measured losses and made-up functions.

A run takes one unit of time. At each unit the search suggests as many LRs as there is room for, and gets all
losses at its end. Peers get eight runs of each cell, in rounds of the same size, and answer with their best run.
Studies of several cells are of measured cells, of cells whose optima follow a made-up law, and of cells whose optima
follow none; "FLOPs" is what a search trains (parameters × tokens) in units of one run of each cell. Beside the breadth
that a study has, as many cells side by side as there is room for, with rounds as deep as there is room for then, and
three cells at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import optuna
from optimum_functions import Function
from search_replay import Cell, grid_cells

from raylr.analysis.across import AT_ONCE
from raylr.analysis.runs import RunEnd, Setting
from raylr.searchers.policies.quadratic import QuadraticPolicy
from raylr.searches import Breadth

ROOMS = (1, 4, 16, 64)
RUNS = 8
"""Most runs of a cell."""
TABLES = ("lr_grid_moe.csv", "lr_grid_dense.csv")
SHAPES = ("parabola", "cliff_to_10", "flat", "hinge", "sgd_like", "noise_2")

Loss = Callable[[float], float]


@dataclass(frozen=True, kw_only=True)
class MadeUp:
    """A cell with a made-up loss over the LR: a parabola with a skew, and noise."""

    setting: Setting
    optimum: float
    """ln of the best LR."""
    curvature: float
    skew: float
    floor: float
    noise: float
    low: float = 1e-4
    high: float = 1e-1

    def _excess(self, lr: float) -> float:
        x = math.log(lr) - self.optimum
        return self.curvature * x * x * (1 + 0.5 * math.tanh(self.skew * x))

    def loss(self, lr: float) -> float:
        """Loss of a run at `lr`; its noise follows from the LR, so that any search sees the same."""
        return self.floor + self._excess(lr) + self.noise * math.sin(1e5 * (math.log(lr) + self.optimum)) * math.sqrt(2)

    def regret(self, lr: float) -> float:
        """Percent above the lowest loss without noise."""
        return 100 * self._excess(lr) / self.floor


def made_up(seed: int, sizes: int, budgets: int, scatter: float) -> list[MadeUp]:
    """Return cells of a study.

    Args:
        seed: Seed of the law and of what the cells have besides.
        sizes: Number of model sizes.
        budgets: Number of token budgets of each.
        scatter: Standard deviation of ln of the best LR around the law.
    """
    rng = np.random.default_rng([11, seed])
    alpha, beta = rng.uniform(0.2, 0.6), rng.uniform(-0.4, 0.1)
    cells = []
    for size, budget in product(range(sizes), range(budgets)):
        params, tokens, floor = 1e7 * 2.5**size, 1e9 * 2.0**budget, 2 + 2 * 2.5 ** (-0.1 * size)
        law = math.log(3e-3) - alpha * math.log(params / 1e7) - beta * math.log(tokens / 1e9)
        cells.append(
            MadeUp(
                setting=Setting(name=f"{size}-{budget}", params=params, tokens=tokens),
                optimum=law + rng.normal(0, scatter), curvature=math.exp(rng.normal(math.log(0.05), 0.4)),
                skew=rng.normal(0, 0.15), floor=floor, noise=floor * 10 ** rng.uniform(-3.5, -2.7),
            )
        )  # fmt: skip
    return cells


def side_by_side(policy: QuadraticPolicy, losses: dict[str, Loss], room: int) -> tuple[int, int]:
    """Search with room for so many runs; return the number of runs and the units of time."""
    runs = units = 0
    while not policy.finished:
        going: list[Any] = []
        while len(going) < room and (one := policy.ask()) is not None:
            going.append(one)
        for one in going:
            loss = losses[one.setting.name](one.lr)
            policy.tell(one.run, RunEnd.COMPLETED if math.isfinite(loss) else RunEnd.DIVERGED, loss)
        runs, units = runs + len(going), units + 1
    return runs, units


def one_cell(low: float, high: float, loss: Loss, room: int, seed: int) -> tuple[float | None, int, int]:
    """Search one cell alone; return the LR, the number of runs and the units of time."""
    breadth = Breadth.for_room(room, 1)
    policy = QuadraticPolicy(lr_range=(low, high), max_trials=RUNS, batch=breadth.runs, seed=seed)
    runs, units = side_by_side(policy, {policy.settings[0].name: loss}, room)
    return policy.recommend().lr, runs, units


def peer(name: str, low: float, high: float, loss: Loss, room: int, seed: int) -> tuple[float | None, int, int]:
    """The same by a sampler of Optuna's."""
    samplers = {
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "TPE": lambda: optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=4),
        "GP": lambda: optuna.samplers.GPSampler(seed=seed, n_startup_trials=2),
    }
    study = optuna.create_study(sampler=samplers[name]())
    units = 0
    for left in range(RUNS, 0, -room):
        space = {"lr": optuna.distributions.FloatDistribution(low, high, log=True)}
        for one in [study.ask(space) for _ in range(min(room, left))]:
            value = loss(one.params["lr"])
            if math.isfinite(value):
                study.tell(one, value)
            else:
                study.tell(one, state=optuna.trial.TrialState.FAIL)
        units += 1
    done = [one for one in study.trials if one.value is not None]
    return (float(min(done, key=_value).params["lr"]) if done else None), RUNS, units


def _value(trial: Any) -> float:
    return float(trial.value)


def single(problems: Sequence[tuple[float, float, Loss, Callable[[float], float]]], seeds: int) -> dict[str, Any]:
    """Return name of a search -> room -> mean and 90th percentile of the regret (percent), runs and units of a cell."""
    found: dict[str, Any] = {}
    for name in ("raylr", "random", "TPE", "GP"):
        for room in ROOMS:
            rows = []
            for low, high, loss, regret in problems:
                for seed in range(seeds):
                    args = (low, high, loss, room, seed)
                    lr, runs, units = one_cell(*args) if name == "raylr" else peer(name, *args)
                    rows.append((regret(lr) if lr is not None else math.nan, runs, units))
            table = np.array(rows)
            found.setdefault(name, {})[room] = {
                "regret": float(np.nanmean(table[:, 0])),
                "regret_p90": float(np.nanquantile(table[:, 0], 0.9)),
                "runs": float(table[:, 1].mean()),
                "units": float(table[:, 2].mean()),
            }
    return found


def studies(groups: Sequence[Sequence[Cell | MadeUp]]) -> dict[str, Any]:
    """Return what a study takes: room -> regret, runs a cell, FLOPs and units a study, also with other breadths."""
    found = {}
    for room in ROOMS:
        labels = ("", "all at once", "three at a time") if room > AT_ONCE else ("",)
        for label in labels:
            rows = []
            for group in groups:
                breadth = _breadth(label, room, len(group))
                spent = 0.0

                def trained(cell: Cell | MadeUp, lr: float) -> float:
                    nonlocal spent
                    spent += _flops(cell)
                    return cell.loss(lr)

                policy = QuadraticPolicy(
                    [cell.setting for cell in group], max_trials=RUNS, settings_at_once=breadth.settings,
                    lr_range=(min(c.low for c in group), max(c.high for c in group)), batch=breadth.runs,
                    lead=breadth.lead,
                )  # fmt: skip
                runs, units = side_by_side(policy, {cell.setting.name: partial(trained, cell) for cell in group}, room)
                regrets = [cell.regret(policy.recommend(cell.setting).lr or math.nan) for cell in group]
                whole = sum(map(_flops, group))
                rows.append((float(np.mean(regrets)), runs / len(group), spent / whole, units))
            table = np.array(rows)
            names = ("regret", "runs", "flops", "units")
            found[f"{room}{label and ', '}{label}"] = dict(zip(names, table.mean(axis=0).tolist(), strict=True))
    return found


def _breadth(label: str, room: int, cells: int) -> Breadth:
    if label == "three at a time":
        return Breadth()
    if label == "all at once":
        return Breadth.for_room(room, cells, groups=False)
    return Breadth.for_room(room, cells)


def _flops(cell: Cell | MadeUp) -> float:
    return float(cell.setting.params or 1) * float(cell.setting.tokens or 1)


def function_problems(count: int, first: int) -> Sequence[tuple[float, float, Loss, Callable[[float], float]]]:
    """Return made-up functions from this number on as (low, high, loss, regret in percent)."""
    problems = []
    for kind in SHAPES:
        for number in range(first, first + count):
            made = Function(kind, number)
            rng = np.random.default_rng([7, number])

            def loss(lr: float, made: Function = made, rng: np.random.Generator = rng) -> float:
                return float(made.observe(lr, rng))

            def regret(lr: float, made: Function = made) -> float:
                value = float(made.truth(np.array([math.log(min(max(lr, made.low), made.high))]))[0])
                return 100 * (value - made.best) / made.unit if math.isfinite(value) else 100.0

            problems.append((made.low, made.high, loss, regret))
    return problems


def compare(every: int, functions: int, first: int = 0, *, quiet: bool) -> dict[str, Any]:
    """Measure and print; return the numbers.

    Args:
        every: Every n-th measured cell is taken, and of the studies of measured cells every (n / 8)-th.
        functions: Number of made-up functions of each kind, and of made-up studies.
        first: Number, that is seed, of the first of them.
        quiet: Whether nothing is printed.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    cells = [cell for table in TABLES for cell in grid_cells(table)]
    sample = [(cell.low, cell.high, cell.loss, cell.regret) for cell in cells[::every]]
    by_batch: dict[Any, list[Cell]] = {}
    for table in TABLES:
        for cell in grid_cells(table):
            by_batch.setdefault((table, cell.group), []).append(cell)
    groups = [group[:12] for group in by_batch.values() if len(group) >= 6][:: max(1, every // 8)]
    many = max(2, functions)
    law, no_law = ([made_up(seed, 4, 3, scatter) for seed in range(first, first + many)] for scatter in (0.15, 0.7))
    large = [made_up(seed, 8, 6, 0.15) for seed in range(first, first + many // 2)]
    report: dict[str, Any] = {}
    parts: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        (f"{len(groups)} studies of 6 to 12 measured cells", lambda: {"raylr": studies(groups)}),
        (f"{many} studies of 12 cells of a law", lambda: {"raylr": studies(law)}),
        (f"{len(large)} studies of 48 cells of a law", lambda: {"raylr": studies(large)}),
        (f"{many} studies of 12 cells of no law", lambda: {"raylr": studies(no_law)}),
        (f"{len(sample)} measured cells alone", lambda: single(sample, 1)),
        (
            f"{functions} made-up functions of {len(SHAPES)} kinds",
            lambda: single(function_problems(functions, first), 1),
        ),
    ]
    for title, measure in parts:
        report[title] = measure()
        if not quiet:
            columns = f"{'regret, %':>18}{'runs a cell':>13}{'FLOPs':>9}{'time in runs':>14}"
            print(f"\n{title}\n{'':8}{'side by side':>32}{columns}")
            for name, rows in report[title].items():
                for room, row in rows.items():
                    spread = f"({row['regret_p90']:.3f})" if "regret_p90" in row else ""
                    flops = f"{row['flops']:.2f}" if "flops" in row else ""
                    numbers = f"{row['regret']:>10.3f} {spread:7}{row['runs']:>13.1f}{flops:>9}{row['units']:>14.1f}"
                    print(f"{name:8}{room:>32}{numbers}", flush=True)
    return report
