"""The ending of the command line: the optima, the law, the prediction with its interval, the check, the cost.

Everything is made of plain lines, so that names from a spec are shown as they are and the HTML report can use the same
sentences.
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from raylr.analysis.laws.lr_law import LRLaw, LRPrediction
from raylr.analysis.status import Status
from raylr.analysis.units import format_count, format_lr
from raylr.report.failures import failures_of

FLOPS_NOTE = "FLOPs are taken as 6·N·D where the trainer reports none"
"""What the report says about the FLOPs of another trainer."""

if TYPE_CHECKING:
    from rich.console import Console

    from raylr.study import StudyResult


BRACKETED = (Status.OK, Status.UNCERTAIN, Status.PLATEAU)
"""Statuses of losses whose optimum lies between them."""

HEADING = 12
"""Columns of the headings."""
LEAST_WIDTH = 20
"""Columns of text on the narrowest terminal."""


class Line(NamedTuple):
    """One line of the ending."""

    text: str
    heading: str = ""
    """The word in front of the first line of a paragraph."""
    dim: bool = False


def show_result(result: StudyResult, report: Path | None, console: Console) -> None:
    """Print what a study found.

    Args:
        result: The study's results; pieces that are missing (no target, no check, sizes without runs) are left out.
        report: File of the report, named at the end; None if none was written.
        console: Where to print.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("size", "params", "tokens", "optimal LR", "90 % interval", "loss"):
        table.add_column(name, justify="left" if name == "size" else "right", no_wrap=True)
    for optimum in result.fit.optima:
        table.add_row(
            Text(optimum.size),
            format_count(optimum.params),
            format_count(optimum.tokens),
            known_lr(optimum.lr_opt),
            interval(optimum.lr_low, optimum.lr_high),
            number(optimum.loss),
        )
    console.print()
    console.print(table)
    show_lines(remarks(result), console)
    console.print()
    show_lines(law_lines(result.fit.law), console)
    if result.prediction:
        show_prediction(result.fit.law, result.prediction, console)
    show_lines(loss_lines(result), console)
    show_lines(check_lines(result), console)
    show_lines([cost_line(result)], console)
    show_lines(failure_lines(result), console)
    if report:
        show_lines([Line(str(report), "Report")], console)


def show_lines(lines: list[Line], console: Console) -> None:
    """Print lines, with their headings in a column of 12; on a terminal, between words where it is too narrow."""
    from rich.text import Text

    for line in lines:
        parts = [line.text]
        if console.is_terminal:
            room = max(console.width - HEADING, LEAST_WIDTH)
            parts = textwrap.wrap(line.text, room, break_long_words=False, break_on_hyphens=False) or [""]
        for i, part in enumerate(parts):
            heading = line.heading if i == 0 else ""
            text = Text.assemble((f"{heading:<{HEADING}}", "bold"), part, style="dim" if line.dim else "")
            console.print(text, soft_wrap=True, highlight=False)


def show_prediction(law: LRLaw, prediction: LRPrediction, console: Console) -> None:
    """Print a prediction with its interval and how far it is from what was fitted."""
    show_lines(prediction_lines(law, prediction), console)


def remarks(result: StudyResult) -> list[Line]:
    """Return a line for each optimum that cannot be used as it is, and for each size without a run."""
    lines = [
        Line(f"{optimum.size} at {format_count(optimum.tokens)} tokens: {optimum.message}", dim=True)
        for optimum in result.fit.optima
        if not optimum.status.ok
    ]
    found = {(optimum.size, optimum.batch) for optimum in result.fit.optima}
    names = {size for size, _ in found}
    missing = [
        setting.name
        for setting in result.spec.settings()
        if setting.name not in names and (setting.size, float(setting.train.batch_tokens)) not in found
    ]
    return [*lines, *(Line(f"{name}: no run has ended yet", dim=True) for name in missing)]


def law_lines(law: LRLaw) -> list[Line]:
    """Return a law with the intervals of its exponents as lines."""
    lines = [Line(law_text(law), "Law")]
    if law.covariance is not None:
        ends = law.interval(0.9)
        shown = {name: span for name, span in ends.items() if name in ("alpha", "beta")}
        parts = [f"{name} {a:.2f} to {b:.2f}" for name, (a, b) in shown.items() if math.isfinite(b - a)]
        if parts:
            lines.append(Line(f"90 % intervals: {', '.join(parts)}; {law.cells} optima, R² {number(law.r2, 3)}"))
    lines += batch_lines(law)
    if not law.ok:
        lines.append(Line(law.message))
    return lines


def batch_lines(law: LRLaw) -> list[Line]:
    """Return the exponent of the batch with its interval and what determines it; none for a law without the batch."""
    if law.batch_unit is None or not law.usable:
        return []
    text = f"exponent of the batch {law.delta:.2f}"
    if law.batch_range is not None:
        low, high = (format_count(end) for end in law.batch_range)
        text += (
            f" (batches of {low} to {high} {law.batch_kind})"
            if low != high
            else f" (one batch, {low} {law.batch_kind})"
        )
    if law.covariance is not None:
        low_end, high_end = law.interval(0.9)["delta"]
        text += f", 90 % interval {low_end:.2f} to {high_end:.2f}" if high_end > low_end else ", as given"
    return [Line(f"{text}; {law.batch_note}" if law.batch_note else text)]


def prediction_lines(law: LRLaw, prediction: LRPrediction) -> list[Line]:
    """Return a prediction as lines: the LR, its interval, and what a reader must know."""
    place = f"{format_count(prediction.params)} parameters, {format_count(prediction.tokens)} tokens"
    if not known(prediction.lr):
        return [Line(f"{place}: none, because {prediction.message}", "Prediction")]
    lines = [Line(f"{place}: LR {format_lr(prediction.lr)}", "Prediction")]
    if math.isfinite(prediction.lr_low):
        span = interval(prediction.lr_low, prediction.lr_high)
        about = f"; optimum of the {law.conditions.objective} loss" if law.conditions.objective else ""
        lines.append(Line(f"{prediction.level:.0%} prediction interval {span}{about}"))
    with_it = [] if prediction.batch is None else [f"a batch of {format_count(prediction.batch)} {law.batch_kind}"]
    if prediction.weight_decay is not None:
        with_it.append(f"weight decay {prediction.weight_decay:.3g}")
    if with_it:
        lines.append(Line(f"for {' and '.join(with_it)}"))
    if prediction.status is Status.EXTRAPOLATED:
        lines.append(Line("too far outside the fitted range to be trusted"))
    if prediction.message:
        lines.append(Line(prediction.message))
    return lines


def law_text(law: LRLaw) -> str:
    """Return a law as a formula with its units; "none" if the optima follow no law."""
    if not known(law.c):
        return "none"
    return law.formula


def loss_lines(result: StudyResult) -> list[Line]:
    """Return the loss to expect at the target and what a wrong LR costs there; none without a target or a loss law."""
    prediction = result.prediction
    if prediction is None or not result.fit.loss_law.ok:
        return []
    params, tokens = prediction.params, prediction.tokens
    loss = result.fit.loss_law.predict(params, tokens)
    text = f"{number(loss.loss)} at the best LR, 90 % prediction interval {number(loss.low)} to {number(loss.high)}"
    if result.fit.curvature_law.usable:
        cost = result.fit.curvature_law.cost(params, tokens, 2.0)
        text += f"; an LR off by a factor of 2 costs {number(cost.value)} ({number(cost.low)} to {number(cost.high)})"
    batches = {one.batch for one in result.fit.optima if one.batch is not None}
    wanted = prediction.batch
    if batches and wanted is not None:
        nearest = min(batches, key=lambda batch: abs(math.log(batch / wanted)))
        if len(batches) == 1 and abs(math.log(nearest / wanted)) < 0.01:
            return [Line(text, "Loss")]
        text += f"; of a batch of {format_count(nearest)} tokens, whose optima the loss law is fitted to"
        if abs(math.log(nearest / wanted)) > 0.01:
            text += f". The target's batch of {format_count(wanted)} tokens will end at another loss"
    return [Line(text, "Loss")]


def check_lines(result: StudyResult) -> list[Line]:
    """Return what training at the target gave; no line if nothing was trained there."""
    check, prediction = result.check, result.prediction
    if check is None or prediction is None or not known(prediction.lr):
        return []
    target = result.spec.target
    losses = {run.lr / prediction.lr: check.loss_at(run) for run in check.runs}
    shown = ", ".join(
        f"{ratio:.3g}× {loss:.4f}" if math.isfinite(loss) else f"{ratio:.3g}× no loss"
        for ratio, loss in sorted(losses.items())
    )
    where = target.name if target else "the target"
    lines = [Line(f"loss at {where} by LR, in multiples of the predicted LR: {shown}", "Check")]
    fit = check.fit
    if fit.status not in BRACKETED:
        return [*lines, Line(f"the losses bracket no optimum: {fit.message}")]
    distance = abs(math.log(prediction.lr / fit.lr))
    regret = max(float(fit.predict(prediction.lr)[0]) - fit.loss, 0.0) / fit.loss
    inside = "inside" if prediction.lr_low <= fit.lr <= prediction.lr_high else "outside"
    where = f", {inside} the interval" if math.isfinite(prediction.lr_low) else ""
    return [
        *lines,
        Line(
            f"their optimum is {format_lr(fit.lr)}, a factor "
            f"{math.exp(distance):.2f} away{where}; the predicted LR costs {regret:.2%} of the loss"
        ),
    ]


def cost_line(result: StudyResult) -> Line:
    """Return what the search cost, compared with a full grid."""
    cost = result.cost
    shares = f"{cost.token_share:.0%} of the full grid's tokens"
    if math.isfinite(cost.flop_share):
        shares += f" and {cost.flop_share:.0%} of its FLOPs"
    text = f"{format_count(cost.search_tokens)} tokens and {cost.search_flops:.2g} FLOPs for the search, {shares}"
    if result.spec.external:
        text += f"; {FLOPS_NOTE}"
    return Line(text, "Cost")


def failure_lines(result: StudyResult) -> list[Line]:
    """Return a line for each run that failed and has not ended since, with the last line that it printed."""
    lines: list[Line] = []
    for failure in failures_of(result.directory):
        lines.append(Line(failure.sentence, "" if lines else "Failed"))
        printed = failure.output.splitlines()
        if printed:
            lines.append(Line(f"its last line: {printed[-1]}", dim=True))
    return lines


def interval(low: float, high: float) -> str:
    """Return an interval as text; an open end is written as such."""
    if math.isnan(low) or math.isnan(high):
        return "unknown"
    if low <= 0 and math.isinf(high):
        return "open"
    if low <= 0:
        return f"below {format_lr(high)}"
    return f"above {format_lr(low)}" if math.isinf(high) else f"{format_lr(low)} to {format_lr(high)}"


def known(value: float) -> bool:
    """Return whether an LR or a law's factor is a number that can be used."""
    return math.isfinite(value) and value > 0


def known_lr(value: float) -> str:
    """Return a learning rate as text, "unknown" if there is none."""
    return format_lr(value) if known(value) else "unknown"


def number(value: float, digits: int = 4) -> str:
    """Return a number with so many decimals, "–" if there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"
