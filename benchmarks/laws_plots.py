"""The pictures of `laws.py`."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from replay_data import LossOverLR

from raylr.analysis import LossSurface, LRLaw, PowerLawFit, fit_optimum

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator

Z90 = 1.645
Curve = tuple[str, np.ndarray, np.ndarray, PowerLawFit, float]
"""Name, steps, losses, the fit of the first share and that share."""


def _ticks(*axes: Axis) -> None:
    """Labels at 1, 2 and 5 times powers of ten, none in between."""
    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e"))
        )
        axis.set_minor_formatter("")


def curves(path: Path, pictures: list[Curve]) -> None:
    """Loss curves with what was predicted from their first part."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(4 * len(pictures), 3.6), layout="constrained", squeeze=False)
    for axis, (name, t, y, fit, cut) in zip(axes.flat, pictures, strict=True):
        ahead = np.linspace(cut * t[-1], t[-1], 80)
        loss, stderr = fit.predict(ahead)
        axis.plot(t, y, color="k", lw=1, label="measured")
        axis.plot(ahead, loss, color="C0", label="Eq. 4, predicted")
        axis.fill_between(ahead, loss - Z90 * stderr, loss + Z90 * stderr, color="C0", alpha=0.2, lw=0, label="90 %")
        axis.axvline(cut * t[-1], color="0.6", lw=0.8, ls=":")
        axis.set(ylim=(0.95 * y[-1], 1.15 * y[-1]), xlabel="thousand steps", ylabel="loss (nats)")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e3:g}"))
        axis.set_title(f"{name}, from the first {cut:.0%}", fontsize=10)
        axis.legend(fontsize=8, loc="upper right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def surface(path: Path, name: str, table: pd.DataFrame, fit: LossSurface, cut: float) -> None:
    """Curves with what was predicted for them, and the path of the optimum."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
    t = table.index.to_numpy(float)
    ahead = np.geomspace(cut * t[-1], t[-1], 12)
    best = float(table.iloc[-1].idxmin())
    for lr, colour in zip(table, plt.colormaps["viridis"](np.linspace(0, 0.9, table.shape[1])), strict=True):
        left.plot(t, table[lr], color=colour, lw=1, label=f"{lr:g}")
        loss, stderr = (np.array(v) for v in zip(*(fit.loss(lr, d) for d in ahead), strict=True))
        left.plot(ahead, loss, "--", color=colour, lw=1.5)
        if lr == best:
            shade = ahead, loss - Z90 * stderr, loss + Z90 * stderr, colour
    left.fill_between(*shade[:3], color=shade[3], alpha=0.2, lw=0, label=f"90 % for {best:g}")
    left.axvline(cut * t[-1], color="0.6", lw=0.8, ls=":")
    bottom, top = float(table.min().min()), 1.15 * float(table.loc[: cut * t[-1]].iloc[-1].min())
    left.set(xscale="log", xlim=(0.2 * cut * t[-1], 1.1 * t[-1]), ylim=(0.9 * bottom, top), xlabel="tokens")
    left.set_ylabel("loss (nats)")
    left.set_title(f"{name}: measured (lines), predicted from the first {cut:.0%} (dashed)", fontsize=10)
    left.legend(title="LR", fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    lrs = table.columns.to_numpy(float)
    true = [np.exp(LossOverLR(np.log(lrs), table.loc[:d].iloc[-1].to_numpy()).optimum) for d in ahead]
    low, high = zip(*(fit.lr_interval(d) for d in ahead), strict=True)
    right.plot(ahead, true, "o", color="k", ms=4, label="measured losses, interpolated")
    right.plot(ahead, fit.lr_opt(ahead), color="C0", label=f"from the first {cut:.0%} of the tokens")
    band = np.clip(low, lrs.min() / 4, None), np.clip(high, None, lrs.max() * 4)
    right.fill_between(ahead, *band, color="C0", alpha=0.15, lw=0, label="90 %")
    right.set(xscale="log", yscale="log", xlabel="tokens", ylabel="best LR")
    right.set_ylim(0.6 * min(band[0].min(), *true), 1.8 * max(band[1].max(), *true))
    _ticks(left.xaxis, right.xaxis, right.yaxis)
    right.set_title(f"{name}: optimum over tokens", fontsize=10)
    right.legend(fontsize=8, loc="upper right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def grid(path: Path, name: str, cells: pd.DataFrame) -> None:
    """Twelve cells with their fits."""
    figure, axes = plt.subplots(3, 4, figsize=(13, 9), layout="constrained")
    figure.suptitle(f"lr_grid_{name}: losses (dots), the fit (line), 90 % interval of the optimum (band)", fontsize=12)
    for axis, i in zip(axes.flat, np.linspace(0, len(cells) - 1, 12).astype(int), strict=True):
        c = cells.iloc[i]
        fit = fit_optimum(c["lr"], c["loss"])
        x = np.geomspace(c["lr"][0], c["lr"][-1], 200)
        axis.plot(c["lr"], c["loss"], "o", ms=3, color="k")
        axis.plot(x, fit.predict(x)[0], color="C0", lw=1)
        low, high = fit.interval()
        axis.axvspan(max(low, x[0] / 2), min(high, 2 * x[-1]), color="C0", alpha=0.15, lw=0)
        least = c["loss"].min()
        axis.set(xscale="log", ylim=(0.998 * least, 1.04 * least))
        _ticks(axis.xaxis)
        off = int((c["loss"] > 1.04 * least).sum())
        title = f"{c['size'] / 1e6:.0f}M, {c['tokens'] / 1e9:.3g}B tokens, batch {c['batch_seqs']}: {fit.status}"
        axis.set_title(title + (f", {off} above" if off else ""), fontsize=9)
    figure.supxlabel("LR")
    figure.supylabel("loss (nats)")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def law(path: Path, name: str, cells: pd.DataFrame, fitted: LRLaw) -> None:
    """Optima of cells over tokens, one colour a size, with the law and its interval."""
    figure, axis = plt.subplots(figsize=(7, 4.8), layout="constrained")
    tokens = np.geomspace(cells["tokens"].min() / 1.5, cells["tokens"].max() * 4, 60)
    for i, (size, part) in enumerate(cells.groupby("size")):
        predictions = [fitted.predict(float(size), float(d)) for d in tokens]
        axis.plot(tokens, [p.lr for p in predictions], color=f"C{i}", label=f"{size / 1e6:.0f}M parameters")
        band: dict[str, Any] = {"color": f"C{i}", "alpha": 0.1, "lw": 0}
        axis.fill_between(tokens, [p.lr_low for p in predictions], [p.lr_high for p in predictions], **band)
        error = part["opt"].to_numpy() * (np.exp(np.outer([-Z90, Z90], part["stderr"])) - 1)
        axis.errorbar(part["tokens"], part["opt"], yerr=np.abs(error), fmt="o", ms=4, color=f"C{i}", capsize=2)
    axis.axvline(cells["tokens"].max(), color="0.6", lw=0.8, ls=":")
    axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel="best LR after the decay")
    _ticks(axis.xaxis, axis.yaxis)
    axis.set_title(f"lr_grid_{name}: optima at the best batch and Eq. 8, both with 90 % intervals", fontsize=10)
    axis.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
