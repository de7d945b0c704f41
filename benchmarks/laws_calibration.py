"""The part of `laws.py` about intervals of single curves, each kind of data by itself: do widths follow the data?

Every curve is cut at 15 to 60 % of three horizons, and the loss at the horizon is predicted. Dense noisy reports are
measured curves, interpolated, with noise of a known size: what the mean loss will be is then known exactly."""

from collections.abc import Callable, Iterator
from pathlib import Path

import laws_plain as plain
import numpy as np
import pandas as pd
from laws_tables import Out, constant_curves, row
from scipy.optimize import curve_fit

from raylr.analysis import fit_power_law

HORIZONS, CUTS = (1.0, 0.6, 0.4), (0.15, 0.25, 0.4, 0.6)
LEAST = 6
"""Fewest reports of a window."""
SIGMAS = 1.6449
WARMUP_STEPS = 2160
"""Warmup of `schedules_25m_100m`."""
DECAY_FROM = {"2024-10-20_ScaleUp1B": 20344 - 2 * 2906}
"""Steps at which the LR of these runs begins to fall; their entries in the table have another number."""
NOISES: dict[str, tuple[float, float, int]] = {
    "0.01 nats, 300 reports": (0.01, 0.0, 300),
    "0.05 nats, 300 reports": (0.05, 0.0, 300),
    "0.05 nats, 1500 reports": (0.05, 0.0, 1500),
    "0.05 nats, lag-one correlation 0.7": (0.05, 0.7, 300),
}
"""Standard deviation of a report, correlation of neighbours, reports of the whole run."""
Curve = tuple[np.ndarray, np.ndarray, float]
"""Tokens, losses and the tokens of the warmup (0: not known)."""
Window = tuple[np.ndarray, np.ndarray, float, float, float]
"""Tokens, losses, warmup, end and the loss there."""
Method = Callable[[np.ndarray, np.ndarray, float, float], tuple[float, float]]


def calibration(data: Path) -> Out:
    """Error, rms of z and coverage of each kind of curve, beside least squares and no extrapolation."""
    methods: dict[str, Method] = {"raylr": _raylr, "least squares": _least_squares, "no extrapolation": _last}
    out: Out = {}
    print("\nlosses at the end of runs at a constant LR, each kind of curve by itself (z: error over standard error)")
    row("", "windows", "median |error|", "rms error", "rms of z", "inside 90 %")
    for kind, found in _kinds(data):
        windows = list(found)
        for name, method in methods.items():
            got = np.array([[*method(t, y, w, end), truth] for t, y, w, end, truth in windows])
            loss, stderr, truth = got[np.isfinite(got).all(1)].T if name != "no extrapolation" else got.T
            error = 100 * (loss / truth - 1)
            z = (loss - truth) / stderr
            shown = f"{kind}" if name == "raylr" else f"    {name}"
            key = f"calibration_{kind}_{name}".replace(" ", "_").replace(",", "")
            rms = float(np.sqrt(np.mean(z**2)))
            inside = float(np.mean(np.abs(z) < SIGMAS))
            known = name != "no extrapolation"
            row(shown, f"{loss.size} of {len(windows)}", f"{np.median(np.abs(error)):.2f} %",
                f"{np.sqrt(np.mean(error**2)):.2f} %", f"{rms:.2f}" if known else "", f"{inside:.0%}" if known else "",
            )  # fmt: skip
            out[f"{key}_error"] = float(np.median(np.abs(error)))
            if known:
                out[f"{key}_z"], out[f"{key}_inside"] = rms, inside
    return out


def _kinds(data: Path) -> Iterator[tuple[str, Iterator[Window]]]:
    measured: dict[str, list[Curve]] = {"25M, 100M": [], "124M": [], "MoE 0.5M": []}
    measured["speedruns"] = list(_speedruns(data))
    for name, t, y in constant_curves(data):
        kind = "MoE 0.5M" if name.startswith("moe") else "124M" if name == "wsd124m" else "25M, 100M"
        measured[kind].append((t, y, WARMUP_STEPS if kind == "25M, 100M" else 0.0))
    for kind, curves in measured.items():
        if curves:
            yield kind, (window for curve in curves for window in _windows(*curve, curve[1], HORIZONS))
    dense = [curve for kind, curves in measured.items() if kind != "MoE 0.5M" for curve in curves if curve[0].size > 25]
    for kind, (sd, lag, reports) in NOISES.items():
        if dense:
            yield kind, _noisy(dense, sd, lag, reports)


def _speedruns(data: Path) -> Iterator[Curve]:
    """The stable parts of `nanogpt_stable`; runs that are in it twice count once."""
    path = data / "nanogpt_stable.csv"
    if not path.exists():
        return
    seen = set()
    for name, part in pd.read_csv(path).groupby("run"):
        record, identity = str(name).split("/")
        part = part[(part["step"] > 0) & (part["step"] <= DECAY_FROM.get(record, np.inf))]
        if identity not in seen:
            seen.add(identity)
            yield part["tokens"].to_numpy(float), part["loss"].to_numpy(float), 0.0


def _windows(
    t: np.ndarray, y: np.ndarray, warmup: float, truth: np.ndarray, horizons: tuple[float, ...]
) -> Iterator[Window]:
    for horizon in horizons:
        at = int(np.flatnonzero(t <= horizon * t[-1] * (1 + 1e-9))[-1])
        for cut in CUTS:
            seen = t <= cut * t[at]
            if seen.sum() >= LEAST:
                yield t[seen], y[seen], warmup, float(t[at]), float(truth[at])


def _noisy(curves: list[Curve], sd: float, lag: float, reports: int) -> Iterator[Window]:
    rng = np.random.default_rng(1)
    for t, y, warmup in curves:
        dense = np.linspace(t[0], t[-1], reports)
        truth, noise = np.interp(np.log(dense), np.log(t), y), rng.normal(0, sd, reports)
        for j in range(1, reports if lag else 0):
            noise[j] = lag * noise[j - 1] + np.sqrt(1 - lag**2) * noise[j]
        yield from _windows(dense, truth + noise, warmup, truth, (1.0, 0.5))


def _raylr(t: np.ndarray, y: np.ndarray, warmup: float, end: float) -> tuple[float, float]:
    fit = fit_power_law(t, y, warmup_tokens=warmup)
    loss, stderr = fit.predict(end)
    return (float(loss), float(stderr)) if fit.ok else (np.nan, np.nan)


def _least_squares(t: np.ndarray, y: np.ndarray, warmup: float, end: float) -> tuple[float, float]:
    """`curve_fit` with the first 30 % left out, and the standard error that its covariance gives."""
    keep = t >= 0.3 * t[-1]
    t, y, at = t[keep] / t[-1], y[keep], end / t[-1]
    bounds = ((-np.inf, 0, 0.02), (np.inf, np.inf, 3))
    try:
        with np.errstate(all="ignore"):
            popt, cov = curve_fit(plain.eq4, t, y, p0=(y[-1] - 0.2, 0.2, 0.4), bounds=bounds)
    except (RuntimeError, ValueError, TypeError):
        return np.nan, np.nan
    slope = np.array([1, at ** -popt[2], -popt[1] * np.log(at) * at ** -popt[2]])
    return float(plain.eq4(np.array(at), *popt)), float(np.sqrt(slope @ cov @ slope))


def _last(t: np.ndarray, y: np.ndarray, warmup: float, end: float) -> tuple[float, float]:
    return float(y[-1]), 1.0
