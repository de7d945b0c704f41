"""What the figures have in common: style, axes, colours."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ParamSpec

from raylr.analysis.figures import labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

GREY = "#8a8f98"
ACCENT = "#c2410c"
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
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "white",
    "legend.fancybox": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "raylr",
    "text.parse_math": False,  # a name with `$` in it is no formula
}


Colour = tuple[float, float, float, float]
Arguments = ParamSpec("Arguments")


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Draw in raylr's style, whatever the user's own settings are."""

    @functools.wraps(draw)
    def in_style(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        import matplotlib as mpl

        settings: dict[Any, Any] = {**mpl.rcParamsDefault, **_STYLE, "backend": "agg"}
        with mpl.rc_context(settings):
            return draw(*args, **kwargs)

    return in_style


def labels_of(names: Iterable[str]) -> dict[str, str]:
    """Return name → label (`labels.shown`), and use fonts that have them for what the figure draws from here on."""
    import matplotlib as mpl

    wanted = list(names)
    mpl.rcParams["font.family"] = labels.families(wanted)  # `styled` puts the user's own back
    return labels.shown(wanted)


def new_figure(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of rows × columns axes, each `width` × `height` inches, and the axes in reading order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def mark_ticks(axis: Axis, write: Callable[[float], str]) -> None:
    """Mark 1, 2 and 5 of each decade of a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(lambda value, _: write(value))
    axis.set_minor_formatter(NullFormatter())


def size_colours(count: int, name: str = "viridis") -> list[Colour]:
    """Return `count` colours of one scale, for sizes, budgets or runs."""
    from matplotlib import colormaps

    return [colormaps[name](0.85 * i / max(count - 1, 1)) for i in range(count)]
