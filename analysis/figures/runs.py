"""All runs of a study: their LRs, how far each came, and how it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from raylr.analysis.figures.colours import ACCENT, GREY, INK, Colour, categories
from raylr.analysis.figures.curves import MOST_PANELS, MOST_RUNS, spread, thinned
from raylr.analysis.figures.description import Axis, Figure, Line, Mark, Panel, Points, Symbol
from raylr.analysis.runs import RunEnd
from raylr.analysis.studyfit import FittedRun, StudyFit
from raylr.analysis.units import format_count, format_lr

_BLUE, _, GREEN, PURPLE = categories(4)
_MARKS: dict[RunEnd | None, tuple[str, Symbol, Colour]] = {
    RunEnd.COMPLETED: ("trained to the end", "circle", _BLUE),
    RunEnd.TRUNCATED: ("stopped early: its loss was predicted", "square", GREEN),
    RunEnd.PRUNED: ("stopped early", "diamond", PURPLE),
    RunEnd.PAUSED: ("paused", "hollow", _BLUE),
    RunEnd.DIVERGED: ("diverged", "cross", ACCENT),
    RunEnd.FAILED: ("failed", "below", INK),
    RunEnd.NO_REPORT: ("no report", "below", INK),
    None: ("not ended yet", "hollow", GREY),
}


def run_ends(fit: StudyFit, ends: Mapping[str, RunEnd], budget: int) -> Figure:
    """Describe how far each run came and how it ended, over the LR, a panel a size.

    Args:
        fit: The fits of a study.
        ends: Run → how its last segment ended; a run that is not in it has not ended, unless it reached the budget or
            diverged.
        budget: The largest budget.
    """
    shown = {size: [run for run in fit.runs if run.size == size] for size in spread(list(fit.surfaces), MOST_PANELS)}
    found = {run.trial: _end(run, ends, budget) for run in fit.runs}
    panels = []
    for size, runs in shown.items():
        marks: list[Mark] = []
        drawn = thinned(runs, MOST_RUNS)
        for end, (label, symbol, colour) in _MARKS.items():
            own = [run for run in drawn if found[run.trial] is end]
            if not own:
                continue
            for run in own:
                marks.append(
                    Line(x=[0.0, float(run.tokens[-1])], y=[run.lr, run.lr], colour=colour, group=label, width=1.6)
                )
            marks.append(
                Points(
                    x=[float(run.tokens[-1]) for run in own],
                    y=[run.lr for run in own],
                    symbol=symbol,
                    size=6,
                    colour=colour,
                    label=label,
                    hover=[f"{run.trial}, LR {format_lr(run.lr)}: {label}" for run in own],
                )
            )
        panels.append(
            Panel(
                title=f"size {size}",
                x=Axis("tokens", unit="count", low=0.0),
                y=Axis("learning rate", scale="log", unit="lr"),
                marks=marks,
            )
        )
    trained = sum(float(run.tokens[-1]) for run in fit.runs)
    counts = Counter(found.values())
    words = ", ".join(f"{counts[end]} {label.partition(':')[0]}" for end, (label, *_) in _MARKS.items() if counts[end])
    share = trained / (len(fit.runs) * budget)
    statement = (
        f"{len(fit.runs)} run{'s' if len(fit.runs) > 1 else ''} ({words}) trained {format_count(trained)} tokens, "
        f"{share:.0%} of what all of them to {format_count(budget)} would have."
    )
    caption = "Each line is a run at its LR, up to the tokens it trained; its end shows why it ended there."
    left_out = len(fit.runs) - sum(len(thinned(runs, MOST_RUNS)) for runs in shown.values())
    if left_out:
        caption += f" {left_out} runs are left out: {MOST_RUNS} of a size and {MOST_PANELS} sizes are drawn at most."
    return Figure(
        title="How far runs came", statement=statement, caption=caption, panels=panels, height=3.0, names=list(shown)
    )


def _end(run: FittedRun, ends: Mapping[str, RunEnd], budget: int) -> RunEnd | None:
    if run.diverged:
        return RunEnd.DIVERGED
    return ends.get(run.trial, RunEnd.COMPLETED if run.tokens[-1] >= budget else None)
