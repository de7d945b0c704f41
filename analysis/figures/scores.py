"""Scores along training, after the paper's Figures 3, 4 and 11, and over the loss.

Bars are ±1 standard error of the questions; the dashed line is what a guess scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from raylr.analysis._checks import one_of
from raylr.analysis.figures.colours import ACCENT, Colour, categories, ordered
from raylr.analysis.figures.description import Axis, Band, Boxes, Figure, Line, Mark, Panel, Points, Rule, finite
from raylr.analysis.scores.scores import Score, Scores
from raylr.analysis.scores.suites import CHANCE, SUITES
from raylr.analysis.scores.table import QUANTITIES, ScoreFit
from raylr.analysis.units import format_count
from raylr.errors import DataError

_LEVEL = {"accuracy": 100 * CHANCE, "log_prob": math.log(CHANCE)}
"""What a guess scores, in the units of the axes."""
_AXIS = {"accuracy": "accuracy (%)", "log_prob": "log-probability of the right answer (nats)"}
_ROOM = {"accuracy": 2.0, "log_prob": 0.02}
"""Least half-width of an axis: no noise is blown up to a picture of progress."""
_GUESS = "a guess"


def scores_over_tokens(
    scores: Sequence[Scores],
    *,
    quantities: Sequence[str] = QUANTITIES,
    labels: Mapping[str, str] | None = None,
    average: str = "naive",
) -> Figure:
    """Describe suites side by side over tokens, a line a run: accuracy (Figures 3, 4 and 11), and below it the
    log-probability of the right answer.

    Where runs have a decay phase it is shaded from its first evaluation's predecessor on, its points are filled
    triangles and those of the stable phase circles (Figure 11: left stable, right decay).

    Args:
        scores: evaluations of any runs; those without `tokens` cannot be drawn and are left out.
        quantities: rows of the picture, of "accuracy" and "log_prob".
        labels: run -> what the legend calls it.
        average: over subjects, "naive" or "weighted".

    Raises:
        DataError: Nothing can be drawn.
        InputError: A quantity or an average is unknown.
    """
    for quantity in quantities:
        one_of(quantity, QUANTITIES, "quantity")
    drawn = [one for one in scores if one.tokens is not None and one.rows]
    if not drawn:
        raise DataError("there are no scores with tokens to draw")
    suites = [suite for suite in SUITES if any(row.suite == suite for one in drawn for row in one.rows)]
    runs = sorted({one.run for one in drawn})
    named = {run: (labels or {}).get(run, run or "model") for run in runs}
    colours = dict(zip(runs, categories(len(runs)), strict=True))
    panels = []
    for quantity in quantities:
        for suite in suites:
            marks = _decay(drawn)
            for run in runs:
                own = sorted((o for o in drawn if o.run == run and _has(o, suite)), key=lambda one: one.tokens or 0)
                if own:
                    marks += _run(own, suite, quantity, average, colours[run], named[run])
            marks.append(Rule(axis="y", at=_LEVEL[quantity], label=_GUESS))
            low, high = _ends(marks, _ROOM[quantity])
            panels.append(
                Panel(
                    title=SUITES[suite].title,
                    x=Axis("tokens", unit="count"),
                    y=Axis(_AXIS[quantity], low=low, high=high),
                    marks=marks,
                )
            )
    caption = (
        "After Figures 3, 4 and 11 of the paper. Bars are ±1 standard error over the questions, the dashed line is the "
        "score of a guess."
    )
    if any(one.phase == "decay" for one in drawn):
        caption += " The decay phase is shaded and its points are triangles."
    return Figure(
        title="Scores along training",
        statement=_statement(drawn, suites[0], average, named),
        caption=caption,
        panels=panels,
        columns=len(suites),
        width=4.8,
        names=list(named.values()),
    )


def score_over_loss(joined: pa.Table, suite: str, fit: ScoreFit, *, labels: Mapping[str, str] | None = None) -> Figure:
    """Describe the log-probability of the right answer over the validation loss of every scored checkpoint, a colour a
    run, with the line of `raylr.analysis.scores.table.fit_scores` and its ±1 standard error where there is one.

    Args:
        joined: The run table with scores (`raylr.analysis.scores.table.join_scores`).
        suite: Name of the suite.
        fit: The line over all checkpoints.
        labels: Name of a run → what the legend calls it.
    """
    names = ["trial", "loss", f"{suite}_log_prob", f"{suite}_log_prob_stderr"]
    rows = [
        (row["trial"], *(row[name] for name in names[1:]))
        for row in joined.select(names).to_pylist()
        if all(row[name] is not None and math.isfinite(row[name]) for name in names[1:])
    ]
    if not rows:
        raise DataError(f"no row of the run table has a loss and a score of {SUITES[suite].title}")
    runs = sorted({run for run, *_ in rows})
    named = {run: (labels or {}).get(run, run) for run in runs}
    marks: list[Mark] = []
    for run, colour in zip(runs, ordered(len(runs)), strict=True):
        loss, value, error = (
            list(part) for part in zip(*((a, b, c) for name, a, b, c in rows if name == run), strict=True)
        )
        marks.append(
            Points(
                x=loss,
                y=value,
                low=[v - e for v, e in zip(value, error, strict=True)],
                high=[v + e for v, e in zip(value, error, strict=True)],
                size=4,
                colour=colour,
                label=named[run],
                hover=named[run],
            )
        )
    statement = f"{SUITES[suite].title} over the loss: {fit.message}."
    caption = "Every scored checkpoint with ±1 standard error over the questions, a colour a run"
    if fit.has_line:
        grid = np.linspace(min(loss for _, loss, *_ in rows), max(loss for _, loss, *_ in rows), 50)
        line, error_line = (np.asarray(part, dtype=np.float64) for part in fit.predict(grid))
        label = f"{fit.slope:.3f} ± {fit.slope_stderr:.3f} nats a nat"
        marks.append(Line(x=grid, y=line, colour=ACCENT, label=label))
        marks.append(Band(x=grid, low=line - error_line, high=line + error_line, colour=ACCENT, group=label))
        caption += ", with the line through them and its ±1 standard error"
    marks.append(Rule(axis="y", at=_LEVEL["log_prob"], label=_GUESS))
    low, high = _ends(marks, _ROOM["log_prob"])
    panel = Panel(
        title=f"{SUITES[suite].title} over the loss",
        x=Axis("validation loss (nats a token), falling", reverse=True),
        y=Axis(_AXIS["log_prob"], low=low, high=high),
        marks=marks,
    )
    return Figure(
        title=f"{SUITES[suite].title} over the loss",
        statement=statement,
        caption=f"{caption}.",
        panels=[panel],
        width=6.0,
        height=4.0,
        names=list(named.values()),
    )


# -- parts --


def _statement(drawn: Sequence[Scores], suite: str, average: str, named: Mapping[str, str]) -> str:
    scored = [one for one in drawn if _has(one, suite)]
    best = max(scored, key=lambda one: one.row(suite, average=average).accuracy)
    row = best.row(suite, average=average)
    return (
        f"The best accuracy on {SUITES[suite].title} is {100 * row.accuracy:.1f} ± {100 * row.accuracy_stderr:.1f} %, "
        f"of {named[best.run]} at {format_count(best.tokens or 0)} tokens: {row.verdict} ({100 * CHANCE:.0f} %)."
    )


def _has(scores: Scores, suite: str) -> bool:
    return any(row.suite == suite for row in scores.rows)


def _value(row: Score, quantity: str) -> tuple[float, float]:
    if quantity == "accuracy":
        return 100 * row.accuracy, 100 * row.accuracy_stderr
    return row.log_prob, row.log_prob_stderr


def _run(scores: Sequence[Scores], suite: str, quantity: str, average: str, colour: Colour, label: str) -> list[Mark]:
    points = [(float(one.tokens or 0), one.phase, *_value(one.row(suite, average=average), quantity)) for one in scores]
    known = [point for point in points if math.isfinite(point[2])]
    marks: list[Mark] = [Line(x=[p[0] for p in known], y=[p[2] for p in known], colour=colour, label=label, width=1.2)]
    for decay in (True, False):
        own = [point for point in known if (point[1] == "decay") is decay]
        if own:
            marks.append(
                Points(
                    x=[p[0] for p in own],
                    y=[p[2] for p in own],
                    low=[p[2] - p[3] for p in own],
                    high=[p[2] + p[3] for p in own],
                    symbol="triangle" if decay else "circle",
                    size=4,
                    colour=colour,
                    group=label,
                    hover=[f"{label}, {p[1] or 'evaluation'}" for p in own],
                )
            )
    return marks


def _decay(scores: Sequence[Scores]) -> list[Mark]:
    """Shade where runs decay: from the last evaluation of the stable phase before it, the same in all panels."""
    decayed = [one.tokens for one in scores if one.phase == "decay" and one.tokens is not None]
    if not decayed:
        return []
    before = [one.tokens for one in scores if one.phase == "stable" and one.tokens and one.tokens < min(decayed)]
    left, right = max(before, default=min(decayed)), max(decayed)
    return [
        Boxes(
            x_low=[left],
            x_high=[right],
            y_low=[-math.inf],
            y_high=[math.inf],
            colour=ACCENT,
            alpha=0.1,
            label="decay phase",
        )
    ]


def _ends(marks: Sequence[Mark], room: float) -> tuple[float, float]:
    values = [finite(part) for mark in marks if isinstance(mark, Points) for part in (mark.y, mark.low, mark.high)]
    values += [finite([mark.at]) for mark in marks if isinstance(mark, Rule)]
    every = np.concatenate([*values, np.zeros(0)])
    low, high = float(every.min()), float(every.max())
    middle, half = (low + high) / 2, max(0.58 * (high - low), room)
    return middle - half, middle + half
