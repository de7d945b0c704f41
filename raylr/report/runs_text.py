"""The ending of finished runs: the verdict, the LR with its interval, what it is, what to do next, the tables, the law.

Everything is made of plain lines (`raylr.report.lines.Line`), which the HTML report uses too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raylr.analysis.cells import CellOptimum, Family, RunsFit, names_of
from raylr.analysis.next_runs import SETTLED, Suggestion, missing_runs, why
from raylr.analysis.status import Status
from raylr.analysis.units import format_count, format_lr
from raylr.finished import FinishedRuns, fit_runs
from raylr.report.lines import Line, show_lines
from raylr.report.text import answer_lines, cost_text, interval, known, known_lr, law_lines, number
from raylr.report.verdict import Evidence, Judged, verdict

if TYPE_CHECKING:
    from rich.console import Console

MOST_CELLS = 24
"""Cells that the terminal lists; the report has all."""
MOST_FAMILIES = 6
"""Kinds of runs whose laws the terminal shows."""
MOST_LRS = 6
"""LRs to run next that are listed."""
WIDE, TALL = 60, 12
"""Columns and rows of the plot in the terminal."""


@dataclass(frozen=True, kw_only=True)
class RunsResult:
    """What finished runs say."""

    runs: FinishedRuns
    fit: RunsFit
    missing: list[Suggestion]
    """LRs worth running next."""

    @property
    def single(self) -> CellOptimum | None:
        """The optimum, if all runs are of one setting."""
        return self.fit.optima[0] if len(self.fit.optima) == 1 else None


def result_of(runs: FinishedRuns) -> RunsResult:
    """Fit finished runs and look for what is missing. Raises DataError if no run has ended."""
    fit = fit_runs(runs)
    return RunsResult(runs=runs, fit=fit, missing=missing_runs(fit, MOST_LRS))


def show_runs(result: RunsResult, console: Console) -> None:
    """Print what finished runs say."""
    show_lines([Line(note, "Read" if i == 0 else "", dim=True) for i, note in enumerate(result.runs.notes)], console)
    show_lines(ending(result), console)
    single = result.single
    if single is not None:
        console.print()
        for row in plot(single):
            console.print(row, markup=False, highlight=False, soft_wrap=True)
    console.print()
    _show_table(result, console)


def ending(result: RunsResult) -> list[Line]:
    """Return the verdict, the answer, and what to do next."""
    kinds = answers(result)
    lines = [line for found, rest in kinds[:MOST_FAMILIES] for line in (found, *rest)]
    if len(kinds) > MOST_FAMILIES:
        lines.append(Line(f"and {len(kinds) - MOST_FAMILIES} more kinds of runs; `raylr report` has all", dim=True))
    return [*lines, *next_lines(result)]


def answers(result: RunsResult) -> list[tuple[Line, list[Line]]]:
    """Return the verdict on each kind of runs, with the lines that say its LR or its law."""
    out = []
    for i, family in enumerate(result.fit.families):
        lines = answer_of_one(family.optima[0]) if len(family.optima) == 1 else law_lines_of(family)
        out.append((verdict_of_family(family, "Verdict" if i == 0 else ""), lines))
    return out


def answer_of_one(optimum: CellOptimum) -> list[Line]:
    """Return the LR of one setting, its interval, what it is, and what a factor of 2 costs."""
    fit, cell = optimum.fit, optimum.cell
    if not known(fit.lr):
        return []
    setting = optimum.setting
    lines = answer_lines(
        fit.lr, fit.lr_low, fit.lr_high, fit.status, params=setting.params, tokens=setting.tokens, batch=setting.batch,
        batch_kind=str(setting.config.get("batch_kind", "")), conditions=cell.conditions,
    )  # fmt: skip
    lines.append(Line(f"loss {number(fit.loss)} expected there"))
    if fit.status is not Status.TOO_FEW:
        lines += _cost_lines(optimum)
    lost = int((~np.isfinite(cell.loss)).sum())
    if lost:
        first = format_lr(cell.lr[~np.isfinite(cell.loss)].min())
        lines.append(Line(f"{lost} of {cell.loss.size} runs diverged, from LR {first} on"))
    return lines


def _cost_lines(optimum: CellOptimum) -> list[Line]:
    """Return what an LR twice too high or too low costs. What diverged has no loss, and so no cost."""
    cost, loss, lost = optimum.cost(), optimum.fit.loss, optimum.lowest_diverged
    if lost is not None and cost == math.inf:
        return [Line(f"an LR twice as high may diverge, as {format_lr(lost)} did", "2× off")]
    if not math.isfinite(cost):
        return []
    share = f" ({_percent(cost / abs(loss))} of the loss)" if loss else ""
    return [Line(f"an LR off by a factor of 2 costs {cost:.2g}{share}", "2× off")]


def _percent(share: float) -> str:
    return f"{share:.2%}" if share < 0.1 else f"{share:.0%}"


def verdict_of_family(family: Family, heading: str = "") -> Line:
    """Return whether the LR or the law of a kind of run can be trusted, in a sentence."""
    optima = [Judged(one.setting.name, one.fit.status, one.fit.message) for one in family.optima]
    text = verdict(Evidence(optima=optima, law=family.law, why=family.why)).text
    return Line(f"{family.name}: {text}" if family.name else text, heading)


def law_lines_of(family: Family) -> list[Line]:
    """Return a family's law, its batch rule and what a wrong LR costs."""
    law = family.law
    if law is None:
        return []
    lines = law_lines(law)
    if law.batch_law is not None:
        lines.append(
            Line(f"{law.batch_law.formula}, in {law.batch_kind}: the batch with the lowest loss", "Best batch")
        )
    largest = max(family.optima, key=lambda one: (one.setting.params or 0) * (one.setting.tokens or 0))
    if family.curvature_law is not None and family.curvature_law.usable:
        params, tokens = largest.setting.params, largest.setting.tokens
        if params and tokens:
            cost = family.curvature_law.cost(params, tokens, 2.0)
            place = f"{format_count(params)} parameters and {format_count(tokens)} tokens"
            lines.append(Line(cost_text(cost, f" at {place}"), "2× off"))
    return lines


def next_lines(result: RunsResult) -> list[Line]:
    """Return what to run next, a line for each setting."""
    if not result.missing:
        return [Line("no further run is worth it: every optimum is known", "Next")]
    lines: list[Line] = []
    for one in result.missing:
        lrs = " and ".join(format_lr(lr) for lr in one.lrs)
        many = {1: "one more LR", 2: "two more LRs", 3: "three LRs"}.get(len(one.lrs), f"{len(one.lrs)} LRs")
        name = f"{one.setting.name} ({one.family})" if one.family else one.setting.name
        where = "" if result.single else f" at {name}"
        lines.append(Line(f"{many}{where}: {lrs}; {one.reason}", "Next" if not lines else ""))
    return lines


def remarks(optima: Sequence[CellOptimum]) -> list[Line]:
    """Return a line for each optimum that cannot be used as it is."""
    named = zip(names_of(optima), optima, strict=True)
    return [Line(f"{name}: {why(one)}", dim=True) for name, one in named if one.fit.status not in SETTLED]


def _show_table(result: RunsResult, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    optima = result.fit.optima
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("setting", "runs", "optimal LR", "90 % interval", "loss", "status"):
        table.add_column(name, justify="left" if name in ("setting", "status") else "right", overflow="fold")
    for one in optima[:MOST_CELLS]:
        family = f" ({one.cell.family})" if one.cell.family else ""
        table.add_row(Text(one.setting.name + family), *row_of(one)[1:])
    console.print(table)
    if len(optima) > MOST_CELLS:
        show_lines([Line(f"and {len(optima) - MOST_CELLS} more; `raylr report` lists all", dim=True)], console)


def row_of(one: CellOptimum) -> list[str]:
    """Return an optimum as cells of a table."""
    fit = one.fit
    runs = str(fit.trials)
    span = interval(fit.lr_low, fit.lr_high)
    return [one.setting.name, runs, known_lr(fit.lr), span, number(fit.loss), str(fit.status)]


def plot(optimum: CellOptimum) -> list[str]:
    """Return the losses over the LR and the fitted curve as lines of text: runs `o`, curve `.`, diverged `x`."""
    cell, fit = optimum.cell, optimum.fit
    finite = np.isfinite(cell.loss)
    if finite.sum() < 2 or fit.curves is None or cell.lr.min() == cell.lr.max():
        return []
    x = np.geomspace(cell.lr.min(), cell.lr.max(), WIDE)
    curve = np.asarray(fit.predict(x)[0], float)
    first, last = fit.fitted_range
    low = float(min(cell.loss[finite].min(), curve.min()))
    span = max(float(np.quantile(cell.loss[finite], 0.8)) - low, 1e-12)
    high = low + 1.15 * span
    canvas = [[" "] * WIDE for _ in range(TALL)]

    def put(lr: float, loss: float, sign: str) -> None:
        column = round((WIDE - 1) * math.log(lr / cell.lr.min()) / math.log(cell.lr.max() / cell.lr.min()))
        share = min(max((loss - low) / (high - low), 0.0), 1.0)
        canvas[TALL - 1 - round(share * (TALL - 1))][column] = sign

    for lr, loss in zip(x, curve, strict=True):
        if loss <= high and first <= lr <= last:
            put(lr, loss, ".")
    for lr, loss in zip(cell.lr, cell.loss, strict=True):
        put(lr, loss if math.isfinite(loss) else high, "x" if not math.isfinite(loss) else "o" if loss <= high else "^")
    labels = [f"{high:.4g}", *[""] * (TALL - 2), f"{low:.4g}"]
    width = max(len(label) for label in labels)
    rows = [f"{label:>{width}} |{''.join(line)}".rstrip() for label, line in zip(labels, canvas, strict=True)]
    left, right = format_lr(cell.lr.min()), format_lr(cell.lr.max())
    rows.append(" " * width + " +" + "-" * WIDE)
    rows.append(" " * (width + 2) + left + right.rjust(WIDE - len(left)))
    rows.append(" " * (width + 2) + "loss over LR: o run, . curve, ^ above the plot, x diverged")
    return rows
