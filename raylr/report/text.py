"""Results in plain lines: the optima, the law, a prediction with its interval, the check, the cost.

Everything is made of lines, so that names from a spec are shown as they are and the HTML report can use the same
sentences.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.laws.lr_law import LRLaw, LRPrediction
from raylr.analysis.laws.scaling import SIZES
from raylr.analysis.status import Status
from raylr.analysis.units import format_count, format_factor, format_lr, format_name
from raylr.report.failures import failures_of
from raylr.report.lines import Line, show_lines
from raylr.report.verdict import BRACKETED

FLOPS_NOTE = "FLOPs are taken as 6·N·D where the trainer reports none"
"""What the report says about the FLOPs of another trainer."""

if TYPE_CHECKING:
    from rich.console import Console

    from raylr.analysis.laws.loss_law import LossPrediction
    from raylr.analysis.laws.scaling import Estimate
    from raylr.analysis.studyfit import Check, FittedRun
    from raylr.module_study import ModulesResult
    from raylr.study import StudyResult
    from raylr.transfer_study import TransferResult


def show_prediction(
    law: LRLaw, prediction: LRPrediction, console: Console, *, loss: LossPrediction | None = None,
    cost: Estimate | None = None,
) -> None:  # fmt: skip
    """Print a prediction with its interval and how far it is from what was fitted, and where these are known the loss
    to expect and what an LR off by a factor of 2 costs.

    Args:
        law: The law.
        prediction: What it predicts.
        console: Where it is printed.
        loss: The loss to expect; None: not known.
        cost: What an LR off by a factor of 2 costs; None: not known.
    """
    lines = prediction_lines(law, prediction)
    if loss is not None:
        lines.append(Line(f"{number(loss.loss)} at the best LR, {100 * loss.level:.3g} % prediction interval "
                          f"{number(loss.low)} to {number(loss.high)}", "Loss"))  # fmt: skip
    if cost is not None:
        lines.append(Line(cost_text(cost), "2× off"))
    show_lines(lines, console)


UNDETERMINED = 10.0
"""Factor to either side beyond which an interval of a cost is not printed: the next order of magnitude is another
decision."""


def cost_text(cost: Estimate, where: str = "", share: str = "") -> str:
    """Return what an LR off by a factor of 2 costs, with the interval; or that the runs do not determine it.

    Args:
        cost: In the unit of the loss.
        where: The setting, such as " at 1B"; empty where that is clear.
        share: The cost as a share of the loss, such as "1.2% of the loss"; may be empty.
    """
    spread = cost.high / cost.low if cost.low > 0 else math.inf
    if not spread <= UNDETERMINED**2:
        return f"the runs do not determine what an LR off by a factor of 2 costs{where}"
    return (
        f"an LR off by a factor of 2 costs {number(cost.value)}{where} (90 % interval {number(cost.low)} to "
        f"{number(cost.high)})" + (f", {share}" if share else "")
    )


def remarks(result: StudyResult) -> list[Line]:
    """Return a line for each optimum that cannot be used as it is, and for each size without a run."""
    lines = [
        Line(f"{format_name(optimum.size)} at {format_count(optimum.tokens)} tokens: {optimum.message}", dim=True)
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


def spread_text(law: LRLaw) -> str:
    """Return the number of optima behind a law, with R² where there are more of them than exponents."""
    if law.cells == 1:
        return "1 optimum"
    return f"{law.cells} optima" + (f", R² {number(law.r2, 3)}" if law.cells > 3 else "")


def law_lines(law: LRLaw) -> list[Line]:
    """Return a law with the intervals of its exponents as lines."""
    lines = [Line(law_text(law), "Law")]
    if law.covariance is not None:
        ends = law.interval(0.9)
        shown = {name: span for name, span in ends.items() if name in ("alpha", "beta")}
        parts = [f"{name} {a:.2f} to {b:.2f}" for name, (a, b) in shown.items() if math.isfinite(b - a)]
        if parts:
            lines.append(Line(f"90 % intervals: {', '.join(parts)}; {spread_text(law)}"))
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


def prediction_lines(law: LRLaw, prediction: LRPrediction, name: str = "") -> list[Line]:
    """Return a prediction as lines: the LR of the model `name`, its interval, what it is, what a reader must know."""
    if not known(prediction.lr):
        return [Line(f"none, because {prediction.message}", "LR")]
    lines = answer_lines(
        prediction.lr, prediction.lr_low, prediction.lr_high, prediction.status, params=prediction.params,
        tokens=prediction.tokens, batch=prediction.batch, batch_kind=law.batch_kind, conditions=law.conditions,
        weight_decay=prediction.weight_decay, kind=f"{100 * prediction.level:.3g} % prediction interval", name=name,
        params_kind=law.params_kind,
    )  # fmt: skip
    if prediction.status is Status.EXTRAPOLATED:
        lines.append(Line("too far outside the fitted range to be trusted"))
    if prediction.message:
        lines.append(Line(prediction.message, dim=True))
    return lines


def answer_lines(
    lr: float, low: float, high: float, status: Status, *, params: float | None, tokens: float | None,
    batch: float | None, conditions: Conditions, batch_kind: str = "tokens", weight_decay: float | None = None,
    kind: str = "90 % interval", name: str = "", params_kind: str = "total",
) -> list[Line]:  # fmt: skip
    """Return an LR with its interval, and a line that says what it is: of which run, peak of which schedule.

    Args:
        lr: The LR.
        low: Lower end of its interval; NaN: unknown.
        high: Upper end.
        status: Judgement of the fit that it comes from.
        params: Parameters of the model, or its hidden size (`params_kind`); None: not known.
        tokens: Tokens of the run; None: not known.
        batch: Batch of the run; None: not known.
        conditions: Schedule and objective of the runs.
        batch_kind: Unit of the batch.
        weight_decay: Weight decay of the run; None: not shown.
        kind: What the interval is.
        name: Name of the model.
        params_kind: What `params` counts, a key of `SIZES` or "width".
    """
    word = {Status.EDGE_LOW: " or lower", Status.EDGE_HIGH: " or higher"}.get(status, "")
    span = "" if math.isnan(low) or math.isnan(high) else f", {kind} {interval(low, high)}"
    judged = "" if status.ok else f" (status {status})"
    place = []
    if params:
        width = params_kind == "width"
        place.append(f"a hidden size of {params:g}" if width else f"{format_count(params)} {SIZES[params_kind]}")
    if tokens:
        place.append(f"{format_count(tokens)} tokens")
    if batch:
        place.append(f"a batch of {format_count(batch)} {batch_kind}".rstrip())
    if weight_decay is not None:
        place.append(f"weight decay {weight_decay:.3g}")
    peak = "peak LR of the runs' schedule"
    if conditions.schedule:
        article = "an" if conditions.schedule[0] in "aeiou" else "a"
        peak = f"peak LR of {article} {conditions.schedule} schedule"
    if conditions.objective:
        peak += f", optimum of the {conditions.objective} loss"
    name = f"{name}: " if name else ""
    lines = [Line(f"{format_lr(lr)}{word}{span}{judged}", "LR")]
    return [*lines, *([Line(f"for {name}{', '.join(place)}")] if place else []), Line(peak)]


def law_text(law: LRLaw) -> str:
    """Return a law as a formula with its units; "none" if the optima follow no law."""
    if not known(law.c):
        return "none"
    return law.formula


def loss_lines(result: StudyResult) -> list[Line]:
    """Return the loss to expect at the target; no line without a target or a loss law."""
    prediction = result.prediction
    if prediction is None or not result.fit.loss_law.ok:
        return []
    wanted = prediction.batch
    loss = result.fit.loss_law.predict(prediction.params, prediction.tokens, batch=wanted)
    text = f"{number(loss.loss)} at the best LR, 90 % prediction interval {number(loss.low)} to {number(loss.high)}"
    batches = sorted({one.batch for one in result.fit.optima if one.batch is not None})
    if wanted is not None and batches and (wanted < 0.99 * batches[0] or wanted > 1.01 * batches[-1]):
        if result.fit.loss_law.batch_range is None:
            text += f"; of a batch of {format_count(batches[0])} tokens. The target's batch of {format_count(wanted)} "
            text += "tokens will end at another loss"
        else:
            text += f"; the target's batch of {format_count(wanted)} tokens is outside of those measured, "
            text += f"{format_count(batches[0])} to {format_count(batches[-1])}"
    return [Line(text + _measured(result, loss), "Loss")]


def _measured(result: StudyResult, predicted: LossPrediction) -> str:
    """Return that the check contradicts the predicted loss; empty if it does not."""
    check = result.check
    losses = [check.loss_at(run) for run in check.runs] if check is not None else []
    lowest = min((loss for loss in losses if math.isfinite(loss)), default=math.nan)
    if predicted.low <= lowest <= predicted.high or math.isnan(lowest):
        return ""
    side = "below" if lowest < predicted.low else "above"
    found = f"; the lowest loss measured there, {number(lowest)}, is {side} it"
    return f"{found}: the law of the loss does not reach so far"


def check_lines(result: StudyResult) -> list[Line]:
    """Return what training at the target gave; no line if nothing was trained there."""
    check, prediction, target = result.check, result.prediction, result.spec.target
    if check is None or prediction is None or not known(prediction.lr):
        return []
    return lines_of_check(check, prediction, format_name(target.name) if target else "the target")


def lines_of_check(check: Check, prediction: LRPrediction, where: str) -> list[Line]:
    """Return what training at the target `where` gave beside the prediction."""
    shown = ", ".join(
        f"{run.lr / prediction.lr:.3g}× {_loss_of_check(check, run)}"
        for run in sorted(check.runs, key=lambda run: run.lr)
    )
    lines = [Line(f"loss at {where} by LR, in multiples of the predicted LR: {shown}", "Check")]
    fit = check.fit
    if not any(map(check.ended, check.runs)):
        return lines
    if fit.status not in BRACKETED:
        return [*lines, Line(f"the losses bracket no optimum: {fit.message}")]
    distance = abs(math.log(prediction.lr / fit.lr))
    regret = float(fit.expected_regret(prediction.lr)) / abs(fit.loss)  # over all curves that agree with the losses
    inside = "inside" if prediction.lr_low <= fit.lr <= prediction.lr_high else "outside"
    where = f", {inside} the interval" if math.isfinite(prediction.lr_low) else ""
    return [
        *lines,
        Line(
            f"their optimum is {format_lr(fit.lr)} ({interval(fit.lr_low, fit.lr_high)}), a factor "
            f"{math.exp(distance):.2f} away{where}; the predicted LR is expected to cost {regret:.2%} of the loss"
        ),
    ]


def _loss_of_check(check: Check, run: FittedRun) -> str:
    if math.isfinite(loss := check.loss_at(run)):
        return f"{loss:.4f}"
    return "diverged" if run.diverged else f"not ended, {format_count(run.tokens[-1])} of {format_count(check.tokens)}"


def cost_line(result: StudyResult | TransferResult | ModulesResult) -> Line:
    """Return what the search cost, compared with a full grid."""
    cost = result.cost
    shares = f"{cost.token_share:.0%} of the full grid's tokens"
    if math.isfinite(cost.flop_share):
        shares += f" and {cost.flop_share:.0%} of its FLOPs"
    text = f"{format_count(cost.search_tokens)} tokens and {cost.search_flops:.2g} FLOPs for the search, {shares}"
    if result.spec.external:
        text += f"; {FLOPS_NOTE}"
    if result.spec.objective == "decayed" and result.spec.transfer is None:
        text += _decay_cost(cast("StudyResult", result))
    return Line(text, "Cost")


def _decay_cost(result: StudyResult) -> str:
    """Return what a search with decays cost beside other ways to the same losses."""
    runs, budgets = len({run.trial for run in result.fit.runs}), result.spec.token_budgets
    stable, whole = (result.cost.search_tokens / (runs * tokens) for tokens in (max(budgets), sum(budgets)))
    return (
        f"; its {runs} trunks and their decays took {stable:.2f} times the tokens of as many whole runs at a constant "
        f"LR, and {whole:.0%} of those of a decayed run for each LR and budget"
    )


def failure_lines(result: StudyResult | TransferResult | ModulesResult) -> list[Line]:
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
    """Return a number with so many decimals, or with so many digits where decimals would show next to none of it."""
    if not math.isfinite(value):
        return "–"
    return format_factor(value) if 0 < abs(value) < 10.0 ** (1 - digits) else f"{value:.{digits}f}"
