"""Where marks are within their panel: limits, ticks, points at the edges, ends of intervals, for both forms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.figures.description import (
    Axis,
    Band,
    Boxes,
    Line,
    Map,
    Mark,
    Panel,
    Points,
    Rule,
    Symbol,
    finite,
    is_open,
)
from raylr.analysis.units import format_count, format_lr

Limits = tuple[float, float]
_ROOM = 0.05
"""Space beside the outermost mark, as a share of the axis."""
_EDGE = 0.025
"""Distance of a mark at the edge from it, as a share of the axis."""
_STEPS: tuple[tuple[float, ...], ...] = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))
"""Ticks of a decade, from few to many."""
_SPACE_TICKS = 4
"""Ticks of an axis in three dimensions, at most."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """One kind of symbol of some points, in the panel's coordinates."""

    x: list[float]
    y: list[float]
    symbol: Symbol
    hover: list[str]
    texts: list[str]


def limits(panel: Panel) -> tuple[Limits, Limits]:
    """Return the limits of the x and of the y axis: those given, else those of the marks with some space.

    Args:
        panel: A panel in two dimensions.
    """
    return _limits(panel.x, _values(panel, "x")), _limits(panel.y, _values(panel, "y"))


def _values(panel: Panel, axis: str) -> Iterator[NDArray[np.float64]]:
    for mark in panel.marks:
        match mark:
            case Points():
                yield finite(getattr(mark, axis))
                if mark.along == axis:
                    yield from (finite(mark.low), finite(mark.high))
            case Line() | Map():
                yield finite(getattr(mark, axis))
            case Band():
                yield from (finite(mark.x),) if axis == "x" else (finite(mark.low), finite(mark.high))
            case Boxes():
                yield from (finite(getattr(mark, f"{axis}_{end}")) for end in ("low", "high"))
            case Rule() if mark.axis == axis:
                yield finite([mark.at])
            case _:
                pass


def _limits(axis: Axis, parts: Iterator[NDArray[np.float64]]) -> Limits:
    log = axis.scale == "log"
    values = np.concatenate([*parts, np.empty(0)])
    if log:
        values = np.log(values[values > 0])
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        half = 0.5 if log else max(0.05 * abs(low), 1e-6)
        low, high = low - half, high + half
    room = _ROOM * (high - low)
    low, high = (low - room, high + room) if not log else (math.exp(low - room), math.exp(high + room))
    return low if axis.low is None else axis.low, high if axis.high is None else axis.high


def between(ends: Limits, share: float, log: bool) -> float:
    """Return the value at a share of an axis."""
    if log:
        return math.exp(math.log(ends[0]) + share * math.log(ends[1] / ends[0]))
    return ends[0] + share * (ends[1] - ends[0])


def placed(points: Points, panel: Panel, x: Limits, y: Limits) -> list[Placed]:
    """Return points by the symbol they are drawn with: runs that diverged and points beyond the panel are at its edge.

    Args:
        points: The mark.
        panel: Its panel.
        x: Limits of the x axis.
        y: Limits of the y axis.
    """
    log = panel.y.scale == "log"
    top, bottom = between(y, 1 - _EDGE, log), between(y, _EDGE, log)
    hovers = [points.hover] * len(points.x) if isinstance(points.hover, str) else points.hover
    texts = points.texts or [""] * len(points.x)
    spans = _interval_texts(points, panel)
    found: dict[Symbol, Placed] = {}
    for px, py, hover, text, span in zip(points.x, points.y, hovers, texts, spans, strict=True):
        if not math.isfinite(px) or (math.isnan(py) and not points.edges):
            continue
        symbol, at = points.symbol, float(py)
        if not points.edges:
            pass
        elif math.isnan(at):
            symbol, at = "cross", top
        elif at > y[1]:
            symbol, at = "above", top
        elif at < y[0]:
            symbol, at = "below", bottom
        one = found.setdefault(symbol, Placed(x=[], y=[], symbol=symbol, hover=[], texts=[]))
        one.x.append(float(px))
        one.y.append(at)
        value = "diverged" if math.isnan(py) else f"{panel.y.label}: {written(float(py), panel.y)}"
        lines = [
            hover,
            points.label if not hover else "",
            f"{panel.x.label}: {written(float(px), panel.x)}",
            value,
            span,
        ]
        one.hover.append("\n".join(line for line in lines if line))
        one.texts.append(text)
    return list(found.values())


def _interval_texts(points: Points, panel: Panel) -> list[str]:
    if points.low is None or points.high is None:
        return [""] * len(points.x)
    axis = panel.y if points.along == "y" else panel.x
    out = []
    for low, high in zip(points.low, points.high, strict=True):
        below, above = (is_open(float(end), axis.scale == "log") for end in (low, high))
        if below and above:
            out.append("interval open on both sides")
        elif below or above:
            end = written(float(high if below else low), axis)
            out.append(f"interval open, {'below' if below else 'above'} {end}")
        else:
            out.append(f"interval {written(float(low), axis)} to {written(float(high), axis)}")
    return out


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Intervals as line segments, with what is drawn at their ends."""

    x: list[float]
    y: list[float]
    """Segments, a NaN between each two."""
    caps: list[tuple[float, float]]
    """Ends that are known."""
    low_arrows: list[tuple[float, float]]
    high_arrows: list[tuple[float, float]]
    """Open ends, at the panel's edge."""


def intervals(points: Points, panel: Panel, x: Limits, y: Limits) -> Ends | None:
    """Return the intervals of points; None if they have none.

    Args:
        points: The mark.
        panel: Its panel.
        x: Limits of the x axis.
        y: Limits of the y axis.
    """
    if points.low is None or points.high is None:
        return None
    vertical = points.along == "y"
    axis, ends = (panel.y, y) if vertical else (panel.x, x)
    log = axis.scale == "log"
    out = Ends(x=[], y=[], caps=[], low_arrows=[], high_arrows=[])
    for px, py, low, high in zip(points.x, points.y, points.low, points.high, strict=True):
        if not (math.isfinite(px) and math.isfinite(py)):
            continue
        sides = []
        for end, share, arrows in ((low, _EDGE, out.low_arrows), (high, 1 - _EDGE, out.high_arrows)):
            opened = is_open(end, log)
            at = between(ends, share, log) if opened else min(max(float(end), ends[0]), ends[1])
            place = (float(px), at) if vertical else (at, float(py))
            if opened:
                arrows.append(place)
            elif ends[0] <= end <= ends[1]:
                out.caps.append(place)
            sides.append(place)
        out.x.extend([sides[0][0], sides[1][0], math.nan])
        out.y.extend([sides[0][1], sides[1][1], math.nan])
    return out


def edge_note(panels: Sequence[Panel]) -> str:
    """Return what the caption says of marks at the edges of panels: only what is there; "" if nothing is.

    Args:
        panels: The panels of a figure.
    """
    found: set[str] = set()
    for panel in panels:
        x, y = limits(panel) if panel.z is None else ((0.0, 1.0), (0.0, 1.0))
        for mark in panel.marks if panel.z is None else ():
            if not isinstance(mark, Points):
                continue
            at = np.asarray(mark.y, dtype=np.float64)[np.isfinite(np.asarray(mark.x, dtype=np.float64))]
            at = at if mark.edges else at[:0]
            found |= {"diverged"} if np.isnan(at).any() else set()
            found |= {"beyond"} if ((at > y[1]) | (at < y[0])).any() else set()
            ends = intervals(mark, panel, x, y)
            found |= {"open"} if ends is not None and (ends.low_arrows or ends.high_arrows) else set()
    words = {
        "diverged": "crosses at the upper edge are runs that diverged",
        "beyond": "hollow triangles at an edge lie beyond it",
        "open": "an arrow is the open end of an interval",
    }
    text = "; ".join(words[name] for name in words if name in found)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def cut(values: Sequence[float] | NDArray[np.float64], ends: Limits) -> NDArray[np.float64]:
    """Return values moved to the limits where they lie beyond them, infinite ones too; NaN stays."""
    return np.clip(np.asarray(values, dtype=np.float64), *ends)


def ticks(axis: Axis, ends: Limits, *, beyond: float = 0.0) -> dict[float, str] | None:
    """Return the ticks of an axis: those given, or 1, 2, 5 … of each decade of a logarithmic one; None if linear.

    Args:
        axis: The axis.
        ends: Its limits.
        beyond: Decades to either side that have ticks too, for a view that is moved.
    """
    if axis.ticks is not None:
        return dict(axis.ticks)
    if axis.scale != "log":
        return None
    low, high = (math.log10(end) for end in ends)
    decades = range(math.floor(low - beyond), math.ceil(high + beyond) + 1)
    for steps in _STEPS:
        values = [step * 10.0**decade for decade in decades for step in steps]
        inside = [value for value in values if ends[0] <= value <= ends[1]]
        if len(inside) >= 3:
            break
    else:
        step = 10.0 ** math.floor(math.log10((ends[1] - ends[0]) / 2))
        step *= next(k for k in (5, 2, 1) if (ends[1] - ends[0]) / (k * step) >= 2 or k == 1)
        first = math.ceil(ends[0] / step)
        values = inside = [i * step for i in range(first, math.floor(ends[1] / step) + 1)]
    if len(inside) > 8:  # many decades: every second, third, … of them
        keep = math.ceil(len(inside) / 7)
        values = [value for value in values if round(math.log10(value)) % keep == 0]
    return {value: written(value, axis, short=True) for value in values}


def space_ticks(panel: Panel, name: str) -> dict[float, str]:
    """Return the ticks of a logarithmic axis of a panel in three dimensions: few, since they lie close there.

    Args:
        panel: A panel with a z axis.
        name: "x", "y" or "z".
    """
    values = [finite(getattr(mark, name, None)) for mark in marks_of(panel)]
    known = np.concatenate([one[one > 0] for one in values])
    if not known.size:
        return {}
    axis: Axis = getattr(panel, name)
    found = ticks(axis, (float(known.min()), float(known.max()))) or {}
    inside = [value for value in found if known.min() <= value <= known.max()]
    keep = inside[:: math.ceil(len(inside) / _SPACE_TICKS)] if inside else []
    return {value: found[value] for value in keep}


def bar_ticks(mark: Map) -> tuple[list[float], list[str]]:
    """Return the ticks of the colour bar of a map of log10 of an LR, and their texts."""
    known = finite(mark.z)
    axis = Axis("", scale="log", unit="lr")
    low, high = 10.0 ** float(known.min()), 10.0 ** float(known.max())
    found = {value: text for value, text in (ticks(axis, (low, high)) or {}).items() if low <= value <= high}
    return [math.log10(value) for value in found], list(found.values())


def written(value: float, axis: Axis, *, short: bool = False) -> str:
    """Return a value as the axis writes it.

    Args:
        value: In the unit of the axis.
        axis: The axis.
        short: As at a tick, without zeros.
    """
    if axis.ticks is not None and value in axis.ticks:
        return axis.ticks[value]
    if axis.unit == "count":
        return format_count(value) if value else "0"
    if axis.unit == "lr" and value > 0:
        text = format_lr(value)
        mantissa, _, exponent = text.partition("e")
        return f"{float(mantissa):g}e{exponent}" if short else text
    if short and 0 < abs(value) < 1e-2:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}" if short else f"{value:.5g}"


def marks_of(panel: Panel) -> Sequence[Mark]:
    """Return the marks of a panel, areas first so that lines and points lie on them."""
    order = {Map: 0, Boxes: 1, Band: 2, Rule: 3, Line: 4, Points: 5}
    return sorted(panel.marks, key=lambda mark: order[type(mark)])
