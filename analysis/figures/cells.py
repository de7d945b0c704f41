"""The pictures of finished runs: the loss over the LR of each cell, and the law through the optima."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raylr.analysis.cells import CellOptimum, Family
from raylr.analysis.figures._drawing import ACCENT, GREY, mark_ticks, new_figure, size_colours, styled
from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.units import format_count, format_lr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 12
"""Cells that are drawn: more are too small to read."""


@styled
def loss_over_lr(optima: Sequence[CellOptimum]) -> Figure:
    """Draw the final losses over the LR with the fitted curve, its optimum and the interval, one panel a cell.

    Of more than `MOST` cells, those are drawn that are spread evenly over the list. Diverged runs are crosses at the
    upper edge.
    """
    at = np.unique(np.linspace(0, len(optima) - 1, min(MOST, len(optima))).round().astype(int))
    columns = min(3, len(at))
    figure, axes = new_figure(math.ceil(len(at) / columns), columns, width=4.2 if columns > 1 else 5.6, height=3.4)
    for ax, i in zip(axes, at, strict=False):
        _draw_cell(ax, optima[i])
    for ax in axes[len(at) :]:
        ax.set_visible(False)
    return figure


def _draw_cell(ax: Axes, optimum: CellOptimum) -> None:
    cell, fit = optimum.cell, optimum.fit
    finite = np.isfinite(cell.loss)
    if finite.any():
        floor = float(cell.loss[finite].min())
        span = max(float(np.quantile(cell.loss[finite], 0.7)) - floor, 1e-3 * abs(floor), 1e-9)
        ceiling = floor + 1.6 * span
        if fit.curves is not None:
            grid = np.geomspace(*fit.lr_range, 200)
            mean, sd = (np.asarray(v, float) for v in fit.predict(grid))
            ax.fill_between(grid, mean - 1.645 * sd, mean + 1.645 * sd, color=ACCENT, alpha=0.15, lw=0)
            ax.plot(grid, mean, "-", color=ACCENT, lw=1.3)
        shown = finite & (cell.loss <= ceiling)
        ax.plot(cell.lr[shown], cell.loss[shown], "o", color="black", ms=4.5, zorder=3)
        above = finite & (cell.loss > ceiling)
        ax.plot(cell.lr[above], np.full(above.sum(), ceiling - 0.02 * span), "^", color=GREY, ms=5, zorder=3)
        ax.plot(cell.lr[~finite], np.full((~finite).sum(), ceiling - 0.02 * span), "x", color=GREY, ms=6, zorder=3)
        ax.set_ylim(floor - 0.15 * span, ceiling)
    if math.isfinite(fit.lr):
        low, high = max(fit.lr_low, fit.lr_range[0]), min(fit.lr_high, fit.lr_range[1])
        ax.axvspan(low, high, color=GREY, alpha=0.15, lw=0)
        ax.axvline(fit.lr, color=GREY, lw=1, ls="--")
    ax.set_xscale("log")
    mark_ticks(ax.xaxis, format_lr)
    ax.set_xlabel("learning rate")
    ax.set_ylabel("final loss")
    words = format_lr(fit.lr) if math.isfinite(fit.lr) else "unknown"
    ax.set_title(f"{optimum.setting.name}: {words} ({fit.status})", fontsize=9)


@styled
def law(family: Family) -> Figure:
    """Draw the optima over parameters, tokens and batch, as far as these differ, with the law.

    In each panel the optima are brought by the law to the middle of the other quantities, so that one line is the law.
    """
    fitted = family.law
    if fitted is None:
        raise ValueError("there is no law to draw")
    known = [one for one in family.optima if one.used]
    values = {
        "parameters": np.array([one.setting.params or 1.0 for one in known]),
        "tokens": np.array([one.setting.tokens or 1.0 for one in known]),
    }
    if fitted.batch_unit is not None:
        values["batch"] = np.array([one.setting.batch or 1.0 for one in known])
    middle = {name: float(np.exp(np.log(v).mean())) for name, v in values.items()}
    shown = [name for name, v in values.items() if np.ptp(np.log(v)) > 0.05] or ["tokens"]
    figure, axes = new_figure(1, len(shown), width=4.4, height=3.6)
    lr = np.array([one.fit.lr for one in known])
    expected = _lr(fitted, values)
    for ax, name in zip(axes, shown, strict=True):
        _draw_axis(ax, name, fitted, known, values, middle, lr / expected)
    return figure


def _draw_axis(
    ax: Axes, name: str, fitted: LRLaw, known: Sequence[CellOptimum], values: dict[str, np.ndarray],
    middle: dict[str, float], ratio: np.ndarray,
) -> None:  # fmt: skip
    x = values[name]
    here = {other: np.full(x.size, middle[other]) for other in values} | {name: x}
    y = _lr(fitted, here) * ratio
    sizes = sorted(set(values["parameters"].tolist()))
    colours = dict(zip(sizes, size_colours(len(sizes)), strict=True))
    for i, one in enumerate(known):
        low, high = one.fit.lr_low, one.fit.lr_high
        error = [[y[i] * (1 - low / one.fit.lr)], [y[i] * (high / one.fit.lr - 1)]]
        colour = colours[float(values["parameters"][i])]
        bounded = low > 0 and math.isfinite(high) and low <= one.fit.lr <= high
        ax.errorbar(x[i], y[i], yerr=error if bounded else None, fmt="o", ms=4, color=colour, lw=0.8, alpha=0.8)
    grid = np.geomspace(x.min() / 1.3, x.max() * 1.3, 60)
    ax.plot(
        grid, _lr(fitted, {other: np.full(60, middle[other]) for other in values} | {name: grid}), "-", color=ACCENT
    )
    ax.set_xscale("log")
    ax.set_yscale("log")
    mark_ticks(ax.xaxis, format_count)
    mark_ticks(ax.yaxis, format_lr)
    others = [f"{other} {format_count(middle[other])}" for other in values if other != name]
    ax.set_xlabel(name)
    ax.set_ylabel("optimal LR")
    ax.set_title(f"brought to {', '.join(others)}" if others else "", fontsize=9)


def _lr(fitted: LRLaw, at: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(fitted.lr(at["parameters"], at["tokens"], at.get("batch")), float)
