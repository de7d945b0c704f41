"""The report of finished runs: one HTML file that needs nothing else, its figures beside it as PNG and SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from pathlib import Path

from raylr.analysis.cells import Family
from raylr.analysis.figures import cells as figures
from raylr.analysis.units import format_lr
from raylr.report.page import page, paragraph, picture, save, table
from raylr.report.runs_text import RunsResult, ending, law_lines_of, next_lines, remarks, row_of, verdict_of_family
from raylr.report.text import known
from raylr.store.files import storage_errors, write_atomic

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
    with storage_errors(out / "figures", "make"):
        (out / "figures").mkdir(parents=True, exist_ok=True)
    path = out / "report.html"
    name = result.runs.path.stem or str(result.runs.path)
    text = page(name=name, answer=_answer(result), sections=_sections(result, out / "figures"), footer=FOOTER)
    write_atomic(path, text)
    return path


def _answer(result: RunsResult) -> str:
    single = result.single
    lines = ending(result)
    head = f"<b>LR {format_lr(single.fit.lr)}</b><br>" if single is not None and known(single.fit.lr) else ""
    body = "<br>".join(html.escape(line.text) for line in lines if line.heading != "Next")
    return f'<div class="answer">{head}{body}</div>'


def _sections(result: RunsResult, folder: Path) -> Iterable[str]:
    optima = result.fit.optima
    yield "<h2>What to run next</h2>"
    yield from (paragraph(line) for line in next_lines(result))
    yield "<h2>The loss over the learning rate</h2>"
    image = save(figures.loss_over_lr(optima), folder / "loss-over-lr")
    yield picture(image, "Final losses (points), the fitted curve with its 90 % band, the optimum (dashed) and its "
                  "interval (grey). Crosses diverged; triangles lie above the panel.")  # fmt: skip
    for i, family in enumerate(result.fit.families):
        yield from _family(family, folder, i)
    yield "<h2>All optima</h2>"
    yield table(
        ["setting", "runs", "optimal LR", "90 % interval", "loss", "status", "an LR off by 2× costs"],
        [[*row_of(one), "may diverge" if one.cost() == math.inf else f"{one.cost():.2g}"] for one in optima],
    )
    yield from (paragraph(line, "dim") for line in remarks(optima))
    yield "<h2>How the runs were read</h2>"
    yield f"<p>{result.runs.table.num_rows} runs from {html.escape(str(result.runs.path))}.</p>"
    yield from (f'<p class="dim">{html.escape(note)}</p>' for note in result.runs.notes)


def _family(family: Family, folder: Path, number: int) -> Iterable[str]:
    law = family.law
    if len(family.optima) < 2:
        return
    if law is None or not known(law.c) or not any(one.used for one in family.optima):
        return
    title = f"The law: {family.name}" if family.name else "The law"
    yield f"<h2>{html.escape(title)}</h2>"
    yield paragraph(verdict_of_family(family))
    yield f"<p><code>{html.escape(law.formula)}</code></p>"
    yield from (paragraph(line) for line in law_lines_of(family)[1:])
    image = save(figures.law(family), folder / ("law" if not number else f"law-{number + 1}"))
    yield picture(image, "The optima with their intervals and the law (line). In each panel the law brings the optima "
                  "to the middle of the quantities that are not drawn.")  # fmt: skip
