"""The report: one HTML file that needs nothing else, and its figures beside it as PNG and SVG."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from raylr.analysis.figures import study as figures
from raylr.analysis.units import format_count, format_lr
from raylr.report.scores import ScoreSection, score_sections
from raylr.report.text import check_lines, interval, law_text
from raylr.store.runtable import evaluations_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from raylr.study import StudyResult

_PNG_DPI = 160
_CSS_DPI = 110
"""Pixels of the page per inch of a figure."""


def write_report(result: StudyResult) -> Path:
    """Write report.html and figures/ into the study's folder; return the report's path."""
    folder = result.directory / "figures"
    folder.mkdir(exist_ok=True)
    budget = max(result.spec.token_budgets)
    largest = max(result.fit.optima, key=lambda cell: cell.params).size
    pictures = {
        "figure-1a-loss-curves": figures.loss_curves(result.fit, largest, budget),
        "figure-1b-loss-over-lr": figures.loss_over_lr(result.fit, budget),
        "figure-2-law": figures.law(result.fit, result.prediction) if result.fit.law.c > 0 else None,
        "figure-14-all-loss-curves": figures.all_loss_curves(result.fit, budget),
        "check": (
            figures.prediction_check(result.check, result.prediction, result.spec.target.name)
            if result.check and result.prediction and result.spec.target
            else None
        ),
    }
    scores = score_sections(result.directory, evaluations_table(result.directory).read())
    pictures |= {name: figure for section in scores for name, figure in section.pictures.items()}
    images = {name: _save(figure, folder / name) for name, figure in pictures.items() if figure is not None}
    template = Template(resources.files("raylr.report").joinpath("template.html").read_text())
    page = template.substitute(
        name=html.escape(result.spec.name),
        folder=html.escape(result.directory.name),
        answer=_answer(result),
        sections="\n".join(_sections(result, images, scores)),
    )
    path = result.directory / "report.html"
    temporary = path.with_name(".report.html.tmp")
    temporary.write_text(page)
    temporary.replace(path)
    return path


def _answer(result: StudyResult) -> str:
    prediction = result.prediction
    if prediction is None or not prediction.lr > 0:
        why = result.fit.law.message if prediction is not None else "The spec names no target; see the law below."
        return f'<div class="answer">{html.escape(why)}</div>'
    place = f"{format_count(prediction.params)} parameters and {format_count(prediction.tokens)} tokens"
    return (
        f'<div class="answer">At {place}: <b>LR {format_lr(prediction.lr)}</b><br>'
        f"{prediction.level:.0%} interval {interval(prediction.lr_low, prediction.lr_high)}, optimum of the "
        f"{html.escape(str(result.fit.law.conditions.objective))} loss.<br>"
        f'<span class="dim">{html.escape(prediction.message)}</span></div>'
    )


def _sections(result: StudyResult, images: dict[str, str], scores: Sequence[ScoreSection]) -> Iterable[str]:
    fit, cost = result.fit, result.cost
    yield "<h2>The optima</h2>"
    yield _table(
        ["size", "parameters", "tokens", "optimal LR", "90 % interval", "loss", "LRs tried", "longest run", ""],
        [
            [cell.size, format_count(cell.params), format_count(cell.tokens), format_lr(cell.lr_opt),
             interval(cell.lr_low, cell.lr_high), f"{cell.loss:.4f} ± {cell.loss_stderr:.4f}", str(cell.lrs),
             format_count(cell.measured_tokens), "" if cell.status == "ok" else cell.message]
            for cell in fit.optima
        ],
    )  # fmt: skip
    yield _picture(
        images, "figure-1b-loss-over-lr",
        "Figure 1(b) of the paper for this study. Filled points were measured at the full budget, hollow ones "
        "extrapolated from shorter runs by Eq. 4; triangles are the optima, thick bars their 90 % intervals.",
    )  # fmt: skip
    yield "<h2>The law</h2>"
    yield f"<p><code>{html.escape(law_text(fit.law))}</code></p>" + _law_intervals(result)
    yield _picture(
        images, "figure-2-law",
        "Figure 2 of the paper for this study: the optima with their intervals, the law (lines), and its prediction "
        "(star, band).",
    )  # fmt: skip
    if result.check is not None:
        yield "<h2>The check</h2>"
        yield "".join(f"<p>{html.escape(_plain(line))}</p>" for line in check_lines(result))
        yield _picture(
            images,
            "check",
            "Left: training at the target. Right: its final losses; the dashed line is the predicted LR.",
        )
    for section in scores:
        yield f"<h2>The scores, by {html.escape(section.backend)}</h2>"
        yield "".join(f"<p>{html.escape(remark)}</p>" for remark in section.remarks)
        yield _table(section.head, section.rows)
        yield from (_picture(images, name, caption) for name, caption in section.captions.items())
    yield "<h2>The cost</h2>"
    yield _table(
        ["", "tokens", "FLOPs", "of the full grid"],
        [
            ["search", format_count(cost.search_tokens), f"{cost.search_flops:.3g}",
             f"{cost.token_share:.0%} of tokens, {cost.flop_share:.0%} of FLOPs"],
            ["full grid to the full budget", format_count(cost.grid_tokens), f"{cost.grid_flops:.3g}", ""],
            ["check at the target", format_count(cost.check_tokens), f"{cost.check_flops:.3g}", ""],
        ],
    )  # fmt: skip
    yield (
        f'<p class="dim">The full grid: {result.spec.lr.grid} LRs at each of {len(result.spec.sizes)} sizes, all '
        f"trained to {format_count(max(result.spec.token_budgets))} tokens.</p>"
    )
    yield "<h2>The runs</h2>"
    caption = (
        "Figure 14 of the paper for this study: every run with its power law (Eq. 4). A dashed vertical line marks "
        "where a run was stopped; right of it the curve is a prediction with its 90 % interval."
    )
    yield _picture(images, "figure-14-all-loss-curves", caption)
    yield _picture(
        images, "figure-1a-loss-curves", "Figure 1(a) of the paper for this study: the largest training size."
    )


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
    return f"{message}<p>{', '.join(parts)}; {law.cells} cells, R² {law.r2:.3f}, RMSE {law.rmse:.3f} in ln LR.</p>"


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _picture(images: dict[str, str], name: str, caption: str) -> str:
    if name not in images:
        return ""
    return f"<figure>{images[name]}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _plain(line: str) -> str:
    return " ".join(line.replace("[bold]", "").replace("[/]", ":", 1).split())


def _save(figure: Figure, path: Path) -> str:
    """Write a figure as PNG and SVG; return it as an HTML image that needs no file."""
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_PNG_DPI)
    path.with_suffix(".png").write_bytes(buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{path.name}" width="{figure.get_figwidth() * _CSS_DPI:.0f}" src="data:image/png;base64,{data}">'
