"""The report of finished runs: one HTML file that needs nothing else, its figures beside it as PNG and SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from pathlib import Path

from raylr.analysis.cells import CellOptimum, Family, names_of
from raylr.analysis.figures import cells as drawings
from raylr.analysis.figures.description import Figure
from raylr.analysis.figures.regret import regret
from raylr.analysis.next_runs import SETTLED
from raylr.analysis.units import format_lr
from raylr.remote.copies import with_addresses
from raylr.report.page import Figures, inline, lead, page, paragraph, table
from raylr.report.runs_text import (
    MOST_FAMILIES,
    RunsResult,
    answers,
    law_lines_of,
    next_lines,
    remarks,
    row_of,
    verdict_of_family,
)
from raylr.report.text import known
from raylr.store.files import write_atomic

FOOTER = (
    "Made by raylr from finished runs; raylr report makes it again. Learning rates are peak rates of the runs' own "
    "schedules; intervals are 90 % intervals."
)


def write_runs_report(result: RunsResult, out: Path) -> Path:
    """Write report.html and figures/ for finished runs.

    Args:
        result: What the runs say.
        out: Folder to write to.

    Returns:
        Path of the report.

    Raises:
        StorageError: If the folder cannot be written.
    """
    figures = Figures(_figures(result), out / "figures")
    path = out / "report.html"
    name = result.runs.path.stem or str(result.runs.path)
    text = page(name=name, answer=_answer(result), sections=_sections(result, figures), footer=FOOTER)
    write_atomic(path, text)
    return path


def _answer(result: RunsResult) -> str:
    single = result.single
    head = [f"<b>LR {format_lr(single.fit.lr)}</b>"] if single is not None and known(single.fit.lr) else []
    parts = []
    kinds = answers(result)
    for found, lines in kinds[:MOST_FAMILIES]:
        judged = inline(found.text)
        texts = [f"{line.heading}: {line.text}" if line.heading else line.text for line in lines]
        parts.append("<br>".join([*head, judged if head else f"<b>{judged}</b>", *map(inline, texts)]))
    if len(kinds) > MOST_FAMILIES:
        parts.append(f"{len(kinds) - MOST_FAMILIES} more kinds of runs are in the table below.")
    return f'<div class="answer">{"".join(f"<p>{part}</p>" for part in parts)}</div>'


def _figures(result: RunsResult) -> dict[str, Figure]:
    """Return the figures that there is something to draw for, by name of the file."""
    optima = result.fit.optima
    drawn = {"loss-over-lr": drawings.loss_over_lr(optima)}
    costs = regret({name: one.fit for name, one in zip(names_of(optima), optima, strict=True)})
    if costs is not None:
        drawn["regret"] = costs
    return drawn | {
        _law_name(i): drawings.law(family) for i, family in enumerate(result.fit.families) if _has_law(family)
    }


def _law_name(number: int) -> str:
    return f"law-{number + 1}" if number else "law"


def _has_law(family: Family) -> bool:
    law = family.law
    return len(family.optima) > 1 and law is not None and known(law.c) and any(one.used for one in family.optima)


def _sections(result: RunsResult, figures: Figures) -> Iterable[str]:
    optima = result.fit.optima
    yield "<h2>What to run next</h2>"
    yield from (paragraph(line._replace(heading="")) for line in next_lines(result))
    yield "<h2>The loss over the learning rate</h2>"
    yield figures.lead("loss-over-lr")
    yield figures("loss-over-lr", said=True)
    yield figures("regret")
    for i, family in enumerate(result.fit.families):
        if _has_law(family):
            yield from _family(family, figures, _law_name(i))
    yield "<h2>All optima</h2>"
    settled = sum(one.fit.status in SETTLED for one in optima)
    yield lead(f"Settings whose optimum is known within the tolerance: {settled} of {len(optima)}.")
    apart = any(one.cell.family for one in optima)
    yield table(
        [*(["runs of"] if apart else []), "setting", "runs", "optimal LR", "90 % interval", "loss", "status",
         "cost of an LR off by 2×"],
        [[*([one.cell.family] if apart else []), *row_of(one), _cost(one)] for one in optima],
    )  # fmt: skip
    yield from (paragraph(line, "dim") for line in remarks(optima))
    yield "<h2>How the runs were read</h2>"
    yield f"<p>{result.runs.table.num_rows} runs from {html.escape(with_addresses(str(result.runs.path)))}.</p>"
    yield from (f'<p class="dim">{html.escape(note)}</p>' for note in result.runs.notes)


def _cost(one: CellOptimum) -> str:
    cost = one.cost()
    if cost == math.inf:
        return "may diverge"
    return f"{cost:.2g}" if math.isfinite(cost) else "–"


def _family(family: Family, figures: Figures, name: str) -> Iterable[str]:
    law = family.law
    assert law is not None
    title = f"The law: {family.name}" if family.name else "The law"
    yield f"<h2>{html.escape(title)}</h2>"
    yield figures.lead(name)
    yield paragraph(verdict_of_family(family))
    yield f"<p><code>{html.escape(law.formula)}</code></p>"
    yield from (paragraph(line) for line in law_lines_of(family)[1:])
    yield figures(name, said=True)
