"""The sections of `optimum.py` that hand points to a fit: tables, units of the loss, speed."""

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from optimum_functions import KINDS, MORE, UNDEFINED, Function, functions
from optimum_methods import fits, in_parallel
from optimum_peers import BASELINES, Answer
from optimum_report import WRONG, Options, Out, inside, regret, row, share, typical, worse
from optimum_tables import SELECTIONS, TABLES, TableCell, cells

LEAST = {"all": 5, "six": 7, "four": 5, "around": 7}
"""LRs that a cell must have for a selection."""


def tables_section(options: Options) -> Out:
    """Answers from given points of every table."""
    out: Out = {}
    methods = {n: m for n, m in {**BASELINES, **fits()}.items() if options.wants(n)}
    for table in TABLES:
        problems = cells(table, options.data, smooth=True)[:: options.every]
        for selection in SELECTIONS:
            picked = [c for c in problems if c.lr.size >= LEAST[selection]]
            if not picked:
                continue
            print(f"\n{table}, {len(picked)} cells, LRs: {selection}; true regret in %")
            row("", "median", "mean", "90th pct", "worst", "geom. mean", "inside 90 %", "no answer")
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
              "worst": float(np.max(lost)), "typical": typical(lost), "covered": cover, "none": none,
              "statuses": dict(Counter(a.status for a in answers))}  # fmt: skip
    row(name, *(f"{values[k]:.4f}" for k in ("median", "mean", "p90", "worst", "typical")),
        "" if math.isnan(cover) else f"{cover:.0%}", none or "")  # fmt: skip
    for i in np.argsort(lost)[::-1][:worst]:
        p, a = problems[i].select(selection), answers[i]
        if lost[i] > WRONG:
            print(f"      {problems[i].name}: {lost[i]:.3g} %; lr {problems[i].lr[p].tolist()}, "
                  f"loss {problems[i].measured[p].round(5).tolist()}: {a.lr:.4g} {a.status}")  # fmt: skip
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


def made_up_section(options: Options) -> Out:
    """Answers from four to ten LRs, evenly spaced or drawn at random, of made-up functions."""
    kinds = options.kinds or KINDS + (MORE if options.more else ())
    methods = {n: m for n, m in {**BASELINES, **fits()}.items() if options.wants(n) and n != "Gaussian process"}
    print(f"\nmade-up functions, {options.count // options.every} of each kind, 4 to 10 LRs given")
    print("  geometric mean regret in % (answers more than 1 % worse than the LR of the lowest measured loss)")
    row("", *methods, "inside, all", "inside, ok", "ok", "ok > 0.3 %", wide=22, first=18)
    out: Out = {}
    for kind in kinds:
        problems = functions(kind, options.count)[:: options.every]
        given = [(p, *_design(p)) for p in problems]
        given = [(p, lr, loss) for p, lr, loss in given if np.isfinite(loss).any()]
        said, out[kind] = [], {}
        for name, method in methods.items():
            answers = [method(lr, loss) for _, lr, loss in given]
            best = [float(lr[np.nanargmin(loss)]) for _, lr, loss in given]
            at = [a.lr if math.isfinite(a.lr) else b for a, b in zip(answers, best, strict=True)]
            count = sum(worse(p, one, b) for (p, _, _), one, b in zip(given, at, best, strict=True))
            usual = typical([regret(p, one) for (p, _, _), one in zip(given, at, strict=True)])
            out[kind][name] = {"typical": usual, "worse": count, "count": len(given)}
            said.append(f"{usual:.3f} ({count})")
        if "raylr" in methods:
            ours = [methods["raylr"](lr, loss) for _, lr, loss in given]
            numbers = _intervals([p for p, _, _ in given], ours)
            out[kind]["raylr"] |= numbers
            said += [
                f"{numbers['covered']:.0%}",
                f"{numbers['covered_ok']:.0%}",
                f"{numbers['ok']:.0%}",
                numbers["wrong"],
            ]
        row(kind, *said, wide=22, first=18)
        if "raylr" in methods:
            _show_worst(options.worst, given, ours)
    return out


def _intervals(problems: list[Function], answers: list[Answer]) -> Out:
    cover = [inside(p, a) if p.kind not in UNDEFINED else None for p, a in zip(problems, answers, strict=True)]
    ok = [a.status == "ok" for a in answers]
    wrong = sum(o and regret(p, a.lr) > WRONG for p, a, o in zip(problems, answers, ok, strict=True))
    return {"covered": share(cover), "covered_ok": share([c for c, o in zip(cover, ok, strict=True) if o]),
            "ok": float(np.mean(ok)), "wrong": wrong, "statuses": dict(Counter(a.status for a in answers))}  # fmt: skip


def _design(problem: Function) -> tuple[np.ndarray, np.ndarray]:
    """LRs and measured losses (n,)."""
    rng = problem.rng(99)
    n = int(rng.integers(4, 11))
    ends = math.log(problem.low), math.log(problem.high)
    x = np.linspace(*ends, n) if rng.uniform() < 0.5 else np.sort(rng.uniform(*ends, n))
    return np.exp(x), np.array([problem.observe(float(lr), rng) for lr in np.exp(x)])


def _show_worst(count: int, given: list[tuple[Function, np.ndarray, np.ndarray]], answers: list[Answer]) -> None:
    lost = [regret(p, a.lr) - regret(p, float(lr[np.nanargmin(loss)])) if math.isfinite(a.lr) else 0.0
            for (p, lr, loss), a in zip(given, answers, strict=True)]  # fmt: skip
    for i in np.argsort(lost)[::-1][:count]:
        p, lr, loss = given[i]
        if lost[i] > WRONG:
            print(f"      {p.name}: {lost[i]:.3g} % worse; lr {[float(f'{v:.4g}') for v in lr]}, "
                  f"loss {[float(f'{v:.5g}') for v in loss]}: {answers[i].lr:.4g} {answers[i].status}, "
                  f"true optimum {math.exp(p.optimum[0]):.4g}")  # fmt: skip


UNITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "times 1e6": lambda y: 1e6 * y,
    "times 1e-6": lambda y: 1e-6 * y,
    "less its lowest": lambda y: y - np.nanmin(y),
    "less 1000 of its range": lambda y: y - 1000 * np.nanmax(y - np.nanmin(y)),
    "plus 1000 of its range": lambda y: y + 1000 * np.nanmax(y - np.nanmin(y)),
    "in another order": lambda y: y,
    "LRs times 1e-3": lambda y: y,
}
"""Changes that must not change the LR."""


def units_section(options: Options) -> Out:
    """The same losses in other units: LRs that change by more than 1 %, statuses that change."""
    method = fits().get("raylr")
    if method is None or not options.wants("raylr"):
        return {}
    kinds = KINDS + (MORE if options.more else ())
    given = [_design(p) for kind in kinds for p in functions(kind, 12)[:: options.every]]
    given += [(c.lr, c.measured) for name in TABLES for c in cells(name, options.data)[:: 10 * options.every]]
    given = [(lr, loss) for lr, loss in given if np.isfinite(loss).any()]
    print(f"\nthe same {len(given)} sets of losses in other units")
    row("", "LR differs", "status differs", wide=16, first=30)
    out: Out = {}
    plain = [method(lr, loss) for lr, loss in given]
    for name, change in UNITS.items():
        factor = 1e-3 if name.startswith("LRs") else 1.0
        step = -1 if name == "in another order" else 1
        lrs, statuses = [], []
        for (lr, loss), before in zip(given, plain, strict=True):
            after = method(factor * lr[::step], change(loss)[::step])
            if not (math.isnan(after.lr) and math.isnan(before.lr)):
                lrs.append(not abs(math.log(after.lr / factor / before.lr)) < 0.01)
            statuses.append(after.status != before.status)
        out[name] = {"lr": sum(lrs), "status": sum(statuses), "count": len(given)}
        row(name, sum(lrs), sum(statuses), wide=16, first=30)
    return out
