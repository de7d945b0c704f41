"""The sections of `optimum.py` that search: made-up functions, `small_sweeps.csv`, every table."""

import math
from collections import Counter
from typing import Any

import numpy as np
import optimum_plots
from optimum_functions import KINDS, MORE, UNDEFINED, functions
from optimum_methods import EXACT, Trace, runs_above_divergence, search_all, untried_beside_cliff
from optimum_peers import search_peers
from optimum_report import (
    WRONG,
    Options,
    Out,
    best_tried,
    inside,
    points,
    print_worst,
    regret,
    row,
    share,
    typical,
    worse,
)
from optimum_tables import TABLES, cells


def functions_section(options: Options) -> Out:
    """Made-up functions: the answer against what was tried, after 8 runs and when the search ends by itself."""
    kinds = options.kinds or KINDS + (MORE if options.more else ())
    print(f"\nmade-up functions, {options.count // options.every} of each kind: answers of the search")
    print("  regrets in %, geometric means")
    print("  worse: answer more than 1 % worse than the LR of the lowest measured loss / than the best LR tried")
    print("  stated: true regret more than 0.1 % and five times the stated one; untried: ok beside a cliff;")
    print("  extended: answer more than 1 % worse than the optimum when the search may leave the range")
    row("", "worse at 8", "worse at end", "regret at 8", "of the best", "GP at 8", "ok", "ok > 0.3 %", "runs to ok",
        "inside, ok", "inside, all", "past cliff", "untried", "stated", wide=13, first=18)  # fmt: skip
    out: Out = {}
    with_gp = bool(options.only) and options.wants("Optuna GP") and "Optuna GP" in search_peers()
    for kind in kinds:
        problems = functions(kind, options.count)[:: options.every]
        full = [t[0] for t in search_all("raylr", problems, 1, 8, **EXACT)]
        ends = [t[0] for t in search_all("raylr", problems, 1, 8)]
        peer = [t[0] for t in search_all("Optuna GP", problems, 1, 8)] if with_gp else []
        out[kind] = numbers = _of_kind(problems, full, ends, peer)
        n = numbers
        row(kind, f"{n['worse_8']}/{n['worse_8_tried']}", f"{n['worse_end']}/{n['worse_end_tried']}", n["regret_8"],
            n["best_8"], n.get("gp_8", ""), f"{n['ok']:.0%}", n["ok_wrong"], n["runs_to_ok"], f"{n['covered_ok']:.0%}",
            f"{n['covered']:.0%}", f"{n['past_cliff']}/{n['runs']}", n["untried_ok"], n["stated"],
            wide=13, first=18)  # fmt: skip
        if kind.startswith("beyond"):
            n["extended"] = _extended(problems)
            print(f"      extended: {n['extended']} of {n['count']}")
        if set(n["statuses"]) - {"ok", "uncertain"}:
            print(f"      {n['statuses']}")
        print_worst(options.worst, problems, full)
        if options.plot:
            optimum_plots.examples(options.plot, kind, list(problems), ends)
    return out


def _extended(problems: list[Any]) -> int:
    """Searches that may leave the range and end more than 1 % above the optimum beyond it."""
    ends = [t[0] for t in search_all("raylr", problems, 1, 12, extend=True)]
    return sum(
        not (math.isfinite(t.answers[-1].lr) and p.loss(t.answers[-1].lr) <= 1.01 * p.loss(math.exp(p.x0)))
        for p, t in zip(problems, ends, strict=True)
    )


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
        "regret_8": typical([regret(p, t.at(8).lr) for p, t in both]),
        "best_8": typical([regret(p, best_tried(p, t, 8)) for p, t in both]),
        "ok": float(np.mean(ok)),
        "ok_wrong": sum(o and regret(p, a.lr) > WRONG for p, a, o in zip(problems, answers, ok, strict=True)),
        "runs_to_ok": float(np.mean([len(t.lrs) for t, o in zip(ends, ok, strict=True) if o])) if any(ok) else math.nan,
        "covered": share(cover),
        "covered_ok": share([c for c, o in zip(cover, ok, strict=True) if o]),
        "past_cliff": sum(runs_above_divergence(p, t) for p, t, _ in last),
        "runs": sum(len(t.lrs) for t in ends),
        "untried_ok": sum(o and untried_beside_cliff(p, t) for (p, t, _), o in zip(last, ok, strict=True)),
        "stated": sum(
            math.isfinite(a.regret) and regret(p, a.lr) > max(0.1, 500 * a.regret)
            for p, a in zip(problems, answers, strict=True)
        ),
        "statuses": dict(Counter(a.status for a in answers)),
        "count": len(problems),
    }
    if peer:
        out["gp_8"] = typical([regret(p, t.at(8).lr) for p, t in zip(problems, peer, strict=True)])
    return out


def sweeps_section(options: Options) -> Out:
    """`small_sweeps.csv`: the true loss at the answer after 8 and 16 runs."""
    problems: list[Any] = cells("small_sweeps", options.data)[:: options.every]
    if not problems:
        print("\nsmall_sweeps.csv is not there: skipped")
        return {}
    print(f"\nsmall_sweeps, {len(problems)} sweeps, searched: true regret of the answer in %")
    row("", "runs", "median", "mean", "worst", "best tried", "> 1 % worse")
    out: Out = {}
    for name in ("raylr", "Optuna GP"):
        if not options.wants(name):
            continue
        if name != "raylr" and name in options.earlier.get("sweeps", {}):
            out[name] = options.earlier["sweeps"][name]
            for runs, v in out[name].items():
                row(name, runs, v["median"], v["mean"], v["worst"], v["best_tried"], v["worse"])
            continue
        traces = search_all(name, problems, options.seeds, 16, **(EXACT if name == "raylr" else {}))
        out[name] = {str(runs): _sweep_row(name, problems, traces, runs) for runs in (8, 16)}
        if name == "raylr":
            print_worst(options.worst, problems, [ts[0] for ts in traces])
            out["defaults"] = {
                str(most): _sweep_row(
                    "raylr, defaults", problems, search_all(name, problems, options.seeds, most), most
                )
                for most in (8, 16)
            }
    return out


def _sweep_row(name: str, problems: list[Any], traces: list[list[Trace]], runs: int) -> Out:
    """Print and return the numbers of all sweeps after so many runs, or after the last."""
    flat = [(p, t) for p, ts in zip(problems, traces, strict=True) for t in ts]
    lost = [regret(p, t.at(runs).lr) for p, t in flat]
    best = [regret(p, best_tried(p, t, runs)) for p, t in flat]
    count = sum(worse(p, t.at(runs).lr, best_tried(p, t, runs)) for p, t in flat)
    row(name, runs, float(np.median(lost)), float(np.mean(lost)), float(np.max(lost)), float(np.mean(best)), count)
    return {"median": float(np.median(lost)), "mean": float(np.mean(lost)), "worst": float(np.max(lost)),
            "best_tried": float(np.mean(best)), "worse": count, "count": len(flat)}  # fmt: skip


def search_section(options: Options) -> Out:
    """Every table replayed through the Searcher API."""
    counts = (3, 4, 6, 8)
    out: Out = {}
    for table in TABLES:
        problems: list[Any] = cells(table, options.data)[:: options.every]
        if not problems:
            continue
        print(f"\n{table}, {len(problems)} cells searched, {options.seeds} seed(s): true regret in %, mean (90th pct)")
        row("", *counts, wide=18)
        out[table] = {}
        for name in ("raylr", *search_peers()):
            if not options.wants(name):
                continue
            values = options.earlier.get("search", {}).get(table, {}).get(name) if name != "raylr" else None
            if values is None:
                values = _replay(name, problems, options.seeds, counts)
            row(name, *(f"{m:.4f} ({q:.3f})" for m, q in zip(values["mean"], values["p90"], strict=True)), wide=18)
            out[table][name] = values
        if options.wants("raylr"):
            out[table]["default"] = _ended(problems, options)
    if options.plot and out:
        optimum_plots.regrets(options.plot, out)
    return out


def _replay(name: str, problems: list[Any], seeds: int, counts: tuple[int, ...]) -> Out:
    """Regrets of one searcher after so many runs."""
    traces = search_all(name, problems, seeds, counts[-1], **(EXACT if name == "raylr" else {}))
    lost = np.array(
        [[regret(p, t.at(n).lr) for n in counts] for p, ts in zip(problems, traces, strict=True) for t in ts]
    )
    return {"runs": counts, "mean": lost.mean(axis=0).tolist(), "p90": np.quantile(lost, 0.9, axis=0).tolist()}


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
        "past_cliff": sum(runs_above_divergence(p, t) for p, t in flat),
        "all_runs": sum(len(t.lrs) for _, t in flat),
        "untried_ok": sum(untried_beside_cliff(p, t) for p, t in ok),
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
