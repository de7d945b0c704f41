"""How right are the fits on real loss curves, beside the plain methods?

    python benchmarks/laws.py                                  # every table below
    python benchmarks/laws.py --only optimum,grid              # of losses, optimum, few, grid, law, speed, cooldown
    python benchmarks/laws.py --data DIR --json out.json --plots DIR

Truths are measured losses; the optimum between measured LRs and the regret (percent of the best loss) come from
the interpolation of `replay_data.LossOverLR`. A window is the first share of a run's tokens; its start is moved to
show what hangs on it. Intervals are scored by the share of truths inside 90 %. Data: --data or RAYLR_DATA."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import laws_plain as plain
import laws_plots
import numpy as np
import pandas as pd
from replay_data import DATA, LossOverLR
from scipy.optimize import curve_fit

from raylr.analysis import (
    compare_families,
    fit_cooldown,
    fit_lr_law,
    fit_power_law,
    fit_power_laws,
    fit_quadratic,
    fit_surface,
    pooled_priors,
    presets,
)  # fmt: skip

CUTS = (0.15, 0.25)
STARTS = (0.0, 0.1, 0.3, 0.5)
"""Where a window starts, as a share of its end."""
Out = dict[str, float]


def row(name: str, *values: Any) -> None:
    """One line of a table."""
    print(f"  {name:34}" + "".join(f"{v:>16}" for v in values), flush=True)


def tables(data: Path) -> dict[str, pd.DataFrame]:
    """Losses of constant LRs, one table a model and seed: index tokens, columns LR.

    A seed that was run at some of the LRs only takes the others from the first seed."""
    out: dict[str, pd.DataFrame] = {}
    wsd = data / "wsd124m_stable.csv"
    if wsd.exists():
        out["wsd124m"] = pd.read_csv(wsd).pivot_table(index="tokens", columns="lr", values="val_loss").dropna()
    moe = data / "moe_curves.csv"
    if moe.exists():
        for params, part in pd.read_csv(moe).groupby("params"):
            seeds = {s: g.pivot_table(index="tokens", columns="lr", values="val_loss") for s, g in part.groupby("seed")}
            first = seeds[min(seeds)]
            for seed, table in seeds.items():
                out[f"moe{params / 1e6:.2g}M seed {seed}"] = table.combine_first(first).sort_index(axis=1).dropna()
    return out


def losses(data: Path) -> Out:
    """Eq. 4 on single curves: the loss at the end of a constant-LR run from its first part."""
    frame = pd.read_csv(data / "schedules_25m_100m.csv")
    constant = frame[frame["schedule"].str.startswith("constant")]
    longest = constant.groupby("params_m")["step"].transform("max")
    ends = constant.groupby(["params_m", "schedule"])["step"].transform("max")
    out: Out = {}
    print("\nloss at the end of a constant-LR run, error in %")
    row("", "curve_fit", "curve_fit -30%", "raylr", "90 % interval", "inside")
    for params, part in constant[ends == longest].groupby("params_m"):
        t, y = part["step"].to_numpy(float), part["loss"].to_numpy(float)
        for cut in CUTS:
            seen = t <= cut * t[-1]
            fit = fit_power_law(t[seen], y[seen])
            loss, stderr = fit.predict(t[-1])
            error = [100 * (v / y[-1] - 1) for v in (
                plain.curve_fit_loss(t[seen], y[seen], t[-1]), plain.curve_fit_loss(t[seen], y[seen], t[-1], 0.3), loss,
            )]  # fmt: skip
            inside = abs(loss - y[-1]) <= 1.645 * stderr
            name = f"{params}M to {t[-1]:.0f} from {cut:.0%}"
            row(name, *(f"{e:+.2f}" for e in error), f"±{164.5 * stderr / loss:.2f}", "yes" if inside else "no")
            out[f"loss_error_{params}m_{round(100 * cut)}"] = abs(error[2])
    return out


def optimum(data: Path, plots: Path | None) -> Out:
    """The optimum at the end of the runs when all LRs are cut; every start of the window."""
    methods: dict[str, plain.Method] = {
        "no extrapolation": plain.no_extrapolation,
        "Eq. 4 each LR": plain.eq4_each(0.0),
        "Eq. 4 each LR, -30 %": plain.eq4_each(0.3),
        "one gamma, -30 %": plain.shared_gamma(0.3),
        "one gamma, -50 %": plain.shared_gamma(0.5),
    }
    out: Out = {}
    inside: list[bool] = []
    covered: list[bool] = []
    for name, table in tables(data).items():
        lr, t, y = table.columns.to_numpy(float), table.index.to_numpy(float), table.to_numpy().T
        truth = LossOverLR(np.log(lr), y[:, -1])
        print(f"\n{name}: {lr.size} LRs, optimum at the end {np.exp(truth.optimum):.3g}; log error (regret in %)")
        row("", *(f"from {cut:.0%}" for cut in CUTS))
        for title, method in methods.items():
            at = [method(lr, t[t <= c * t[-1]], y[:, t <= c * t[-1]], t[-1]) for c in CUTS]
            row(title, *(f"{a - truth.optimum:+.2f} ({regret(truth, a):.2f})" for a in at))
        for start in STARTS:
            said = []
            for cut in CUTS:
                seen = (t <= cut * t[-1]) & (t >= start * cut * t[-1])
                fit = fit_surface(np.repeat(lr, seen.sum()), np.tile(t[seen], lr.size), y[:, seen].ravel())
                at, (low, high) = float(np.log(fit.lr_opt(t[-1]))), fit.lr_interval(t[-1])
                inside.append(low <= np.exp(truth.optimum) <= high)
                near = y[:, -1] <= 1.05 * y[:, -1].min()
                loss, stderr = fit.loss(lr[near], t[-1])
                covered.extend(np.abs(loss - y[near, -1]) <= 1.645 * np.asarray(stderr))
                said.append(f"{at - truth.optimum:+.2f} ({regret(truth, at):.2f})")
                for what, value in (("error", abs(at - truth.optimum)), ("regret", regret(truth, at))):
                    key = f"{name.split(' ')[0]}_{what}_{round(100 * cut)}"
                    out[key] = max(out.get(key, 0.0), value)
                if plots is not None and start == 0.0:
                    laws_plots.surface(
                        plots / f"surface_{name.replace(' ', '_')}_{round(100 * cut)}.png", table, fit, cut
                    )
            row(f"raylr, window from {start:.0%}", *said)
    out["coverage_90_optima"], out["coverage_90_losses"] = float(np.mean(inside)), float(np.mean(covered))
    print(f"\ninside the 90 % intervals: {np.mean(inside):.0%} of {len(inside)} optima,", end=" ")
    print(f"{np.mean(covered):.0%} of {len(covered)} losses")
    return out


def few(data: Path) -> Out:
    """Optima inside the measured tokens from 4 of the LRs and 16 evaluations, against those from all LRs."""
    inside: list[bool] = []
    errors: list[float] = []
    print("\noptimum inside the measured tokens, 4 of the LRs, 16 evaluations")
    for table in tables(data).values():
        t, lrs = table.index.to_numpy(float), table.columns.to_numpy(float)
        at = np.unique(np.round(np.linspace(t.size / 16 - 1, t.size - 1, 16)).astype(int))
        for first in range(lrs.size - 5 if lrs.size >= 6 else 0):
            for pick in (np.arange(first, first + 4), np.arange(first, lrs.size, 2)[:4]):
                part = table.iloc[at, pick]
                fit = fit_surface(np.repeat(lrs[pick], at.size), np.tile(t[at], pick.size), part.to_numpy().T.ravel())
                for end in at[[at.size // 4, at.size // 2, -1]]:
                    truth = LossOverLR(np.log(lrs), table.iloc[max(end - 2, 0) : end + 3].mean().to_numpy()).optimum
                    if np.log(lrs[pick[0]]) < truth < np.log(lrs[pick[-1]]):
                        low, high = fit.lr_interval(t[end])
                        inside.append(low <= np.exp(truth) <= high)
                        errors.append(float(np.log(fit.lr_opt(t[end]))) - truth)
    if not inside:
        print("  no table with six LRs")
        return {}
    rms = float(np.sqrt(np.mean(np.square(errors))))
    print(f"  log error {rms:.2f} rms, inside the 90 % intervals: {np.mean(inside):.0%} of {len(inside)}")
    return {"few_lrs_error": rms, "few_lrs_coverage_90": float(np.mean(inside))}


def regret(truth: LossOverLR, at: float) -> float:
    """Percent of the best loss."""
    return 100 * (float(truth(at)) / truth.best - 1)


def grid_cells(data: Path, name: str) -> pd.DataFrame:
    """One row a cell of an `lr_grid` table: its features, LRs and losses."""
    frame = pd.read_csv(data / f"lr_grid_{name}.csv")
    frame = frame[np.isfinite(frame["smooth_loss"])]
    keys = [k for k in ("sparsity", "N", "N_active", "D", "batch_seqs") if k in frame]
    rows = []
    for values, part in frame.groupby(keys):
        mean = part.groupby("lr")["smooth_loss"].mean()
        if mean.size >= 5:
            lr, loss = mean.index.to_numpy(float), mean.to_numpy()
            rows.append(
                {**dict(zip(keys, values, strict=True)), "lr": lr, "loss": loss, "over": LossOverLR(np.log(lr), loss)}
            )
    return pd.DataFrame(rows)


def four(cell: pd.Series, scheme: str) -> np.ndarray:
    """Which 4 LRs of a cell: `spread` over all, or every second one `around` the best."""
    n, best = cell["lr"].size, int(np.argmin(cell["loss"]))
    if scheme == "spread":
        return np.round(np.linspace(0, n - 1, 4)).astype(int)
    first = int(np.clip(best - 3, 0, max(n - 7, 0)))
    return np.arange(first, min(first + 7, n), 2)


def grid(data: Path, plots: Path | None) -> Out:
    """Eq. 2 on the cells of the LR grids."""
    out: Out = {}
    methods = {
        "best measured": plain.best_measured,
        "polyfit, all points": plain.polyfit_optimum,
        "polyfit, within 3 %": plain.windowed_optimum,
    }
    for name in ("moe", "dense"):
        if not (data / f"lr_grid_{name}.csv").exists():
            continue
        cells = grid_cells(data, name)
        features = np.log(cells[[k for k in ("N_active", "N", "D", "batch_seqs") if k in cells][-3:]].to_numpy(float))
        for scheme in ("all", "spread", "around"):
            pick = [np.arange(c["lr"].size) if scheme == "all" else four(c, scheme) for _, c in cells.iterrows()]
            print(f"\nlr_grid_{name}, {len(cells)} cells, LRs: {scheme}; regret in %")
            row("", "median", "mean", "90th pct", "worst", "inside 90 %")
            for title, method in methods.items():
                show(
                    title,
                    cells,
                    [method(c["lr"][p], c["loss"][p]) for (_, c), p in zip(cells.iterrows(), pick, strict=True)],
                )
            fits = [fit_quadratic(c["lr"][p], c["loss"][p]) for (_, c), p in zip(cells.iterrows(), pick, strict=True)]
            out |= keyed(show("raylr", cells, [np.log(f.lr_opt) for f in fits], fits), f"grid_{name}_{scheme}")
            if scheme == "all":
                good = [f.r2 for f in fits if f.ok]
                print(f"  R² of the fits: median {np.median(good):.3f}")
                out[f"grid_{name}_r2"] = float(np.median(good))
                continue
            for _ in range(2):
                priors = pooled_priors(fits, features)
                fits = [fit_quadratic(c["lr"][p], c["loss"][p], prior=prior)
                        for (_, c), p, prior in zip(cells.iterrows(), pick, priors, strict=True)]  # fmt: skip
            result = show("raylr, prior of other cells", cells, [np.log(f.lr_opt) for f in fits], fits)
            out |= keyed(result, f"grid_{name}_{scheme}_pooled")
        if plots is not None:
            laws_plots.grid(plots / f"grid_{name}.png", cells)
    return out


def show(title: str, cells: pd.DataFrame, at: list[float], fits: list[Any] | None = None) -> Out:
    """Print and return the regrets of one method."""
    lost = [regret(c["over"], a if np.isfinite(a) else plain.best_measured(c["lr"], c["loss"]))
            for (_, c), a in zip(cells.iterrows(), at, strict=True)]  # fmt: skip
    numbers = {"median": np.median(lost), "mean": np.mean(lost), "p90": np.quantile(lost, 0.9), "worst": np.max(lost)}
    cover = ""
    if fits is not None:
        ends = [f.lr_interval() for f in fits]
        hit = [
            low <= np.exp(c["over"].optimum) <= high for (low, high), (_, c) in zip(ends, cells.iterrows(), strict=True)
        ]
        numbers["coverage_90"] = np.mean(hit)
        cover = f"{np.mean(hit):.0%}"
    row(title, *(f"{numbers[k]:.4f}" for k in ("median", "mean", "p90", "worst")), cover)
    return {k: float(v) for k, v in numbers.items()}


def keyed(numbers: Out, prefix: str) -> Out:
    """The numbers under `prefix`."""
    return {f"{prefix}_{k}": v for k, v in numbers.items()}


def law(data: Path) -> Out:
    """Eq. 8 on the best batch of each (size, budget) but the largest; families of Eq. 5 by cross-validation."""
    out: Out = {}
    for name in ("dense", "moe"):
        if not (data / f"lr_grid_{name}.csv").exists():
            continue
        cells = grid_cells(data, name)
        cells["size"] = cells["N_active" if "N_active" in cells else "N"].astype(float)
        fits = [fit_quadratic(c["lr"], c["loss"]) for _, c in cells.iterrows()]
        cells["opt"] = [f.lr_opt if f.ok else np.nan for f in fits]
        cells["stderr"] = [np.clip(f.log_lr_stderr(), 0.05, 3.0) for f in fits]
        cells["least"] = [c["loss"].min() for _, c in cells.iterrows()]
        best = cells.loc[cells.groupby(["size", "D"])["least"].idxmin()]
        compute = best["size"] * best["D"].astype(float)
        small, large = best[compute < compute.max()], best[compute == compute.max()]
        fitted = fit_lr_law(
            small["size"],
            small["D"].astype(float),
            small["opt"],
            stderr=small["stderr"],
            objective="decayed",
            schedule="cosine",
        )
        print(f"\nlr_grid_{name}: law of the optimum at the best batch of {len(small)} cells, tried on the largest")
        print(f"  alpha {fitted.alpha:+.3f}, beta {fitted.beta:+.3f}, R² {fitted.r2:.3f}, {fitted.status}")
        for _, c in large.iterrows():
            said = fitted.predict(c["size"], float(c["D"]))
            ours, published = (
                regret(c["over"], v) for v in (np.log(said.lr), plain.step_law(c["size"], float(c["D"])))
            )
            true = float(np.exp(c["over"].optimum))
            where = "inside" if said.lr_low <= true <= said.lr_high else "outside"
            span = f"{said.lr:.3g} in {said.lr_low:.3g} to {said.lr_high:.3g}"
            print(f"  N {c['size']:.3g}, D {c['D']:.3g}: {span}; optimum {true:.3g}, {where}")
            row("regret in %: raylr, Step Law", f"{ours:.3f}", f"{published:.3f}")
            out[f"law_{name}_regret"] = max(ours, out.get(f"law_{name}_regret", 0.0))
        scores = compare_families(
            cells["opt"], params=cells["N"].astype(float), tokens=cells["D"].astype(float), active=cells["size"],
            batch=cells["batch_seqs"] * 2048.0, groups=cells.groupby(["size", "D"]).ngroup(), stderr=cells["stderr"],
        )  # fmt: skip
        row("family", "cv error", "fit error")
        for s in scores:
            row(
                s.family,
                f"{s.cv_rmse:.3f}",
                f"{s.rmse:.3f}",
                "  " + ", ".join(f"{k} {v:+.2f}" for k, v in s.exponents.items()),
            )
    zhou = presets.get("zhou2026").predict(4e9, 120e9).lr
    print(f"\nzhou2026 at 4B, 120B tokens: {zhou:.3g} (Table 4: 5.55e-04)")
    out["zhou2026_4b_120b"] = zhou
    return out


def speed(curves: int = 10_000, points: int = 60) -> Out:
    """Eq. 4 on many curves, one core, against a loop of `curve_fit` with the same model and points."""
    rng = np.random.default_rng(0)
    t = np.linspace(1, points, points) * 1e6
    gamma, l0, b = rng.uniform(0.2, 0.8, curves), rng.uniform(2, 3, curves), rng.uniform(0.2, 1, curves)
    y = l0[:, None] + b[:, None] * (t / t[-1]) ** -gamma[:, None] + rng.normal(0, 2e-3, (curves, points))
    fit_power_laws(t, y[:10], burn_in=0)
    began = time.perf_counter()
    ours = fit_power_laws(t, y, burn_in=0)
    took = time.perf_counter() - began
    some = range(0, curves, max(curves // 1000, 1))
    began = time.perf_counter()
    theirs = np.array([curve_fit(plain.eq4, t / t[-1], y[i], p0=(2.5, 0.5, 0.5))[0] for i in some])
    loop = (time.perf_counter() - began) / len(some) * curves
    apart = max(abs(ours[i].gamma - theirs[k, 2]) for k, i in enumerate(some))
    print(
        f"\n{curves} curves of {points} points: {took:.3f} s, loop of curve_fit {loop:.2f} s (from {len(some)} of them)"
    )
    print(f"  {loop / took:.0f} times as fast; exponents differ by {apart:.1e} at most")
    return {"fit_speedup": loop / took, "fit_speedup_gamma_difference": apart}


def cooldown(data: Path) -> Out:
    """How far a cooldown moves the optimum of the 124M model."""
    decayed, stable = (pd.read_csv(data / f"wsd124m_{name}.csv") for name in ("decayed", "stable"))
    out: Out = {}
    print("\noptimum after a linear cooldown over that of the stable phase at the same step")
    for fraction, part in decayed[decayed["shape"] == "linear"].groupby("decay_frac"):
        pairs = []
        for steps, cell in part.groupby("total_steps"):
            at = stable.loc[(stable["step"] - steps).abs().groupby(stable["lr"]).idxmin()]
            both = [fit_quadratic(c["lr"], c["val_loss"]) for c in (at, cell)]
            pairs.append([f.lr_opt if f.ok else np.nan for f in both])
        shift = fit_cooldown(*np.array(pairs).T)
        row(
            f"{fraction:.0%} of the steps",
            f"x {np.exp(shift.log_shift):.2f}",
            f"± {shift.scatter:.2f} in ln",
            f"{shift.cells} budgets",
        )
        out[f"cooldown_shift_{round(100 * fraction)}"] = shift.log_shift
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the tables (default: RAYLR_DATA)")
    parser.add_argument("--only", default="losses,optimum,few,grid,law,speed,cooldown", help="comma-separated sections")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--plots", type=Path, help="write pictures into this folder")
    args = parser.parse_args()
    if args.plots is not None:
        args.plots.mkdir(parents=True, exist_ok=True)
    sections: dict[str, tuple[Any, tuple[str, ...]]] = {
        "losses": (lambda: losses(args.data), ("schedules_25m_100m",)),
        "optimum": (lambda: optimum(args.data, args.plots), ()),
        "few": (lambda: few(args.data), ()),
        "grid": (lambda: grid(args.data, args.plots), ()),
        "law": (lambda: law(args.data), ()),
        "speed": (speed, ()),
        "cooldown": (lambda: cooldown(args.data), ("wsd124m_stable", "wsd124m_decayed")),
    }
    asked = args.only.split(",")
    if unknown := set(asked) - set(sections):
        parser.error(f"unknown section {sorted(unknown)[0]!r}; there are {', '.join(sections)}")
    if not args.data.is_dir():
        parser.error(f"no folder {args.data}: give --data or set RAYLR_DATA")
    out: Out = {}
    for name in asked:
        run, needs = sections[name]
        missing = [f"{n}.csv" for n in needs if not (args.data / f"{n}.csv").exists()]
        if missing:
            print(f"\n{name}: skipped, {', '.join(missing)} is not in {args.data}")
            continue
        out |= run()
    covers = [v for k, v in out.items() if "coverage_90" in k]
    if covers:
        out["coverage_90"] = float(np.mean(covers))
    if args.json is not None:
        args.json.write_text(json.dumps(out, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
