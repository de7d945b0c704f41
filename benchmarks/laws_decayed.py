"""The part of `laws.py` about the best LR after a decay, from stable curves and two decayed runs.

The two runs have the decay in question, at a cheaper budget, as the branches of a study do. The 124M table's
optima at 50k steps are compared with what each way of predicting gives; every pair of LRs counts, none was chosen."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from laws_tables import Out, row
from replay_data import LossOverLR

from raylr.analysis import AnnealingFit, Decay, decayed_optimum, fit_annealing, fit_power_law

STEPS, FRACTIONS, CHEAPER = 50000, (0.2, 0.6), (15000, 25000)
COMPARED = (5e-4, 1e-3, 2e-3)
"""LRs that were decayed at every budget."""
PER_STEP = 100
"""Steps of the table that are one step of the discrete laws."""
LAMBDAS = 1 - np.geomspace(1e-4, 1e-2, 9)
"""Forgetting a step of the LR-area law; 0.999 is the published default (Tissue et al. 2024)."""
RATES = np.geomspace(0.03, 30, 13)
"""C of the multi-power law, of steps at 1e-3 in 10,000 (Luo et al. 2025)."""
BETA = GAMMA = 0.5
"""Its exponents, near the published ones (0.4 to 0.6): two branches do not determine four parameters."""
Branch = tuple[float, int, float]
"""Peak LR, steps, decay fraction."""
Predict = Callable[[float, float, float], float]
"""Peak LR, steps, decay fraction -> loss."""


def decayed_optima(data: Path) -> Out:
    """Errors of the optimum after a decay, one row a method."""
    stable, decayed = (pd.read_csv(data / f"wsd124m_{name}.csv") for name in ("stable", "decayed"))
    decayed = decayed[decayed["shape"] == "linear"]
    losses = {(o.lr, o.total_steps, round(o.decay_frac, 3)): o.val_loss for o in decayed.itertuples()}
    lrs = sorted(set(stable["lr"]))
    truths = {
        fraction: LossOverLR(np.log(lrs), np.array([losses[lr, STEPS, fraction] for lr in lrs]))
        for fraction in FRACTIONS
    }
    curves = {lr: (one["step"].to_numpy(float), one["val_loss"].to_numpy()) for lr, one in stable.groupby("lr")}
    print(
        f"\n124M: the best LR after a linear decay at {STEPS} steps, from stable curves of 4 LRs and two decayed runs"
    )
    print(f"  (every pair of {', '.join(f'{lr:g}' for lr in COMPARED)} at {' or '.join(map(str, CHEAPER))} steps)")
    row("decay, method", "pairs", "error of ln lr, rms", "mean", "regret, mean", "worst", "inside 90 %", "half width")
    out: Out = {}
    for fraction in FRACTIONS:
        found: dict[str, list[tuple[float, ...]]] = {}
        for steps, pair in itertools.product(CHEAPER, itertools.combinations(COMPARED, 2)):
            branches = [(lr, steps, fraction) for lr in pair]
            for name, (at, low, high) in _methods(curves, branches, losses, fraction, lrs).items():
                truth, best = truths[fraction], math.log(at)
                inside = float(low <= math.exp(truth.optimum) <= high)
                width = 0.5 * math.log(high / low) if 0 < low < high < math.inf else math.nan
                regret = 100 * (float(truth(best)) / truth.best - 1)
                found.setdefault(name, []).append((best - truth.optimum, regret, inside, width))
        for name, each in found.items():
            error, regret, inside, width = np.array(each).T
            rms, known = float(np.sqrt(np.mean(error**2))), name == "raylr"
            half = "open" if np.isnan(width).all() else f"{np.nanmedian(width):.2f}"
            row(f"{fraction:.0%}, {name}", len(each), f"{rms:.3f}", f"{error.mean():+.3f}", f"{regret.mean():.3f} %",
                f"{regret.max():.3f} %", f"{inside.mean():.0%}" if known else "", half if known else "")  # fmt: skip
            key = f"decayed_optimum_{round(100 * fraction)}_{name.replace(' ', '_').replace('-', '_')}"
            out |= {f"{key}_error": rms, f"{key}_regret": float(regret.mean()), f"{key}_worst": float(regret.max())}
            if known:
                out[f"{key}_inside"] = float(inside.mean())
    return out


Answer = tuple[float, float, float]
"""Best LR and the ends of its interval."""


def _methods(
    curves: dict[float, tuple[np.ndarray, np.ndarray]], branches: Sequence[Branch], losses: dict[Branch, float],
    fraction: float, lrs: Sequence[float],
) -> dict[str, Answer]:  # fmt: skip
    known = {branch: losses[branch] for branch in branches}
    fit = annealing_of(curves, known)
    ours = decayed_optimum(fit, Decay(fraction=fraction), STEPS, lrs)
    end = {lr: float(np.interp(STEPS, *curves[lr])) for lr in lrs}
    plain = {
        "stable optimum": [end[lr] for lr in lrs],
        "LR-area law": _each(_lr_area(curves, known), lrs, fraction),
        "multi-power law": _each(_multi_power(curves, known), lrs, fraction),
        "losses of raylr's law, no model of the LR": list(ours.losses),
    }
    best = {name: math.exp(LossOverLR(np.log(lrs), np.array(each)).optimum) for name, each in plain.items()}
    out = {name: (at, math.nan, math.nan) for name, at in best.items()}
    return out | {"raylr": (ours.lr, *ours.interval())}


def _each(law: Predict, lrs: Sequence[float], fraction: float) -> list[float]:
    return [law(lr, STEPS, fraction) for lr in lrs]


def annealing_of(curves: dict[float, tuple[np.ndarray, np.ndarray]], known: dict[Branch, float]) -> AnnealingFit:
    """The annealing law of stable curves and of the decayed runs whose final losses are `known`."""
    parts = [(t, np.full(t.size, lr), y, [f"{lr:g}"] * t.size) for lr, (t, y) in curves.items()]
    for (lr, steps, fraction), loss in known.items():
        t, h = Decay(fraction=fraction).path(lr, steps)
        parts.append((t, h, np.append(np.full(t.size - 1, np.nan), loss), [f"{lr:g} {steps} {fraction}"] * t.size))
    t, h, y, run = (np.concatenate([part[i] for part in parts]) for i in range(4))
    return fit_annealing(t, h, y, run=run)


def _path(lr: float, steps: float, fraction: float) -> np.ndarray:
    at = np.arange(PER_STEP / 2, steps, PER_STEP)
    return lr * Decay(fraction=fraction).factor(at, steps)


def _with_drop(
    curves: dict[float, tuple[np.ndarray, np.ndarray]], known: dict[Branch, float],
    drop_of: Callable[[np.ndarray, float], float], grid: Sequence[float],
) -> Predict:  # fmt: skip
    """A law whose stable part is Eq. 4 of each LR over its area, less a drop that has one factor and one parameter for
    all LRs; both from the decayed runs by least squares, the factor above zero.

    One set of all parameters for all LRs, as the laws are published, cannot fit stable curves of which a lower LR ends
    lower: their stable part falls with the LR (lab notebook)."""
    laws = {lr: fit_power_law(t, y) for lr, (t, y) in curves.items()}

    def stable(lr: float, path: np.ndarray) -> float:
        return float(np.ravel(laws[lr].predict(float(path.sum() / lr * PER_STEP))[0])[0])

    paths = {branch: _path(*branch) for branch in known}
    wanted = np.array([stable(branch[0], paths[branch]) - loss for branch, loss in known.items()])
    best = (math.inf, 0.0, float(grid[0]))
    for parameter in grid:
        shape = np.array([drop_of(path, float(parameter)) for path in paths.values()])
        factor = max(float(shape @ wanted / (shape @ shape)), 0.0)
        best = min(best, (float(((wanted - factor * shape) ** 2).sum()), factor, float(parameter)))
    _, factor, parameter = best

    def predict(lr: float, steps: float, fraction: float) -> float:
        path = _path(lr, steps, fraction)
        return stable(lr, path) - factor * drop_of(path, parameter)

    return predict


def _lr_area(curves: dict[float, tuple[np.ndarray, np.ndarray]], known: dict[Branch, float]) -> Predict:
    def area(path: np.ndarray, forget: float) -> float:
        fall, left, total = -np.diff(path, prepend=path[0]), 0.0, 0.0
        for one in fall:
            left = left * forget**PER_STEP + one
            total += left * PER_STEP
        return 1e3 * total

    return _with_drop(curves, known, area, list(LAMBDAS))


def _multi_power(curves: dict[float, tuple[np.ndarray, np.ndarray]], known: dict[Branch, float]) -> Predict:
    def drop(path: np.ndarray, rate: float) -> float:
        eta, fall = 1e3 * path, -1e3 * np.diff(path, prepend=path[0])
        after = (np.cumsum(eta[::-1])[::-1]) * PER_STEP / 1e4  # area from each step on
        at = fall > 0
        response = 1 - (rate * np.maximum(eta[at], 1e-3) ** -GAMMA * after[at] + 1) ** -BETA
        return float((fall[at] * response).sum())

    return _with_drop(curves, known, drop, list(RATES))
