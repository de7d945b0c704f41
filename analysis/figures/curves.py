"""Loss curves: the paper's Figures 1(a) and 14, and training at the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from raylr.analysis.curves.power_law import PowerLawFit
from raylr.analysis.figures.colours import Colour, by_value
from raylr.analysis.figures.description import Axis, Band, Figure, Line, Mark, Panel, Points, Rule, finite
from raylr.analysis.status import Status
from raylr.analysis.studyfit import FittedRun, StudyFit
from raylr.analysis.units import format_count, format_lr

_GRID = 60
"""Points of a fitted curve."""
MOST_RUNS = 40
"""Curves of a panel; of more, those are drawn whose LRs are spread evenly."""
MOST_POINTS = 60
"""Points of a curve; of more, those are drawn that are spread evenly over ln tokens."""
MOST_PANELS = 12
"""Sizes that have a panel; of more, those are drawn that are spread evenly."""
MOST_CURVES = 160
"""Curves of a figure."""
_SIGMAS = 1.6449
Thing = TypeVar("Thing")


class MeasuredRun(Protocol):
    """A run with its losses, whether or not anything was fitted to them."""

    @property
    def trial(self) -> str:
        """Name of the run."""

    @property
    def lr(self) -> float:
        """Peak LR."""

    @property
    def tokens(self) -> np.ndarray:
        """[evaluations], increasing."""

    @property
    def loss(self) -> np.ndarray:
        """[evaluations], nats; NaN where the run diverged."""

    @property
    def diverged(self) -> bool:
        """Whether it diverged."""


def loss_curves(fit: StudyFit, size: str, budget: int) -> Figure:
    """Describe the loss of each LR at one size over tokens (paper, Figure 1(a)).

    Args:
        fit: The fits of a study.
        size: Name of the size.
        budget: Tokens up to which curves are predicted.
    """
    own = [run for run in fit.runs if run.size == size]
    return _figure({size: own}, budget, f"Loss over tokens, size {size}", "After Figure 1(a) of the paper.")


def all_loss_curves(fit: StudyFit, budget: int) -> Figure:
    """Describe the loss of every LR over tokens, a panel a size (paper, Figure 14).

    Args:
        fit: The fits of a study.
        budget: Tokens up to which curves are predicted.
    """
    groups = {size: [run for run in fit.runs if run.size == size] for size in fit.surfaces}
    return _figure(groups, budget, "Loss over tokens", "After Figure 14 of the paper.")


def _figure(groups: dict[str, list[FittedRun]], budget: int, title: str, after: str) -> Figure:
    runs = [run for own in groups.values() for run in own]
    sizes = spread(list(groups), MOST_PANELS)
    most = max(4, min(MOST_RUNS, MOST_CURVES // len(sizes)))
    shown = {size: thinned(groups[size], most) for size in sizes}
    lines = sum(has_line(run) for own in shown.values() for run in own)
    drawn = sum(map(len, shown.values()))
    short = sum(_stopped(run, budget) for run in runs)
    diverged = sum(run.diverged for run in runs)
    reached = len(runs) - short - diverged
    where = f"Of {_many(len(runs), 'run')}" + (f" of size {sizes[0]}" if len(groups) == 1 else "")
    statement = f"{where}, {reached} reached {format_count(budget)} tokens"
    statement += f", {short} ended before" if short else ""
    statement += f", {diverged} diverged" if diverged else ""
    caption = f"{after} Points are losses that were measured."
    if lines:
        caption += " Lines are power laws (Eq. 4)"
        caption += "." if lines == drawn else f", for the {lines} of {drawn} runs that determine one."
    if any(_ahead(run, budget) for own in shown.values() for run in own):
        caption += (
            " Right of a dashed vertical line, where a run ended, its line is a prediction with its 90 % interval."
        )
    if drawn < len(runs):
        caption += f" {drawn} of {len(runs)} runs"
        caption += f" and {len(sizes)} of {len(groups)} sizes" if len(sizes) < len(groups) else ""
        caption += " are drawn, spread evenly."
    colours = colours_of([run for own in shown.values() for run in own])
    panels = [
        Panel(
            title=f"size {size}" if len(shown) > 1 else "",
            x=Axis("tokens", unit="count", low=0.0),
            y=loss_axis(own),
            marks=[mark for run in own for mark in curve(run, budget, colours[run.lr])],
        )
        for size, own in shown.items()
    ]
    width = 6.4 if len(panels) == 1 else 4.4
    return Figure(
        title=title, statement=f"{statement}.", caption=caption, panels=panels, width=width, names=list(groups),
        legend_order=labels_of([run for own in shown.values() for run in own]),
    )  # fmt: skip


def curve(run: FittedRun, budget: int, colour: Colour, *, power_law: bool = True) -> list[Mark]:
    """Return the marks of one run: its losses, its power law, where it ended.

    Args:
        run: The run.
        budget: Tokens up to which it is predicted.
        colour: Its colour.
        power_law: Whether its power law is drawn; otherwise its losses are joined.
    """
    marks = measured(run, colour, joined=not power_law)
    if not power_law or not has_line(run):
        return marks
    label, name = _label(run), _name(run)
    law, end = run.power_law, float(run.tokens[-1])
    grid = np.geomspace(max(law.burn_in, float(run.tokens[0])), max(budget, end), _GRID)
    marks.append(
        Line(x=grid, y=_losses(law, grid)[0], colour=colour, group=label, hover=f"{name}, power law", width=1.1)
    )
    if _ahead(run, budget):
        ahead = np.geomspace(end, budget, 20)
        loss, stderr = _losses(law, ahead)
        low, high = loss - _SIGMAS * stderr, loss + _SIGMAS * stderr
        marks.append(Band(x=ahead, low=low, high=high, colour=colour, group=label))
        marks.append(Rule(at=end, colour=colour, group=label))
    return marks


def measured(run: MeasuredRun, colour: Colour, *, joined: bool) -> list[Mark]:
    """Return the marks of what was measured of a run: its losses, and a cross where it diverged.

    Args:
        run: The run.
        colour: Its colour.
        joined: Whether a line joins the losses.
    """
    label, name = _label(run), _name(run)
    at = _spread(run.tokens)
    known = np.isfinite(run.loss[at])
    x, y = run.tokens[at][known], run.loss[at][known]
    marks: list[Mark] = [Points(x=x, y=y, colour=colour, label=label, hover=name, symbol="dot", size=5, edges=False)]
    if run.diverged and not known.all():
        first = run.tokens[at][~known][:1]
        marks.append(Points(x=first, y=[np.nan], colour=colour, group=label, hover=name, size=6))
    if joined:
        marks.append(Line(x=x, y=y, colour=colour, group=label, hover=name, width=1.2))
    return marks


def _label(run: MeasuredRun) -> str:
    return f"LR {format_lr(run.lr)}" + (" (diverged)" if run.diverged else "")


def _name(run: MeasuredRun) -> str:
    return f"{run.trial}, LR {format_lr(run.lr)}"


def has_line(run: FittedRun) -> bool:
    """Return whether a run has a power law that is drawn."""
    return not run.diverged and run.power_law.status is Status.OK


def _ahead(run: FittedRun, budget: int) -> bool:
    return has_line(run) and bool(run.tokens[-1] < budget)


def _stopped(run: FittedRun, budget: int) -> bool:
    return not run.diverged and bool(run.tokens[-1] < budget)


def _losses(law: PowerLawFit, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    loss, stderr = law.predict(tokens)
    return np.asarray(loss, dtype=np.float64), np.asarray(stderr, dtype=np.float64)


def loss_axis(runs: Sequence[MeasuredRun]) -> Axis:
    """Return the axis on which the runs that compete are seen; what lies above is at the edge."""
    finals = finite([loss for run in runs for loss in finite(run.loss)[-1:]])
    quarter = finite([finite(run.loss)[finite(run.loss).size // 4] for run in runs if finite(run.loss).size])
    if not finals.size:
        return Axis("validation loss (nats)")
    low = min(float(finite(run.loss).min()) for run in runs if finite(run.loss).size)
    span = max(float(np.median(quarter)) - low, 1e-3 * abs(low), 1e-9)
    return Axis("validation loss (nats)", low=low - 0.15 * span, high=low + 1.5 * span)


def _spread(tokens: np.ndarray) -> np.ndarray:
    if tokens.size <= MOST_POINTS:
        return np.arange(tokens.size)
    places = np.geomspace(max(float(tokens[0]), 1.0), float(tokens[-1]), MOST_POINTS)
    return np.unique(np.searchsorted(tokens, places).clip(0, tokens.size - 1))


def thinned(runs: Sequence[Thing], most: int) -> list[Thing]:
    """Return at most so many runs, spread evenly over their order."""
    return spread(list(runs), most)


def spread(things: list[Thing], most: int) -> list[Thing]:
    """Return at most so many things, spread evenly over their order, the first and the last among them."""
    if len(things) <= most:
        return things
    return [things[i] for i in np.unique(np.linspace(0, len(things) - 1, most).round().astype(int))]


def colours_of(runs: Sequence[MeasuredRun]) -> dict[float, Colour]:
    """Return LR → the colour of its runs."""
    lrs = sorted({run.lr for run in runs})
    return dict(zip(lrs, by_value(lrs), strict=True))


def labels_of(runs: Sequence[MeasuredRun]) -> list[str]:
    """Return the labels of runs in a legend, ascending by LR."""
    return list(dict.fromkeys(_label(run) for run in sorted(runs, key=lambda run: run.lr)))


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
