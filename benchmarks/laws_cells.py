"""The parts of `laws.py` about cells: the loss over the LR on the LR grids, and the law over their optima."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import laws_plain as plain
import laws_plots
import numpy as np
import pandas as pd
from laws_scaling import EDGES
from laws_tables import Out, covered, four, grid_cells, regret, row

from raylr.analysis import (
    Conditions,
    OptimumFit,
    compare_families,
    fit_lr_law,
    fit_optimum,
    pooled_priors,
)
from raylr.analysis.status import Status

BEYOND = ((0.0, 0.05, "inside the range"), (0.05, 0.8, "up to 2.2 times beyond"), (0.8, 99.0, "further"))
"""Extrapolation in e-folds of size and tokens, summed."""


def grid(data: Path, plots: Path | None) -> Out:
    """The loss over the LR on the cells of the LR grids."""
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
            seen = [(c["lr"][p], c["loss"][p]) for _, c in cells.iterrows()
                    for p in [np.arange(c["lr"].size) if scheme == "all" else four(c, scheme)]]  # fmt: skip
            print(f"\nlr_grid_{name}, {len(cells)} cells, LRs: {scheme}; regret in %")
            row("", "median", "mean", "90th pct", "worst", "inside 90 %")
            for title, method in methods.items():
                result = show(title, cells, seen, [method(lr, loss) for lr, loss in seen])
                if title == "polyfit, within 3 %":
                    out |= {f"plain_grid_{name}_{scheme}_{k}": v for k, v in result.items()}
            fits = [fit_optimum(lr, loss) for lr, loss in seen]
            result = show("raylr", cells, seen, [np.log(f.lr) for f in fits], fits)
            out |= {f"grid_{name}_{scheme}_{k}": v for k, v in result.items()}
            if scheme == "all":
                continue
            for _ in range(2):
                priors = pooled_priors(fits, features)
                fits = [fit_optimum(*one, prior=prior) for one, prior in zip(seen, priors, strict=True)]
            result = show("raylr, prior of other cells", cells, seen, [np.log(f.lr) for f in fits], fits)
            out |= {f"grid_{name}_{scheme}_pooled_{k}": v for k, v in result.items() if "coverage" not in k}
        out |= limit(name, cells)
        if plots is not None:
            laws_plots.grid(plots / f"grid_{name}.png", name, cells)
    return out


def show(
    title: str, cells: pd.DataFrame, seen: list[tuple[np.ndarray, np.ndarray]], at: list[float],
    fits: list[OptimumFit] | None = None,
) -> Out:  # fmt: skip
    """Print and return the regrets of one method; the best LR that it has `seen` where it finds no optimum."""
    lost = [regret(over, a if np.isfinite(a) else plain.best_measured(*one))
            for over, one, a in zip(cells["over"], seen, at, strict=True)]  # fmt: skip
    numbers = {"median": np.median(lost), "mean": np.mean(lost), "p90": np.quantile(lost, 0.9), "worst": np.max(lost)}
    values, text = {k: float(v) for k, v in numbers.items()}, ""
    if fits is not None:
        cover: Out = {}
        ends = [f.interval() for f in fits]
        text = covered(cover, "x", [lo <= np.exp(o.optimum) <= hi
                                    for (lo, hi), o in zip(ends, cells["over"], strict=True)])  # fmt: skip
        values |= {k.removeprefix("x_"): v for k, v in cover.items()}
    row(title, *(f"{values[k]:.4f}" for k in numbers), text)
    return values


def limit(name: str, cells: pd.DataFrame) -> Out:
    """What 4 LRs over the range can give: an oracle that knows the truth chooses the parabola."""
    diverged = np.zeros(len(cells), dtype=bool)
    ours, parabolas = np.empty(len(cells)), np.empty(len(cells))
    for i, (_, c) in enumerate(cells.iterrows()):
        p = four(c, "spread")
        lr, loss = c["lr"][p], c["loss"][p]
        diverged[i] = loss.max() > 1.5 * loss.min()
        ours[i] = regret(c["over"], np.log(fit_optimum(lr, loss).lr))
        parabolas[i] = min(regret(c["over"], plain.polyfit_optimum(lr[list(three)], loss[list(three)]))
                           for three in combinations(range(lr.size), 3))  # fmt: skip
    out = {"oracle_parabola": float(parabolas.mean())}
    print(
        f"  4 LRs over the range, mean regret: raylr {ours.mean():.3f} %; for each cell, chosen on its truth,", end=" "
    )
    print(f"the best parabola through three of the four {parabolas.mean():.3f}")
    if diverged.any():
        share = np.sort(ours)[-10:].sum() / ours.sum()
        print(f"  with a diverged run {ours[diverged].mean():.3f} ({diverged.sum()} cells), without", end=" ")
        print(f"{ours[~diverged].mean():.3f}; the ten worst cells have {share:.0%} of the sum")
        out |= {"diverged": float(ours[diverged].mean()), "whole": float(ours[~diverged].mean())}
    return {f"grid_{name}_spread_{k}": v for k, v in out.items()}


def law(data: Path, plots: Path | None) -> Out:
    """Eq. 8 on the optima of cells: the largest from the others, the coverage over many splits, other families."""
    out: Out = {}
    hits: list[tuple[str, float, bool, bool]] = []
    for name in ("dense", "moe"):
        if not (data / f"lr_grid_{name}.csv").exists():
            continue
        cells = grid_cells(data, name)
        fits = [fit_optimum(c["lr"], c["loss"]) for _, c in cells.iterrows()]
        cells["opt"] = [f.lr if f.status not in EDGES else np.nan for f in fits]
        cells["stderr"] = [np.clip(f.log_lr_stderr(), 0.05, 3.0) for f in fits]
        cells["least"] = [c["loss"].min() for _, c in cells.iterrows()]
        best = cells.loc[cells.groupby(["size", "tokens"])["least"].idxmin()]
        compute = best["size"] * best["tokens"]
        small, large = best[compute < compute.max()], best[compute == compute.max()]
        fitted, plain_law = _law_of(small), _law_of(small, priors=None)
        print(f"\nlr_grid_{name}: law of the optimum at the best batch of {len(small)} cells, tried on the largest")
        print(f"  alpha {fitted.alpha:+.3f}, beta {fitted.beta:+.3f}, R² {fitted.r2:.3f}, scatter {fitted.scatter:.2f}")
        for _, c in large.iterrows():
            ahead = fitted.predict(c["size"], c["tokens"])
            ours, published = (regret(c["over"], v) for v in (np.log(ahead.lr), plain.step_law(c["size"], c["tokens"])))
            true = float(np.exp(c["over"].optimum))
            where = "inside" if ahead.lr_low <= true <= ahead.lr_high else "outside"
            span = f"{ahead.lr:.3g} in {ahead.lr_low:.3g} to {ahead.lr_high:.3g}"
            print(f"  N {c['size']:.3g}, D {c['D']:.3g}: {span}; optimum {true:.3g}, {where}")
            squares = regret(c["over"], np.log(plain_law.predict(c["size"], c["tokens"]).lr))
            row("regret in %: raylr, least squares, Step Law", f"{ours:.3f}", f"{squares:.3f}", f"{published:.3f}")
            keys = (f"law_{name}_regret", f"least_squares_law_{name}_regret", f"plain_law_{name}_regret")
            for key, value in zip(keys, (ours, squares, published), strict=True):
                out[key] = max(value, out.get(key, 0.0))
        hits += [("best batch, unknown", *hit) for hit in _splits(best)]
        hits += [("best batch, in the law", *hit) for hit in _splits(best, known=True)]
        for count, part in cells.groupby("batch_seqs"):
            hits += [("one batch", *hit) for hit in _splits(part, batch_tokens=2048.0 * count)]
        _neighbours(name, cells, out)
        _families(cells)
        if plots is not None:
            laws_plots.law(plots / f"law_{name}.png", name, best, _law_of(best))
    if hits:
        _coverage(hits, out)
    return out


def _law_of(cells: pd.DataFrame, batch_tokens: float | None = None, **options: Any) -> Any:
    conditions = Conditions(schedule="cosine", objective="decayed", batch_tokens=batch_tokens)
    return fit_lr_law(
        cells["size"], cells["tokens"], cells["opt"], stderr=cells["stderr"], conditions=conditions, **options
    )


def _splits(
    cells: pd.DataFrame, batch_tokens: float | None = None, *, known: bool = False
) -> Iterator[tuple[float, bool, bool]]:
    """Laws with each cell, size, budget, and the largest 1, 2, ... cells left out, tried on what was left out: how far
    beyond the cells, and whether the interval holds the optimum, as it is and with the error of its own cell."""
    cells = cells[np.isfinite(cells["opt"])]
    order = np.argsort(np.argsort((cells["size"] * cells["tokens"]).to_numpy()))
    outs = [np.arange(len(cells)) == i for i in range(len(cells))]
    outs += [(cells[k] == v).to_numpy() for k in ("size", "tokens") for v in cells[k].unique()]
    outs += [order >= len(cells) - k for k in range(1, len(cells) // 2)]
    for out in {one.tobytes(): one for one in outs}.values():
        if (~out).sum() < 4:
            continue
        batch = {"batch": cells.loc[~out, "batch_seqs"] * 2048.0} if known else {}
        fitted = _law_of(cells[~out], batch_tokens, **batch)
        if not fitted.ok:  # its intervals are open at the predicted cell
            continue
        for _, c in cells[out].iterrows():
            ahead = fitted.predict(c["size"], c["tokens"], batch=2048.0 * c["batch_seqs"])
            off = abs(c["over"].optimum - np.log(ahead.lr))
            half = 0.5 * np.log(ahead.lr_high / ahead.lr_low)
            yield (np.log(ahead.params_beyond * ahead.tokens_beyond), off <= half,
                   off <= np.hypot(half, 1.645 * c["stderr"]))  # fmt: skip


def _neighbours(name: str, cells: pd.DataFrame, out: Out) -> None:
    """The exponents between neighbouring budgets (sizes) at one size (budget) and batch: how much they differ beyond
    the errors of the optima."""
    good = cells[np.isfinite(cells["opt"])]
    for along, other in (("tokens", "size"), ("size", "tokens")):
        slopes = []
        for _, part in good.groupby([other, "batch_seqs"]):
            part = part.sort_values(along)
            step = np.diff(np.log(part[along]))
            error = np.hypot(part["stderr"].to_numpy()[1:], part["stderr"].to_numpy()[:-1])
            slopes += [
                (a / d, e / d) for a, e, d in zip(np.diff(np.log(part["opt"])), error, step, strict=True) if e < d
            ]
        if len(slopes) < 5:
            continue
        value, error = np.array(slopes).T
        beyond = float(np.sqrt(max(value.var(ddof=1) - np.mean(error**2), 0.0)))
        print(f"  exponent between neighbouring {along}: {value.mean():+.2f},", end=" ")
        print(f"sd {value.std(ddof=1):.2f}, {beyond:.2f} beyond errors ({len(slopes)} pairs)")
        out[f"law_{name}_drift_{along}"] = beyond


def _coverage(hits: list[tuple[str, float, bool, bool]], out: Out) -> None:
    frame = pd.DataFrame(hits, columns=["set", "beyond", "inside", "with_error"])
    print(
        "\noptima of cells that a law has not seen, both grids: inside its 90 % interval (with the optimum's own error)"
    )
    for name, part in frame.groupby("set"):
        row(f"law of {name}", covered(out, f"law_{name.replace(',', '').replace(' ', '_')}", part["inside"]),
            f"({part['with_error'].mean():.0%})")  # fmt: skip
    for low, high, words in BEYOND:
        part = frame[(frame["beyond"] >= low) & (frame["beyond"] < high)]
        if len(part):
            row(words, f"{part['inside'].mean():.0%} of {len(part)}", f"({part['with_error'].mean():.0%})")


def _families(cells: pd.DataFrame) -> None:
    """Other forms of Eq. 5, by the error on (size, budget) groups that were left out."""
    scores = compare_families(
        cells["opt"], params=cells["N"].astype(float), tokens=cells["tokens"], active=cells["size"],
        batch=cells["batch_seqs"] * 2048.0, groups=cells.groupby(["size", "D"]).ngroup(), stderr=cells["stderr"],
    )  # fmt: skip
    row("family", "cv error", "fit error")
    for s in scores:
        if s.status is Status.NOT_DETERMINED:
            print(f"  {s.family:34}not determined: {s.message}")
            continue
        exponents = ", ".join(f"{k} {v:+.2f}" for k, v in s.exponents.items())
        row(s.family, f"{s.cv_rmse:.3f}" if s.ok else "fit only", f"{s.rmse:.3f}", f"  {exponents}")
