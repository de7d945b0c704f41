"""How right are the fits on real loss curves, beside the plain methods?

    python benchmarks/laws.py                                  # every table below, then the targets against the results
    python benchmarks/laws.py --only optimum,grid              # of losses, calibration, optimum, windows, few, grid,
                                                               # law, scaling, recovery, marin, speed, presets, decay,
                                                               # schedules, annealing, decayed, answers
    python benchmarks/laws.py --data DIR --json out.json --plots DIR

Truths are measured losses; the optimum between measured LRs and the regret (percent of the best loss) come from
the interpolation of `replay_data.LossOverLR`. A window is the first share of a run's tokens; its start is moved to
show what hangs on it. Intervals are scored by the share of truths inside 90 %. Data: --data or RAYLR_DATA."""

import argparse
import fnmatch
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import laws_plain as plain
import numpy as np
import pandas as pd
from laws_annealing import annealing
from laws_calibration import calibration
from laws_cells import grid, law
from laws_curves import few, losses, optimum, windows
from laws_decayed import decayed_optima
from laws_recovery import recovery
from laws_scaling import EDGES, marin, scaling
from laws_schedules import schedules
from laws_tables import Out, row
from replay_data import DATA
from scipy.optimize import curve_fit

from raylr.analysis import fit_decay_shift, fit_optimum, fit_power_laws
from raylr.analysis.laws import presets

ROUNDS = 5
"""Timings are medians over this many rounds, in each of which both are timed."""

TARGETS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], float], ...] = (
    ("loss at 72k from 25 %: error, %", ("loss_error_25m_25", "loss_error_100m_25"), ("plain_loss_error_25m_25",), 0.3),
    ("the same from 15 %", ("loss_error_25m_15", "loss_error_100m_15"), ("plain_loss_error_25m_15",), 1.0),
    ("124M optimum from 25 %: log error", ("wsd124m_error_25",), ("plain_wsd124m_error_25",), 0.15),
    ("124M optimum from 25 %: regret, %", ("wsd124m_regret_25",), ("plain_wsd124m_regret_25",), 0.05),
    ("124M optimum from 15 %: log error", ("wsd124m_error_15",), ("plain_wsd124m_error_15",), 0.30),
    ("124M optimum from 15 %: regret, %", ("wsd124m_regret_15",), ("plain_wsd124m_regret_15",), 0.15),
    ("MoE optimum from 25 %: log error", ("moe*_error_25",), ("plain_moe*_error_25",), 0.25),
    ("MoE optimum from 25 %: regret, %", ("moe*_regret_25",), ("plain_moe*_regret_25",), 0.4),
    ("MoE optimum from 15 %: log error", ("moe*_error_15",), ("plain_moe*_error_15",), 0.40),
    ("MoE optimum from 15 %: regret, %", ("moe*_regret_15",), ("plain_moe*_regret_15",), 0.5),
    (
        "grids: median regret, %",
        ("grid_moe_all_median", "grid_dense_all_median"),
        ("plain_grid_dense_all_median",),
        0.02,
    ),
    ("MoE grid: 90th percentile, %", ("grid_moe_all_p90",), ("plain_grid_moe_all_p90",), 0.03),
    ("dense grid: 90th percentile, %", ("grid_dense_all_p90",), ("plain_grid_dense_all_p90",), 0.10),
    ("MoE grid, 4 LRs around: mean, %", ("grid_moe_around_mean",), ("plain_grid_moe_around_mean",), 0.02),
    ("MoE grid, 4 LRs over all: mean, %", ("grid_moe_spread_mean",), ("plain_grid_moe_spread_mean",), 0.02),
    ("dense grid, 4 LRs around: mean, %", ("grid_dense_around_mean",), ("plain_grid_dense_around_mean",), 0.05),
    ("dense grid, 4 LRs over all: mean, %", ("grid_dense_spread_mean",), ("plain_grid_dense_spread_mean",), 0.05),
    ("2 x 2 cells: error of ln lr", ("few_cells_*_error",), ("plain_few_cells_*_error",), 0.45),
    ("marin's target, error of ln lr", ("marin_sqrt_error",), ("marin_blind_error",), 0.15),
    ("seeds called different, share", ("compare_false_better",), (), 0.1),
    ("law at the largest cell: regret, %", ("law_dense_regret", "law_moe_regret"), ("plain_law_moe_regret",), 0.09),
)
"""Row of the last table, the numbers (patterns) whose worst counts, the plain method's, the target (an upper bound)."""


def speed(curves: int = 10_000, points: int = 60) -> Out:
    """Eq. 4 on many curves, one core, against a loop of `curve_fit` with the same model and points."""
    rng = np.random.default_rng(0)
    t = np.linspace(1, points, points) * 1e6
    gamma, l0, b = rng.uniform(0.2, 0.8, curves), rng.uniform(2, 3, curves), rng.uniform(0.2, 1, curves)
    y = l0[:, None] + b[:, None] * (t / t[-1]) ** -gamma[:, None] + rng.normal(0, 2e-3, (curves, points))
    some = np.arange(0, curves, max(curves // 1000, 1))
    fit_power_laws(t, y[:10], burn_in=0)
    times, theirs = [], []
    for part in np.array_split(some, ROUNDS):
        began = time.perf_counter()
        ours = fit_power_laws(t, y, burn_in=0)
        fitted = time.perf_counter()
        theirs += [curve_fit(plain.eq4, t / t[-1], y[i], p0=(2.5, 0.5, 0.5))[0] for i in part]
        looped = time.perf_counter()
        fit_power_laws(t, y[: curves // 10])
        discounted = time.perf_counter() - looped
        times.append((fitted - began, (looped - fitted) / part.size * curves, 10 * discounted))
    apart = float(np.abs(ours.gamma[some] - np.array(theirs)[:, 2]).max())
    took, loop, auto = np.median(times, axis=0)
    ratio = float(np.median([b / a for a, b, _ in times]))
    print(
        f"\n{curves} curves of {points} points: {1e3 * took:.1f} ms, loop of curve_fit {loop:.2f} s ({some.size} fits)"
    )
    print(f"  {ratio:.0f} times as fast (median of {ROUNDS} rounds); exponents differ by {apart:.1e} at most")
    print(f'  burn_in="auto", a larger model with intervals: {auto:.2f} s')
    return {"fit_speedup": ratio, "fit_speedup_gamma_difference": apart, "fit_speedup_auto": float(loop / auto)}


def published() -> Out:
    """The published laws at a few sizes."""
    print("\npublished laws: LR at")
    places = ((1e9, 100e9), (4e9, 120e9), (12e9, 500e9))
    row("", *(f"{n / 1e9:g}B, {d / 1e9:g}B" for n, d in places), "source seen")
    for name in presets.names():
        law, width = presets.get(name), {1e9: 2048, 4e9: 2560, 12e9: 4096}
        batch = 4e6 if law.params_kind == "width" else None
        found = [law.predict(n, d, width=width[n], batch=batch) for n, d in places]
        row(name, *(f"{one.lr:.3g}" for one in found), "yes" if law.verified else "no")
    zhou = float(presets.get("zhou2026").lr(4e9, 120e9))
    print(f"  zhou2026 at 4B, 120B tokens: {zhou:.3g} (Table 4: 5.55e-04)")
    return {"zhou2026_4b_120b": zhou}


def decay(data: Path) -> Out:
    """How far a decay phase moves the optimum of the 124M model."""
    decayed, stable = (pd.read_csv(data / f"wsd124m_{name}.csv") for name in ("decayed", "stable"))
    out: Out = {}
    print("\noptimum after a linear decay over that of the stable phase at the same step")
    for fraction, part in decayed[decayed["shape"] == "linear"].groupby("decay_frac"):
        pairs = []
        for steps, cell in part.groupby("total_steps"):
            at = stable.loc[(stable["step"] - steps).abs().groupby(stable["lr"]).idxmin()]
            both = [fit_optimum(c["lr"], c["val_loss"]) for c in (at, cell)]
            pairs.append([f.lr if f.status not in EDGES else np.nan for f in both])
        shift = fit_decay_shift(*np.array(pairs).T)
        row(
            f"{fraction:.0%} of the steps",
            f"x {np.exp(shift.log_shift):.2f}",
            f"± {shift.scatter:.2f} in ln",
            f"{shift.cells} budgets",
        )
        out[f"decay_shift_{round(100 * fraction)}"] = shift.log_shift
    return out


def answers(data: Path) -> Out:
    """Answers of raylr and of the simple baselines from given points: `optimum.py`'s sections."""
    from optimum import FITS, run

    out: Out = {}

    def flatten(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                flatten(f"{name}_{key}".replace(" ", "_"), inner)
        elif isinstance(value, (int, float)):
            out[name] = float(value)

    flatten("answers", run(FITS, data=data))
    return out


def summary(out: Out) -> None:
    """Asked against reached."""
    print("\nasked and reached")
    row("", "plain", "target", "reached")
    for what, names, peers, target in TARGETS:
        found, plainly = ([v for k, v in out.items() if any(fnmatch.fnmatch(k, one) for one in keys)]
                          for keys in (names, peers))  # fmt: skip
        if found:
            worst, peer = max(found), max(plainly, default=np.nan)
            row(what, f"{peer:.3f}", f"<= {target:g}", f"{worst:.3f}", "" if worst <= target else "not reached")
    counts = {k.removesuffix("_coverage_n"): v for k, v in out.items() if k.endswith("_coverage_n")}
    for kind in ("losses", "optima"):
        counted = [k for k in counts if k.startswith(("curves", "loss")) == (kind == "losses")]
        if counted:
            total = sum(counts[k] for k in counted)
            out[f"coverage_90_{kind}"] = sum(out[f"{k}_coverage_90"] * counts[k] for k in counted) / total
            share = f"{out[f'coverage_90_{kind}']:.1%} of {total:.0f}"
            row(f"90 % intervals of {kind}", "", "85 to 97 %", share)
    if counts:
        out["coverage_90"] = sum(out[f"{k}_coverage_90"] * n for k, n in counts.items()) / sum(counts.values())
    if "fit_speedup" in out:
        row("speed against curve_fit", "1", ">= 50", f"{out['fit_speedup']:.0f}")


def main() -> int:
    sections: dict[str, tuple[Callable[[Path, Path | None], Out], tuple[str, ...]]] = {
        "losses": (losses, ("schedules_25m_100m",)),
        "calibration": (lambda data, _: calibration(data), ()),
        "optimum": (optimum, ()),
        "windows": (lambda data, _: windows(data), ()),
        "few": (lambda data, _: few(data), ()),
        "grid": (grid, ()),
        "law": (law, ()),
        "scaling": (lambda data, _: scaling(data), ()),
        "recovery": (lambda *_: recovery(), ()),
        "marin": (lambda *_: marin(), ()),
        "speed": (lambda *_: speed(), ()),
        "presets": (lambda *_: published(), ()),
        "answers": (lambda data, _: answers(data), ()),
        "schedules": (lambda data, _: schedules(data), ("cosine_adam160m", "cosine_olmo")),
        "annealing": (lambda data, _: annealing(data), ()),
        "decayed": (lambda data, _: decayed_optima(data), ("wsd124m_stable", "wsd124m_decayed")),
        "decay": (lambda data, _: decay(data), ("wsd124m_stable", "wsd124m_decayed")),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the tables (default: RAYLR_DATA)")
    parser.add_argument("--only", default=",".join(sections), help="comma-separated sections")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--plots", type=Path, help="write pictures into this folder")
    args = parser.parse_args()
    requested = args.only.split(",")
    if unknown := set(requested) - set(sections):
        parser.error(f"unknown section {sorted(unknown)[0]!r}; there are {', '.join(sections)}")
    if not args.data.is_dir():
        parser.error(f"no folder {args.data}: give --data or set RAYLR_DATA")
    if args.plots is not None:
        args.plots.mkdir(parents=True, exist_ok=True)
    out: Out = {}
    for name in requested:
        run, needs = sections[name]
        missing = [f"{n}.csv" for n in needs if not (args.data / f"{n}.csv").exists()]
        if missing:
            print(f"\n{name}: skipped, {', '.join(missing)} is not in {args.data}")
            continue
        out |= run(args.data, args.plots)
    summary(out)
    if args.json is not None:
        args.json.write_text(json.dumps(out, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
