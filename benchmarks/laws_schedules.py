"""The part of `laws.py` about schedules: what is done with runs whose LR falls, and what a warmup counts."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from laws_tables import Out, row

from raylr.analysis import fit_power_law, fit_surface
from raylr.fake_trials import FakeController, FakeTrial
from raylr.searchers import PowerLawScheduler

WARMUP = 0.1
"""Share of the tokens that the warmup of `cosine_adam160m` takes."""
CUT = 0.4
"""Share of the tokens at which fits and surfaces are made: where the scheduler may first truncate."""
SIGMAS = 1.6449
WARMUP_STEPS = 2160
"""Warmup of `schedules_25m_100m`: the step at which its curves begin, at the peak LR."""
Run = tuple[str, float, np.ndarray, np.ndarray, np.ndarray]
"""Cell, peak LR, tokens, losses and the LR of the schedule at each (any unit)."""


def cosine_runs(data: Path) -> Iterator[Run]:
    """The public runs on a cosine. The LRs of `cosine_adam160m` follow from its schedule, `cosine_olmo` has its own."""
    for (cell, lr), part in pd.read_csv(data / "cosine_adam160m.csv").groupby(["cell", "lr"]):
        part = part.sort_values("tokens")
        t = part["tokens"].to_numpy(float)
        x = np.clip((t / t[-1] - WARMUP) / (1 - WARMUP), 0, 1)
        factor = np.where(x > 0, 0.5 + 0.5 * np.cos(np.pi * x), t / t[-1] / WARMUP)
        yield str(cell), float(lr), t, part["loss"].to_numpy(float), lr * factor
    for run, part in pd.read_csv(data / "cosine_olmo.csv").groupby("run"):
        part = part.sort_values("tokens")
        t, loss, lr = (part[name].to_numpy(float) for name in ("tokens", "loss", "lr"))
        yield str(run), float(lr.max()), t, loss, lr


def schedules(data: Path) -> Out:
    """Cosine runs with the scheduler's defaults, and fits and surfaces at 40 % of them, without and with their LRs."""
    logging.getLogger("raylr.searchers.tune.power_law_scheduler").setLevel(logging.CRITICAL)
    runs = [run for run in cosine_runs(data) if np.isfinite(run[3]).all() and (run[2] <= CUT * run[2][-1]).sum() >= 6]
    out: Out = {}
    print(f"\n{len(runs)} runs on a cosine: truncated with the scheduler's defaults, status ok at {CUT:.0%}")
    row("", "truncated", "mean |error|", "outside 90 %", "fits ok", "surfaces ok")
    for name, known in (("LR not reported", False), ("LR reported", True)):
        ends = [_scheduled(run, known) for run in runs]
        stopped = [end for end in ends if end is not None]
        errors = [
            100 * (loss / run[3][-1] - 1) for run, end in zip(runs, ends, strict=True) if end for loss, _ in [end]
        ]
        outside = sum(
            abs(end[0] - run[3][-1]) > SIGMAS * end[1] for run, end in zip(runs, ends, strict=True) if end is not None
        )
        fits = sum(_fitted(run, known) for run in runs)
        surfaces = _surfaces(runs, known)
        key = "cosine_reported" if known else "cosine_unknown"
        out |= {
            f"{key}_truncated": float(len(stopped)),
            f"{key}_wrong": float(outside),
            f"{key}_fits_ok": float(fits),
            f"{key}_surfaces_ok": float(sum(surfaces)),
        }
        row(
            name, f"{len(stopped)} of {len(runs)}", f"{np.mean(np.abs(errors)):.1f} %" if errors else "", f"{outside}",
            f"{fits} of {len(runs)}", f"{sum(surfaces)} of {len(surfaces)}",
        )  # fmt: skip
    return out | _warmup(data)


def _scheduled(run: Run, known: bool) -> tuple[float, float] | None:
    """The extrapolated loss of a run that was truncated, and its standard error; None for one that was not."""
    _, peak, tokens, losses, lrs = run
    scheduler, trial = PowerLawScheduler(metric="loss", mode="min", target=float(tokens[-1])), FakeTrial("run", lr=peak)
    scheduler.on_trial_add(FakeController(), trial)
    for t, loss, lr in zip(tokens, losses, lrs, strict=True):
        trial.last_result = {"tokens": float(t), "loss": float(loss)} | ({"current_lr": float(lr)} if known else {})
        if scheduler.on_trial_result(FakeController(), trial, trial.last_result) == "STOP":
            break
    scheduler.on_trial_complete(FakeController(), trial, trial.last_result)
    last = trial.last_result
    if last["raylr/decision"] != "truncated":
        return None
    return float(last["raylr/loss"]), float(last["raylr/loss_stderr"])


def _fitted(run: Run, known: bool) -> bool:
    seen = run[2] <= CUT * run[2][-1]
    return bool(fit_power_law(run[2][seen], run[3][seen], current_lr=run[4][seen] if known else None).ok)


def _surfaces(runs: list[Run], known: bool) -> list[bool]:
    cells: dict[str, list[Run]] = {}
    for run in runs:
        cells.setdefault(run[0], []).append(run)
    found = []
    for cell in cells.values():
        if len(cell) < 3:
            continue
        kept = [(run, run[2] <= CUT * run[2][-1]) for run in cell]
        lr = np.concatenate([np.full(keep.sum(), run[1]) for run, keep in kept])
        tokens = np.concatenate([run[2][keep] for run, keep in kept])
        loss = np.concatenate([run[3][keep] for run, keep in kept])
        now = np.concatenate([run[4][keep] for run, keep in kept])
        found.append(fit_surface(lr, tokens, loss, current_lr=now if known else None).usable)
    return found


def _warmup(data: Path) -> Out:
    """Losses at the end of constant-LR runs whose curves begin right after the warmup: all of it counted, or half."""
    path, out = data / "schedules_25m_100m.csv", Out()
    if not path.exists():
        return out
    frame = pd.read_csv(path)
    print("\nloss at the end of runs that begin right after their warmup, error in %: all of it counted, half of it")
    for (params, name), part in frame[frame["schedule"].str.startswith("constant")].groupby(["params_m", "schedule"]):
        t, y = part["step"].to_numpy(float), part["loss"].to_numpy(float)
        for cut in (0.15, 0.25, 0.4):
            seen = t <= cut * t[-1]
            both = []
            for warmup in (0.0, WARMUP_STEPS):
                loss, _ = fit_power_law(t[seen], y[seen], warmup_tokens=warmup).predict(t[-1])
                both.append(100 * (float(loss) / y[-1] - 1))
            row(f"{params}M {name} from {cut:.0%}", *(f"{error:+.2f}" for error in both))
            key = f"{params}m_{name.split('_')[1]}_{round(100 * cut)}"
            out[f"warmup_whole_{key}"], out[f"warmup_half_{key}"] = (abs(error) for error in both)
    return out
