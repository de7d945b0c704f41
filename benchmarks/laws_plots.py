"""The pictures of `laws.py`."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from replay_data import LossOverLR

from raylr.analysis import fit_quadratic

mpl.use("Agg")
import matplotlib.pyplot as plt


def surface(path: Path, table: pd.DataFrame, fit: Any, cut: float) -> None:
    """Curves with what was predicted for them, and the path of the optimum."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    t = table.index.to_numpy(float)
    ahead = np.geomspace(cut * t[-1], t[-1], 12)
    for lr, colour in zip(table, plt.colormaps["viridis"](np.linspace(0, 0.9, table.shape[1])), strict=True):
        left.plot(t, table[lr], color=colour, lw=1, label=f"{lr:g}")
        loss, stderr = (np.array(v) for v in zip(*(fit.loss(lr, d) for d in ahead), strict=True))
        left.plot(ahead, loss, "--", color=colour)
        left.fill_between(ahead, loss - 1.645 * stderr, loss + 1.645 * stderr, color=colour, alpha=0.12)
    left.axvline(cut * t[-1], color="0.6", lw=0.8)
    bottom = float(table.min().min())
    left.set(xscale="log", ylim=(0.95 * bottom, 1.4 * bottom), xlabel="tokens", ylabel="loss (nats)")
    left.legend(title="LR", fontsize=7)
    true = [
        np.exp(LossOverLR(np.log(table.columns.to_numpy(float)), table.loc[:d].iloc[-1].to_numpy()).optimum)
        for d in ahead
    ]
    low, high = zip(*(fit.lr_interval(d) for d in ahead), strict=True)
    right.plot(ahead, true, "o", color="k", ms=4, label="measured")
    right.plot(ahead, fit.lr_opt(ahead), color="C0", label=f"from the first {cut:.0%}")
    floor, top = table.columns.min() / 4, table.columns.max() * 4
    right.fill_between(ahead, np.clip(low, floor, None), np.clip(high, None, top), color="C0", alpha=0.15, label="90 %")
    right.set(xscale="log", yscale="log", xlabel="tokens", ylabel="best LR")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def grid(path: Path, cells: pd.DataFrame) -> None:
    """Twelve cells with their fits."""
    figure, axes = plt.subplots(3, 4, figsize=(13, 8.5), layout="constrained")
    for axis, i in zip(axes.flat, np.linspace(0, len(cells) - 1, 12).astype(int), strict=True):
        c = cells.iloc[i]
        fit = fit_quadratic(c["lr"], c["loss"])
        x = np.geomspace(c["lr"][0], c["lr"][-1], 200)
        axis.plot(c["lr"], c["loss"], "o", ms=3, color="k")
        axis.plot(x, fit.predict(x), color="C0", lw=1)
        low, high = fit.lr_interval()
        axis.axvspan(max(low, x[0] / 2), min(high, 2 * x[-1]), color="C0", alpha=0.15)
        least = c["loss"].min()
        axis.set(xscale="log", ylim=(0.998 * least, 1.04 * least))
        axis.xaxis.set_minor_formatter("")
        axis.set_title(f"N {c['N']:.2g}, D {c['D']:.2g}, batch {c['batch_seqs']}: {fit.status}", fontsize=8)
    figure.supxlabel("LR")
    figure.supylabel("loss (nats)")
    figure.savefig(path, dpi=110)
    plt.close(figure)
