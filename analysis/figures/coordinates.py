"""The figures of coordinate checks, after the paper's Figures 8 and 9, and all slopes with what was expected."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from raylr.analysis.coordinates import (
    CHANGE_TOLERANCE,
    INITIAL_TOLERANCE,
    LEVEL,
    OBSERVABLES,
    CoordinateCheck,
    Verdict,
)
from raylr.analysis.figures.colours import ACCENT, SOFT, ordered
from raylr.analysis.figures.description import Axis, Boxes, Figure, Line, Mark, Panel, Points, finite

_SHOWN = (("embeddings", ""), ("attention_logits_normed", "last"), ("logits", ""))
_RAW = (("attention_logits", "first"), ("attention_logits", "last"), ("router_logits", "last"))
_WRONG = (Verdict.GROWS, Verdict.VANISHES)


def figures(checks: Sequence[CoordinateCheck]) -> dict[str, Figure]:
    """Return all figures of some checks, by name."""
    found = {}
    for axis in dict.fromkeys(check.axis for check in checks):
        mine = [check for check in checks if check.axis == axis]
        found[f"changes_{axis}"] = changes(mine, _SHOWN)
        found[f"raw_{axis}"] = changes(mine, _RAW)
        found[f"slopes_{axis}"] = slopes(mine)
    return found


def changes(checks: Sequence[CoordinateCheck], observables: Sequence[tuple[str, str]]) -> Figure:
    """Describe the standard deviation of x_t − x_0 over the scale, a line for each step (paper, Figures 8 and 9).

    One row for each check, one column for each observable. What a network does not have (QK norm) is replaced by the
    raw logits.

    Args:
        checks: Checks along one axis.
        observables: Observable and layer of each column.
    """
    wanted: list[list[tuple[str, str]]] = []
    for check in checks:
        known = {(one.observable, one.layer) for one in check.rows}
        row = []
        for observable, layer in observables:
            if (observable, layer) not in known and observable == "attention_logits_normed":
                observable = "attention_logits"
            row.append((observable, layer if (observable, layer) in known else "last"))
        wanted.append(row)
    heights = _heights(checks, {key for row in wanted for key in row})
    panels = [
        _changes(check, observable, layer, heights[observable, layer], column == 0)
        for check, row in zip(checks, wanted, strict=True)
        for column, (observable, layer) in enumerate(row)
    ]
    axis = checks[0].axis
    rows = [
        (check, row)
        for check in checks
        for row in check.rows
        if row.step
        and not row.found.problem
        and (row.observable, row.layer) in {key for keys in wanted for key in keys}
    ]
    statement = f"No slope over {axis} is known."
    if rows:
        check, steepest = max(rows, key=lambda one: one[1].found.slope)
        statement = (
            f"The steepest slope over {axis} is {steepest.found.slope:+.2f}: {steepest.name} at step {steepest.step} "
            f"under {check.variant}."
        )
    caption = (
        "After Figures 8 and 9 of the paper: the standard deviation of the coordinates of x_t − x_0. Dots are seeds, "
        "lines their geometric mean; the dotted line has the slope that a rule which transfers has."
    )
    return Figure(
        title=f"Changes over {axis}",
        statement=statement,
        caption=caption,
        panels=panels,
        columns=len(observables),
        width=3.2,
        height=2.5,
        names=[check.variant for check in checks],
    )


def slopes(checks: Sequence[CoordinateCheck]) -> Figure:
    """Describe every slope with its interval, and the range in which it agrees with the expected one.

    Args:
        checks: Checks along one axis.
    """
    axis = checks[0].axis
    names = list(dict.fromkeys(row.name for check in checks for row in check.rows))
    steps = sorted({row.step for check in checks for row in check.rows})
    ends = finite(
        [
            end
            for check in checks
            for row in check.rows
            if not row.found.problem
            for end in (row.found.low, row.found.high, row.expected.low, row.expected.high)
        ]
    )
    low, high = (float(ends.min()) - 0.4, float(ends.max()) + 0.4) if ends.size else (-1.0, 1.0)
    panels = [_slopes(check, names, steps, (low, high), index == 0) for index, check in enumerate(checks)]
    judged = [row for check in checks for row in check.rows if not row.found.problem]
    wrong = sum(row.verdict in _WRONG for row in judged)
    return Figure(
        title=f"Slopes over {axis}",
        statement=f"{wrong} of {len(judged)} slopes over {axis} are not as a rule that transfers has them.",
        caption=f"Points are slopes of ln std over ln {axis} with their {LEVEL:.0%} intervals; shaded is where a slope "
        "agrees with the expected one, crosses do not.",
        panels=panels,
        columns=len(panels),
        width=2.9,
        height=max(2.6, 0.9 + 0.1 * len(names) * len(steps)),
        names=[check.variant for check in checks],
    )


def _points(check: CoordinateCheck, observable: str, layer: str, step: int) -> dict[float, list[float]]:
    points: dict[float, list[float]] = {}
    for one in check.measured:
        if (one["observable"], one["layer"], one["step"]) == (observable, layer, step) and one["std"] > 0:
            points.setdefault(float(one["scale"]), []).append(float(one["std"]))
    return points


def _heights(
    checks: Sequence[CoordinateCheck], keys: set[tuple[str, str]]
) -> dict[tuple[str, str], tuple[float | None, float | None]]:
    """Give the panels of one activation one scale, at least a decade high, so that their slopes can be compared."""
    out: dict[tuple[str, str], tuple[float | None, float | None]] = {}
    for key in keys:
        values = [
            float(one["std"])
            for check in checks
            for one in check.measured
            if (one["observable"], one["layer"]) == key and one["step"] and one["std"] > 0
        ]
        if not values:
            out[key] = (None, None)
            continue
        low, high = min(values) / 1.2, max(values) * 1.2
        stretch = max(1.0, math.sqrt(10 * low / high))
        out[key] = (low / stretch, high * stretch)
    return out


def _changes(
    check: CoordinateCheck, observable: str, layer: str, height: tuple[float | None, float | None], first: bool
) -> Panel:
    rows = [row for row in check.rows if (row.observable, row.layer) == (observable, layer) and row.step]
    name = rows[0].name if rows else OBSERVABLES.get(observable, observable)
    marks: list[Mark] = []
    scales: list[float] = []
    for row, colour in zip(rows, ordered(len(rows)), strict=True):
        points = _points(check, observable, layer, row.step)
        scales = sorted(points)
        if not scales:
            continue
        means = [float(np.exp(np.mean(np.log(points[scale])))) for scale in scales]
        label = f"t={row.step}"
        every = [(scale, std) for scale in scales for std in points[scale]]
        marks.append(
            Points(
                x=[a for a, _ in every],
                y=[b for _, b in every],
                symbol="dot",
                size=4,
                colour=colour,
                group=label,
                hover=f"{check.variant}, {label}, a seed",
            )
        )
        marks.append(Line(x=scales, y=means, colour=colour, label=label, hover=f"{check.variant}, {label}, mean"))
        if row is rows[-1]:
            middle = (row.expected.low + row.expected.high) / 2
            expected = [means[0] * (scale / scales[0]) ** middle for scale in scales]
            marks.append(Line(x=scales, y=expected, style="dotted", colour=ACCENT, label="expected slope"))
    return Panel(
        title=name,
        x=Axis(
            f"{check.axis}, multiples of the base's",
            scale="log",
            ticks={scale: f"{scale:g}" for scale in scales} or None,
        ),
        y=Axis(f"{check.variant}\nstd of x_t − x_0" if first else "", scale="log", low=height[0], high=height[1]),
        marks=marks,
        note="" if marks else "not observed",
    )


def _slopes(
    check: CoordinateCheck, names: Sequence[str], steps: Sequence[int], ends: tuple[float, float], first: bool
) -> Panel:
    marks: list[Mark] = []
    boxes: list[tuple[float, float, float, float]] = []
    half = 0.4 / len(steps)

    def place(name: str, step: int) -> float:
        return names.index(name) + 0.8 * (steps.index(step) + 0.5) / len(steps) - 0.4

    for step, colour in zip(steps, ordered(len(steps)), strict=True):
        mine = [row for row in check.rows if row.step == step]
        tolerance = CHANGE_TOLERANCE if step else INITIAL_TOLERANCE
        boxes += [
            (
                row.expected.low - tolerance,
                row.expected.high + tolerance,
                place(row.name, step) - half,
                place(row.name, step) + half,
            )
            for row in mine
        ]
        label = "x_0" if step == 0 else f"x_{step} − x_0"
        for wrong in (False, True):
            own = [row for row in mine if not row.found.problem and (row.verdict in _WRONG) is wrong]
            if own:
                marks.append(
                    Points(
                        x=[row.found.slope for row in own],
                        y=[place(row.name, step) for row in own],
                        along="x",
                        low=[row.found.low for row in own],
                        high=[row.found.high for row in own],
                        symbol="cross" if wrong else "circle",
                        colour=ACCENT if wrong else colour,
                        size=5 if wrong else 3.5,
                        label="not as expected" if wrong else label,
                        hover=[f"{row.name}, {label}: {row.verdict}" for row in own],
                    )
                )
    if boxes:
        a, b, c, d = (list(part) for part in zip(*boxes, strict=True))
        marks.append(Boxes(x_low=a, x_high=b, y_low=c, y_high=d, colour=SOFT, label="as expected"))
    return Panel(
        title=check.variant,
        x=Axis(f"slope over {check.axis}", low=ends[0], high=ends[1]),
        y=Axis(
            "",
            low=-0.5,
            high=len(names) - 0.5,
            reverse=True,
            ticks={float(i): name if first else "" for i, name in enumerate(names)},
        ),
        marks=marks,
    )
