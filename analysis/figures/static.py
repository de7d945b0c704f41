"""Figures drawn by matplotlib: for print, for papers, and for pages without JavaScript."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raylr.analysis.figures import labels, placing
from raylr.analysis.figures.colours import GREY
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
    legend,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawn

_STYLE: dict[str, Any] = {
    "figure.dpi": 110,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e7e9ee",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "raylr",
    "text.parse_math": False,  # a name with `$` in it is no formula
}
_MARKERS = {
    "circle": "o", "hollow": "o", "cross": "x", "triangle": "^", "star": "*", "square": "s", "diamond": "D", "dot": "o",
    "above": "^", "below": "v",
}  # fmt: skip
_HOLLOW = ("hollow", "above", "below")
_DASHES = {"solid": "-", "dashed": "--", "dotted": ":"}
_BAND = 0.16
_LEGEND_ROW = 110
"""Characters of a row of the legend, for a figure of 13 inches."""
PNG_DPI = 160
SVG_DPI = 90
"""Resolution of what is a picture in an SVG: surfaces, maps, and the marks of very large figures."""
_MOST_COORDINATES = 6_000
"""Coordinates beyond which the marks of an SVG are one picture: they would be larger than that, and slow."""
_LONGEST = 40
"""Entries of a legend that are drawn."""
_CHARACTER = 0.088
"""Width of a character of a title, inches: longer titles go on in a second line."""
_SPACE = 0.82
"""Size of the box of a panel in three dimensions, so that the labels of its axes are inside of the picture."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A figure as files."""

    svg: str
    png: bytes
    width: float
    """Inches."""


def render(figure: Figure) -> Rendered:
    """Draw a figure as SVG and PNG.

    Args:
        figure: Any figure.
    """
    with _style():
        drawn = _drawn(figure)
        png, svg = io.BytesIO(), io.StringIO()
        drawn.savefig(png, format="png", dpi=PNG_DPI)
        drawn.set_layout_engine("none")  # the layout of the PNG, which takes as long as drawing
        if _coordinates(figure) > _MOST_COORDINATES:
            for axes in drawn.axes:
                for artist in (*axes.lines, *axes.collections):
                    artist.set_rasterized(True)  # texts and axes remain what they are
        metadata: dict[str, None] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawn.savefig(svg, format="svg", dpi=SVG_DPI, metadata=metadata)
    return Rendered(svg=svg.getvalue(), png=png.getvalue(), width=float(drawn.get_figwidth()))


def draw(figure: Figure) -> Drawn:
    """Draw a figure with matplotlib, in raylr's style; the user's own settings have no effect.

    Args:
        figure: Any figure.

    Returns:
        A figure of matplotlib, for further work with it; `render` writes files in raylr's fonts.
    """
    with _style():
        return _drawn(figure)


def _style() -> AbstractContextManager[None]:
    import matplotlib as mpl

    settings: dict[Any, Any] = {**mpl.rcParamsDefault, **_STYLE, "backend": "agg"}
    return mpl.rc_context(settings)


def _drawn(figure: Figure) -> Drawn:
    import matplotlib as mpl
    from matplotlib.figure import Figure as Drawn

    columns = max(1, min(figure.columns, len(figure.panels)))
    rows = max(1, math.ceil(len(figure.panels) / columns))
    entries = legend(figure)
    write = labels.writer(figure.names, _texts(figure, entries))
    mpl.rcParams["font.family"] = [*write.families, "sans-serif"]  # `_style` puts the user's own back
    width = figure.width * columns
    per_row = max(1, int(_LEGEND_ROW * width / 13 / (6 + max(map(len, entries), default=1))))
    shown = dict(list(entries.items())[:_LONGEST])
    size = (width, figure.height * rows + 0.2 * math.ceil(len(shown) / per_row))
    drawn = Drawn(figsize=size, layout="constrained")
    ax: Any
    for place, panel in enumerate(figure.panels, start=1):
        if panel.z is None:
            ax = drawn.add_subplot(rows, columns, place)
            _draw_panel(ax, panel, write)
        else:
            ax = drawn.add_subplot(rows, columns, place, projection="3d")
            _draw_space(ax, panel, write)
        ax.set_title(textwrap.fill(write(panel.title), max(int(figure.width / _CHARACTER), 20)))
    if shown:
        handles = [_handle(mark, write(label)) for label, mark in shown.items()]
        drawn.legend(handles=handles, loc="outside lower center", ncols=min(per_row, len(handles)))
    return drawn


def _coordinates(figure: Figure) -> int:
    marks = [mark for panel in figure.panels for mark in panel.marks]
    return sum(int(np.size(getattr(mark, name, ()))) for mark in marks for name in ("x", "x_low"))


def _texts(figure: Figure, entries: dict[str, Mark]) -> list[str]:
    out = [*entries]
    for panel in figure.panels:
        out += [panel.title, panel.note, panel.x.label, panel.y.label]
        for axis in (panel.x, panel.y):
            out += list((axis.ticks or {}).values())
        for mark in panel.marks:
            out += [*mark.texts] if isinstance(mark, Points) else []
    return out


def _draw_panel(ax: Axes, panel: Panel, write: Callable[[str], str]) -> None:
    x, y = placing.limits(panel)
    ax.set_xscale(panel.x.scale)
    ax.set_yscale(panel.y.scale)
    for mark in placing.marks_of(panel):
        _draw_mark(ax, mark, panel, x, y, write)
    for axis, given, ends in ((ax.xaxis, panel.x, x), (ax.yaxis, panel.y, y)):
        _mark_ticks(axis, given, ends, write)
    ax.set_xlim(*(x[::-1] if panel.x.reverse else x))
    ax.set_ylim(*(y[::-1] if panel.y.reverse else y))
    ax.set_xlabel(write(panel.x.label))
    ax.set_ylabel(write(panel.y.label))
    if panel.note:
        ax.text(0.5, 0.5, write(panel.note), transform=ax.transAxes, ha="center", color=GREY.light)


def _mark_ticks(axis: Any, given: Axis, ends: placing.Limits, write: Callable[[str], str]) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    found = placing.ticks(given, ends)
    if found is not None:
        axis.set_major_locator(FixedLocator(list(found)))
        axis.set_major_formatter(lambda value, _: write(_nearest(found, value)))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    elif given.unit == "count":
        axis.set_major_formatter(lambda value, _: placing.written(value, given))


def _nearest(found: dict[float, str], value: float) -> str:
    return found[min(found, key=lambda one: abs(one - value))] if found else ""


def _draw_mark(
    ax: Axes, mark: Mark, panel: Panel, x: placing.Limits, y: placing.Limits, write: Callable[[str], str]
) -> None:
    colour = mark.colour.light
    match mark:
        case Line():
            ax.plot(mark.x, mark.y, _DASHES[mark.style], color=colour, lw=mark.width)
        case Band():
            low, high = placing.cut(mark.low, y), placing.cut(mark.high, y)
            ax.fill_between(mark.x, low, high, color=colour, alpha=_BAND, lw=0)
        case Boxes():
            sides = [
                placing.cut(v, e) for v, e in ((mark.x_low, x), (mark.x_high, x), (mark.y_low, y), (mark.y_high, y))
            ]
            for left, right, bottom, top in zip(*sides, strict=True):
                ax.fill_between([left, right], bottom, top, color=colour, alpha=mark.alpha, lw=0)
        case Rule():
            line = ax.axvline if mark.axis == "x" else ax.axhline
            line(mark.at, color=colour, ls=_DASHES[mark.style], lw=1.1)
        case Map():
            mesh = ax.pcolormesh(mark.x, mark.y, mark.z, cmap="viridis", shading="nearest", rasterized=True)
            bar = ax.figure.colorbar(mesh, ax=ax, pad=0.02)
            bar.set_label(write(mark.bar))
            if mark.log_lr:
                values, texts = placing.bar_ticks(mark)
                bar.set_ticks(values, labels=texts)
        case Points():
            _draw_points(ax, mark, panel, x, y, write)


def _draw_points(
    ax: Axes, mark: Points, panel: Panel, x: placing.Limits, y: placing.Limits, write: Callable[[str], str]
) -> None:
    colour = mark.colour.light
    ends = placing.intervals(mark, panel, x, y)
    if ends is not None:
        ax.plot(ends.x, ends.y, "-", color=colour, lw=1.2, alpha=0.8)
        upright = mark.along == "y"
        arrows = ("v", "^") if upright else ("<", ">")
        kinds = (("_" if upright else "|", ends.caps), (arrows[0], ends.low_arrows), (arrows[1], ends.high_arrows))
        for marker, places in kinds:
            if places:
                ax.plot(*zip(*places, strict=True), marker, color=colour, ms=5, alpha=0.9)
    for one in placing.placed(mark, panel, x, y):
        size = mark.size * {"star": 2.0, "dot": 0.6, "triangle": 1.2}.get(one.symbol, 1.0)
        face = "white" if one.symbol in _HOLLOW else colour
        edge = "black" if one.symbol in ("star", "triangle") else colour
        ax.plot(one.x, one.y, _MARKERS[one.symbol], color=colour, ms=size, mfc=face, mec=edge,
                mew=0.6 if edge == "black" else 1.0, zorder=3)  # fmt: skip
        for px, py, text in zip(one.x, one.y, one.texts, strict=True):
            if text:
                ax.annotate(write(text), (px, py), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7.5)


def _handle(mark: Mark, text: str) -> Artist:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colour = mark.colour.light
    match mark:
        case Line() | Rule():
            return Line2D([], [], color=colour, ls=_DASHES[mark.style], lw=1.4, label=text)
        case Points():
            face = "white" if mark.symbol in _HOLLOW else colour
            return Line2D([], [], color=colour, ls="", marker=_MARKERS[mark.symbol], mfc=face, ms=6, label=text)
        case Boxes():
            return Patch(color=colour, alpha=mark.alpha, label=text)
        case _:
            return Patch(color=colour, alpha=2 * _BAND, label=text)


# -- three dimensions --


def _draw_space(ax: Any, panel: Panel, write: Callable[[str], str]) -> None:
    assert panel.z is not None
    axes = (panel.x, panel.y, panel.z)

    def flat(values: Sequence[float] | np.ndarray, axis: Axis) -> np.ndarray:
        array = np.asarray(values, dtype=np.float64)
        return np.log10(array) if axis.scale == "log" else array  # matplotlib has no logarithmic axes here

    for mark in placing.marks_of(panel):
        colour = mark.colour.light
        if isinstance(mark, Map):
            columns, rows = np.meshgrid(flat(mark.x, panel.x), flat(mark.y, panel.y))
            ax.plot_surface(
                columns,
                rows,
                flat(mark.z, panel.z),
                cmap="viridis",
                alpha=0.75,
                lw=0,
                rcount=24,
                ccount=24,
                rasterized=True,
            )
        elif isinstance(mark, Line | Points) and mark.z is not None:
            places = [flat(v, axis) for v, axis in zip((mark.x, mark.y, mark.z), axes, strict=True)]
            if isinstance(mark, Line):
                ax.plot(*places, _DASHES[mark.style], color=colour, lw=mark.width)
            else:
                ax.plot(*places, _MARKERS[mark.symbol], color=colour, ms=mark.size)
    for name, axis in zip("xyz", axes, strict=True):
        getattr(ax, f"set_{name}label")(write(axis.label), labelpad=9)
        if axis.scale == "log":
            found = placing.space_ticks(panel, name)
            getattr(ax, f"set_{name}ticks")([math.log10(value) for value in found], list(found.values()))
    ax.view_init(elev=28, azim=-55)
    ax.set_box_aspect(None, zoom=_SPACE)
