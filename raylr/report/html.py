"""The report: one HTML file that needs nothing else, and its figures beside it as PNG and SVG.

Every text that comes from a spec, a message or a table is escaped. Pieces that a study lacks are left out.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from raylr.analysis.figures import labels
from raylr.analysis.figures import study as figures
from raylr.analysis.figures.batch import over_batch
from raylr.analysis.units import format_count
from raylr.module_study import ModulesResult
from raylr.report.decay import decay_lines
from raylr.report.ending import ending
from raylr.report.failures import failures_of
from raylr.report.lines import Line
from raylr.report.modules_html import MODULES_FOOTER, modules_answer, modules_figures, modules_sections
from raylr.report.page import page, paragraph, picture, save, table
from raylr.report.scores import ScoreSection, score_sections
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
from raylr.store.files import storage_errors, write_atomic
from raylr.store.runtable import evaluations_table
from raylr.transfer_study import TransferResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from raylr.study import StudyResult

FOOTER = (
    "Made by raylr from the run table in {folder}; raylr report makes it again. Method: Zhou et al. 2026, “How to Set "
    "the Learning Rate for Large-Scale Pre-training?”. Learning rates are peak rates of a constant schedule after "
    "warmup; losses are validation losses in nats per token; intervals are 90 % intervals."
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
    folder = Path(out or result.directory)
    with storage_errors(folder / "figures", "make"):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    scores = score_sections(result.directory, evaluations_table(result.directory).read())
    if isinstance(result, ModulesResult):
        drawn = modules_figures(result)
    else:
        drawn = transfer_figures(result) if isinstance(result, TransferResult) else _figures(result)
    pictures = drawn | {name: figure for section in scores for name, figure in section.pictures.items()}
    images = {name: save(figure, folder / "figures" / name) for name, figure in pictures.items()}
    if isinstance(result, TransferResult):
        answer, sections, footer = transfer_answer(result), transfer_sections(result, images, scores), TRANSFER_FOOTER
    elif isinstance(result, ModulesResult):
        answer, sections, footer = modules_answer(result), modules_sections(result, images, scores), MODULES_FOOTER
    else:
        answer, sections, footer = _answer(result), _sections(result, images, scores), FOOTER
    text = page(
        name=result.spec.name, answer=answer, sections=sections, footer=footer.format(folder=result.directory.name)
    )
    path = folder / "report.html"
    write_atomic(path, text)
    return path


def _figures(result: StudyResult) -> dict[str, Figure]:
    """Return the figures that there is something to draw for, by name of the file."""
    fit, prediction, budget = result.fit, result.prediction, max(result.spec.token_budgets)
    # The curves are those of the stable loss, in a study with a decay those of its trunks.
    stable = replace(fit, optima=fit.stable) if fit.stable else fit
    largest = max(fit.optima, key=lambda optimum: optimum.params).size
    drawn = {
        "figure-1a-loss-curves": figures.loss_curves(fit, largest, budget),
        "figure-1b-loss-over-lr": figures.loss_over_lr(stable, budget),
        "figure-14-all-loss-curves": figures.all_loss_curves(fit, budget),
    }
    shown = prediction if prediction and known(prediction.lr) else None
    if known(fit.law.c):
        drawn["figure-2-law"] = figures.law(fit, shown)
        if fit.law.batch_unit is not None:
            drawn["figure-batch"] = over_batch(fit, shown)
    if result.check and shown and result.spec.target:
        drawn["check"] = figures.prediction_check(result.check, shown, result.spec.target.name)
    return drawn


def _answer(result: StudyResult) -> str:
    """Return the verdict, the LR in bold, and the other lines of the terminal's ending but loss and check."""
    lines = [line for line in ending(result) if not line.dim]
    found, rest = lines[0], lines[1:]
    out, heading = [f"<b>{html.escape(found.text)}</b>"], ""
    for line in rest:
        heading = line.heading or heading
        if heading not in ("LR", "2× off", "Next"):
            continue
        text = html.escape(line.text)
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


def _sections(result: StudyResult, images: Mapping[str, str], scores: Sequence[ScoreSection]) -> Iterable[str]:
    fit, cost = result.fit, result.cost
    numbered = labels.replaced(fit.surfaces)
    yield "<h2>The optima</h2>"
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
    yield from (paragraph(line) for line in decay_lines(result))
    yield _picture(
        images, "figure-1b-loss-over-lr",
        "Figure 1(b) of the paper for this study. Filled points were measured at the full budget, hollow ones "
        "predicted for shorter runs from all runs of the size; triangles are the optima, thick bars their 90 % "
        f"intervals.{' All are of the stable loss, from the trunks.' if fit.stable else ''}",
        numbered,
    )  # fmt: skip
    yield "<h2>The law</h2>"
    yield f"<p><code>{html.escape(law_text(fit.law))}</code></p>" + _law_intervals(result)
    yield _picture(
        images, "figure-2-law",
        "Figure 2 of the paper for this study: the optima with their intervals, the law (lines), and its prediction "
        "(star, band).",
        numbered,
    )  # fmt: skip
    yield from (paragraph(line) for line in batch_lines(fit.law))
    yield _picture(
        images, "figure-batch",
        "The optimal LR over the batch at each parameter count and token budget, with the law (lines) and its "
        "prediction at the target (star, band).",
        numbered,
    )  # fmt: skip
    yield from (paragraph(line) for line in loss_lines(result))
    lines = check_lines(result)
    if lines:
        yield "<h2>The check</h2>"
        yield from (paragraph(line) for line in lines)
        yield _picture(
            images, "check",
            "Left: training at the target. Right: its final losses; the dashed line is the predicted LR.",
            labels.replaced([result.spec.target.name] if result.spec.target else []),
        )  # fmt: skip
    for section in scores:
        yield f"<h2>The scores, by {html.escape(section.backend)}</h2>"
        yield from (paragraph(Line(remark)) for remark in section.remarks)
        yield table(section.head, section.rows)
        for name, caption in section.captions.items():
            yield _picture(images, name, caption, section.numbered)
    yield "<h2>The cost</h2>"
    shares = f"{cost.token_share:.0%} of tokens"
    shares += f", {cost.flop_share:.0%} of FLOPs" if math.isfinite(cost.flop_share) else ""
    yield table(
        ["", "tokens", "FLOPs", "of the full grid"],
        [
            ["search", format_count(cost.search_tokens), f"{cost.search_flops:.3g}", shares],
            ["full grid to the full budget", format_count(cost.grid_tokens),
             f"{cost.grid_flops:.3g}" if math.isfinite(cost.grid_flops) else "–", ""],
            ["check at the target", format_count(cost.check_tokens), f"{cost.check_flops:.3g}", ""],
        ],
    )  # fmt: skip
    yield (
        f'<p class="dim">The full grid: {result.spec.lr.grid} LRs at each of {_searched(result)}, all '
        f"trained to {format_count(max(result.spec.token_budgets))} tokens.</p>"
    )
    if result.spec.external:
        yield f'<p class="dim">{html.escape(FLOPS_NOTE)}.</p>'
    failures = failures_of(result.directory)
    if failures:
        yield "<h2>Runs that failed</h2>"
    for failure in failures:
        yield f'<p class="warn">{html.escape(failure.sentence)}</p>'
        yield f"<pre>{html.escape(failure.output)}</pre>" if failure.output else ""
    yield "<h2>The runs</h2>"
    yield _picture(
        images, "figure-14-all-loss-curves",
        "Figure 14 of the paper for this study: every run with its power law (Eq. 4). A dashed vertical line marks "
        "where a run was stopped; right of it the curve is a prediction with its 90 % interval.",
        numbered,
    )  # fmt: skip
    caption = "Figure 1(a) of the paper for this study: the largest training size."
    yield _picture(images, "figure-1a-loss-curves", caption, numbered)


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


def _picture(images: Mapping[str, str], name: str, caption: str, numbered: Mapping[str, str]) -> str:
    """Return a figure with its caption, which also explains the numbers that stand for names (`labels.replaced`)."""
    if name not in images:
        return ""
    if numbered:
        names = ", ".join(f"{label} is {name}" for label, name in numbered.items())
        caption += f" This machine has no font for some names, so that the figure shows numbers: {names}."
    return picture(images[name], caption)
