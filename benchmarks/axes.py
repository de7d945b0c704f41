"""How good is a search over the learning rate and a second hyperparameter?

    python benchmarks/axes.py                             # everything below
    python benchmarks/axes.py --functions --count 20      # made-up functions
    python benchmarks/axes.py --tables                    # LR × batch of real runs, interpolated
    python benchmarks/axes.py --kinds "NaN cliff" --only raylr --json out.json

raylr beside Optuna's Gaussian process (two startup trials), TPE and CMA-ES and random search, whose answer is the best
place that they measured. Regrets in percent of the lowest loss, of the true loss at the answer. Data: RAYLR_DATA."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import math
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from axes_problems import KINDS, Place, Problem, made_up, tables
from search_replay import quiet

from raylr.searchers import AxesPolicy, Recommendation, RunEnd

AT = (6, 9, 12)
"""Runs after which answers are compared."""
WORSE = 1.0
"""An answer this much worse than the best place tried, in percent, is a defect."""
WRONG = 0.3
"""Regret in percent above which an `ok` is wrong."""
LEAST = 1e-4
"""Regrets below this count as this in geometric means, in percent."""


@dataclass
class Trace:
    """One search: the regret of the answer and of the best place tried after every run."""

    regret: list[float] = field(default_factory=list)
    tried: list[float] = field(default_factory=list)
    answers: list[Recommendation | None] = field(default_factory=list)


def measured(problem: Problem, place: Place, rng: np.random.Generator) -> float:
    return problem.loss(place) + problem.noise * float(rng.standard_normal())


def raylr(problem: Problem, seed: int, runs: int) -> Trace:
    names = [f"axis{k}" for k in range(1, len(problem.ranges))]
    policy = AxesPolicy(
        lr_range=problem.ranges[0], axes=dict(zip(names, problem.ranges[1:], strict=True)), max_trials=runs,
        tolerance=1e-12, seed=seed,
    )  # fmt: skip
    rng, out, tried = np.random.default_rng(seed), Trace(), math.inf
    while len(out.regret) < runs:
        found = policy.ask()
        if found is not None:
            place = tuple(math.log(v) for v in (found.lr, *found.axes.values()))
            loss = measured(problem, place, rng)
            policy.tell(found.run, RunEnd.COMPLETED, loss)
            tried = min(tried, problem.regret(place))
        said = policy.recommend()
        values = (said.lr or math.nan, *(a.value for a in said.axes.values()))
        out.regret.append(problem.regret(tuple(math.log(v) for v in values)) if said.lr else 100.0)
        out.tried.append(tried)
        out.answers.append(said)
    return out


def optuna_search(kind: str, problem: Problem, seed: int, runs: int) -> Trace:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options = {"GPSampler": {"n_startup_trials": 2}}.get(kind, {})
    study = optuna.create_study(sampler=getattr(optuna.samplers, kind)(seed=seed, **options))
    rng, out, best, tried = np.random.default_rng(seed), Trace(), (math.inf, 100.0), math.inf
    for _ in range(runs):
        trial = study.ask()
        place = tuple(math.log(trial.suggest_float(f"x{k}", *ends, log=True)) for k, ends in enumerate(problem.ranges))
        loss = measured(problem, place, rng)
        study.tell(trial, loss if math.isfinite(loss) else None, state=None if math.isfinite(loss) else _failed())
        tried = min(tried, problem.regret(place))
        if math.isfinite(loss):
            best = min(best, (loss, problem.regret(place)))
        out.regret.append(best[1])
        out.tried.append(tried)
        out.answers.append(None)
    return out


def _failed() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL


METHODS: dict[str, Any] = {
    "raylr": raylr,
    "Optuna GP": lambda *a: optuna_search("GPSampler", *a),
    "Optuna TPE": lambda *a: optuna_search("TPESampler", *a),
    "Optuna CMA-ES": lambda *a: optuna_search("CmaEsSampler", *a),
    "random": lambda *a: optuna_search("RandomSampler", *a),
}


NEEDS = {"Optuna GP": "torch", "Optuna CMA-ES": "cmaes"}
"""Packages without which a method is left out."""


def typical(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, LEAST)))))


def compare(kind: str, problems: list[Problem], only: list[str] | None) -> dict[str, Any]:
    """Numbers of all methods on the problems of one kind, printed."""
    out: dict[str, Any] = {}
    for name, search in METHODS.items():
        if (only and not any(word in name for word in only)) or (name in NEEDS and find_spec(NEEDS[name]) is None):
            continue
        began = time.perf_counter()
        traces = [search(problem, i if name != "raylr" else 0, AT[-1]) for i, problem in enumerate(problems)]
        out[name] = numbers = {
            "mean": [float(np.mean([t.regret[n - 1] for t in traces])) for n in AT],
            "typical": [typical([t.regret[n - 1] for t in traces]) for n in AT],
            "worst": [float(max(t.regret[n - 1] for t in traces)) for n in AT],
            "worse": sum(t.regret[n - 1] > t.tried[n - 1] + WORSE for t in traces for n in AT),
            "seconds": (time.perf_counter() - began) / len(traces) / AT[-1],
        }
        text = " ".join(f"{m:8.3f} /{g:7.4f} /{w:6.2f} |" for m, g, w in
                        zip(numbers["mean"], numbers["typical"], numbers["worst"], strict=True))  # fmt: skip
        title = f"{kind if name == 'raylr' else '':18s}{name:14s}"
        print(f"  {title}{text} worse {numbers['worse']}/{len(traces) * len(AT)}, {1e3 * numbers['seconds']:.0f} ms")
        if name == "raylr":
            numbers |= honesty(problems, traces)
            print(f"  {'':32s}{numbers['said']}", flush=True)
    return out


def honesty(problems: list[Problem], traces: list[Trace]) -> dict[str, Any]:
    """Coverage of the 90 % intervals and of the ridge's, and what was called ok."""
    inside: dict[str, list[bool]] = {f"{n} runs": [] for n in AT}
    ridges, ok, wrong, flat = [], 0, 0, 0
    for problem, trace in zip(problems, traces, strict=True):
        for n in AT:
            said = trace.answers[n - 1]
            if said is None or said.lr is None:
                continue
            ok += said.status == "ok"
            wrong += said.status == "ok" and trace.regret[n - 1] > WRONG
            flat += "makes no difference" in said.reason
            assert said.lr_low is not None
            assert said.lr_high is not None
            ends = [(said.lr_low, said.lr_high), *((a.low, a.high) for a in said.axes.values())]
            if problem.best is not None:
                pairs = zip(problem.best, ends, strict=True) if not problem.flat else [(problem.best[0], ends[0])]
                inside[f"{n} runs"] += [low <= math.exp(m) * (1 + 1e-9) and math.exp(m) <= high * (1 + 1e-9)
                                        for m, (low, high) in pairs]  # fmt: skip
            ridge = said.ridges.get("axis1")
            if problem.slope is not None and ridge is not None and n == AT[-1]:
                ridges.append(ridge.low <= problem.slope <= ridge.high)
    share = {k: float(np.mean(v)) for k, v in inside.items() if v}
    line = f"inside {', '.join(f'{v:.0%} at {k}' for k, v in share.items())}; " if share else ""
    line += f"ridge {np.mean(ridges):.0%}; " if ridges else ""
    line += f"ok {ok}, of these regret > {WRONG} %: {wrong}; flat {flat}"
    return {"covered": share, "ridge": float(np.mean(ridges)) if ridges else None, "ok": ok, "wrong": wrong,
            "flat": flat, "said": line}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", action="store_true", help="made-up functions (default: both sections)")
    parser.add_argument("--tables", action="store_true", help="tables of real runs")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help="these kinds of functions only")
    parser.add_argument("--count", type=int, default=20, help="functions of a kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first function")
    parser.add_argument("--only", nargs="*", help="words of the names of methods")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    quiet()
    both = args.functions == args.tables
    report: dict[str, Any] = {}
    print(f"true regret of the answer after {', '.join(map(str, AT))} runs, %: mean / geometric mean / worst")
    if args.functions or both:
        for kind in args.kinds:
            problems = [made_up(kind, args.first + i) for i in range(args.count)]
            report[kind] = compare(kind, problems, args.only)
    if args.tables or both:
        found = tables()
        for kind in dict.fromkeys(p.kind for p in found):
            report[kind] = compare(kind, [p for p in found if p.kind == kind], args.only)
        if not found:
            print("  the tables are not there: skipped")
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
