"""How many tokens does each searcher spend for how good a learning rate?

    python benchmarks/search.py                       # lr_grid_moe and lr_grid_dense: full evaluations against regret
    python benchmarks/search.py --curves              # wsd124m_stable and moe_curves: whole curves, with schedulers
    python benchmarks/search.py --families            # made-up curves: where the pausing search ends, and with what
    python benchmarks/search.py --shapes              # made-up functions, small networks, cells with cliffs: optimum.py
    python benchmarks/search.py --timing              # seconds per suggest and on_trial_complete, to 10,000 trials
    python benchmarks/search.py --json out.json --plot out.png

Measured losses of public runs are replayed through the real Searcher API; between measured lrs they are interpolated.
The regret of an lr is its loss above the lowest, in percent. Every searcher gets the same domain and its own
defaults; a peer's recommendation is its best trial. Peers that are not installed are listed as such. The data are
found through RAYLR_DATA."""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from replay_data import DATA
from search_replay import Cell, Peer, grid_cells, peers, quiet, run_cell

from raylr.searchers import QuadraticSearch

COUNTS = (1, 2, 3, 4, 6, 8)
FLOOR = 1e-4
"""Lowest regret that is drawn, percent."""


def regrets(peer: Peer, cells: list[Cell], seeds: int, most: int) -> np.ndarray:
    """Regret in percent after 1..most full evaluations, (cells·seeds, most)."""
    rows = [run_cell(peer, cell, seed, most) for cell in cells for seed in range(seeds if peer.seeded else 1)]
    return np.array(rows)


def full_evaluations(table: str, cells: list[Cell], args: argparse.Namespace) -> dict[str, Any]:
    """Table of regret against evaluations for one file."""
    print(f"\n{table}: {len(cells)} cells, {args.seeds} seeds; regret in %, mean (90th percentile)")
    print(f"{'':22}" + "".join(f"{n:>17}" for n in COUNTS))
    out: dict[str, Any] = {}
    for peer in peers():
        if args.only and not any(o in peer.name for o in args.only):
            continue
        if peer.missing:
            print(f"{peer.name:22}  not installed: {peer.missing}")
            continue
        began = time.perf_counter()
        r = regrets(peer, cells[:: args.every], args.seeds, COUNTS[-1])
        mean, p90 = r.mean(axis=0), np.quantile(r, 0.9, axis=0)
        columns = "".join(f"{mean[n - 1]:>8.3f} ({p90[n - 1]:.3f})".rjust(17) for n in COUNTS)
        print(f"{peer.name:22}{columns}   {time.perf_counter() - began:.0f} s", flush=True)
        out[peer.name] = {"mean": mean.round(5).tolist(), "p90": p90.round(5).tolist()}
    return out


def evaluations_to(mean: list[float], level: float) -> float:
    """First count from which the mean regret stays at or below `level` percent."""
    above = [i for i, m in enumerate(mean) if m > level]
    first = above[-1] + 1 if above else 0
    return first + 1 if first < len(mean) else math.inf


def later_cells(table: str, cells: list[Cell], seeds: int) -> dict[str, Any]:
    """Trials and regret of cells searched after three known ones (same batch size, other budgets and sizes)."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.group, []).append(cell)
    trials, regret = [], []
    for group in groups.values():
        if len(group) < 4:
            continue
        for seed in range(seeds):
            low, high = min(c.low for c in group), max(c.high for c in group)
            search = QuadraticSearch(
                "loss", "min", settings=[c.setting for c in group], lr_range=(low, high), seed=seed
            )
            by_name = {c.setting.name: c for c in group}
            for i in range(10000):
                config = search.suggest(str(i))
                if not isinstance(config, dict):
                    break
                search.on_trial_complete(str(i), {"loss": by_name[config["cell"]].loss(config["lr"])})
            for setting in search.settings[3:]:
                found = search.recommend(setting)
                assert found.lr is not None
                trials.append(found.trials)
                regret.append(by_name[setting.name].regret(found.lr))
    print(
        f"{table}: cells after the third: {np.mean(trials):.2f} trials a cell, regret {np.mean(regret):.3f} % "
        f"(90th percentile {np.quantile(regret, 0.9):.3f} %), {len(trials)} cells"
    )
    return {"trials": float(np.mean(trials)), "regret": float(np.mean(regret))}


def timing(counts: tuple[int, ...] = (10, 100, 1000, 10000)) -> dict[str, float]:
    """Milliseconds per suggest and per on_trial_complete at n finished trials, ours and OptunaSearch's."""
    out: dict[str, float] = {}
    print(f"\n{'ms per call at n trials':28}" + "".join(f"{n:>10}" for n in counts))
    named = {p.name: p for p in peers()}
    for label, name in (("", "raylr"), ("optuna_", "Optuna TPE")):
        suggest_ms, complete_ms = _time_one(named[name], counts)
        for n in counts:
            out[f"{label}suggest_ms_{n}"], out[f"{label}complete_ms_{n}"] = suggest_ms[n], complete_ms[n]
        print(f"{name + ' suggest':28}" + "".join(f"{suggest_ms[n]:>10.3f}" for n in counts))
        print(f"{name + ' on_trial_complete':28}" + "".join(f"{complete_ms[n]:>10.3f}" for n in counts), flush=True)
    return out


def _time_one(peer: Peer, counts: tuple[int, ...]) -> tuple[dict[int, float], dict[int, float]]:
    search = peer.make(1e-4, 1e-1, 0, 10**6)
    noise = np.random.default_rng(0)
    suggest: dict[int, list[float]] = {}
    complete: dict[int, list[float]] = {}
    for n in range(1, counts[-1] + counts[-1] // 10):
        begin = time.perf_counter()
        config = search.suggest(str(n))
        middle = time.perf_counter()
        if not isinstance(config, dict):
            print(f"{peer.name} ended by itself after {n - 1} trials")
            break
        loss = 2.5 + 0.03 * math.log(config["lr"] / 2e-3) ** 2 + 0.003 * noise.standard_normal()
        again = time.perf_counter()
        search.on_trial_complete(str(n), {"loss": float(loss), "training_iteration": 1})
        end = time.perf_counter()
        for m in counts:
            if m <= n < m + max(10, m // 10):
                suggest.setdefault(m, []).append(middle - begin)
                complete.setdefault(m, []).append(end - again)
    mean = [{m: 1e3 * float(np.mean(d[m])) if m in d else math.nan for m in counts} for d in (suggest, complete)]
    return mean[0], mean[1]


def plot(path: Path, results: dict[str, dict[str, Any]]) -> None:
    """Regret against full evaluations, one column a table: mean above, 90th percentile below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, len(results), figsize=(6 * len(results), 8), squeeze=False, sharex=True)
    for column, (table, methods) in zip(axes.T, results.items(), strict=True):
        for ax, key, label in zip(column, ("mean", "p90"), ("mean", "90th percentile of the"), strict=True):
            for name, r in methods.items():
                ours = name.startswith("raylr")
                style = {"lw": 2.5, "zorder": 3} if ours else {"lw": 1.2, "zorder": 2}
                ax.plot(range(1, len(r[key]) + 1), np.maximum(r[key], FLOOR), label=name, **style)
            ax.set(yscale="log", ylabel=f"{label} regret, %", title=table)
            ax.grid(alpha=0.3)
            ax.legend(fontsize=8)
        column[-1].set_xlabel("full evaluations")
    fig.tight_layout()
    fig.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="searches of each cell")
    parser.add_argument("--every", type=int, default=1, help="take every n-th cell only")
    parser.add_argument("--only", nargs="*", help="parts of the names of the searchers to run")
    parser.add_argument("--curves", action="store_true", help="whole curves with schedulers instead of final losses")
    parser.add_argument("--families", action="store_true", help="the pausing search on made-up curves instead")
    parser.add_argument("--shapes", action="store_true", help="the searches of optimum.py, targets and results")
    parser.add_argument(
        "--timing", action="store_true", help="time suggest and on_trial_complete only, to 10,000 trials"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    quiet()
    if not DATA.is_dir():
        sys.exit(f"no data at {DATA}: set RAYLR_DATA")
    report: dict[str, Any] = {}
    if args.curves:
        from search_curves import compare_curves

        report |= compare_curves(args.seeds, args.only, args.plot)
    elif args.families:
        from search_families import check_families

        report |= check_families(args.seeds)
    elif args.shapes:
        from optimum import SEARCHES, run

        report |= run(SEARCHES, every=args.every, seeds=args.seeds, only=args.only)
    elif args.timing:
        report |= timing()
    else:
        tables = {name: grid_cells(f"{name}.csv") for name in ("lr_grid_moe", "lr_grid_dense")}
        results = {name: full_evaluations(name, cells, args) for name, cells in tables.items()}
        report["tables"] = results
        print()
        report["later_cells"] = {name: later_cells(name, cells, min(args.seeds, 3)) for name, cells in tables.items()}
        report |= ratios(results)
        report |= timing((10, 100, 1000))
        if args.plot:
            plot(args.plot, results)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def ratios(results: dict[str, dict[str, Any]], level: float = 0.1) -> dict[str, float]:
    """Evaluations to a mean regret of `level` percent, ours against the best peer's and the grid's, over all tables."""
    sums: dict[str, float] = {}
    for methods in results.values():
        for name, r in methods.items():
            sums[name] = sums.get(name, 0.0) + evaluations_to(r["mean"], level)
    others = [v for name, v in sums.items() if not name.startswith("raylr")]
    if "raylr" not in sums or not others:
        return {}
    out = {"tokens_ratio_to_best_peer": sums["raylr"] / min(others)}
    if "grid" in sums:
        out["tokens_ratio_to_grid"] = sums["raylr"] / sums["grid"]
    print(f"\nevaluations to a mean regret of {level} %, summed over the tables: {sums}; {out}")
    return out


if __name__ == "__main__":
    main()
