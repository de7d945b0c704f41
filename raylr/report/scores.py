"""The scores in a report: a section for each backend that scored checkpoints of the study."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from raylr.analysis.figures import scores as score_figures
from raylr.analysis.scores.scores import Scores, summarise_all
from raylr.analysis.scores.suites import SUITES
from raylr.analysis.scores.table import at_chance, calibrated, fit_scores, join_scores, labels_of
from raylr.analysis.units import format_count
from raylr.evaluation.tables import EVALS, QuestionTable, failures
from raylr.report.lines import Line
from raylr.report.page import PageFigures, paragraph, table

if TYPE_CHECKING:
    from raylr.analysis.figures.description import Figure


@dataclass(frozen=True, kw_only=True)
class ScoreSection:
    """The scores of one backend, ready to be written into a page."""

    backend: str
    remarks: list[str]
    head: list[str]
    rows: list[list[str]]
    figures: dict[str, Figure]
    """Name of the file -> figure."""


def score_html(sections: Iterable[ScoreSection], figures: PageFigures) -> Iterable[str]:
    """Yield the sections of a page: the figure along training, remarks, the table, the scores over the loss."""
    for section in sections:
        names = list(section.figures)
        yield f"<h2>The scores, by {html.escape(section.backend)}</h2>"
        yield figures.lead(names[0])
        yield from (paragraph(Line(remark)) for remark in section.remarks)
        yield table(section.head, section.rows)
        yield from (figures(name, said=name == names[0]) for name in names)


def score_sections(study: Path, evaluations: pa.Table) -> list[ScoreSection]:
    """Return a section for each backend that scored checkpoints of a study; none if there are no scores.

    Args:
        study: The study's folder.
        evaluations: Its run table.

    Raises:
        DataError: If the table of scored questions contradicts itself.
    """
    if not (study / EVALS).is_dir():
        return []
    questions = calibrated(QuestionTable(study).read())
    found: dict[str, list[Scores]] = {}
    for scores in summarise_all(questions) if questions.num_rows else ():
        if scores.tokens is not None:
            found.setdefault(scores.backend, []).append(scores)
    failed = [f"No score of {name}: {reason}" for name, reason in failures(study).items()]
    return [_section(backend, scores, questions, evaluations, failed) for backend, scores in found.items()]


def _section(
    backend: str, scores: list[Scores], questions: pa.Table, evaluations: pa.Table, failed: list[str]
) -> ScoreSection:
    suites = [suite for suite in SUITES if any(row.suite == suite for one in scores for row in one.rows)]
    losses = {
        (row["trial"], row["tokens"]): row["loss"]
        for row in evaluations.select(["trial", "tokens", "loss"]).to_pylist()
    }
    labels = labels_of(evaluations)
    remarks = [
        f"{SUITES[suite].title}: accuracy is at chance in every evaluation and cannot rank runs. The log-probability "
        "of the right answer moves earlier."
        for suite, chance in at_chance(scores).items()
        if chance
    ]
    figure = score_figures.scores_over_tokens(scores, labels=labels)
    note = (
        " Log-probabilities are corrected for the answer bias of the model (`raylr.analysis.scores.table.calibrated`)."
    )
    figures = {f"scores-{backend}": replace(figure, caption=figure.caption + note)}
    clash = _several(scores)
    joined = None if clash else join_scores(evaluations, questions, backend=backend)
    if clash:
        remarks.append(f"{clash} was evaluated with several settings; the figures show all of them.")
    for suite in suites if joined is not None else ():
        fit = fit_scores(joined, suite)
        remarks.append(f"{SUITES[suite].title} over the loss: {fit.message}.")
        if fit.has_line:
            figures[f"scores-{backend}-{suite}-over-loss"] = score_figures.score_over_loss(
                joined, suite, fit, labels=labels
            )
    return ScoreSection(
        backend=backend,
        remarks=[*remarks, *failed],
        head=["run", "tokens", "phase", "loss", *(text for suite in suites for text in _titles(suite))],
        rows=[
            [
                labels.get(one.run, one.run),
                format_count(one.tokens or 0),
                one.phase or "",
                _number(losses.get((one.run, one.tokens))),
                *(text for suite in suites for text in _cells(one, suite)),
            ]
            for one in scores
        ],
        figures=figures,
    )


def _several(scores: list[Scores]) -> str:
    """Return the first checkpoint with more than one evaluation as text; "" if there is none."""
    seen: set[tuple[str, int | None]] = set()
    for one in scores:
        if (one.run, one.tokens) in seen:
            return f"{one.run} at {format_count(one.tokens or 0)} tokens"
        seen.add((one.run, one.tokens))
    return ""


def _titles(suite: str) -> list[str]:
    title = SUITES[suite].title
    return [f"{title}, %", "questions", "log-probability", ""]


def _cells(scores: Scores, suite: str) -> list[str]:
    if not any(row.suite == suite for row in scores.rows):
        return [""] * 4
    row = scores.row(suite)
    return [
        f"{100 * row.accuracy:.1f} ± {100 * row.accuracy_stderr:.1f}",
        format_count(row.questions),
        "" if math.isnan(row.log_prob) else f"{row.log_prob:.4f} ± {row.log_prob_stderr:.4f}",
        row.verdict,
    ]


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4f}"
