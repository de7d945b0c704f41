"""The LR law: the paper's Figures 2 and 18, and the law over the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from raylr.analysis.figures.colours import ACCENT, Colour, ordered
from raylr.analysis.figures.description import Axis, Band, Figure, Line, Map, Mark, Panel, Points, Symbol
from raylr.analysis.laws.lr_law import LRLaw, LRPrediction
from raylr.analysis.studyfit import LEVEL, SettingOptimum, StudyFit
from raylr.analysis.units import format_count, format_lr

_GRID = 60
_PLANE = 40
_LR = Axis("optimal learning rate", scale="log", unit="lr")
PREDICTED = "law at the target, 90 % interval"


def law(fit: StudyFit, prediction: LRPrediction | None) -> Figure:
    """Describe the optima and the law over tokens, over both, and over parameters (paper, Figures 2 and 18(a), (b)).

    Args:
        fit: The fits of a study.
        prediction: At the target: a star, and the law there with its interval as a band; None for none.
    """
    known = known_optima(fit)
    ends = law_ends(known, prediction)
    panels = [
        _over_tokens(fit.law, known, prediction, ends[1]),
        _plane(fit.law, known, prediction, ends),
        _over_params(fit.law, known, prediction, ends[0]),
    ]
    caption = (
        "After Figure 2 of the paper. Triangles and squares are the optima with their 90 % intervals, "
        "lines the law, in the middle its value as colour"
    )
    if prediction is not None:
        caption += "; the star is its prediction at the target"
        caption += ", the band its 90 % interval there" if _has_interval(prediction) else ""
    return Figure(
        title="The law",
        statement=law_statement(fit.law),
        caption=f"{caption}.",
        panels=panels,
        names=list(fit.surfaces),
    )


def law_in_space(fit: StudyFit, prediction: LRPrediction | None) -> Figure:
    """Describe the law over parameters and tokens as a surface that can be turned (paper, Figure 18(c)).

    Args:
        fit: The fits of a study.
        prediction: At the target; None for none.
    """
    known = known_optima(fit)
    (n_low, n_high), (d_low, d_high) = law_ends(known, prediction)
    n, d = np.geomspace(n_low, n_high, _PLANE), np.geomspace(d_low, d_high, _PLANE)
    batch = _one_batch(fit.law, prediction)
    marks: list[Mark] = [Map(x=n, y=d, z=np.asarray(fit.law.lr(n[None, :], d[:, None], batch)))]
    marks.append(_in_space(known, [_at_batch(fit.law, one, batch) for one in known]))
    if prediction is not None:
        marks.append(
            Points(
                x=[prediction.params],
                y=[prediction.tokens],
                z=[prediction.lr],
                colour=ACCENT,
                size=6,
                symbol="diamond",
                label="prediction",
                hover="prediction at the target",
            )
        )
    panel = Panel(
        x=Axis("parameters", scale="log", unit="count"), y=Axis("tokens", scale="log", unit="count"), z=_LR, marks=marks
    )
    corners = np.asarray(fit.law.lr(np.array([n_low, n_high]), np.array([d_low, d_high]), batch))
    statement = (
        f"From {format_count(n_low)} parameters and {format_count(d_low)} tokens to {format_count(n_high)} and "
        f"{format_count(d_high)} the law's LR goes from {format_lr(corners[0])} to {format_lr(corners[1])}."
    )
    at = "" if batch is None else f", brought by it to a batch of {format_count(batch)} tokens"
    caption = f"After Figure 18(c) of the paper. The surface is the law, points are the optima{at}."
    return Figure(
        title="The law in three dimensions", statement=statement, caption=caption, panels=[panel], width=6.4, height=5.0
    )


def law_statement(law: LRLaw) -> str:
    """Return what a law says, in a sentence with its numbers."""
    words = []
    for exponent, name, what in ((law.alpha, "alpha", "parameters"), (law.beta, "beta", "tokens")):
        low, high = law.interval(LEVEL)[name] if law.covariance is not None else (exponent, exponent)
        given = f" ({LEVEL:.0%} interval of the exponent {-high:.2f} to {-low:.2f})" if high > low else ""
        words.append(f"by a factor {2.0**-exponent:.2f} with twice the {what}{given}")
    return f"By the law the optimal LR changes {' and '.join(words)}."


def known_optima(fit: StudyFit) -> list[SettingOptimum]:
    """Return the optima that have an LR."""
    return [cell for cell in fit.optima if math.isfinite(cell.lr_opt)]


def law_ends(
    known: Sequence[SettingOptimum], prediction: LRPrediction | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ranges of parameters and tokens in which a law is drawn."""
    params = [float(cell.params) for cell in known] + ([prediction.params] if prediction else [])
    tokens = [float(cell.tokens) for cell in known] + ([prediction.tokens] if prediction else [])
    return (min(params) / 1.4, max(params) * 1.4), (min(tokens) / 1.4, max(tokens) * 1.4)


def optima_of(
    x: Sequence[float], cells: Sequence[SettingOptimum], colour: Colour, label: str, symbol: Symbol = "triangle"
) -> Points:
    """Return optima with their intervals over `x`.

    Args:
        x: Where each optimum is drawn.
        cells: The optima.
        colour: Of all of them.
        label: Entry of the legend.
        symbol: How each is drawn.
    """
    return Points(
        x=x,
        y=[cell.lr_opt for cell in cells],
        low=[cell.lr_low for cell in cells],
        high=[cell.lr_high for cell in cells],
        symbol=symbol,
        colour=colour,
        label=label,
        hover=[f"{cell.setting.name or cell.size} ({cell.status})" for cell in cells],
    )


def predicted(grid: np.ndarray, at: Callable[[float], LRPrediction], prediction: LRPrediction, x: float) -> list[Mark]:
    """Return a prediction as a star, and the law with its interval as a band.

    Args:
        grid: Values of x at which the law is drawn.
        at: x → prediction there.
        prediction: The prediction at the target.
        x: The target's place.
    """
    band = [at(float(value)) for value in grid]
    low, high = (np.array([getattr(one, name) for one in band]) for name in ("lr_low", "lr_high"))
    marks: list[Mark] = [
        Line(x=grid, y=[one.lr for one in band], style="dashed", width=1.0, colour=ACCENT, group=PREDICTED),
        Points(
            x=[x],
            y=[prediction.lr],
            symbol="star",
            size=7,
            colour=ACCENT,
            label=PREDICTED,
            hover=f"prediction at the target: {format_lr(prediction.lr)}",
            low=[prediction.lr_low],
            high=[prediction.lr_high],
        )
        if _has_interval(prediction)
        else Points(
            x=[x], y=[prediction.lr], symbol="star", size=7, colour=ACCENT, label=PREDICTED, hover="prediction"
        ),
    ]
    if _has_interval(prediction):
        marks.append(Band(x=grid, low=low, high=high, colour=ACCENT, group=PREDICTED))
    return marks


def lr_axis(cells: Sequence[SettingOptimum], also: Sequence[float] = ()) -> Axis:
    """Return the axis of the optimal LR, on which a wide interval does not squeeze the optima."""
    lrs = [cell.lr_opt for cell in cells] + [one for one in also if math.isfinite(one) and one > 0]
    ends = [end for cell in cells for end in (cell.lr_low, cell.lr_high) if 0 < end < math.inf]
    low, high = min(lrs), max(lrs)
    low, high = max(min([low, *ends]), low / 6), min(max([high, *ends]), high * 6)
    return Axis(_LR.label, scale="log", unit="lr", low=low / 1.15, high=high * 1.15)


def _has_interval(prediction: LRPrediction) -> bool:
    return math.isfinite(prediction.lr_low) and not math.isnan(prediction.lr_high)


def _ends_of(prediction: LRPrediction | None) -> list[float]:
    return [] if prediction is None else [prediction.lr, prediction.lr_low, prediction.lr_high]


def _over_tokens(
    law: LRLaw, cells: Sequence[SettingOptimum], prediction: LRPrediction | None, ends: tuple[float, float]
) -> Panel:
    grid = np.geomspace(*ends, _GRID)
    sizes = list(dict.fromkeys(cell.size for cell in cells))
    marks: list[Mark] = []
    for size, colour in zip(sizes, ordered(len(sizes)), strict=True):
        own = [cell for cell in cells if cell.size == size]
        marks.append(optima_of([cell.tokens for cell in own], own, colour, f"size {size}"))
        law_here = np.asarray(law.lr(own[0].params, grid, own[0].batch))
        marks.append(
            Line(x=grid, y=law_here, colour=colour, group=f"size {size}", hover=f"law at size {size}", width=1.2)
        )
    if prediction:
        n, batch = prediction.params, prediction.batch
        marks += predicted(grid, lambda d: law.predict(n, d, level=LEVEL, batch=batch), prediction, prediction.tokens)
    return Panel(
        title="over tokens, each size",
        x=Axis("tokens", scale="log", unit="count"),
        y=lr_axis(cells, _ends_of(prediction)),
        marks=marks,
    )


def _over_params(
    law: LRLaw, cells: Sequence[SettingOptimum], prediction: LRPrediction | None, ends: tuple[float, float]
) -> Panel:
    grid = np.geomspace(*ends, _GRID)
    several = len({cell.batch for cell in cells}) > 1
    groups = sorted({(cell.tokens, cell.batch or 0.0) for cell in cells})
    marks: list[Mark] = []
    for (budget, batch), colour in zip(groups, ordered(len(groups)), strict=True):
        own = [cell for cell in cells if (cell.tokens, cell.batch or 0.0) == (budget, batch)]
        label = f"{format_count(budget)} tokens" + (f", B={format_count(batch)}" if several else "")
        # Squares, since their colours are those of the sizes in the other panel.
        marks.append(optima_of([cell.params for cell in own], own, colour, label, "square"))
        law_here = np.asarray(law.lr(grid, budget, own[0].batch))
        marks.append(Line(x=grid, y=law_here, colour=colour, group=label, hover=f"law at {label}", width=1.2))
    if prediction:
        d, at = prediction.tokens, prediction.batch
        marks += predicted(grid, lambda n: law.predict(n, d, level=LEVEL, batch=at), prediction, prediction.params)
    return Panel(
        title="over parameters, each budget",
        x=Axis("parameters", scale="log", unit="count"),
        y=lr_axis(cells, _ends_of(prediction)),
        marks=marks,
    )


def _plane(
    law: LRLaw,
    cells: Sequence[SettingOptimum],
    prediction: LRPrediction | None,
    ends: tuple[tuple[float, float], tuple[float, float]],
) -> Panel:
    n, d = (np.geomspace(*one, _PLANE) for one in ends)
    batch = _one_batch(law, prediction)
    z = np.log10(np.asarray(law.lr(n[None, :], d[:, None], batch)))
    marks: list[Mark] = [Map(x=n, y=d, z=z, bar="optimal LR", log_lr=True)]
    moved = [_at_batch(law, cell, batch) for cell in cells]
    marks.append(
        Points(
            x=[cell.params for cell in cells],
            y=[cell.tokens for cell in cells],
            symbol="triangle",
            size=7,
            colour=Colour("#ffffff", "#ffffff"),
            hover=[f"{cell.setting.name}: {format_lr(lr)}" for cell, lr in zip(cells, moved, strict=True)],
        )
    )
    if prediction:
        marks.append(
            Points(
                x=[prediction.params],
                y=[prediction.tokens],
                symbol="star",
                size=7,
                colour=ACCENT,
                group=PREDICTED,
                hover=f"prediction {format_lr(prediction.lr)}",
            )
        )
    at = "" if batch is None else f", at a batch of {format_count(batch)}"
    return Panel(
        title=f"the law over both{at}",
        x=Axis("parameters", scale="log", unit="count", low=n[0], high=n[-1]),
        y=Axis("tokens", scale="log", unit="count", low=d[0], high=d[-1]),
        marks=marks,
    )


def _one_batch(law: LRLaw, prediction: LRPrediction | None) -> float | None:
    """Return the batch at which the law is drawn as a plane; optima at another are moved there along the law."""
    if not law.batch_unit:
        return None
    return (prediction.batch if prediction else None) or law.batch_unit


def _at_batch(law: LRLaw, cell: SettingOptimum, batch: float | None) -> float:
    return cell.lr_opt if batch is None else cell.lr_opt * float((batch / (cell.batch or batch)) ** law.delta)


def _in_space(cells: Sequence[SettingOptimum], lrs: Sequence[float]) -> Points:
    return Points(
        x=[cell.params for cell in cells],
        y=[cell.tokens for cell in cells],
        z=lrs,
        size=4,
        label="optimum",
        hover=[cell.setting.name or cell.size for cell in cells],
    )
