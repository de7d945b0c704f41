"""The figure of a proxy search: the loss over the LR and one further hyperparameter."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.figures.colours import ACCENT, INK, ordered
from raylr.analysis.figures.description import Axis, Boxes, Figure, Line, Mark, Panel, Points
from raylr.analysis.optimum.response import ResponseFit
from raylr.analysis.units import format_lr

_GRID = 40
"""Places along each axis at which the surface is drawn."""
_LEVELS = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Contours, as shares of the lowest loss above it."""


def proxy_search(fit: ResponseFit, axis: str) -> Figure:
    """Describe the loss over the LR and another axis, further axes at their best values.

    Args:
        fit: A fit over `lr` and `axis`.
        axis: The other axis.

    Returns:
        The runs with their losses, contours of the fitted surface, its best place with the 90 % intervals.
    """
    x, losses = np.exp(fit.given[0]), fit.given[1]
    lr, other = (x[:, fit.names.index(name)] for name in ("lr", axis))
    known = np.isfinite(losses)
    words = axis.replace("_", " ")
    spans = {
        name: (min(fit.ranges[name][0], values.min()), max(fit.ranges[name][1], values.max()))
        for name, values in (("lr", lr), (axis, other))
    }
    marks: list[Mark] = []
    statement = f"The search over LR and {words} has found no best place: {fit.message}."
    if fit.at:
        columns, rows = (np.geomspace(*spans[name], _GRID) for name in ("lr", axis))
        mesh = np.meshgrid(columns, rows)
        places = {name: np.full(mesh[0].size, value) for name, value in fit.at.items()}
        places |= {"lr": mesh[0].ravel(), axis: mesh[1].ravel()}
        loss = np.asarray(fit.predict(places)[0], dtype=np.float64).reshape(mesh[0].shape)
        marks += contours(columns, rows, loss, fit.loss)
        marks.append(
            Boxes(
                x_low=[fit.low["lr"]],
                x_high=[fit.high["lr"]],
                y_low=[fit.low[axis]],
                y_high=[fit.high[axis]],
                colour=ACCENT,
                alpha=0.14,
                label="90 % intervals",
            )
        )
        marks.append(
            Points(
                x=[fit.at["lr"]],
                y=[fit.at[axis]],
                symbol="star",
                size=7,
                colour=ACCENT,
                label="best place",
                hover=f"best place, loss {fit.loss:.4f}",
            )
        )
        statement = (
            f"The lowest loss, {fit.loss:.4f}, is expected at an LR of {format_lr(fit.at['lr'])} and {words} "
            f"{format_lr(fit.at[axis])}."
        )
    marks.append(
        Points(
            x=lr[known],
            y=other[known],
            colour=INK,
            label="run",
            texts=[f"{loss:.4g}" for loss in losses[known]],
            hover=[f"loss {loss:.5g}" for loss in losses[known]],
        )
    )
    if not known.all():
        marks.append(
            Points(
                x=lr[~known],
                y=other[~known],
                symbol="cross",
                size=6,
                colour=INK,
                label="run that diverged",
                hover="diverged",
            )
        )
    room = {name: math.exp(0.06 * math.log(high / low)) for name, (low, high) in spans.items()}
    panel = Panel(
        x=Axis(
            "learning rate", scale="log", unit="lr", low=spans["lr"][0] / room["lr"], high=spans["lr"][1] * room["lr"]
        ),
        y=Axis(words, scale="log", low=spans[axis][0] / room[axis], high=spans[axis][1] * room[axis]),
        marks=marks,
    )
    caption = f"The loss over LR and {words} at the proxy: runs with their losses"
    caption += " (crosses diverged)" if not known.all() else ""
    if fit.at:
        caption += (
            ", lines of equal loss of the surface through them (+1% is 1 % above the lowest), its best place (star) "
        )
        caption += "and the rectangle of the 90 % intervals"
    return Figure(
        title=f"Loss over LR and {words}",
        statement=statement,
        caption=f"{caption}.",
        panels=[panel],
        width=6.4,
        height=4.6,
    )


def contours(x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64], lowest: float) -> list[Mark]:
    """Return lines of equal loss, as shares of the lowest above it.

    Args:
        x: Columns (c,).
        y: Rows (r,).
        z: Losses (r, c).
        lowest: The lowest loss.
    """
    from contourpy import contour_generator

    generator = contour_generator(x, y, z)
    out: list[Mark] = []
    for share, colour in zip(_LEVELS, ordered(len(_LEVELS)), strict=True):
        lines = generator.lines(lowest + share * abs(lowest))
        if not lines:
            continue
        gap = np.full((1, 2), math.nan)
        points = np.concatenate([part for line in lines for part in (np.asarray(line), gap)])
        out.append(Line(x=points[:, 0], y=points[:, 1], colour=colour, width=1.0, label=f"+{100 * share:g}%"))
    return out
