"""The figures of finished runs: the loss over the LR of each cell, and the law through the optima."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from raylr.analysis.cells import CellOptimum, Family, names_of
from raylr.analysis.figures.colours import ACCENT, GREY, ordered
from raylr.analysis.figures.description import (
    Axis,
    Band,
    Boxes,
    Figure,
    Line,
    Mark,
    Panel,
    Points,
    Rule,
    finite,
    loss_limits,
)
from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.next_runs import SETTLED
from raylr.analysis.units import format_count, format_lr

MOST = 12
"""Cells that are drawn: more are too small to read."""
MOST_OPTIMA = 400
"""Optima of a law that are drawn."""
_GRID = 80
_LEVELS = (0.05, 0.5, 0.95)


def loss_over_lr(optima: Sequence[CellOptimum]) -> Figure:
    """Describe the final losses over the LR with the fitted curve, its optimum and the interval, one panel a cell.

    Args:
        optima: The cells. Of more than `MOST`, those are drawn that are spread evenly over the list.
    """
    at = np.unique(np.linspace(0, len(optima) - 1, min(MOST, len(optima))).round().astype(int))
    names = names_of(optima)
    drawn = [(names[i], optima[i]) for i in at]
    known = [one for one in optima if math.isfinite(one.fit.lr)]
    statement = f"None of {len(optima)} settings has a known optimum."
    if known:
        lrs = [one.fit.lr for one in known]
        spread = (
            f"from {format_lr(min(lrs))} to {format_lr(max(lrs))}" if max(lrs) > min(lrs) else f"at {format_lr(lrs[0])}"
        )
        settled = sum(one.fit.status in SETTLED for one in optima)
        statement = (
            f"The best LRs of {len(optima)} settings lie {spread}; {settled} of them are known within the tolerance."
        )
        if len(optima) == 1:
            statement = f"The lowest loss, {known[0].fit.loss:.4f}, lies {spread}."
    caption = (
        "Points are final losses, the line is raylr's model of the loss over the LR with its 90 % band; dashed is the "
        "optimum, shaded its 90 % interval"
    )
    if any(one.fit.fitted_range != one.fit.lr_range for _, one in drawn if one.fit.curves is not None):
        caption += ". The line ends where the model does, which takes the losses of the LRs nearest to the best one"
    if len(drawn) < len(optima):
        caption += f". {len(drawn)} of {len(optima)} settings are drawn, spread evenly over the table below"
    return Figure(
        title="Loss over the learning rate",
        statement=statement,
        caption=f"{caption}.",
        panels=[_cell(name, one) for name, one in drawn],
        width=4.2 if len(drawn) > 1 else 5.6,
        height=3.3,
        names=[name for name, _ in drawn],
    )


def _cell(name: str, optimum: CellOptimum) -> Panel:
    cell, fit = optimum.cell, optimum.fit
    low, high = loss_limits(cell.loss, share=0.7)
    marks: list[Mark] = []
    if fit.curves is not None:
        grid = np.geomspace(*fit.fitted_range, _GRID)
        # Quantiles: beside a cliff the standard deviation is that of the jump, and would reach below every loss.
        low_band, middle, high_band = fit.loss_quantiles(grid, _LEVELS).T
        marks.append(Band(x=grid, low=low_band, high=high_band, colour=ACCENT))
        marks.append(Line(x=grid, y=middle, colour=ACCENT, hover="fitted loss"))
    if math.isfinite(fit.lr):
        marks.append(
            Boxes(
                x_low=[fit.lr_low], x_high=[fit.lr_high], y_low=[-math.inf], y_high=[math.inf], colour=GREY, alpha=0.16
            )
        )
        marks.append(Rule(at=fit.lr))
    marks.append(Points(x=cell.lr, y=cell.loss, hover=[f"LR {format_lr(float(lr))}" for lr in cell.lr]))
    lrs = finite([*cell.lr, *fit.lr_range])
    words = format_lr(fit.lr) if math.isfinite(fit.lr) else "unknown"
    return Panel(
        title=f"{name}: {words} ({str(fit.status).replace('_', ' ')})",
        x=Axis("learning rate", scale="log", unit="lr", low=float(lrs.min()) / 1.2, high=float(lrs.max()) * 1.2),
        y=Axis("final loss", low=low, high=high),
        marks=marks,
    )


def law(family: Family) -> Figure:
    """Describe the optima over parameters, tokens and batch, as far as these differ, with the law.

    In each panel the optima are brought by the law to the middle of the other quantities, so that one line is the law.

    Args:
        family: A family with a law.

    Raises:
        ValueError: There is no law.
    """
    fitted = family.law
    if fitted is None:
        raise ValueError("there is no law to draw")
    known = [one for one in family.optima if one.used]
    if len(known) > MOST_OPTIMA:
        known = [known[i] for i in np.linspace(0, len(known) - 1, MOST_OPTIMA).round().astype(int)]
    values = {
        "parameters": np.array([one.setting.params or 1.0 for one in known]),
        "tokens": np.array([one.setting.tokens or 1.0 for one in known]),
    }
    if fitted.batch_unit is not None:
        values["batch"] = np.array([one.setting.batch or 1.0 for one in known])
    middle = {name: float(np.exp(np.log(v).mean())) for name, v in values.items()}
    shown = [name for name, v in values.items() if np.ptp(np.log(v)) > 0.05] or ["tokens"]
    ratio = np.array([one.fit.lr for one in known]) / _lr(fitted, values)
    off = float(np.exp(np.median(np.abs(np.log(ratio)))))
    used = sum(one.used for one in family.optima)
    caption = (
        "Points are the optima with their intervals, the line is the law. In each panel the "
        "law brings the optima to the middle of the quantities that are not drawn."
    )
    if len(known) < used:
        caption += f" {len(known)} of {used} optima are drawn."
    return Figure(
        title=f"The law of {family.name}" if family.name else "The law",
        statement=f"The law passes {used} optima at a median factor of {off:.2f}.",
        caption=caption,
        panels=[_over(name, fitted, known, values, middle, ratio) for name in shown],
        height=3.6,
        names=[one.setting.name for one in known],
    )


def _over(
    name: str,
    fitted: LRLaw,
    known: Sequence[CellOptimum],
    values: dict[str, np.ndarray],
    middle: dict[str, float],
    ratio: np.ndarray,
) -> Panel:
    x = values[name]
    here = {other: np.full(x.size, middle[other]) for other in values} | {name: x}
    y = _lr(fitted, here) * ratio
    sizes = sorted(set(values["parameters"].tolist()))
    marks: list[Mark] = []
    for params, colour in zip(sizes, ordered(len(sizes)), strict=True):
        own = np.flatnonzero(values["parameters"] == params).tolist()
        moved = [y[i] / known[i].fit.lr for i in own]
        bounded = [known[i].fit.lr_low <= known[i].fit.lr <= known[i].fit.lr_high for i in own]
        marks.append(
            Points(
                x=x[own],
                y=y[own],
                colour=colour,
                size=4.5,
                label=f"{format_count(params)} parameters" if len(sizes) <= MOST and params != 1.0 else "",
                low=[known[i].fit.lr_low * k if ok else y[i] for i, k, ok in zip(own, moved, bounded, strict=True)],
                high=[known[i].fit.lr_high * k if ok else y[i] for i, k, ok in zip(own, moved, bounded, strict=True)],
                hover=[f"{known[i].setting.name}: {format_lr(known[i].fit.lr)}" for i in own],
            )
        )
    grid = np.geomspace(x.min() / 1.3, x.max() * 1.3, 60)
    line = _lr(fitted, {other: np.full(60, middle[other]) for other in values} | {name: grid})
    marks.append(Line(x=grid, y=line, colour=ACCENT, label="law"))
    others = [
        f"{format_count(middle[other])} {other}" if other != "batch" else f"a batch of {format_count(middle[other])}"
        for other in values
        if other != name and middle[other] != 1.0
    ]
    kind = str(known[0].setting.config.get("batch_kind", "")) if name == "batch" else ""
    low, high = float(min(y.min(), line.min())), float(max(y.max(), line.max()))
    return Panel(
        title=f"brought to {' and '.join(others)}" if others else "",
        x=Axis(f"batch ({kind})" if kind else name, scale="log", unit="count"),
        y=Axis("optimal LR", scale="log", unit="lr", low=low / 2, high=high * 2),
        marks=marks,
    )


def _lr(fitted: LRLaw, at: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(fitted.lr(at["parameters"], at["tokens"], at.get("batch")), float)
