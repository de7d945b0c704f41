"""The report: one HTML file that needs nothing else, and its figures beside it as PNG and SVG.

Its figures are those of `raylr.analysis.figures`, drawn by the page itself and, for print and for browsers without
JavaScript, as SVG. Each section begins with the sentence that says what the data show.

Every text that comes from a spec, a message or a table is escaped. Pieces that a study lacks are left out.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from raylr.analysis.figures import check, curves, law, loss_over_lr, precision, regret, runs, surface
from raylr.analysis.figures.batch import over_batch
from raylr.analysis.figures.decay import before_and_after, study_panels
from raylr.analysis.runs import RunEnd
from raylr.analysis.units import format_count
from raylr.module_study import ModulesResult
from raylr.remote.copies import name_of, with_addresses
from raylr.report.common_html import cost_html, failures_html
from raylr.report.decay import decay_lines
from raylr.report.ending import ending
from raylr.report.failures import failures_of
from raylr.report.modules_html import MODULES_FOOTER, modules_answer, modules_figures, modules_sections
from raylr.report.page import Figures, PageFigures, inline, lead, page, paragraph, table
from raylr.report.probes import probe_html, probe_section
from raylr.report.scores import ScoreSection, score_html, score_sections
from raylr.report.text import (
    FLOPS_NOTE,
    batch_lines,
    check_lines,
    interval,
    known,
    known_lr,
    law_text,
    loss_lines,
    number,
    remarks,
    spread_text,
)
from raylr.report.transfer_html import TRANSFER_FOOTER, transfer_answer, transfer_figures, transfer_sections
from raylr.store.files import write_atomic
from raylr.store.runs import run_end
from raylr.store.runtable import evaluations_table, trials_table
from raylr.transfer_study import TransferResult

if TYPE_CHECKING:
    from raylr.analysis.figures.description import Figure
    from raylr.study import StudyResult

_STABLE = {"figure-1b-loss-over-lr", "figure-15-over-tokens", "figure-16-surface", "regret"}
"""Figures of the losses along training: in a study with a decay those of its trunks."""
_TRUNKS = {"figure-1a-loss-curves", "figure-12-precision", "figure-14-all-loss-curves", "runs"}
"""Figures of the runs of the search: in a study with a decay its trunks."""
FOOTER = (
    "Made by raylr from the run table in {folder}; raylr report makes it again. Method: Zhou et al. 2026, “How to Set "
    "the Learning Rate for Large-Scale Pre-training?”. Learning rates are peak rates after warmup; losses "
    "are validation losses in nats per token; intervals are 90 % intervals."
)


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a report of a study says, before it is put into a page."""

    figures: dict[str, Figure]
    """Name of the file → figure."""
    answer: str
    """HTML."""
    sections: Callable[[PageFigures], Iterable[str]]
    """Figures of a page → the sections in pieces of HTML, each figure a piece of its own."""
    footer: str
    """Plain text."""


def content(result: StudyResult | TransferResult | ModulesResult) -> Content:
    """Return what the report of a study says.

    Args:
        result: What a study found so far.
    """
    rows = evaluations_table(result.directory).read()
    scores, probes = (
        score_sections(result.directory, rows),
        probe_section(result.spec, rows, with_addresses(str(result.directory))),
    )
    scored = {name: figure for section in scores for name, figure in section.figures.items()}
    drawn: dict[str, Figure]
    sections: Callable[[PageFigures], Iterable[str]]
    if isinstance(result, TransferResult):
        drawn, answer, footer = transfer_figures(result), transfer_answer(result), TRANSFER_FOOTER
        sections = partial(transfer_sections, result, scores=scores)
    elif isinstance(result, ModulesResult):
        drawn, answer, footer = modules_figures(result), modules_answer(result), MODULES_FOOTER
        sections = partial(modules_sections, result, scores=scores)
    else:
        drawn, answer, footer = _figures(result), _answer(result), FOOTER
        sections = partial(_sections, result, scores=scores)
    name = name_of(result.directory)

    def whole(figures: PageFigures) -> Iterable[str]:
        yield from sections(figures)
        yield from probe_html(probes, figures)

    return Content(
        figures=drawn | scored | probes.figures, answer=answer, sections=whole, footer=footer.format(folder=name)
    )


def write_report(result: StudyResult | TransferResult | ModulesResult, out: Path | None = None) -> Path:
    """Write report.html and figures/.

    Args:
        result: What a study found so far.
        out: Folder to write to; None: the study's.

    Returns:
        Path of the report.

    Raises:
        StorageError: If the folder cannot be written; the message names the file.
    """
    folder, found = Path(out or result.directory), content(result)
    sections = found.sections(Figures(found.figures, folder / "figures"))
    text = page(name=result.spec.name, answer=found.answer, sections=sections, footer=found.footer)
    path = folder / "report.html"
    write_atomic(path, text)
    return path


def _figures(result: StudyResult) -> dict[str, Figure]:
    """Return the figures that there is something to draw for, by name of the file."""
    fit, prediction, budget = result.fit, result.prediction, max(result.spec.token_budgets)
    # The curves are those of the stable loss, in a study with a decay those of its trunks.
    stable = replace(fit, optima=fit.stable) if fit.stable else fit
    end = int(max(run.tokens[-1] for run in fit.runs)) if fit.stable and fit.runs else budget  # of a trunk
    largest = max(fit.optima, key=lambda optimum: optimum.params).size
    shown = prediction if prediction and known(prediction.lr) else None
    drawn: dict[str, Figure | None] = {
        "figure-1a-loss-curves": curves.loss_curves(fit, largest, end),
        "figure-1b-loss-over-lr": loss_over_lr.loss_over_lr(stable, budget),
        "figure-12-precision": precision.precision(fit),
        "figure-14-all-loss-curves": curves.all_loss_curves(fit, end) if len(fit.surfaces) > 1 else None,
        "figure-15-over-tokens": loss_over_lr.over_tokens(stable, budget),
        "figure-16-surface": surface.loss_surface(stable, budget),
        "regret": regret.regret(
            {size: one.at(float(budget)) for size, one in fit.surfaces.items()},
            law=None if fit.stable else fit.curvature_law,  # that of a study with a decay is of the decayed loss
            prediction=shown,
        ),
        "runs": runs.run_ends(fit, _ends(result.directory), end),
    }
    if known(fit.law.c):
        drawn["figure-2-law"] = law.law(fit, shown)
        if min(len({one.params for one in fit.optima}), len({one.tokens for one in fit.optima})) > 1:
            drawn["figure-18-law"] = law.law_in_space(fit, shown)
        if fit.law.batch_unit is not None:
            drawn["figure-batch"] = over_batch(fit, shown)
    if fit.decayed:
        drawn["decay"] = before_and_after(study_panels(fit, budget))
    if result.check and shown and result.spec.target:
        drawn["check"] = check.prediction_check(result.check, shown, result.spec.target.name)
    found = {name: figure for name, figure in drawn.items() if figure is not None}
    if fit.stable:
        for name in _STABLE & set(found):
            found[name] = replace(found[name], statement=f"Stable loss, before the decay: {found[name].statement}")
        for name in _TRUNKS & set(found):
            found[name] = replace(found[name], statement=f"Trunks, up to the decay: {found[name].statement}")
    return found


def _ends(directory: Path) -> dict[str, RunEnd]:
    """Return run → how its last segment ended."""
    rows = trials_table(directory).read().to_pylist()
    return {row["trial"]: run_end(row) for row in sorted(rows, key=lambda row: int(row["tokens"]))}


def _answer(result: StudyResult) -> str:
    """Return the verdict, the LR in bold, and the other lines of the terminal's ending but loss and check."""
    lines = [line for line in ending(result) if not line.dim]
    found, rest = lines[0], lines[1:]
    out, heading = [f"<b>{inline(found.text)}</b>"], ""
    for line in rest:
        heading = line.heading or heading
        if heading not in ("LR", "2× off", "Next"):
            continue
        text = inline(line.text)
        if line.heading == "LR":
            text = f"<b>LR {text}</b>"
        elif line.heading == "Next":
            text = f"Next: {text}"
        out.append(text)
    if result.prediction is None:
        out.append("The spec names no target; the law is below.")
    else:
        out.append(f'<span class="dim">{html.escape(result.prediction.message)}</span>')
    return f'<div class="answer">{"<br>".join(out)}</div>'


def _sections(result: StudyResult, figures: PageFigures, scores: Sequence[ScoreSection]) -> Iterable[str]:
    fit = result.fit
    yield "<h2>The optima</h2>"
    decayed = decay_lines(result)
    yield (
        lead(f"{decayed[1].text}.".replace("they are", "The optima after the decay are"))
        if decayed
        else figures.lead("figure-1b-loss-over-lr")
    )
    yield table(
        ["size", "parameters", "tokens", "optimal LR", "90 % interval", "loss", "LRs tried", "longest run", ""],
        [
            [one.size, format_count(one.params), format_count(one.tokens), known_lr(one.lr_opt),
             interval(one.lr_low, one.lr_high), f"{number(one.loss)} ± {number(one.loss_stderr)}", str(one.lrs),
             format_count(one.measured_tokens), "" if one.status.ok else one.message]
            for one in fit.optima
        ],
    )  # fmt: skip
    yield from (paragraph(line, "dim") for line in remarks(result) if "no run" in line.text)
    yield from (paragraph(line) for line in decayed[:1] + decayed[2:])  # the second is the lead
    yield figures("decay")
    yield figures("figure-1b-loss-over-lr", said=not decayed)
    yield figures("figure-15-over-tokens")
    yield figures("figure-16-surface")
    if figures("regret"):
        yield "<h2>What an LR beside the best costs</h2>"
        yield figures.lead("regret")
        yield figures("regret", said=True)
    yield "<h2>The law</h2>"
    yield figures.lead("figure-2-law")
    yield f"<p><code>{html.escape(law_text(fit.law))}</code></p>" + _law_intervals(result)
    yield figures("figure-2-law", said=True)
    yield figures("figure-18-law")
    yield from (paragraph(line) for line in batch_lines(fit.law))
    yield figures("figure-batch")
    yield from (paragraph(line) for line in loss_lines(result))
    lines = check_lines(result)
    if lines:
        yield "<h2>The check</h2>"
        yield figures.lead("check")
        yield from (paragraph(line) for line in lines)
        yield figures("check", said=True)
    yield from score_html(scores, figures)
    yield from cost_html(result.cost, search="search", grid="full grid to the full budget")
    yield (
        f'<p class="dim">The full grid: {result.spec.lr.grid} LRs at each of {_searched(result)}, all '
        f"trained to {format_count(max(result.spec.token_budgets))} tokens.</p>"
    )
    if result.spec.external:
        yield f'<p class="dim">{html.escape(FLOPS_NOTE)}.</p>'
    yield from failures_html(failures_of(result.directory))
    yield "<h2>The runs</h2>"
    yield figures.lead("runs")
    yield figures("runs", said=True)
    for name in ("figure-14-all-loss-curves", "figure-1a-loss-curves", "figure-12-precision"):
        yield figures(name)


def _searched(result: StudyResult) -> str:
    sizes, settings = len(result.spec.sizes), len(result.spec.settings())
    return f"{sizes} sizes" if settings == sizes else f"{settings} settings of size and batch"


def _law_intervals(result: StudyResult) -> str:
    law = result.fit.law
    message = "" if law.ok else f'<p class="warn">{html.escape(law.message)}</p>'
    if law.covariance is None:
        return message
    ends = law.interval(0.9)
    parts = [
        f"{greek} = {value:.3f} ({low:.3f} to {high:.3f})"
        for greek, value, (low, high) in (("α", law.alpha, ends["alpha"]), ("β", law.beta, ends["beta"]))
        if math.isfinite(high - low)
    ]
    spread = f"{spread_text(law)}, RMSE {number(law.rmse, 3)} in ln LR." if law.cells > 1 else f"{spread_text(law)}."
    return f"{message}<p>{'; '.join([', '.join(parts), spread] if parts else [spread])}</p>"
