"""The sections of `optimum.py`: each measures, prints its table and returns its numbers."""

import math
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optimum_functions import KINDS, MORE, UNDEFINED, Problem, functions
from optimum_methods import (
    EXACT,
    Trace,
    fits,
    in_parallel,
    runs_above_divergence,
    search_all,
    untried_beside_cliff,
)
from optimum_peers import BASELINES, Answer, search_peers
from optimum_tables import SELECTIONS, TABLES, TableCell, cells

Out = dict[str, Any]
CAP = 1000.0
"""Regrets above this, percent, count as this: a run that diverges."""
LEAST = {"all": 5, "six": 7, "four": 5, "around": 7}
"""LRs that a cell must have for a selection."""
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


def functions_section(options: Options) -> Out:
    """Made-up functions: the answer against what was tried, after 8 runs and when the search ends by itself."""
    kinds = options.kinds or KINDS + (MORE if options.more else ())
    print(f"\nmade-up functions, {options.count // options.every} of each kind: answers of the search; regrets in %")
    print("  worse: answer more than 1 % worse than the LR of the lowest measured loss / than the best LR tried")
    row("", "worse at 8", "worse at end", "regret at 8", "of the best", "GP at 8", "ok", "ok > 0.3 %", "runs to ok",
        "inside, ok", "inside, all", "past cliff", "untried")  # fmt: skip
    out: Out = {}
    with_gp = options.wants("Optuna GP") and bool(search_peers())
    for kind in kinds:
        problems = functions(kind, options.count)[:: options.every]
        full = [t[0] for t in search_all("raylr", problems, 1, 8, **EXACT)]
        ends = [t[0] for t in search_all("raylr", problems, 1, 8)]
        peer = [t[0] for t in search_all("Optuna GP", problems, 1, 8)] if with_gp else []
        out[kind] = numbers = _of_kind(problems, full, ends, peer)
        n = numbers
        row(kind, f"{n['worse_8']}/{n['worse_8_tried']}", f"{n['worse_end']}/{n['worse_end_tried']}", n["regret_8"],
            n["best_8"], n.get("gp_8", ""), f"{n['ok']:.0%}", n["ok_wrong"], n["runs_to_ok"], f"{n['covered_ok']:.0%}",
            f"{n['covered']:.0%}", f"{n['past_cliff']}/{n['runs']}", n["untried_ok"])  # fmt: skip
        if set(n["statuses"]) - {"ok", "uncertain"}:
            print(f"      {n['statuses']}")
        _print_worst(options.worst, problems, full)
    return out


def _of_kind(problems: list[Any], full: list[Trace], ends: list[Trace], peer: list[Trace]) -> Out:
    answers = [t.answers[-1] for t in ends]
    ok = [a.status == "ok" for a in answers]
    cover = [inside(p, a) if p.kind not in UNDEFINED else None for p, a in zip(problems, answers, strict=True)]
    both = list(zip(problems, full, strict=True))
    last = [(p, t, len(t.lrs)) for p, t in zip(problems, ends, strict=True)]
    out = {
        "worse_8": sum(worse(p, t.at(8).lr, t.best_measured(8)) for p, t in both),
        "worse_8_tried": sum(worse(p, t.at(8).lr, best_tried(p, t, 8)) for p, t in both),
        "worse_end": sum(worse(p, t.at(n).lr, t.best_measured(n)) for p, t, n in last),
        "worse_end_tried": sum(worse(p, t.at(n).lr, best_tried(p, t, n)) for p, t, n in last),
        "regret_8": float(np.mean([regret(p, t.at(8).lr) for p, t in both])),
        "best_8": float(np.mean([regret(p, best_tried(p, t, 8)) for p, t in both])),
        "median_8": float(np.median([regret(p, t.at(8).lr) for p, t in both])),
        "ok": float(np.mean(ok)),
        "ok_wrong": sum(o and regret(p, a.lr) > WRONG for p, a, o in zip(problems, answers, ok, strict=True)),
        "runs_to_ok": float(np.mean([len(t.lrs) for t, o in zip(ends, ok, strict=True) if o])) if any(ok) else math.nan,
        "covered": share(cover),
        "covered_ok": share([c for c, o in zip(cover, ok, strict=True) if o]),
        "past_cliff": sum(runs_above_divergence(t) for t in ends),
        "runs": sum(len(t.lrs) for t in ends),
        "untried_ok": sum(o and untried_beside_cliff(t) for t, o in zip(ends, ok, strict=True)),
        "statuses": dict(Counter(a.status for a in answers)),
        "count": len(problems),
    }  # fmt: skip
    if peer:
        out["gp_8"] = float(np.mean([regret(p, t.at(8).lr) for p, t in zip(problems, peer, strict=True)]))
    return out


def _print_worst(count: int, problems: list[Any], traces: list[Trace]) -> None:
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


def tables_section(options: Options) -> Out:
    """Answers from given points of every table."""
    out: Out = {}
    methods = {n: m for n, m in {**BASELINES, **fits()}.items() if options.wants(n)}
    for table in TABLES:
        problems = cells(table, smooth=True)[:: options.every]
        for selection in SELECTIONS:
            picked = [c for c in problems if c.lr.size >= LEAST[selection]]
            if not picked:
                continue
            print(f"\n{table}, {len(picked)} cells, LRs: {selection}; true regret in %")
            row("", "median", "mean", "90th pct", "worst", "inside 90 %", "no answer")
            for name, method in methods.items():

                def work(cell: TableCell, method: Any = method, selection: str = selection) -> Answer:
                    p = cell.select(selection)
                    return method(cell.lr[p], cell.measured[p])

                answers = in_parallel(work, picked) if name == "Gaussian process" else [work(c) for c in picked]
                out.setdefault(table, {}).setdefault(selection, {})[name] = _from_points(
                    name, picked, answers, selection, options.worst if name in fits() else 0
                )
    return out


def _from_points(name: str, problems: list[TableCell], answers: list[Answer], selection: str, worst: int) -> Out:
    lost = []
    for cell, a in zip(problems, answers, strict=True):
        p = cell.select(selection)
        lost.append(regret(cell, a.lr if math.isfinite(a.lr) else float(cell.lr[p][np.argmin(cell.measured[p])])))
    cover = share([inside(c, a) for c, a in zip(problems, answers, strict=True)])
    none = sum(not math.isfinite(a.lr) for a in answers)
    values = {"median": float(np.median(lost)), "mean": float(np.mean(lost)), "p90": float(np.quantile(lost, 0.9)),
              "worst": float(np.max(lost)), "covered": cover, "none": none,
              "statuses": dict(Counter(a.status for a in answers))}  # fmt: skip
    row(name, *(f"{values[k]:.4f}" for k in ("median", "mean", "p90", "worst")),
        "" if math.isnan(cover) else f"{cover:.0%}", none or "")  # fmt: skip
    for i in np.argsort(lost)[::-1][:worst]:
        p, a = problems[i].select(selection), answers[i]
        if lost[i] > WRONG:
            print(f"      {problems[i].name}: {lost[i]:.3g} %; lr {problems[i].lr[p].tolist()}, "
                  f"loss {problems[i].measured[p].round(5).tolist()}: {a.lr:.4g} {a.status}")  # fmt: skip
    return values


def sweeps_section(options: Options) -> Out:
    """`small_sweeps.csv`: the true loss at the answer after 8 and 16 runs."""
    problems: list[Any] = cells("small_sweeps")[:: options.every]
    if not problems:
        print("\nsmall_sweeps.csv is not there: skipped")
        return {}
    print(f"\nsmall_sweeps, {len(problems)} sweeps, searched: true regret of the answer in %")
    row("", "runs", "median", "mean", "worst", "best tried", "> 1 % worse")
    out: Out = {}
    for name in ("raylr", "Optuna GP"):
        if not options.wants(name):
            continue
        traces = search_all(name, problems, options.seeds, 16, **(EXACT if name == "raylr" else {}))
        for runs in (8, 16):
            flat = [(p, t) for p, ts in zip(problems, traces, strict=True) for t in ts]
            lost = [regret(p, t.at(runs).lr) for p, t in flat]
            best = [regret(p, best_tried(p, t, runs)) for p, t in flat]
            count = sum(worse(p, t.at(runs).lr, best_tried(p, t, runs)) for p, t in flat)
            values = {"median": float(np.median(lost)), "mean": float(np.mean(lost)), "worst": float(np.max(lost)),
                      "best_tried": float(np.mean(best)), "worse": count, "count": len(flat)}  # fmt: skip
            out.setdefault(name, {})[str(runs)] = values
            row(name, runs, values["median"], values["mean"], values["worst"], values["best_tried"], count)
        if name == "raylr":
            _print_worst(options.worst, problems, [ts[0] for ts in traces])
    return out


def search_section(options: Options) -> Out:
    """Every table replayed through the Searcher API."""
    counts = (3, 4, 6, 8)
    out: Out = {}
    for table in TABLES:
        problems: list[Any] = cells(table)[:: options.every]
        if not problems:
            continue
        print(f"\n{table}, {len(problems)} cells searched, {options.seeds} seed(s): true regret in %, mean (90th pct)")
        row("", *counts, wide=18)
        out[table] = {}
        for name in ("raylr", *search_peers()):
            if not options.wants(name):
                continue
            traces = search_all(name, problems, options.seeds, counts[-1], **(EXACT if name == "raylr" else {}))
            lost = np.array([[regret(p, t.at(n).lr) for n in counts]
                             for p, ts in zip(problems, traces, strict=True) for t in ts])  # fmt: skip
            mean, p90 = lost.mean(axis=0), np.quantile(lost, 0.9, axis=0)
            row(name, *(f"{m:.4f} ({q:.3f})" for m, q in zip(mean, p90, strict=True)), wide=18)
            out[table][name] = {"runs": counts, "mean": mean.tolist(), "p90": p90.tolist()}
        if options.wants("raylr"):
            out[table]["default"] = _ended(problems, options)
    return out


def _ended(problems: list[Any], options: Options) -> Out:
    """Searches with their defaults, until they end by themselves."""
    traces = search_all("raylr", problems, options.seeds, 8)
    flat = [(p, t) for p, ts in zip(problems, traces, strict=True) for t in ts]
    ok = [(p, t) for p, t in flat if t.answers[-1].status == "ok"]
    wrong = [(p, t) for p, t in ok if regret(p, t.answers[-1].lr) > WRONG]
    values = {
        "ok": len(ok) / len(flat),
        "ok_wrong": len(wrong) / max(len(ok), 1),
        "runs": float(np.mean([len(t.lrs) for _, t in flat])),
        "runs_to_ok": float(np.mean([len(t.lrs) for _, t in ok])) if ok else math.nan,
        "regret": float(np.mean([regret(p, t.answers[-1].lr) for p, t in flat])),
        "covered": share([inside(p, t.answers[-1]) for p, t in flat]),
        "covered_ok": share([inside(p, t.answers[-1]) for p, t in ok]),
        "past_cliff": sum(runs_above_divergence(t) for _, t in flat),
        "all_runs": sum(len(t.lrs) for _, t in flat),
        "untried_ok": sum(untried_beside_cliff(t) for _, t in ok),
        "worse": sum(worse(p, t.answers[-1].lr, best_tried(p, t, len(t.lrs))) for p, t in flat),
        "count": len(flat),
        "statuses": dict(Counter(t.answers[-1].status for _, t in flat)),
    }
    print(f"  ends by itself: {values['statuses']}; {values['runs']:.2f} runs, {values['runs_to_ok']:.2f} to ok; "
          f"mean regret {values['regret']:.4f} %; ok above {WRONG} %: {values['ok_wrong']:.1%}; "
          f"inside 90 %: {values['covered']:.0%}, of ok {values['covered_ok']:.0%};")  # fmt: skip
    print(f"    runs above a diverged LR {values['past_cliff']} of {values['all_runs']}; ok for an untried LR beside a "
          f"cliff {values['untried_ok']}; answers > 1 % worse than tried {values['worse']}", flush=True)  # fmt: skip
    for p, t in sorted(wrong, key=lambda pair: -regret(pair[0], pair[1].answers[-1].lr))[: options.worst]:
        print(f"      {p.name}: ok with {regret(p, t.answers[-1].lr):.3g} %; {points(p, t)}")
    return values


def speed_section(options: Options) -> Out:
    """Milliseconds of a suggestion and of its result at 1,000 trials, and of a fit of 12 points."""
    from search import timing

    out: Out = dict(timing((10, 100, 1000)))
    rng = np.random.default_rng(0)
    x = np.linspace(math.log(1e-4), math.log(1e-1), 12)
    for name, method in fits().items():
        times = []
        for _ in range(30):
            y = 2.5 + 0.03 * (x - math.log(3e-3)) ** 2 + 0.003 * rng.standard_normal(x.size)
            began = time.perf_counter()
            method(np.exp(x), y)
            times.append(time.perf_counter() - began)
        out[f"fit_ms_{name}"] = 1e3 * float(np.median(times))
        row(f"fit of 12 points: {name}", f"{out[f'fit_ms_{name}']:.2f} ms", first=36)
    return out
