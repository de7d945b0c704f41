"""The ending of a study: the verdict, the LR with its interval, what a wrong LR costs, what to do next, the tables.

The terminal prints it, and the HTML report begins with its first part.
"""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from raylr.analysis.laws.lr_law import EXTRAPOLATION_LIMIT
from raylr.analysis.status import Status
from raylr.analysis.units import format_count, format_lr, format_name
from raylr.module_study import ModulesResult
from raylr.report.decay import decay_lines
from raylr.report.lines import Line, show_lines, shown_path
from raylr.report.modules import show_modules
from raylr.report.text import (
    answer_lines,
    check_lines,
    cost_line,
    cost_text,
    failure_lines,
    interval,
    known,
    known_lr,
    law_lines,
    loss_lines,
    number,
    prediction_lines,
    remarks,
)
from raylr.report.transfer import show_transfer
from raylr.report.verdict import EDGES, SETTLED, Advice, Evidence, Judged, Verdict, contradicted, verdict
from raylr.transfer_study import TransferResult

if TYPE_CHECKING:
    from rich.console import Console

    from raylr.analysis.studyfit import SettingOptimum
    from raylr.study import StudyResult

EXTEND = 4.0
"""Factor by which an LR range is widened: the largest step that the search itself takes beyond what was tried."""
MORE_TRIALS = 2
"""Runs to add to a search that ended without an optimum: with two more, one on either side, most are determined."""


def evidence_of(result: StudyResult) -> Evidence:
    """Return what the verdict on a study follows from."""
    target = result.spec.target
    return Evidence(
        optima=[Judged(_place(one), one.status, one.message) for one in result.fit.optima],
        law=result.fit.law,
        prediction=result.prediction,
        target=format_name(target.name) if target else "the target",
        check=result.check,
    )


def show_result(result: StudyResult | TransferResult | ModulesResult, report: Path | None, console: Console) -> None:
    """Print what a study found.

    Args:
        result: The study's results; pieces that are missing (no target, no check, sizes without runs) are left out.
        report: File of the report, named at the end; None if none was written.
        console: Where to print.
    """
    console.print()
    if isinstance(result, TransferResult):
        show_transfer(result, console)
    elif isinstance(result, ModulesResult):
        show_modules(result, console)
    else:
        show_lines(ending(result), console)
        console.print()
        show_optima(result.fit.optima, console)
        show_lines(remarks(result), console)
        show_lines(decay_lines(result), console)
        console.print()
        show_lines(law_lines(result.fit.law), console)
    show_lines([cost_line(result)], console)
    show_lines(failure_lines(result), console)
    if report:
        show_lines([Line(shown_path(report), "Report")], console)


def ending(result: StudyResult) -> list[Line]:
    """Return the verdict, the LR, what being off costs, the loss, the check, and what to do next."""
    found = verdict(evidence_of(result))
    return [
        Line(found.text, "Verdict"),
        *lr_lines(result),
        *off_lines(result),
        *loss_lines(result),
        *check_lines(result),
        *next_lines(result, found),
    ]


def lr_lines(result: StudyResult) -> list[Line]:
    """Return the LR of the target, or of the only setting of a study without a target; else nothing."""
    if result.prediction is not None:
        name = format_name(result.spec.target.name) if result.spec.target else ""
        return prediction_lines(result.fit.law, result.prediction, name)
    if len(result.fit.optima) != 1:
        return []
    (one,) = result.fit.optima
    if not known(one.lr_opt):
        return []
    return answer_lines(
        one.lr_opt, one.lr_low, one.lr_high, one.status, params=one.params, tokens=one.tokens, batch=one.batch,
        conditions=result.fit.law.conditions,
    )  # fmt: skip


def off_lines(result: StudyResult) -> list[Line]:
    """Return what an LR off by a factor of 2 costs at the target, or at the largest setting without one."""
    law, optima = result.fit.curvature_law, result.fit.optima
    if not law.usable or not optima:
        return []
    largest = max(optima, key=lambda one: one.params * one.tokens)
    place, where = result.prediction or largest, ""
    if result.prediction is None and len(optima) > 1:
        where = f" at {_place(largest)}"
    cost = law.cost(place.params, place.tokens, 2.0)
    losses = result.fit.loss_law
    loss = losses.predict(place.params, place.tokens, batch=place.batch).loss if losses.ok else largest.loss
    share = ""
    if (result.prediction is None or losses.ok) and loss > 0:
        share = f"{cost.value / loss:.2g} of the loss" if cost.value > loss else f"{cost.value / loss:.1%} of the loss"
    return [Line(cost_text(cost, where, share), "2× off")]


def next_lines(result: StudyResult, found: Verdict) -> list[Line]:
    """Return what to do next, by the verdict."""
    return [Line(text, "" if i else "Next") for i, text in enumerate(_next(result, found))]


def _next(result: StudyResult, found: Verdict) -> list[str]:
    spec, folder = result.spec, shlex.quote(shown_path(result.directory))
    again = "and run the same command again: runs that were made are used again"
    if found.advice is Advice.TRUST:
        if result.prediction is None and len({one.params for one in result.fit.optima}) == 1:
            return [f"nothing for this size; for another, add a second size or budget {again}"]
        if result.prediction is None:
            return [f"`raylr predict {folder} --params N --tokens D` gives the LR of another run"]
        params, tokens = (f"{value:.4g}" for value in (result.prediction.params, result.prediction.tokens))
        return [f"`raylr recipe {folder} --for megatron --params {params} --tokens {tokens}` writes the LR into a "
                "configuration (also for torchtitan, nanotron, deepspeed, hf and axolotl)"]  # fmt: skip
    if contradicted(evidence_of(result)) and result.check is not None and spec.target is not None:
        return [
            f"train {format_name(spec.target.name)} at LRs around {format_lr(result.check.fit.lr)}, or add a size or a "
            f"budget that is nearer to it to the spec {again}"
        ]
    if found.advice is Advice.WIDEN:
        return [_wider(result, again)]
    lines = [_further(result, again)]
    unknown = [one for one in result.fit.optima if one.status not in SETTLED]
    if unknown:
        trials = spec.search.max_trials + MORE_TRIALS
        lines.append(f"set `search: {{max_trials: {trials}}}` in the spec {again}")
    return [line for line in lines if line] or ["the notes below the table say what is wrong with each optimum"]


def _wider(result: StudyResult, again: str) -> str:
    spec = result.spec
    sides = Counter(one.status for one in result.fit.optima if one.status in (*EDGES, Status.DIVERGED))
    tried = [run.lr for run in result.fit.runs]
    low, high = min([spec.lr.low, *tried]), max([spec.lr.high, *tried])
    if sides[Status.EDGE_HIGH] > sides[Status.EDGE_LOW] + sides[Status.DIVERGED]:
        high *= EXTEND
    else:
        low /= EXTEND
    trials = spec.search.max_trials + MORE_TRIALS
    return f"set `lr: [{low:.2g}, {high:.2g}]` and `search: {{max_trials: {trials}}}` in the spec {again}"


def _further(result: StudyResult, again: str) -> str:
    """Return which size or budget to add; "" where the settings reach."""
    prediction, law = result.prediction, result.fit.law
    if prediction is not None and prediction.status is Status.EXTRAPOLATED:
        needs = [
            f"a {what} of at least {format_count(value / EXTRAPOLATION_LIMIT)} {unit}"
            for what, value, factor, unit in (
                ("size", prediction.params, prediction.params_beyond, "parameters"),
                ("budget", prediction.tokens, prediction.tokens_beyond, "tokens"),
            )
            if factor > EXTRAPOLATION_LIMIT
        ]
        return f"add {' and '.join(needs)} to the spec {again}" if needs else ""
    missing = {
        Status.ONE_SIZE: "a second size",
        Status.ONE_BUDGET: "a second budget",
        Status.ONE_CELL: "a second size and a second budget",
        Status.COLLINEAR: "a budget that the sizes share",
    }.get(law.status)
    if missing:
        return f"add {missing} to the spec {again}"
    if prediction is not None and known(prediction.lr):
        return f"add a size or a budget nearer to the target to the spec {again}"
    return ""


def show_optima(optima: list[SettingOptimum], console: Console) -> None:
    """Print the optimal LR and the loss of each size, batch and budget as a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("size", overflow="fold")
    for name in ("params", "tokens", "optimal LR", "90 % interval", "loss"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in optima:
        table.add_row(
            Text(one.size), format_count(one.params), format_count(one.tokens), known_lr(one.lr_opt),
            interval(one.lr_low, one.lr_high), number(one.loss),
        )  # fmt: skip
    console.print(table)


def _place(one: SettingOptimum) -> str:
    return f"{format_name(one.size)} at {format_count(one.tokens)} tokens"
