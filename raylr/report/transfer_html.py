"""What the report of a transfer study holds; `raylr.report.html` writes it."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from raylr.analysis.figures.check import prediction_check
from raylr.analysis.figures.transfer import proxy_search
from raylr.analysis.units import format_count, format_lr, format_name
from raylr.report.common_html import cost_html, failures_html
from raylr.report.failures import failures_of
from raylr.report.lines import Line
from raylr.report.page import PageFigures, inline, lead, paragraph, table
from raylr.report.scores import ScoreSection, score_html
from raylr.report.text import known, lines_of_check, number
from raylr.report.transfer import SETTINGS, proxy_lines, settings_rows, target_lines, transfer_ending

if TYPE_CHECKING:
    from raylr.analysis.figures.description import Figure
    from raylr.transfer_study import Transferred, TransferResult

TRANSFER_FOOTER = (
    "Made by raylr from the run table in {folder}; raylr report makes it again. Method: Zhou et al. 2026, “How to Set "
    "the Learning Rate for Large-Scale Pre-training?”, Section 3.2; docs/transfer.md has the rules with their sources. "
    "LRs are the proxy's peak rates, which the rule's factors multiply at a target; losses are validation losses in "
    "nats per token; intervals are 90 % intervals."
)


def transfer_figures(result: TransferResult) -> dict[str, Figure]:
    """Return the figures of a transfer study, by name of the file."""
    search = result.search
    drawn = {}
    for name in search.axes:
        drawn[_proxy_name(name)] = proxy_search(search.fit, name)
    for i, one in enumerate(result.targets):
        if one.check is not None and known(one.prediction.lr):
            drawn[_check_name(i)] = prediction_check(one.check, one.prediction, one.target.name)
    return drawn


def _proxy_name(axis: str) -> str:
    return f"proxy-{axis.replace('_', '-')}"


def _check_name(number_of_target: int) -> str:
    return f"check-{number_of_target + 1}"


def transfer_answer(result: TransferResult) -> str:
    """Return the verdict and the LR of each target in bold, and what to do next; equal lines once."""
    out = []
    names = iter([one.target.name for one in result.targets if known(one.prediction.lr)])
    for line in transfer_ending(result):
        text = inline(line.text)
        if line.heading == "Verdict":
            out.append(f"<b>{text}</b>")
        elif line.heading == "LR":
            out.append(f"<b>LR for {html.escape(next(names))}: {text}</b>")
        elif line.heading == "Next":
            out.append(f"Next: {text}")
    return f'<div class="answer">{"<br>".join(dict.fromkeys(out))}</div>'


def transfer_sections(result: TransferResult, figures: PageFigures, scores: Sequence[ScoreSection]) -> Iterable[str]:
    """Yield the sections: the proxy, each target, failures, scores."""
    search = result.search
    yield "<h2>The proxy</h2>"
    yield from (figures.lead(_proxy_name(axis)) for axis in list(search.axes)[:1])
    yield from (paragraph(line) for line in proxy_lines(result))
    for i, axis in enumerate(search.axes):
        yield figures(_proxy_name(axis), said=i == 0)
    names = ("lr", *search.axes)
    yield table(
        [*("LR" if name == "lr" else name.replace("_", " ") for name in names), "loss", "tokens", "end"],
        [
            [*(format_lr(run.place[name]) for name in names),
             number(run.loss) + (f" ± {number(run.stderr)}" if run.stderr else ""), format_count(run.tokens[-1]),
             run.end.value]
            for run in sorted(search.runs, key=lambda run: (math.isnan(run.loss), run.loss))
        ],
    )  # fmt: skip
    for i, one in enumerate(result.targets):
        yield f"<h2>The transfer to {html.escape(one.target.name)}</h2>"
        yield from _target(one, figures, i)
    yield from score_html(scores, figures)
    yield from cost_html(result.cost, search="search", grid="full grid at the proxy", check="runs at the targets")
    yield from failures_html(failures_of(result.directory))


def _target(one: Transferred, figures: PageFigures, i: int) -> Iterable[str]:
    lines = target_lines(one)
    first = f"The LR is {lines[0].text}." if lines else f"No LR is known: {one.prediction.message}."
    yield lead(first.replace("..", "."))
    yield from (paragraph(line, "dim" if line.dim else "") for line in lines[1:])
    if one.settings:
        yield table(SETTINGS, settings_rows(one))
        note = "“output ×” multiplies the output of the matrix or what its block adds to the residual stream"
        yield paragraph(Line(f"{note}; raylr transfer --explain shows every factor with its source."), "dim")
    if one.check is not None and known(one.prediction.lr):
        yield from (paragraph(line) for line in lines_of_check(one.check, one.prediction, format_name(one.target.name)))
        yield figures(_check_name(i))
