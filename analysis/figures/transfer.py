"""The picture of a proxy search: the loss over the LR and one further hyperparameter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from raylr.analysis.figures._drawing import ACCENT, mark_ticks, new_figure, styled
from raylr.analysis.optimum.response import ResponseFit
from raylr.analysis.units import format_lr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GRID = 40
"""Places along each axis at which the surface is drawn."""
_LEVELS = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Contours, as shares of the lowest loss above it."""


@styled
def proxy_search(fit: ResponseFit, axis: str) -> Figure:
    """Draw the loss over the LR and another axis, further axes at their best values.

    Args:
        fit: A fit over `lr` and `axis`.
        axis: The other axis.

    Returns:
        The runs with their losses, contours of the fitted surface, its best place with the 90 % intervals.
    """
    figure, (ax,) = new_figure(1, 1, width=6.0, height=4.4)
    x, losses = np.exp(fit.given[0]), fit.given[1]
    lr, other = (x[:, fit.names.index(name)] for name in ("lr", axis))
    finite = np.isfinite(losses)
    spans = {
        name: (min(fit.ranges[name][0], values.min()), max(fit.ranges[name][1], values.max()))
        for name, values in (("lr", lr), (axis, other))
    }
    if fit.at:
        columns, rows = np.meshgrid(*(np.geomspace(*spans[name], _GRID) for name in ("lr", axis)))
        places = {name: np.full(columns.size, value) for name, value in fit.at.items()}
        places |= {"lr": columns.ravel(), axis: rows.ravel()}
        loss = fit.predict(places)[0].reshape(columns.shape)
        levels = [fit.loss + share * abs(fit.loss) for share in _LEVELS]
        drawn = ax.contour(columns, rows, loss, levels=levels, cmap="viridis", linewidths=0.8)
        ax.clabel(drawn, fmt=lambda value: f"+{(value - fit.loss) / abs(fit.loss):.2%}", fontsize=7)
        ends = [(fit.low[name], fit.high[name]) for name in ("lr", axis)]
        low, high = zip(*((max(a, s[0]), min(b, s[1])) for (a, b), s in zip(ends, spans.values(), strict=True)),
                        strict=True)  # fmt: skip
        ax.fill_between([low[0], high[0]], low[1], high[1], color=ACCENT, alpha=0.12, lw=0)
        ax.plot(fit.at["lr"], fit.at[axis], "*", color=ACCENT, ms=13, zorder=4)
    ax.plot(lr[finite], other[finite], "o", color="black", ms=5, zorder=3)
    ax.plot(lr[~finite], other[~finite], "x", color="black", ms=6, zorder=3)
    for place in zip(lr[finite], other[finite], losses[finite], strict=True):
        ax.annotate(f"{place[2]:.4g}", place[:2], xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7)
    ax.set_xscale("log")
    ax.set_yscale("log")
    mark_ticks(ax.xaxis, format_lr)
    mark_ticks(ax.yaxis, lambda value: f"{value:g}")
    for set_limits, name in ((ax.set_xlim, "lr"), (ax.set_ylim, axis)):
        room = math.exp(0.06 * math.log(spans[name][1] / spans[name][0]))
        set_limits(spans[name][0] / room, spans[name][1] * room)
    ax.set_xlabel("LR")
    ax.set_ylabel(axis.replace("_", " "))
    ax.set_title("Loss over LR and " + axis.replace("_", " "))
    return figure
