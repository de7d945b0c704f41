"""The pictures of coordinate checks, after the paper's Figures 8 and 9, and all slopes with what was expected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raylr.analysis.coordinates import (
    CHANGE_TOLERANCE,
    INITIAL_TOLERANCE,
    LEVEL,
    OBSERVABLES,
    CoordinateCheck,
    Judged,
    Verdict,
)
from raylr.analysis.figures._drawing import ACCENT, GREY, labels_of, mark_ticks, new_figure, size_colours, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BAND = "#dfe3ea"
_SHOWN = (("embeddings", ""), ("attention_logits_normed", "last"), ("logits", ""))
_RAW = (("attention_logits", "first"), ("attention_logits", "last"), ("router_logits", "last"))


def figures(checks: Sequence[CoordinateCheck]) -> dict[str, Figure]:
    """Return all figures of some checks, by name."""
    found = {}
    for axis in dict.fromkeys(check.axis for check in checks):
        mine = [check for check in checks if check.axis == axis]
        found[f"changes_{axis}"] = changes(mine, _SHOWN)
        found[f"raw_{axis}"] = changes(mine, _RAW)
        found[f"slopes_{axis}"] = slopes(mine)
    return found


@styled
def changes(checks: Sequence[CoordinateCheck], observables: Sequence[tuple[str, str]]) -> Figure:
    """Draw the standard deviation of x_t − x_0 over the scale, a line for each step (paper, Figures 8 and 9).

    One row for each check, one column for each observable; dots are seeds, lines their geometric mean, the dotted line
    has the slope that a rule which transfers has. What a network does not have (QK norm) is replaced by the raw logits.

    Args:
        checks: Checks along one axis.
        observables: Observable and layer of each column.
    """
    labels = labels_of(check.variant for check in checks)
    figure, axes = new_figure(len(checks), len(observables), width=3.0, height=2.3)
    for row, check in enumerate(checks):
        mine = axes[row * len(observables) : (row + 1) * len(observables)]
        for ax, (observable, layer) in zip(mine, observables, strict=True):
            known = {(one.observable, one.layer) for one in check.rows}
            if (observable, layer) not in known and observable == "attention_logits_normed":
                observable = "attention_logits"
            _draw_changes(ax, check, observable, layer if (observable, layer) in known else "last")
        mine[0].set_ylabel(f"{labels[check.variant]}\nstd of x_t − x_0")
    for title in {ax.get_title() for ax in axes}:
        _share_height([ax for ax in axes if ax.get_title() == title])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=8)
    return figure


def _share_height(axes: Sequence[Axes]) -> None:
    """Give the panels of one activation one scale, at least a decade high, so that their slopes can be compared."""
    ends = [end for ax in axes if ax.lines for end in ax.get_ylim()]
    if not ends:
        return
    low, high = min(ends), max(ends)
    stretch = max(1.0, math.sqrt(10 * low / high))
    for ax in axes:
        ax.set_ylim(low / stretch, high * stretch)
        mark_ticks(ax.yaxis, lambda value: f"{value:.0e}".replace("e-0", "e-") if value < 0.01 else f"{value:g}")


def _draw_changes(ax: Axes, check: CoordinateCheck, observable: str, layer: str) -> None:
    rows = [row for row in check.rows if (row.observable, row.layer) == (observable, layer) and row.step]
    name = rows[0].name if rows else OBSERVABLES.get(observable, observable)
    ax.set_title(name, fontsize=9)
    ax.set_xlabel(f"{check.axis}, multiples of the base's")
    if not rows:
        ax.text(0.5, 0.5, "not observed", transform=ax.transAxes, ha="center", color=GREY)
        return
    for row, colour in zip(rows, size_colours(len(rows)), strict=True):
        points: dict[float, list[float]] = {}
        for one in check.measured:
            if (one["observable"], one["layer"], one["step"]) == (observable, layer, row.step) and one["std"] > 0:
                points.setdefault(float(one["scale"]), []).append(float(one["std"]))
        scales = sorted(points)
        means = [float(np.exp(np.mean(np.log(points[scale])))) for scale in scales]
        for scale in scales:
            ax.plot([scale] * len(points[scale]), points[scale], ".", color=colour, ms=3, alpha=0.6)
        ax.plot(scales, means, "-", color=colour, lw=1.4, label=f"t={row.step}")
    middle = (row.expected.low + row.expected.high) / 2
    if means:
        ax.plot(scales, [means[0] * (scale / scales[0]) ** middle for scale in scales], ":", color=GREY, lw=1.2,
                label="expected slope")  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(scales, [f"{scale:g}" for scale in scales])


@styled
def slopes(checks: Sequence[CoordinateCheck]) -> Figure:
    """Draw every slope with its interval, and the range in which it agrees with the expected one (grey).

    Args:
        checks: Checks along one axis.
    """
    labels = labels_of(check.variant for check in checks)
    names = list(dict.fromkeys(row.name for check in checks for row in check.rows))
    steps = sorted({row.step for check in checks for row in check.rows})
    figure, axes = new_figure(1, len(checks), width=2.5, height=max(2.6, 0.9 + 0.1 * len(names) * len(steps)))
    for index, (ax, check) in enumerate(zip(axes, checks, strict=True)):
        for row in check.rows:
            _draw_slope(ax, row, names.index(row.name) + 0.8 * (steps.index(row.step) + 0.5) / len(steps) - 0.4, steps)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_yticks(range(len(names)), names if index == 0 else [""] * len(names))
        ax.set_title(labels[check.variant], fontsize=9)
        ax.set_xlabel(f"slope over {check.axis}")
    colours = size_colours(len(steps))
    for step, colour in zip(steps, colours, strict=True):
        axes[0].plot([], [], "o", color=colour, ms=3.5, label="x_0" if step == 0 else f"x_{step} − x_0")
    axes[0].plot([], [], "x", color=ACCENT, ms=6, label="not as expected")
    axes[0].plot([], [], "-", color=_BAND, lw=8, label="as expected")
    ends = [end for ax in axes for end in ax.get_xlim()]
    for ax in axes:
        ax.set_xlim(min(ends), max(ends))
    figure.legend(loc="outside lower center", ncols=len(steps) + 2, title=f"intervals at {LEVEL:.0%}")
    return figure


def _draw_slope(ax: Axes, row: Judged, y: float, steps: Sequence[int]) -> None:
    tolerance = CHANGE_TOLERANCE if row.step else INITIAL_TOLERANCE
    low, high = row.expected.low - tolerance, row.expected.high + tolerance
    ax.barh(y, high - low, left=low, height=0.8 / len(steps), color=_BAND, zorder=0)
    if row.found.problem:
        return
    colour = size_colours(len(steps))[list(steps).index(row.step)]
    ax.plot([row.found.low, row.found.high], [y, y], "-", color=colour, lw=1.0)
    wrong = row.verdict in (Verdict.GROWS, Verdict.VANISHES)
    ax.plot(row.found.slope, y, "x" if wrong else "o", color=ACCENT if wrong else colour, ms=4 if wrong else 3)
