"""What the command line says at the end: the optima, the law, the prediction with its interval, the check, the cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from raylr.analysis.laws.lr_law import LRLaw, LRPrediction
from raylr.analysis.units import format_count, format_lr

if TYPE_CHECKING:
    from raylr.study import StudyResult


def show_result(result: StudyResult, report: Path | None, console: Console) -> None:
    """Print what a study found."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("size", "params", "tokens", "optimal LR", "90 % interval", "loss"):
        table.add_column(name, justify="left" if name == "size" else "right", no_wrap=True)
    for cell in result.fit.optima:
        table.add_row(
            cell.size,
            format_count(cell.params),
            format_count(cell.tokens),
            format_lr(cell.lr_opt),
            interval(cell.lr_low, cell.lr_high),
            f"{cell.loss:.4f}",
        )
    console.print()
    console.print(table)
    for cell in result.fit.optima:
        if cell.status != "ok":
            _say(console, f"[dim]{cell.size} at {format_count(cell.tokens)}: {cell.message}[/]")
    console.print()
    show_law(result.fit.law, console)
    if result.prediction:
        show_prediction(result.fit.law, result.prediction, console)
    for line in check_lines(result):
        _say(console, line)
    _say(console, cost_line(result))
    if report:
        _say(console, f"[bold]Report[/]      {report}")


def show_law(law: LRLaw, console: Console) -> None:
    """Print a law with the intervals of its exponents."""
    _say(console, f"[bold]Law[/]         {law_text(law)}")
    if law.covariance is not None:
        ends = law.interval(0.9)
        parts = [
            f"{name} in {a:.2f} to {b:.2f}" for name, (a, b) in ends.items() if name != "c" and math.isfinite(b - a)
        ]
        if parts:
            _say(console, f"            90 % intervals: {', '.join(parts)}; {law.cells} cells, R² {law.r2:.3f}")
    if not law.ok:
        _say(console, f"            {law.message}")


def show_prediction(law: LRLaw, prediction: LRPrediction, console: Console) -> None:
    """Print a prediction with its interval and how far it is from what was fitted."""
    place = f"{format_count(prediction.params)} parameters, {format_count(prediction.tokens)} tokens"
    _say(console, f"[bold]Prediction[/]  {place}: [bold]LR {format_lr(prediction.lr)}[/]")
    if math.isfinite(prediction.lr_low):
        span = interval(prediction.lr_low, prediction.lr_high)
        _say(
            console,
            f"            {prediction.level:.0%} interval {span}; optimum of the {law.conditions.objective} loss",
        )
    if prediction.message:
        _say(console, f"            {prediction.message}")


def law_text(law: LRLaw) -> str:
    """Write a law with its units."""
    return (
        f"LR = {law.c:.4g}·{law.lr_unit:g} · (N/{format_count(law.params_unit)})^{-law.alpha:.4f} · "
        f"(D/{format_count(law.tokens_unit)})^{-law.beta:.4f}"
    )


def interval(low: float, high: float) -> str:
    """Write an interval; an open end says so."""
    if math.isnan(low) or math.isnan(high):
        return "unknown"
    if low <= 0 and math.isinf(high):
        return "open"
    if low <= 0:
        return f"below {format_lr(high)}"
    return f"above {format_lr(low)}" if math.isinf(high) else f"{format_lr(low)} to {format_lr(high)}"


def check_lines(result: StudyResult) -> list[str]:
    """Say what training at the target gave, in lines; none if nothing was trained there."""
    check, prediction = result.check, result.prediction
    if check is None or prediction is None or not prediction.lr > 0:
        return []
    target = result.spec.target
    losses = {run.lr / prediction.lr: check.loss_at(run) for run in check.runs}
    shown = ", ".join(
        f"{ratio:.3g}× {loss:.4f}" if math.isfinite(loss) else f"{ratio:.3g}× diverged"
        for ratio, loss in sorted(losses.items())
    )
    lines = [
        f"[bold]Check[/]       loss at {target.name if target else 'the target'} by LR over the predicted: {shown}"
    ]
    quadratic = check.quadratic
    if quadratic.status == "ok":
        distance = abs(math.log(prediction.lr / quadratic.lr_opt))
        regret = float(quadratic.regret(prediction.lr)) / quadratic.loss_min
        inside = prediction.lr_low <= quadratic.lr_opt <= prediction.lr_high
        lines.append(
            f"            the quadratic through them has its optimum at {format_lr(quadratic.lr_opt)}, a factor "
            f"{math.exp(distance):.2f} away, {'inside' if inside else 'outside'} the interval; "
            f"predicted LR costs {regret:.2%} of the loss"
        )
    else:
        lines.append(f"            they do not bracket an optimum: {quadratic.message}")
    return lines


def cost_line(result: StudyResult) -> str:
    """Say what the search cost beside a full grid."""
    cost = result.cost
    return (
        f"[bold]Cost[/]        {format_count(cost.search_tokens)} tokens and {cost.search_flops:.2g} FLOPs for the "
        f"search, {cost.token_share:.0%} and {cost.flop_share:.0%} of the full grid's"
    )


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
