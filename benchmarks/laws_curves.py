"""The parts of `laws.py` about loss curves: Eq. 4 and the surface of all runs of a size."""

from itertools import chain
from pathlib import Path

import laws_plain as plain
import laws_plots
import numpy as np
import pandas as pd
from laws_tables import Out, constant_curves, covered, regret, row, tables
from replay_data import LossOverLR

from raylr.analysis import LossSurface, fit_power_law, fit_surface
from raylr.analysis.curves._progress import A_PRIOR, FLOOR_DECAY, GAMMA_PRIOR, Q_PRIOR

CUTS = (0.15, 0.25)
STARTS = (0.0, 0.1, 0.3, 0.5)
"""Where a window starts, as a share of its end."""
HORIZONS = (1.0, 0.6, 0.4)
"""Ends that are predicted, as shares of the run."""
LATER_CUTS = (0.15, 0.25, 0.4, 0.6)


def losses(data: Path, plots: Path | None) -> Out:
    """Eq. 4 on single curves: the loss at the end of a constant-LR run from its first part."""
    frame = pd.read_csv(data / "schedules_25m_100m.csv")
    constant = frame[frame["schedule"].str.startswith("constant")]
    longest = constant.groupby("params_m")["step"].transform("max")
    ends = constant.groupby(["params_m", "schedule"])["step"].transform("max")
    out: Out = {}
    pictures = []
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
            out[f"plain_loss_error_{params}m_{round(100 * cut)}"] = abs(error[0])
            pictures.append((f"{params}M", t, y, fit, cut))
    if plots is not None:
        laws_plots.curves(plots / "losses.png", pictures)
    hits: dict[str, list[bool]] = {"ok": [], "not_converging": []}
    for _, t, y in constant_curves(data):
        for horizon in HORIZONS:
            whole = t <= horizon * t[-1] * (1 + 1e-9)
            for cut in LATER_CUTS:
                seen = whole & (t <= cut * t[whole][-1])
                fit = fit_power_law(t[seen], y[seen])
                loss, stderr = fit.predict(t[whole][-1])
                if fit.status in hits:
                    hits[fit.status].append(abs(loss - y[whole][-1]) <= 1.645 * stderr)
    print("  losses of single curves, cut at 15 to 60 % of three horizons, inside the 90 % intervals:")
    for status, inside in hits.items():
        print(f"    status {status}: {covered({}, status, inside)}")
    covered(out, "curves", chain(*hits.values()))
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
    ends: dict[str, list[tuple[float, float]]] = {}
    for name, table in tables(data).items():
        lr, t, y = table.columns.to_numpy(float), table.index.to_numpy(float), table.to_numpy().T
        model = name.split(" ")[0]
        truth = LossOverLR(np.log(lr), y[:, -1])
        print(f"\n{name}: {lr.size} LRs, optimum at the end {np.exp(truth.optimum):.3g}; log error (regret in %)")
        row("", *(f"from {cut:.0%}" for cut in CUTS))
        for title, method in methods.items():
            at = [method(lr, t[t <= c * t[-1]], y[:, t <= c * t[-1]], t[-1]) for c in CUTS]
            row(title, *(f"{a - truth.optimum:+.2f} ({regret(truth, a):.2f})" for a in at))
            for cut, a in zip(CUTS, at, strict=True):
                if title == "one gamma, -30 %":
                    _worst(out, f"plain_{model}", cut, abs(a - truth.optimum), regret(truth, a))
        for start in STARTS:
            cells = []
            for cut in CUTS:
                fit = _fitted(table, cut, start)
                best = float(np.log(fit.lr_opt(t[-1])))
                cells.append(f"{best - truth.optimum:+.2f} ({regret(truth, best):.2f})")
                _worst(out, model, cut, abs(best - truth.optimum), regret(truth, best))
                ends.setdefault(f"{model}_{round(100 * cut)}", []).append((best, truth.optimum))
                if plots is not None and start == 0.0:
                    path = plots / f"surface_{name.replace(' ', '_')}_{round(100 * cut)}.png"
                    laws_plots.surface(path, name, table, fit, cut)
            row(f"raylr, window from {start:.0%}", *cells)
    _seed_noise(ends, out)
    return out


def _fitted(table: pd.DataFrame, cut: float, start: float, end: float | None = None) -> LossSurface:
    """The surface of all LRs in the window from `start` of `cut` of the tokens up to `end`."""
    t = table.index.to_numpy(float)
    end = t[-1] if end is None else end
    seen = (t <= cut * end) & (t >= start * cut * end)
    return fit_surface(np.repeat(table.columns.to_numpy(float), seen.sum()), np.tile(t[seen], table.shape[1]),
                       table.to_numpy().T[:, seen].ravel())  # fmt: skip


def _worst(out: Out, name: str, cut: float, error: float, lost: float) -> None:
    for what, value in (("error", error), ("regret", lost)):
        key = f"{name}_{what}_{round(100 * cut)}"
        out[key] = max(out.get(key, 0.0), value)


def _seed_noise(ends: dict[str, list[tuple[float, float]]], out: Out) -> None:
    """How far the truths of a model's seeds lie apart, and the errors against their mean."""
    for name, pairs in ends.items():
        at, truth = np.array(pairs).T
        if np.unique(truth).size > 1:
            worst = float(np.abs(at - np.unique(truth).mean()).max())
            model, cut = name.rsplit("_", 1)
            print(f"  {model} from {cut} %: optima of the seeds {np.ptp(truth):.2f} apart in ln lr;", end=" ")
            print(f"worst error {np.abs(at - truth).max():.2f}, against the mean of the seeds {worst:.2f}")
            out[f"{name}_error_of_mean"], out[f"{model}_seeds_apart"] = worst, float(np.ptp(truth))


def windows(data: Path) -> Out:
    """Coverage of the surfaces' intervals, cut at 15 to 60 % of three horizons, and what their width is made of."""
    out: Out = {}
    hits: dict[float, list[bool]] = {cut: [] for cut in LATER_CUTS}
    near: dict[float, list[bool]] = {cut: [] for cut in LATER_CUTS}
    errors: dict[float, list[tuple[float, float]]] = {cut: [] for cut in LATER_CUTS}
    for table in tables(data).values():
        lr, t = table.columns.to_numpy(float), table.index.to_numpy(float)
        for horizon in HORIZONS:
            part = table[t <= horizon * t[-1] * (1 + 1e-9)]
            end, last = part.index.to_numpy(float)[-1], part.iloc[-3:].mean().to_numpy()
            truth = LossOverLR(np.log(lr), last).optimum
            for cut in LATER_CUTS:
                for start in STARTS:
                    fit = _fitted(part, cut, start)
                    low, high = fit.lr_interval(end)
                    hits[cut].append(low <= np.exp(truth) <= high)
                    if fit.posterior is None:
                        continue
                    if low > 0 and high < np.inf:
                        errors[cut].append((float(np.log(fit.lr_opt(end))) - truth, 0.5 * float(np.log(high / low))))
                    rival = last <= 1.05 * last.min()
                    loss, stderr = fit.loss(lr[rival], end)
                    near[cut].extend(np.abs(loss - last[rival]) <= 1.645 * np.asarray(stderr))
    print("\nsurfaces cut at 15 to 60 % of three horizons, four windows: truths inside the 90 % intervals")
    print("  (losses: of the LRs within 5 % of the best)")
    row("", "optima", "rms error", "half width", "losses")
    for cut in LATER_CUTS:
        known = np.reshape(errors[cut], (-1, 2))
        sizes = [f"{v:.2f}" for v in np.sqrt(np.mean(known**2, axis=0))] if len(known) else ["", ""]
        row(f"from {cut:.0%}", covered({}, "", hits[cut]), *sizes, covered({}, "", near[cut]))
    row("all", covered(out, "optima", chain(*hits.values())), "", "", covered(out, "losses", chain(*near.values())))
    return out | synthetic()


def synthetic(models: int = 100, cut: float = 0.25) -> Out:
    """Surfaces of models drawn from the surface's own priors (its mean, no discrepancy), cut at a share of the tokens:
    how far the optimum goes where nothing but the exponents is unknown."""
    rng, t, out = np.random.default_rng(0), np.linspace(0.02, 1.0, 50), Out()
    seen, fine = t <= cut + 1e-9, np.linspace(-6, 4, 4001)
    decays, shares = zip(*FLOOR_DECAY, strict=True)
    hits, errors, widths = [], [], []
    for _ in range(models):
        gamma, a, q = (median * np.exp(sd * rng.normal()) for median, sd in (GAMMA_PRIOR, A_PRIOR, Q_PRIOR))
        decay = gamma * rng.choice(decays, p=shares)
        floor = a * cut ** (decay - gamma) / q  # the optimum at the cut is at z = 0
        z = np.linspace(-2, 2, 6) + rng.uniform(-0.4, 0.4)
        truth = fine[np.argmin(np.exp(-a * fine) + floor * np.exp(q * fine))]
        loss = np.exp(-a * z[:, None]) * t[seen] ** -gamma + floor * np.exp(q * z[:, None]) * t[seen] ** -decay
        loss += rng.normal(0, 0.01 * gamma * cut**-gamma, loss.shape)
        fit = fit_surface(np.repeat(np.exp(z), seen.sum()), np.tile(t[seen], z.size), loss.ravel())
        low, high = fit.lr_interval(1.0)
        hits.append(low <= np.exp(truth) <= high)
        if low > 0 and high < np.inf:
            errors.append(float(np.log(fit.lr_opt(1.0))) - truth)
            widths.append(0.5 * float(np.log(high / low)))
    rms, half = float(np.sqrt(np.mean(np.square(errors)))), float(np.median(widths))
    print(f"  models drawn from the priors, from {cut:.0%}: {covered({}, '', hits)} inside,", end=" ")
    print(f"rms error {rms:.2f}, half width {half:.2f}")
    out |= {"synthetic_error": rms, "synthetic_inside": float(np.mean(hits))}
    return out


def few(data: Path) -> Out:
    """Optima inside the measured tokens from 4 of the LRs and 16 evaluations, against those from all LRs."""
    out: Out = {}
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
        return out
    out["few_lrs_error"] = float(np.sqrt(np.mean(np.square(errors))))
    print(f"  log error {out['few_lrs_error']:.2f} rms, inside the 90 % intervals:", covered(out, "few_lrs", inside))
    return out
