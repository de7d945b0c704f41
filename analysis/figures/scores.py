"""Scores along training, after the paper's Figures 3, 4 and 11, and over the loss.

Each function takes evaluations (`summarise_all`) and returns a matplotlib figure. Bars are ±1
standard error of the questions; the dashed line is what a guess scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from raylr.analysis._checks import one_of
from raylr.analysis.figures._drawing import ACCENT, GREY, Colour, labels_of, new_figure, size_colours, styled
from raylr.analysis.scores.scores import Score, Scores
from raylr.analysis.scores.suites import CHANCE, SUITES
from raylr.analysis.scores.table import QUANTITIES, ScoreFit
from raylr.analysis.units import format_count
from raylr.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEVEL = {"accuracy": 100 * CHANCE, "log_prob": math.log(CHANCE)}
"""What a guess scores, in the units of the axes."""
_AXIS = {"accuracy": "accuracy (%)", "log_prob": "log-probability of the right answer (nats)"}
_ROOM = {"accuracy": 2.0, "log_prob": 0.02}
"""Least half-width of an axis: no noise is blown up to a picture of progress."""


@styled
def scores_over_tokens(
    scores: Sequence[Scores],
    *,
    quantities: Sequence[str] = QUANTITIES,
    labels: Mapping[str, str] | None = None,
    average: str = "naive",
) -> Figure:
    """Draw suites side by side over tokens, a line a run: accuracy (Figures 3, 4 and 11), and below it the
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
    drawable = labels_of(named.values())
    figure, axes = new_figure(len(quantities), len(suites), width=4.8, height=3.5)
    for place, ax in enumerate(axes):
        quantity, suite = quantities[place // len(suites)], suites[place % len(suites)]
        for run, colour in zip(runs, size_colours(len(runs)), strict=True):
            own = sorted((one for one in drawn if one.run == run and _has(one, suite)), key=lambda one: one.tokens or 0)
            if own:
                _draw_run(ax, own, suite, quantity, average, colour, drawable[named[run]])
        _shade_decay(ax, drawn)
        ax.axhline(_LEVEL[quantity], color=GREY, ls="--", lw=1, label="a guess")
        _widen(ax, _ROOM[quantity])
        ax.set_xlabel("tokens")
        ax.xaxis.set_major_formatter(lambda value, _: format_count(value) if value else "0")
        ax.set_ylabel(_AXIS[quantity])
        ax.set_title(SUITES[suite].title)
    axes[0].legend(loc="best")
    return figure


@styled
def score_over_loss(joined: pa.Table, suite: str, fit: ScoreFit, *, labels: Mapping[str, str] | None = None) -> Figure:
    """Draw the log-probability of the right answer over the validation loss of every scored checkpoint, a colour a run,
    with the line of `raylr.analysis.scores.table.fit_scores` and its ±1 standard error where there is one.

    `joined`: the run table with scores (`raylr.analysis.scores.table.join_scores`).
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
    drawable = labels_of(named.values())
    figure, (ax,) = new_figure(1, 1, width=5.4, height=3.8)
    for run, colour in zip(runs, size_colours(len(runs)), strict=True):
        loss, value, error = zip(*((a, b, c) for name, a, b, c in rows if name == run), strict=True)
        label = drawable[named[run]]
        ax.errorbar(loss, value, yerr=error, fmt="o", ms=4, lw=1, capsize=2, color=colour, label=label)
    if fit.has_line:
        grid = np.linspace(min(loss for _, loss, *_ in rows), max(loss for _, loss, *_ in rows), 50)
        line, error_line = fit.predict(grid)
        ax.plot(grid, line, color=ACCENT, lw=1.2, label=f"{fit.slope:.3f} ± {fit.slope_stderr:.3f} nats a nat")
        ax.fill_between(grid, line - error_line, line + error_line, color=ACCENT, alpha=0.12, lw=0)
    ax.axhline(_LEVEL["log_prob"], color=GREY, ls="--", lw=1, label="a guess")
    _widen(ax, _ROOM["log_prob"])
    ax.invert_xaxis()
    ax.set_xlabel("validation loss (nats a token), falling")
    ax.set_ylabel(_AXIS["log_prob"])
    ax.set_title(f"{SUITES[suite].title} over the loss")
    ax.legend(loc="best")
    return figure


# -- parts --


def _has(scores: Scores, suite: str) -> bool:
    return any(row.suite == suite for row in scores.rows)


def _value(row: Score, quantity: str) -> tuple[float, float]:
    if quantity == "accuracy":
        return 100 * row.accuracy, 100 * row.accuracy_stderr
    return row.log_prob, row.log_prob_stderr


def _draw_run(
    ax: Axes, scores: Sequence[Scores], suite: str, quantity: str, average: str, colour: Colour, label: str
) -> None:
    points = [(one.tokens, one.phase, *_value(one.row(suite, average=average), quantity)) for one in scores]
    tokens, phases, values, errors = (list(part) for part in zip(*points, strict=True))
    ax.plot(tokens, values, "-", lw=1.2, color=colour, label=label)
    for phase, marker in (("decay", "^"), (None, "o")):
        own = [i for i, found in enumerate(phases) if (found == "decay") == (phase == "decay")]
        ax.errorbar(
            [tokens[i] for i in own],
            [values[i] for i in own],
            yerr=[errors[i] for i in own],
            fmt=marker,
            ms=5 if phase else 4,
            lw=1,
            capsize=2,
            color=colour,
        )


def _shade_decay(ax: Axes, scores: Sequence[Scores]) -> None:
    """Shade where runs decay: from the last evaluation of the stable phase before it, the same in all panels."""
    decayed = [one.tokens for one in scores if one.phase == "decay" and one.tokens is not None]
    if not decayed:
        return
    before = [one.tokens for one in scores if one.phase == "stable" and one.tokens and one.tokens < min(decayed)]
    left, right = max(before, default=min(decayed)), max(decayed)
    ax.axvspan(left, right, color=ACCENT, alpha=0.08, lw=0)
    for x, text, side in ((left, "stable ", "right"), (left, " decay", "left")):
        ax.annotate(
            text,
            (x, 1),
            xycoords=("data", "axes fraction"),
            ha=side,
            va="top",
            fontsize=8,
            color=GREY,
            annotation_clip=False,
        )


def _widen(ax: Axes, room: float) -> None:
    low, high = ax.get_ylim()
    middle, half = (low + high) / 2, max((high - low) / 2, room)
    ax.set_ylim(middle - half, middle + half)
