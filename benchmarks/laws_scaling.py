"""The parts of `laws.py` about laws with a batch, few cells, losses and seeds.

Baselines: least squares on the exponents, a law without the batch, and `curve_fit` of Hoffmann's form."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from laws_tables import Out, covered, grid_cells, row
from scipy.optimize import curve_fit

from raylr.analysis import Conditions, compare_runs, fit_loss_law, fit_lr_law, fit_optimum
from raylr.analysis.laws import presets
from raylr.analysis.status import Status

# marin issues 5951, 5818 and 6074: hidden size, sequences of 4,096 tokens a batch, active parameters, and for each
# number of tokens per active parameter the measured optimum over the LR of the AdamH law. The active parameters of
# width 1280 follow from the issue's own predictions.
MARIN = {
    512: (32, 20.7e6, {10: 1.199, 20: 1.032, 60: 0.904, 120: 0.849, 240: 0.811}),
    768: (64, 58.6e6, {10: 1.106, 20: 1.036, 60: 0.921}),
    1024: (128, 141.8e6, {10: 1.029, 20: 0.947}),
    1280: (256, 250e6, {10: 1.036, 20: 0.943, 60: 0.858, 120: 0.817}),
}
EDGES = (Status.EDGE_LOW, Status.EDGE_HIGH)
MARIN_TARGET = 0.003733
"""LR of its 67B-A2B run: width 2560, 2B active parameters, 1.007e13 tokens, batches of 33.55M (marin issue 6044)."""


def optima(data: Path, name: str) -> pd.DataFrame:
    """Cells of a grid with their optimum, its standard error and the least loss."""
    cells = grid_cells(data, name)
    fits = [fit_optimum(c["lr"], c["loss"]) for _, c in cells.iterrows()]
    cells["opt"] = [f.lr if f.status not in EDGES else np.nan for f in fits]
    cells["stderr"] = [np.clip(f.log_lr_stderr(), 0.05, 3.0) for f in fits]
    cells["least"] = [c["over"].best for _, c in cells.iterrows()]
    cells["truth"] = [c["over"].optimum for _, c in cells.iterrows()]
    return cells[np.isfinite(cells["opt"])]


def few_cells(data: Path) -> Out:
    """Laws from 2 x 2 cells at one batch, tried at all cells that are larger."""
    out: Out = {}
    print("\nlaws from 2 x 2 cells at one batch, tried at larger cells: root mean square error of ln lr, intervals")
    row("", "least squares", "with priors", "inside 90 %", "median width")
    for name in ("dense", "moe"):
        if not (data / f"lr_grid_{name}.csv").exists():
            continue
        cells, errors, hits, widths = optima(data, name), [], [], []
        for sequences, part in cells.groupby("batch_seqs"):
            conditions = Conditions(batch_tokens=2048.0 * sequences)
            for four in _fours(part):
                fitted = [_law(four, priors, conditions=conditions) for priors in (False, True)]
                largest = four.iloc[-1]
                for _, c in part.iterrows():
                    beyond = c["size"] * c["tokens"] > 1.5 * largest["size"] * largest["tokens"]
                    if beyond and c["size"] >= largest["size"] and c["tokens"] >= largest["tokens"]:
                        found = [law.predict(c["size"], c["tokens"]) for law in fitted]
                        errors.append([math.log(one.lr) - c["truth"] for one in found])
                        hits.append(found[1].lr_low <= math.exp(c["truth"]) <= found[1].lr_high)
                        widths.append(math.log(found[1].lr_high / found[1].lr_low))
        if errors:
            plain, ours = np.sqrt(np.nanmean(np.square(errors), 0))
            out |= {f"few_cells_{name}_error": ours, f"plain_few_cells_{name}_error": plain}
            width = f"x {math.exp(np.median(widths) / 2):.2f}"
            row(f"lr_grid_{name}", f"{plain:.3f}", f"{ours:.3f}", covered(out, f"few_cells_{name}", hits), width)
    return out


def _fours(cells: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """2 x 2 cells: two sizes, and two budgets of each that are about the same (budgets follow the size in one grid)."""
    for n1, n2 in itertools.combinations(sorted(cells["size"].unique()), 2):
        small, large = (cells[cells["size"] == n].sort_values("tokens") for n in (n1, n2))
        for (_, a), (_, b) in itertools.combinations(small.iterrows(), 2):
            near = [large.iloc[(np.log(large["tokens"] / c["tokens"])).abs().argmin()] for c in (a, b)]
            far = [abs(math.log(c["tokens"] / one["tokens"])) for c, one in zip((a, b), near, strict=True)]
            if max(far) < math.log(2.1) and near[1]["tokens"] > 1.5 * near[0]["tokens"]:
                yield pd.DataFrame([a, b, *near])


def _law(cells: pd.DataFrame, priors: bool, **options: Any) -> Any:
    extra = options if priors else options | {"priors": None}
    return fit_lr_law(cells["size"], cells["tokens"], cells["opt"], stderr=cells["stderr"].astype(float), **extra)


def batch(data: Path) -> Out:
    """Laws over cells of all batches: the largest compute left out in turn."""
    out: Out = {}
    print("\nlaws over cells of all batches, tried at the cells with the most compute: error of ln lr, intervals")
    row("", "no batch", "B^0", "B^0.5", "fitted", "prior", "inside (prior)")
    for name in ("dense", "moe"):
        if not (data / f"lr_grid_{name}.csv").exists():
            continue
        cells = optima(data, name)
        compute = cells["size"] * cells["tokens"]
        errors: list[list[float]] = []
        hits: list[bool] = []
        deltas: list[float] = []
        for share in (0.5, 0.7, 0.85):
            edge = compute.quantile(share)
            small, large = cells[compute <= edge], cells[compute > edge]
            kinds = (None, 0.0, 0.5, "fit", "prior")
            laws = [
                _law(small, True) if kind is None else
                _law(small, True, batch=small["batch_seqs"] * 2048.0, batch_exponent=kind) for kind in kinds
            ]  # fmt: skip
            deltas.append(laws[4].delta)
            for _, c in large.iterrows():
                found = [law.predict(c["size"], c["tokens"], batch=c["batch_seqs"] * 2048.0) for law in laws]
                errors.append([math.log(one.lr) - c["truth"] for one in found])
                hits.append(found[4].lr_low <= math.exp(c["truth"]) <= found[4].lr_high)
        rms = np.sqrt(np.mean(np.square(errors), 0))
        inside = covered(out, f"batch_{name}", hits)
        row(f"lr_grid_{name}", *(f"{value:.3f}" for value in rms), inside, f"  delta {np.mean(deltas):+.2f}")
        out |= {f"plain_batch_{name}_error": rms[0], f"batch_{name}_error": rms[4]}
    return out


def marin() -> Out:
    """Marin's published cells, at its 10T target."""
    width, active, tokens, sequences, lr = [], [], [], [], []
    reference = presets.get("marin-adamh")
    for hidden, (count, size, cells) in MARIN.items():
        for ratio, multiple in cells.items():
            width.append(hidden)
            active.append(size)
            tokens.append(ratio * size)
            sequences.append(count * 4096.0)
            lr.append(multiple * float(reference.value(hidden, ratio * size, count * 4096.0)))
    out: Out = {}
    print(f"\nmarin's 14 cells, tried at its target of 1.007e13 tokens ({MARIN_TARGET:.3g}): LR over that, exponents")
    row("", "no batch", "B^0.5", "prior of B")
    found = []
    batches: tuple[dict[str, Any], ...] = ({}, {"batch": sequences, "batch_exponent": 0.5}, {"batch": sequences})
    for options in batches:
        law = fit_lr_law(active, tokens, lr, params_kind="active", **options)
        ahead = law.predict(2e9, 1.007e13, batch=33.55e6 if options else None)
        found.append((ahead.lr / MARIN_TARGET, law, ahead))
    row("LR predicted over the target's", *(f"{ratio:.2f}" for ratio, *_ in found))
    row("alpha, beta", *(f"{law.alpha:+.2f}, {law.beta:+.2f}" for _, law, _ in found))
    inside = [ahead.lr_low <= MARIN_TARGET <= ahead.lr_high for *_, ahead in found]
    row("inside 90 %", *("yes" if one else "no" for one in inside))
    for name, (off, *_) in zip(("blind", "sqrt", "prior"), found, strict=True):
        out[f"marin_{name}_error"] = abs(math.log(off))
    return out


def loss_law(data: Path) -> Out:
    """Hoffmann's form on the least losses of the grids' cells, the larger cells left out."""
    out: Out = {}
    print("\nloss law from the smaller cells of a grid, tried at the others: error in percent of the loss, intervals")
    row("", "curve_fit", "raylr", "inside 90 %")
    for name in ("dense", "moe"):
        if not (data / f"lr_grid_{name}.csv").exists():
            continue
        cells = optima(data, name)
        best = cells.loc[cells.groupby(["size", "tokens"])["least"].idxmin()]
        compute, errors, hits = best["size"] * best["tokens"], [], []
        for count in range(6, len(best) - 1):
            small = best[compute.rank() <= count]
            law = fit_loss_law(small["size"], small["tokens"], small["least"])
            if not law.ok:
                continue
            plain = _hoffmann(small)
            for _, c in best[compute.rank() > count].iterrows():
                ahead = law.predict(c["size"], c["tokens"])
                theirs = plain(c["size"], c["tokens"])
                errors.append([100 * (value / c["least"] - 1) for value in (theirs, ahead.loss)])
                hits.append(ahead.low <= c["least"] <= ahead.high)
        theirs, ours = np.median(np.abs(errors), 0)
        out |= {f"loss_law_{name}_error": ours, f"plain_loss_law_{name}_error": theirs}
        row(f"lr_grid_{name}", f"{theirs:.2f}", f"{ours:.2f}", covered(out, f"loss_law_{name}", hits))
    return out


def loss_law_batch(data: Path) -> Out:
    """The loss law with the batch in it on the cells of all batches, tried at the cells with the most compute, beside
    the law of the cells whose batch is nearest to the target's."""
    out: Out = {}
    print("\nloss law from cells of all batches, tried at those with the most compute: rms error in %, intervals")
    row("", "cells", "nearest batch", "inside 90 %", "with batch", "inside 90 %")
    for name in ("dense", "moe"):
        if not (data / f"lr_grid_{name}.csv").exists():
            continue
        cells = optima(data, name)
        cells["batch"] = 2048.0 * cells["batch_seqs"]
        rank = (cells["size"] * cells["tokens"]).rank(pct=True)
        errors, hits = [], []
        for share in (0.5, 0.8):
            small, large = cells[rank <= share], cells[rank > share]
            whole = fit_loss_law(small["size"], small["tokens"], small["least"], batch=small["batch"])
            for batch, part in large.groupby("batch"):
                away = np.log(small["batch"] / batch).abs()
                near = small.loc[away.groupby([small["size"], small["tokens"]]).idxmin()]
                one = fit_loss_law(near["size"], near["tokens"], near["least"])
                for _, c in part.iterrows():
                    found = (one.predict(c["size"], c["tokens"]), whole.predict(c["size"], c["tokens"], batch=batch))
                    errors.append([100 * (ahead.loss / c["least"] - 1) for ahead in found])
                    hits.append([ahead.low <= c["least"] <= ahead.high for ahead in found])
        theirs, ours = np.sqrt(np.nanmean(np.square(errors), 0))
        inside = np.array(hits)
        out |= {f"loss_law_batch_{name}_error": ours, f"plain_loss_law_batch_{name}_error": theirs}
        row(f"lr_grid_{name}", len(hits), f"{theirs:.2f}", f"{inside[:, 0].mean():.0%}", f"{ours:.2f}",
            covered(out, f"loss_law_batch_{name}", inside[:, 1]))  # fmt: skip
    return out


def _hoffmann(cells: pd.DataFrame) -> Any:
    """`curve_fit` of L = E + A N^-a + B D^-b from Hoffmann's exponents."""
    n0, d0 = (math.exp(np.log(cells[k]).mean()) for k in ("size", "tokens"))

    def form(x: np.ndarray, e: float, a: float, alpha: float, b: float, beta: float) -> np.ndarray:
        return e + a * (x[0] / n0) ** -alpha + b * (x[1] / d0) ** -beta

    x = np.array([cells["size"], cells["tokens"]], float)
    y = cells["least"].to_numpy(float)
    try:
        best, _ = curve_fit(
            form, x, y, p0=(0.7 * y.min(), 0.4, 0.34, 0.4, 0.28), bounds=([0, 0, 0.01, 0, 0.01], [10, 10, 2, 10, 2])
        )
    except RuntimeError:
        return lambda n, d: float(y.min())
    return lambda n, d: float(form(np.array([n, d]), *best))


def seeds(data: Path) -> Out:
    """`compare_runs` on the seeds of the MoE curves: equal settings, and LRs beside the best."""
    frame = pd.read_csv(data / "moe_curves.csv")
    out: Out = {}
    false, true, sides = [], [], []
    for (_, tokens), part in frame.groupby(["params", "tokens"]):
        if tokens < 0.3 * frame["tokens"].max():
            continue
        runs = {lr: g["val_loss"].to_numpy() for lr, g in part.groupby("lr") if g["val_loss"].notna().sum() >= 3}
        spread = {lr: float(np.std(loss, ddof=1)) for lr, loss in runs.items()}
        for lr, loss in runs.items():
            other = [sd for key, sd in spread.items() if key != lr]
            for i in range(loss.size):
                rest = np.delete(loss, i)
                sd = math.sqrt(float(np.mean(np.square(other)))) if other else None
                for known in (None, sd):
                    options: dict[str, Any] = {"seed_sd": known, "seed_sd_dof": 2.0 * len(other)} if known else {}
                    false.append(compare_runs([loss[i]], rest, **options).better is not None)
        for a, b in itertools.combinations(runs, 2):
            result = compare_runs(runs[a], runs[b])
            true.append(result.better is not None)
            sides.append(result.better is None or (result.better == "a") == (runs[a].mean() < runs[b].mean()))
    print("\ncomparing runs of the MoE: one seed against the others of its own setting, and settings with each other")
    row("called different, equal settings", f"{np.mean(false):.1%} of {len(false)}")
    row("called different, other LRs", f"{np.mean(true):.1%} of {len(true)}")
    out |= {"compare_false_better": float(np.mean(false)), "compare_other_lrs": float(np.mean(true))}
    return out


def scaling(data: Path) -> Out:
    """All parts of this module."""
    out = few_cells(data) | batch(data) | marin() | loss_law(data) | loss_law_batch(data)
    return out | (seeds(data) if (data / "moe_curves.csv").exists() else {})
