"""Asked against reached: the last table of `optimum.py`."""

import math
from typing import Any

from optimum_functions import KINDS, NOISY
from optimum_peers import BASELINES

Out = dict[str, Any]
LLM = ("lr_grid_moe", "lr_grid_dense", "lr_grid_adam160m", "widths_mup")


def summary(report: Out) -> Out:
    """Print and return the rows: what, asked, reached, whether it was reached."""
    rows: list[tuple[str, str, str, bool]] = []
    rows += _functions(report.get("functions", {}))
    rows += _points(report.get("points", {}))
    rows += _units(report.get("units", {}))
    rows += _sweeps(report.get("sweeps", {}))
    rows += _tables(report.get("tables", {}))
    rows += _search(report.get("search", {}))
    rows += _speed(report.get("speed", {}))
    print("\nasked and reached")
    for what, asked, reached, good in rows:
        print(f"  {what:76}{asked:>20}{reached:>24}{'' if good else '   not reached'}")
    return {what: {"asked": asked, "reached": reached, "ok": good} for what, asked, reached, good in rows}


def _functions(out: Out) -> list[tuple[str, str, str, bool]]:
    rows = []
    for kind, v in out.items():
        most = (3 if kind in NOISY else 1) * max(1.0, v["count"] / 60)
        rows.append((f"{kind}: answers > 1 % worse than the best measured, 8 runs", f"<= {most:.0f} of {v['count']}",
                     str(v["worse_8"]), v["worse_8"] <= most))  # fmt: skip
    for kind, v in out.items():
        if kind in NOISY and not math.isnan(v["covered_ok"]) and v["ok"] > 0:
            rows.append((f"{kind}: 90 % intervals of ok answers", ">= 88 %", f"{v['covered_ok']:.0%}",
                         v["covered_ok"] >= 0.88))  # fmt: skip
    for kind, v in out.items():
        if kind in NOISY or math.isnan(v["covered"]):
            continue
        rows.append((f"{kind}: 90 % intervals at the end", ">= 85 %", f"{v['covered']:.0%}", v["covered"] >= 0.85))
    for kind, status in (("beyond_low", "edge_low"), ("beyond_high", "edge_high")):
        if kind in out:
            v = out[kind]
            named = v["statuses"].get(status, 0)
            rows.append((f"{kind}: named {status}", "all", f"{named} of {v['count']}", named == v["count"]))
            rows.append((f"{kind}: not found when the range may be left", "0", str(v["extended"]), v["extended"] == 0))
    if out:
        stated, count = sum(v["stated"] for v in out.values()), sum(v["count"] for v in out.values())
        rows.append(("functions: regret stated five times too low", "few", f"{stated} of {count}",
                     stated <= 0.02 * count))  # fmt: skip
    if "parabola" in out:
        v = out["parabola"]
        rows.append(("parabola: ok", "all, within 6 runs", f"{v['ok']:.0%}, {v['runs_to_ok']:.1f} runs", v["ok"] == 1))
    if all(kind in out for kind in KINDS):
        total, past = (sum(v[k] for v in out.values()) for k in ("runs", "past_cliff"))
        untried = sum(v["untried_ok"] for v in out.values())
        rows.append(("functions: runs above an LR known to diverge", "few", f"{past} of {total}", past <= 0.02 * total))
        rows.append(("functions: ok for an untried LR beside a cliff", "0", str(untried), untried == 0))
    return rows


def _points(out: Out) -> list[tuple[str, str, str, bool]]:
    rows = []
    for kind, methods in out.items():
        ours = methods.get("raylr")
        if ours:
            most = 3 if kind in NOISY else 1
            rows.append((f"{kind}, given points: > 1 % worse than the best of them", f"<= {most} of {ours['count']}",
                         str(ours["worse"]), ours["worse"] <= most))  # fmt: skip
    return rows


def _units(out: Out) -> list[tuple[str, str, str, bool]]:
    return [(f"losses {name}: LR or status differs", "0", f"{v['lr']} / {v['status']} of {v['count']}",
             v["lr"] + v["status"] == 0) for name, v in out.items()]  # fmt: skip


def _sweeps(out: Out) -> list[tuple[str, str, str, bool]]:
    rows = []
    for runs in ("8", "16") if "raylr" in out else ():
        v, gp = out["raylr"][runs], out.get("Optuna GP", {}).get(runs)
        reached = f"{v['worse']} of {v['count']}"
        rows.append((f"small_sweeps, {runs} runs: > 1 % worse than the best tried", "0", reached, v["worse"] == 0))
        if gp:
            rows.append((f"small_sweeps, {runs} runs: median regret, % (GP's asked)", f"<= {gp['median']:.3f}",
                         f"{v['median']:.3f}", v["median"] <= gp["median"]))  # fmt: skip
    return rows


def _tables(out: Out) -> list[tuple[str, str, str, bool]]:
    rows = []
    for table, selections in out.items():
        for selection, methods in selections.items():
            ours = methods.get("raylr")
            others = {n: v for n, v in methods.items() if n in BASELINES}
            if ours is None or not others:
                continue
            kind = "typical" if table == "small_sweeps" else "mean"  # losses near zero: a few cells would decide a mean
            name = min(others, key=lambda n: others[n][kind])
            best, mean = others[name][kind], ours[kind]
            rows.append((f"{table}, {selection}: {kind} regret, % (best: {name})", f"<= {best:.4f}", f"{mean:.4f}",
                         mean <= best + 1e-6))  # fmt: skip
            if table.startswith("lr_grid") and selection == "all":
                rows.append((f"{table}, {selection}: worst cell, %", "<= 0.5", f"{ours['worst']:.3f}",
                             ours["worst"] <= 0.5))  # fmt: skip
            rows.append((f"{table}, {selection}: 90 % intervals", "85 to 97 %", f"{ours['covered']:.0%}",
                         0.85 <= ours["covered"] <= 0.97))  # fmt: skip
    return rows


def _search(out: Out) -> list[tuple[str, str, str, bool]]:
    rows = []
    for table, methods in out.items():
        ours = methods.get("raylr")
        others = [v for n, v in methods.items() if n not in ("raylr", "default")]
        if ours and others:
            for i, runs in enumerate(ours["runs"]):
                best = min(v["mean"][i] for v in others)
                rows.append((f"{table}: mean regret after {runs} runs, % (best peer)", f"< {best:.4f}",
                             f"{ours['mean'][i]:.4f}", ours["mean"][i] <= best))  # fmt: skip
        v = methods.get("default")
        if not v:
            continue
        rows.append((f"{table}: ok answers above 0.3 %", "<= 1 %", f"{v['ok_wrong']:.1%}", v["ok_wrong"] <= 0.01))
        rows.append((f"{table}: 90 % intervals at the end", "85 to 97 %", f"{v['covered']:.0%}",
                     0.85 <= v["covered"] <= 0.97))  # fmt: skip
        rows.append((f"{table}: runs above an LR known to diverge", "few", f"{v['past_cliff']} of {v['all_runs']}",
                     v["past_cliff"] <= 0.02 * v["all_runs"]))  # fmt: skip
        rows.append((f"{table}: ok for an untried LR beside a cliff", "0", str(v["untried_ok"]), v["untried_ok"] == 0))
        if table in LLM:
            rows.append((f"{table}: runs to ok", "<= 4.5", f"{v['runs_to_ok']:.2f} ({v['ok']:.0%} ok)",
                         v["runs_to_ok"] <= 4.5))  # fmt: skip
    return rows


def _speed(out: Out) -> list[tuple[str, str, str, bool]]:
    rows = []
    if "suggest_ms_1000" in out:
        took = out["suggest_ms_1000"]
        rows.append(("suggest at 1,000 trials, ms", "<= 1", f"{took:.3f}", took <= 1))
    if "fit_ms_raylr" in out:
        rows.append(("fit of 12 points, ms", "<= 5", f"{out['fit_ms_raylr']:.2f}", out["fit_ms_raylr"] <= 5))
    return rows
