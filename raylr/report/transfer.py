"""The ending of a transfer study: verdict, the proxy's optimum, what it becomes at each target, the check, advice."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING

from raylr.analysis.optimum.basin import Basins
from raylr.analysis.status import Status
from raylr.analysis.units import format_count, format_lr, format_name
from raylr.report.lines import Line, show_lines, shown_path
from raylr.report.text import interval, known, lines_of_check, number
from raylr.report.verdict import (
    EDGES,
    SETTLED,
    WIDEST,
    Advice,
    Evidence,
    Judged,
    Verdict,
    contradicted,
    of_check,
    reach,
)
from raylr.trainables.models.parametrization import SYMBOLS

if TYPE_CHECKING:
    from rich.console import Console

    from raylr.transfer_study import Transferred, TransferResult

MORE_TRIALS = 3
"""Runs to add to a search that ended without a known optimum: as many as it has beyond a quadratic's parameters."""

COVERED = ("width", "depth", "tokens", "batch", "heads / hidden_size")
"""Differences that the interval holds, or that a choice of the rule decides (attention_fan_in)."""


def evidence_at(result: TransferResult, one: Transferred) -> Evidence:
    """Return what the verdict at a target follows from."""
    fit = result.search.fit
    judged = Judged(format_name(result.search.size), fit.status, fit.message)
    return Evidence(
        optima=[judged],
        law=None,
        prediction=one.prediction,
        target=format_name(one.target.name),
        check=one.check,
        by="transfer",
    )


def verdict_at(result: TransferResult, one: Transferred) -> Verdict:
    """Return whether the transferred LR may be trusted at a target, and why; measurements there count first."""
    found = of_check(evidence_at(result, one))
    if found is not None:
        return found
    search, name = result.search, format_name(one.target.name)
    message = search.fit.message.rstrip(".")
    if not search.known:
        return Verdict(Advice.UNKNOWN, f"Cannot tell: {message}.")
    if search.basin.basins is Basins.NOT_CONVEX:
        return Verdict(Advice.UNKNOWN, f"Cannot tell: {search.basin.message}.")
    if search.fit.status in EDGES:
        return Verdict(Advice.WIDEN, f"Widen the range: {message}.")
    if search.fit.status not in SETTLED:
        advice = Advice.MORE if search.fit.status in (Status.UNCERTAIN, Status.TOO_FEW) else Advice.UNKNOWN
        return Verdict(advice, f"{'More runs' if advice is Advice.MORE else 'Cannot tell'}: {message}.")
    changes = [change.what for change in one.differences if change.what not in COVERED]
    if changes:
        return Verdict(
            Advice.UNKNOWN,
            f"Cannot tell at {name}: {', '.join(changes)} {'change' if len(changes) > 1 else 'changes'} from the "
            "proxy, no rule covers that, and no interval holds it; train there around the transferred LR, or take a "
            "proxy with the same.",
        )
    width = reach(one.prediction)
    if not width <= WIDEST:
        far = "is open" if not math.isfinite(width) else f"reaches a factor {width:.3g} to one side"
        return Verdict(
            Advice.MORE, f"More budget: the interval at {name} {far}, more than {WIDEST:g}; take a proxy nearer to it."
        )
    ended = one.check is not None and any(map(one.check.ended, one.check.runs))
    tested = "The runs there do not decide" if ended else "No run at the target has tested it"
    return Verdict(
        Advice.TRUST,
        f"Trust it within its interval at {name}: the proxy's optimum is known, and the interval, widened by what "
        f"transfer has missed elsewhere, reaches a factor {width:.3g} to its wider side. {tested}.",
    )


def proxy_lines(result: TransferResult) -> list[Line]:
    """Return the proxy's optimum, how the LR moves with the init std, and whether there is one basin."""
    search = result.search
    place = f"{search.size}: {format_count(search.params)} parameters, {format_count(search.tokens)} tokens"
    if not search.known:
        return [Line(f"{place}: no optimum, because {search.fit.message}", "Proxy")]
    parts = []
    for name, value in search.fit.at.items():
        label = "LR" if name == "lr" else name.replace("_", " ")
        parts.append(f"{label} {format_lr(value)} ({interval(*search.interval(name))})")
    lines = [Line(f"{'; '.join(parts)}; loss {number(search.fit.loss)}", "Proxy")]
    lines.append(Line(f"{place}; {len(search.runs)} runs; 90 % intervals of the proxy's own losses"))
    lines.append(Line(search.basin.message))
    if (ridge := search.ridge()) is not None:
        lines.append(Line(f"the best LR moves with the init std: {ridge}"))
    if not search.fit.ok:
        lines.append(Line(search.fit.message))
    return lines


def target_lines(one: Transferred) -> list[Line]:
    """Return the LR of a target with its interval, the ratios, what widens the interval, and what no rule covers."""
    prediction, name = one.prediction, format_name(one.target.name)
    if not known(prediction.lr):
        return []
    place = f"{format_count(prediction.params)} parameters, {format_count(prediction.tokens)} tokens"
    if prediction.batch:
        place += f", a batch of {format_count(prediction.batch)} tokens"
    ratios = ", ".join(f"{SYMBOLS[axis]} = {ratio:.4g} ({axis})" for axis, ratio in one.ratios.items())
    lines = [
        Line(f"{format_lr(prediction.lr)}, 90 % interval {interval(prediction.lr_low, prediction.lr_high)}", "LR"),
        Line(f"the proxy's, for {name} ({place}): the rule's factors multiply it there"),
        Line(ratios),
    ]
    reasons = "; ".join(f"{spread.what} (sd {spread.sd:.2f} in ln LR)" for spread in one.spreads)
    lines.append(Line(f"the interval is the proxy's, widened by what transfer has missed elsewhere: {reasons}",
                      dim=True))  # fmt: skip
    for change in one.differences:
        lines.append(Line(f"not covered: {change.what} is {change.base} in the proxy and {change.target} in {name}: "
                          f"{change.note}", dim=True))  # fmt: skip
    return lines


def next_lines(result: TransferResult, one: Transferred, found: Verdict) -> list[Line]:
    """Return what to do next, by the verdict at a target."""
    folder, name = shlex.quote(shown_path(result.directory)), shlex.quote(one.target.name)
    shown = format_name(one.target.name)
    again = "and run the same command again: runs that were made are used again"
    trials = f"`search: {{max_trials: {result.spec.search.max_trials + MORE_TRIALS}}}`"
    if found.advice is Advice.TRUST:
        text = (
            f"`raylr recipe {folder} --for torch --target {name}` writes the parameter groups, initial weights and "
            "schedule for a script of PyTorch"
        )
        return [Line(text if one.settings else "give the trainer these values and the ratios", "Next")]
    if contradicted(evidence_at(result, one)) and one.check is not None:
        text = f"train {shown} at LRs around {format_lr(one.check.fit.lr)}, or take a proxy nearer to it"
        return [Line(text, "Next")]
    if found.advice is Advice.UNKNOWN and result.search.fit.ok and result.search.basin.one:
        return [
            Line(
                f"`check: [0.333, 1, 3]` at {shown} in the spec, {again.removeprefix('and ')}",
                "Next",
            )
        ]
    if found.advice is Advice.WIDEN:
        wider = [axis for axis, status in result.search.fit.edges.items() if status in EDGES]
        keys = " and ".join("lr" if axis == "lr" else f"transfer.{axis}" for axis in wider) or "lr"
        return [Line(f"widen {keys} in the spec, set {trials} {again}", "Next")]
    return [Line(f"set {trials} in the spec {again}", "Next")]


def transfer_ending(result: TransferResult) -> list[Line]:
    """Return the verdict, the proxy, and for each target its LR, the check, and what to do next."""
    lines: list[Line] = []
    for one in result.targets:
        found = verdict_at(result, one)
        lines += [Line(found.text, "Verdict"), *target_lines(one)]
        if one.check is not None and known(one.prediction.lr):
            lines += lines_of_check(one.check, one.prediction, format_name(one.target.name))
        lines += next_lines(result, one, found)
    cost = result.search.cost_of(2.0)
    off = [Line(f"at the proxy an LR off by a factor of 2 costs {number(cost)}, {cost / result.search.fit.loss:.1%} of "
                "the loss", "2× off")] if cost > 0 and result.search.fit.loss > 0 else []  # fmt: skip
    return [*lines, *proxy_lines(result), *off]


def settings_rows(one: Transferred) -> list[list[str]]:
    """Return the hyperparameters of a target's tensors as rows of text, roles of equal settings together."""
    return [
        [
            ", ".join(setting.roles),
            "–" if setting.init_std is None else f"{setting.init_std:.3g}",
            f"{setting.lr:.3g}",
            f"{setting.weight_decay:.3g}",
            f"{setting.eps:.3g}",
            "" if setting.residual == setting.forward == 1 else f"{setting.residual * setting.forward:.4g}",
        ]
        for setting in one.settings
    ]


SETTINGS = ("roles", "init std", "LR", "weight decay", "ε", "output ×")
"""Columns of `settings_rows`."""


def show_transfer(result: TransferResult, console: Console) -> None:
    """Print what a transfer study found."""
    from rich.table import Table
    from rich.text import Text

    show_lines(transfer_ending(result), console)
    for one in result.targets:
        if not one.settings:
            continue
        console.print()
        table = Table(box=None, padding=(0, 2, 0, 0))
        for i, name in enumerate(SETTINGS):
            shown = f"{one.target.name}: {name}" if i == 0 else name
            table.add_column(shown, justify="left" if i == 0 else "right", no_wrap=i > 0, overflow="fold")
        for row in settings_rows(one):
            table.add_row(*map(Text, row))
        console.print(table)
    console.print()
