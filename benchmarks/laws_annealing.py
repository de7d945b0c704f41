"""The part of `laws.py` about `fit_annealing`: losses under schedules whose LR falls.

Three questions: how a run on a cosine ends, from its first part; what other schedules of a model give, from one
constant run and one decayed one; what a decay at every LR gives, from stable curves and one or two decayed runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from laws_schedules import cosine_runs
from laws_tables import Out, row

from raylr.analysis import fit_annealing

SIGMAS = 1.6449
CUTS = (0.4, 0.6, 0.8)
END = 5
"""Last points of a training-loss curve that are averaged for its truth."""
TRAINED = ("constant_24000", "wsd_20000_24000")
BRANCHES: dict[str, tuple[tuple[float, int, float], ...]] = {
    "no decayed run": (),
    "one (1e-3, 15k steps)": ((1e-3, 15000, 0.2),),
    "two (1e-3, 5e-4, 15k)": ((1e-3, 15000, 0.2), (5e-4, 15000, 0.2)),
    "two (1e-3, 5e-4, 25k)": ((1e-3, 25000, 0.2), (5e-4, 25000, 0.4)),
}
"""Peak LR, steps and decay fraction of the decayed runs that a fit is given."""


def annealing(data: Path) -> Out:
    """The three questions, each where its table is there."""
    out: Out = {}
    if (data / "cosine_olmo.csv").exists() and (data / "cosine_adam160m.csv").exists():
        out |= _cosines(data)
    if (data / "schedules_25m_100m.csv").exists():
        out |= _schedules(data)
    if (data / "wsd124m_stable.csv").exists() and (data / "wsd124m_decayed.csv").exists():
        out |= _branches(data)
    return out


def _scored(name: str, key: str, found: Sequence[tuple[float, float, float, float]], out: Out) -> None:
    """Print errors of predictions (loss, stderr, truth, loss without a model) where there is one."""
    loss, stderr, truth, plainly = np.array([one for one in found if np.isfinite(one[0])]).T
    error, other, z = 100 * (loss / truth - 1), 100 * (plainly / truth - 1), (loss - truth) / stderr
    out[f"annealing_{key}_error"] = float(np.sqrt(np.mean(error**2)))
    out[f"plain_annealing_{key}_error"] = float(np.sqrt(np.mean(other**2)))
    out[f"annealing_{key}_z"] = float(np.sqrt(np.mean(z**2)))
    out[f"annealing_{key}_inside"] = float(np.mean(np.abs(z) < SIGMAS))
    rms, other_rms, z_rms = (float(np.sqrt(np.mean(one**2))) for one in (error, other, z))
    row(name, f"{loss.size} of {len(found)}", f"{other_rms:.2f} %", f"{rms:.2f} %", f"{np.median(np.abs(error)):.2f} %",
        f"{z_rms:.2f}", f"{np.mean(np.abs(z) < SIGMAS):.0%}")  # fmt: skip


def _cosines(data: Path) -> Out:
    out: Out = {}
    print("\nloss at the end of runs on a cosine, from their first part and the schedule")
    row("", "runs", "last loss, rms", "raylr, rms", "median |error|", "rms of z", "inside 90 %")
    for table, last in (("OLMo 190M-760M", 1), ("160M, training losses", END)):
        for cut in CUTS:
            found: list[tuple[float, float, float, float]] = []
            for cell, _, t, y, lr in cosine_runs(data):
                seen = t <= cut * t[-1]
                if ("xC" in cell) != table.startswith("OLMo") or not np.isfinite(y).all() or seen.sum() < 8:
                    continue
                loss, stderr = fit_annealing(t[seen], lr[seen], y[seen]).predict(t, lr)
                ends = float(loss[-last:].mean()), float(stderr[-last:].mean())
                found.append((*ends, float(y[-last:].mean()), float(y[seen][-1])))
            key = f"cosine_{'olmo' if table.startswith('OLMo') else '160m'}_{round(100 * cut)}"
            _scored(f"{table} from {cut:.0%}", key, found, out)
    return out


def _schedules(data: Path) -> Out:
    out: Out = {}
    frame = pd.read_csv(data / "schedules_25m_100m.csv")
    print(f"\nlosses of the other schedules of a model, from {' and '.join(TRAINED)}")
    row("", "last loss", "error", "90 % interval", "inside")
    for params, part in frame.groupby("params_m"):
        given = part[part["schedule"].isin(TRAINED)]
        fit = fit_annealing(given["step"], given["lr"], given["loss"], run=given["schedule"])
        for name, other in part[~part["schedule"].isin(TRAINED)].groupby("schedule"):
            loss, stderr = fit.predict(other["step"], other["lr"])
            truth = float(other["loss"].iloc[-1])
            error = 100 * (float(loss[-1]) / truth - 1)
            inside = abs(loss[-1] - truth) <= SIGMAS * stderr[-1]
            width = f"±{100 * SIGMAS * stderr[-1] / truth:.2f}"
            row(f"{params}M {name}", f"{truth:.4f}", f"{error:+.2f} %", width, "yes" if inside else "no")
            out[f"annealing_{params}m_{name}_error"] = abs(error)
    return out


def decay_path(lr: float, steps: float, fraction: float, shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and LRs of a run at a constant LR that is decayed to zero over the last `fraction`."""
    x = np.linspace(0, 1, 41)
    fall = 1 - x if shape == "linear" else 1 - np.sqrt(x)
    return np.append(200.0, steps * (1 - fraction * (1 - x))), lr * np.append(1.0, fall)


def _branches(data: Path) -> Out:
    out: Out = {}
    stable, decayed = (pd.read_csv(data / f"wsd124m_{name}.csv") for name in ("stable", "decayed"))
    print("\n124M: losses after a decay at every LR, from stable curves of 4 LRs and the decayed runs named")
    print("  (plain: the stable loss there, less the mean drop; regret: of the LR chosen for a decay)")
    row(
        "", "runs", "plain, rms", "raylr, rms", "median |error|", "rms of z", "inside 90 %", "regret, nats", "by stable"
    )
    for name, branches in BRANCHES.items():
        parts = [(stable["step"].to_numpy(float), stable["lr"].to_numpy(), stable["val_loss"].to_numpy(),
                  [f"{lr:g}" for lr in stable["lr"]])]  # fmt: skip
        chosen = decayed["shape"] != "linear"
        for lr, steps, fraction in branches:
            at = (decayed["lr"] == lr) & (decayed["total_steps"] == steps) & np.isclose(decayed["decay_frac"], fraction)
            at &= decayed["shape"] == "linear"
            t, h = decay_path(lr, steps, fraction, "linear")
            loss = np.append(np.full(t.size - 1, np.nan), decayed.loc[at, "val_loss"].iloc[0])
            parts.append((t, h, loss, [f"decayed {lr:g}"] * t.size))
            decayed.loc[at, "known"] = name
        t, h, y, run = (np.concatenate([part[i] for part in parts]) for i in range(4))
        fit = fit_annealing(t, h, y, run=run)
        rows = decayed[decayed.get("known", pd.Series(index=decayed.index, dtype=object)) != name].copy()
        paths = [decay_path(one.lr, one.total_steps, one.decay_frac, one.shape) for one in rows.itertuples()]
        ends = [fit.predict(*path) for path in paths]
        rows["loss"], rows["stderr"] = ([end[i][-1] for end in ends] for i in (0, 1))
        curves = dict(list(stable.groupby("lr")))
        rows["stable"] = [np.interp(one.total_steps, curves[one.lr]["step"], curves[one.lr]["val_loss"])
                          for one in rows.itertuples()]  # fmt: skip
        rows["plain"] = rows["stable"] - (rows["stable"] - rows["val_loss"]).mean()
        key = f"124m_{name.split(' ')[0]}_{len(branches)}_{name[-4:-1].strip()}"
        regrets = [
            [cell["val_loss"][cell[by].idxmin()] - cell["val_loss"].min() for by in ("loss", "stable")]
            for _, cell in rows[~chosen[rows.index]].groupby(["total_steps", "decay_frac"]) if len(cell) >= 3
        ]  # fmt: skip
        found = list(rows[["loss", "stderr", "val_loss", "plain"]].itertuples(index=False, name=None))
        _scored(name, key, found, out)
        mean = np.mean(regrets, axis=0)
        row("", *[""] * 6, f"{mean[0]:.4f}", f"{mean[1]:.4f}")
        out[f"annealing_{key}_regret"], out[f"plain_annealing_{key}_regret"] = float(mean[0]), float(mean[1])
    return out
