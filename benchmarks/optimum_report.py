"""What the sections of `optimum.py` share: their options, the lines they print, and the scores of an answer."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from optimum_functions import Problem
from optimum_methods import Trace
from optimum_peers import Answer
from replay_data import DATA

Out = dict[str, Any]
CAP = 1000.0
"""Regrets above this, percent, count as this: a run that diverges."""
LEAST_REGRET = 0.01
"""Regrets below this, percent, count as this where their logarithms are averaged."""
WRONG = 0.3
"""Regret, percent, from which an "ok" is wrong."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asked for."""

    more: bool = False
    kinds: list[str] | None = None
    count: int = 60
    every: int = 1
    seeds: int = 1
    only: list[str] | None = None
    worst: int = 0
    plot: Path | None = None
    data: Path = DATA
    """Folder of the tables."""
    earlier: Out = field(default_factory=dict)
    """Numbers of an earlier run, whose peers are taken from there."""

    def wants(self, name: str) -> bool:
        """Whether the method of this name is asked for."""
        return not self.only or any(word in name for word in self.only)


def row(title: str, *values: Any, wide: int = 12, first: int = 24) -> None:
    """One line of a table."""
    cells = (f"{v:>{wide}.3f}" if isinstance(v, float) else f"{v!s:>{wide}}" for v in values)
    print(f"  {title:{first}}" + "".join(cells), flush=True)


def regret(problem: Problem, lr: float) -> float:
    """Percent, capped; the cap for no answer."""
    return min(problem.regret(lr), CAP) if math.isfinite(lr) and lr > 0 else CAP


def typical(regrets: list[float]) -> float:
    """Geometric mean of regrets, percent, each at least `LEAST_REGRET`: a mean would be that of the worst few."""
    return float(np.exp(np.mean(np.log(np.maximum(regrets, LEAST_REGRET)))))


def worse(problem: Problem, lr: float, than: float, share: float = 0.01) -> bool:
    """Whether `lr` is truly more than `share` worse than the LR `than`."""
    if not math.isfinite(than):
        return False
    if not math.isfinite(lr):
        return True
    base = problem.loss(than)
    if not math.isfinite(base):
        return False
    unit = abs(base) if problem.unit == abs(problem.best) else problem.unit
    loss = problem.loss(lr)
    return not loss <= base + share * unit * (1 + 1e-9)


def best_tried(problem: Problem, trace: Trace, runs: int) -> float:
    """The LR tried whose true loss is the lowest."""
    values = [problem.loss(lr) for lr in trace.tried(runs)]
    return trace.lrs[int(np.nanargmin(values))] if np.isfinite(values).any() else math.nan


def inside(problem: Problem, answer: Answer, slack: float = 1e-3) -> bool | None:
    """Whether the interval holds the optimum; None without an interval."""
    if not (math.isfinite(answer.low) or math.isfinite(answer.high)) or math.isnan(answer.low + answer.high):
        return None
    low = math.log(answer.low) if answer.low > 0 else -math.inf
    high = math.log(answer.high) if answer.high > 0 else -math.inf
    return low - slack <= problem.optimum[1] and problem.optimum[0] <= high + slack


def share(values: list[Any]) -> float:
    """Of the values that are not None; NaN without any."""
    known = [bool(v) for v in values if v is not None]
    return float(np.mean(known)) if known else math.nan


def print_worst(count: int, problems: list[Any], traces: list[Trace]) -> None:
    """The problems whose answer costs most over the best LR tried, with all that was measured."""
    loss = [regret(p, t.answers[-1].lr) - regret(p, best_tried(p, t, len(t.lrs)))
            for p, t in zip(problems, traces, strict=True)]  # fmt: skip
    for i in np.argsort(loss)[::-1][:count]:
        if loss[i] > WRONG:
            print(f"      {problems[i].name}: {loss[i]:.3g} % worse than tried; {points(problems[i], traces[i])}")


def points(problem: Problem, trace: Trace) -> str:
    """What was measured and answered, to be pasted into a test."""
    said = trace.answers[-1]
    lrs, losses = ([float(f"{v:.5g}") for v in values] for values in (trace.lrs, trace.losses))
    best = math.exp(problem.optimum[0])
    return (f"lr {lrs}, loss {losses}: {said.lr:.4g} {said.status} [{said.low:.3g}, {said.high:.3g}], "
            f"true optimum {best:.4g}, range {problem.low:.3g} to {problem.high:.3g}")  # fmt: skip
