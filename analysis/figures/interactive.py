"""Figures described for plotly.js, as plain data: what a page draws with hover, zoom and a legend that hides runs.

Colours are written `$0`, `$1`, …: places in the list `colours` of (light, dark) pairs, so that a page can change
between them; `$text`, `$grid` and `$page` are the page's own.
"""

from __future__ import annotations

import html
import math
from typing import Any

import numpy as np

from raylr.analysis.figures import placing
from raylr.analysis.figures.colours import Colour
from raylr.analysis.figures.description import (
    Axis,
    Band,
    Boxes,
    Figure,
    Line,
    Map,
    Mark,
    Panel,
    Points,
    Rule,
    Values,
    legend,
)
from raylr.analysis.units import format_lr

_SYMBOLS = {
    "circle": "circle", "hollow": "circle-open", "cross": "x-thin-open", "triangle": "triangle-up", "star": "star",
    "square": "square", "diamond": "diamond", "dot": "circle",
    "above": "triangle-up-open", "below": "triangle-down-open",
}  # fmt: skip
_SYMBOLS_3D = {"circle": "circle", "hollow": "circle-open", "cross": "x", "square": "square", "diamond": "diamond"}
_DASHES = {"solid": "solid", "dashed": "dash", "dotted": "dot"}
_DIGITS = 6
"""Significant digits of coordinates."""
_BAND = 0.16
_BEYOND = 2.0
"""Decades beyond the limits of a logarithmic axis that have ticks, for a view that is moved."""
_PIXELS = 96 / 72
"""Pixels of a page per point."""

Json = dict[str, Any]


def describe(figure: Figure) -> Json:
    """Return a figure as JSON's types: `panels` with `traces` and `layout` of plotly, `legend`, `colours`.

    Args:
        figure: Any figure.

    Returns:
        `panels`: a list of {"title", "height" (pixels), "traces", "layout", "space" (whether it is three-dimensional)};
        each trace has `meta`, the label in the legend that hides it. `legend`: a list of {"label", "colour", "symbol"}.
        `colours`: (light, dark) pairs.

    Example:
        >>> from raylr.analysis.figures.description import Axis, Figure, Line, Panel
        >>> line = Line(x=[1, 2], y=[3.0, 2.5], label="a run")
        >>> panel = Panel(x=Axis("tokens"), y=Axis("loss"), marks=[line])
        >>> found = describe(Figure(title="", statement="", caption="", panels=[panel]))
        >>> [(trace["type"], trace["y"], trace["meta"]) for trace in found["panels"][0]["traces"]]
        [('scatter', [3.0, 2.5], 'a run')]
    """
    palette = _Palette()
    panels = [_panel(panel, figure, palette) for panel in figure.panels]
    entries = [
        {"label": label, "colour": palette.of(mark.colour), "symbol": _entry(mark)}
        for label, mark in legend(figure).items()
    ]
    return {"title": figure.title, "panels": panels, "legend": entries, "colours": palette.pairs}


class _Palette:
    """The colours of a figure by their places in a list."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []

    def of(self, colour: Colour, alpha: float = 1.0) -> str:
        pair = (_with(colour.light, alpha), _with(colour.dark, alpha))
        if pair not in self.pairs:
            self.pairs.append(pair)
        return f"${self.pairs.index(pair)}"


def _with(colour: str, alpha: float) -> str:
    return colour if alpha >= 1 else f"{colour}{round(255 * alpha):02x}"


def _entry(mark: Mark) -> str:
    match mark:
        case Points():
            return mark.symbol
        case Line() | Rule():
            return mark.style
        case _:
            return "area"


def _panel(panel: Panel, figure: Figure, palette: _Palette) -> Json:
    traces: list[Json] = []
    shapes: list[Json] = []
    if panel.z is not None:
        for mark in placing.marks_of(panel):
            traces += _in_space(mark, panel, palette)
        layout: Json = {"scene": {f"{name}axis": _space_axis(panel, name) for name in "xyz"}}
        layout["scene"]["camera"] = {"eye": {"x": 1.7, "y": -1.7, "z": 1.0}, "center": {"x": 0, "y": 0, "z": -0.12}}
    else:
        x, y = placing.limits(panel)
        for mark in placing.marks_of(panel):
            found = _flat(mark, panel, x, y, palette)
            (shapes if isinstance(mark, Rule) else traces).extend(found)
        layout = {"xaxis": _axis(panel.x, x), "yaxis": _axis(panel.y, y), "shapes": shapes}
        if panel.note:
            layout["annotations"] = [{"text": _text(panel.note), "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5,
                                      "showarrow": False}]  # fmt: skip
    height = round(figure.height * 96)
    return {"title": panel.title, "height": height, "space": panel.z is not None, "traces": traces, "layout": layout}


def _axis(axis: Axis, ends: placing.Limits) -> Json:
    out = _title(axis)
    found = placing.ticks(axis, ends, beyond=_BEYOND if axis.ticks is None else 0.0)
    if found is not None:
        out |= {"tickvals": _numbers(list(found)), "ticktext": [_text(text) for text in found.values()]}
    log = axis.scale == "log"
    span = [math.log10(end) if log else end for end in ends]
    out["range"] = _numbers(span[::-1] if axis.reverse else span)
    return out


def _space_axis(panel: Panel, name: str) -> Json:
    axis: Axis = getattr(panel, name)
    out = _title(axis)
    if axis.scale == "log":
        found = placing.space_ticks(panel, name)
        out |= {"tickvals": _numbers(list(found)), "ticktext": [_text(text) for text in found.values()]}
    return out


def _title(axis: Axis) -> Json:
    out: Json = {"title": {"text": _text(axis.label)}, "type": axis.scale}
    if axis.unit == "count":
        out["exponentformat"] = "B"
    elif axis.unit == "lr":
        out |= {"exponentformat": "e", "hoverformat": ".3~e"}
    return out


def _flat(mark: Mark, panel: Panel, x: placing.Limits, y: placing.Limits, palette: _Palette) -> list[Json]:
    meta = mark.group or mark.label
    colour = palette.of(mark.colour)
    common: Json = {"type": "scatter", "meta": meta, "hoverinfo": "skip"}
    match mark:
        case Line():
            first = mark.hover or mark.label
            template = f"{_text(first)}<br>" if first else ""
            template += f"{_text(panel.x.label)}: %{{x}}<br>{_text(panel.y.label)}: %{{y}}<extra></extra>"
            line = {"color": colour, "width": mark.width * _PIXELS, "dash": _DASHES[mark.style]}
            trace = common | {"mode": "lines", "x": _numbers(mark.x), "y": _numbers(mark.y), "line": line,
                              "hovertemplate": template}  # fmt: skip
            del trace["hoverinfo"]
            return [trace]
        case Band():
            low, high = placing.cut(mark.low, y), placing.cut(mark.high, y)
            xs = np.concatenate([np.asarray(mark.x, float), np.asarray(mark.x, float)[::-1]])
            ys = np.concatenate([low, high[::-1]])
            known = np.isfinite(xs) & np.isfinite(ys)
            return [_area(common, xs[known], ys[known], palette.of(mark.colour, _BAND))]
        case Boxes():
            sides = (mark.x_low, mark.x_high, mark.y_low, mark.y_high)
            left, right, bottom, top = (placing.cut(v, e) for v, e in zip(sides, (x, x, y, y), strict=True))
            gap = np.full_like(left, math.nan)
            xs = np.stack([left, right, right, left, left, gap], 1).ravel()
            ys = np.stack([bottom, bottom, top, top, bottom, gap], 1).ravel()
            traces = [_area(common, xs, ys, palette.of(mark.colour, mark.alpha))]
            if mark.hover:
                texts = [mark.hover] * left.size if isinstance(mark.hover, str) else mark.hover
                middles = [(placing.between((a, b), 0.5, panel.x.scale == "log"),
                            placing.between((c, d), 0.5, panel.y.scale == "log"))
                           for a, b, c, d in zip(left, right, bottom, top, strict=True)]  # fmt: skip
                traces.append(common | {"mode": "markers", "marker": {"opacity": 0, "size": 14}, "hoverinfo": "text",
                                        "x": _numbers([a for a, _ in middles]), "y": _numbers([b for _, b in middles]),
                                        "hovertext": [_text(text) for text in texts]})  # fmt: skip
            return traces
        case Rule():
            other = "y" if mark.axis == "x" else "x"
            ends = {f"{mark.axis}0": mark.at, f"{mark.axis}1": mark.at, f"{other}0": 0, f"{other}1": 1}
            return [{"type": "line", "layer": "below", f"{other}ref": "paper", **ends, "meta": meta,
                     "line": {"color": colour, "width": 1.4, "dash": _DASHES[mark.style]}}]  # fmt: skip
        case Map():
            bar: Json = {"title": {"text": _text(mark.bar), "side": "right"}, "thickness": 12, "outlinewidth": 0}
            trace = {"type": "heatmap", "meta": meta, "x": _numbers(mark.x), "y": _numbers(mark.y), "colorbar": bar,
                     "z": [_numbers(row) for row in mark.z], "colorscale": "Viridis", "zsmooth": "best"}  # fmt: skip
            value = "%{z}"
            if mark.log_lr:
                bar["tickvals"], bar["ticktext"] = placing.bar_ticks(mark)
                trace["text"] = [[format_lr(10**one) for one in row] for row in mark.z]
                value = "%{text}"
            place = f"{_text(panel.x.label)}: %{{x}}<br>{_text(panel.y.label)}: %{{y}}<br>"
            return [trace | {"hovertemplate": f"{place}{_text(mark.bar)}: {value}<extra></extra>"}]
        case Points():
            return _points(mark, panel, x, y, palette, common, colour)
    raise TypeError(f"{type(mark).__name__} is not a mark")


def _area(common: Json, x: np.ndarray, y: np.ndarray, colour: str) -> Json:
    return common | {"mode": "lines", "x": _numbers(x), "y": _numbers(y), "fill": "toself", "fillcolor": colour,
                     "line": {"width": 0}}  # fmt: skip


def _points(
    mark: Points, panel: Panel, x: placing.Limits, y: placing.Limits, palette: _Palette, common: Json, colour: str
) -> list[Json]:
    traces: list[Json] = []
    ends = placing.intervals(mark, panel, x, y)
    if ends is not None:
        line = {"color": colour, "width": 1.6}
        traces.append(common | {"mode": "lines", "x": _numbers(ends.x), "y": _numbers(ends.y), "line": line})
        upright = mark.along == "y"
        arrows = ("triangle-down", "triangle-up") if upright else ("triangle-left", "triangle-right")
        cap = "line-ew-open" if upright else "line-ns-open"
        kinds = ((cap, ends.caps), (arrows[0], ends.low_arrows), (arrows[1], ends.high_arrows))
        for symbol, places in kinds:
            if places:
                marker = {"symbol": symbol, "color": colour, "size": 8, "line": {"width": 1.4, "color": colour}}
                traces.append(common | {"mode": "markers", "x": _numbers([a for a, _ in places]),
                                        "y": _numbers([b for _, b in places]), "marker": marker})  # fmt: skip
    for one in placing.placed(mark, panel, x, y):
        size = mark.size * _PIXELS * {"star": 2.2, "dot": 0.7, "triangle": 1.5}.get(one.symbol, 1.15)
        outline = 1.6 if "open" in _SYMBOLS[one.symbol] else 0.8 if one.symbol in ("star", "triangle") else 0
        marker = {"symbol": _SYMBOLS[one.symbol], "color": colour, "size": round(size, 1),
                  "line": {"width": outline, "color": "$text" if outline == 0.8 else colour}}  # fmt: skip
        trace = common | {"mode": "markers", "x": _numbers(one.x), "y": _numbers(one.y), "marker": marker,
                          "hoverinfo": "text", "hovertext": [_text(text) for text in one.hover]}  # fmt: skip
        if any(one.texts):
            trace |= {"mode": "markers+text", "text": [_text(text) for text in one.texts], "cliponaxis": False,
                      "textposition": "top center", "textfont": {"size": 10, "color": "$text"}}  # fmt: skip
        traces.append(trace)
    return traces


def _in_space(mark: Mark, panel: Panel, palette: _Palette) -> list[Json]:
    assert panel.z is not None
    names = [_text(axis.label) for axis in (panel.x, panel.y, panel.z)]
    template = "<br>".join(f"{name}: %{{{letter}}}" for letter, name in zip("xyz", names, strict=True))
    common: Json = {"meta": mark.group or mark.label, "hovertemplate": f"{template}<extra></extra>"}
    colour = palette.of(mark.colour)
    if isinstance(mark, Map):
        shades = np.log10(mark.z) if panel.z.scale == "log" else mark.z
        return [common | {"type": "surface", "x": _numbers(mark.x), "y": _numbers(mark.y), "showscale": False,
                          "z": [_numbers(row) for row in mark.z], "colorscale": "Viridis", "opacity": 0.85,
                          "surfacecolor": [_numbers(row) for row in shades]}]  # fmt: skip
    if not isinstance(mark, Line | Points) or mark.z is None:
        return []
    places = {"type": "scatter3d", "x": _numbers(mark.x), "y": _numbers(mark.y), "z": _numbers(mark.z)}
    if isinstance(mark, Line):
        first = f"{_text(mark.hover or mark.label)}<br>" if mark.hover or mark.label else ""
        line = {"color": colour, "width": 2 * mark.width, "dash": _DASHES[mark.style]}
        return [common | places | {"mode": "lines", "line": line, "hovertemplate": f"{first}{template}<extra></extra>"}]
    hovers = [mark.hover] * len(mark.x) if isinstance(mark.hover, str) else list(mark.hover)
    marker = {"color": colour, "size": mark.size, "symbol": _SYMBOLS_3D.get(mark.symbol, "circle")}
    return [common | places | {"mode": "markers", "marker": marker, "hovertext": [_text(text) for text in hovers],
                               "hovertemplate": f"%{{hovertext}}<br>{template}<extra></extra>"}]  # fmt: skip


def _text(text: str) -> str:
    """Return a text as plotly shows it as it is: it reads a part of HTML, and `%{` in templates."""
    return html.escape(text, quote=False).replace("%{", "%&#123;").replace("\n", "<br>")


def _numbers(values: Values) -> list[float | None]:
    """Return numbers with as many digits as a screen shows; None, a gap, for NaN."""
    out: list[float | None] = []
    for value in np.asarray(values, dtype=np.float64).ravel().tolist():
        out.append(float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None)
    return out
