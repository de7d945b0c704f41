"""What probes measured inside a study's runs (`train.probes`), as sections of its report."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raylr.analyses import MeasuredRuns, measured_of
from raylr.analysis.figures import probes as drawings
from raylr.analysis.figures.curves import spread
from raylr.analysis.probes import columns_of, summaries
from raylr.analysis.qk_norm import of_runs
from raylr.analysis.stability import Movement, movements, of_rows
from raylr.report.lines import Line
from raylr.report.page import PageFigures, lead, paragraph

if TYPE_CHECKING:
    from raylr.analysis.figures.description import Figure
    from raylr.spec import StudySpec

MOST_DRAWN = 8
"""Runs that are drawn, a panel each, spread evenly over sizes and LRs."""
STABILITY = "stability"


@dataclass(frozen=True, kw_only=True)
class ProbeSection:
    """What probes measured, ready to be written into a page."""

    figures: dict[str, Figure] = field(default_factory=dict)
    """Name of the file → figure."""
    measured: int = 0
    """Runs with a probe's number."""
    lines: list[str] = field(default_factory=list)
    """A sentence for each run that is drawn, and for each pair with and without QK norm."""
    movement: list[str] = field(default_factory=list)
    """Whether activations move with data or with size, a sentence for each kind of run."""


def probe_section(spec: StudySpec, table: pa.Table, where: str) -> ProbeSection:
    """Return what the probes of a study measured; an empty section if it has none.

    Args:
        spec: The study's spec.
        table: Its run table.
        where: Its folder, for messages.
    """
    if not columns_of(table.column_names):
        return ProbeSection()
    read = measured_of(spec, table.to_pylist(), where)
    runs = {trial: rows for trial, rows in read.runs().items() if any(map(_has_number, rows))}
    if not runs:
        return ProbeSection()
    order = sorted(runs, key=lambda trial: (float(runs[trial][0]["params"] or 0), float(runs[trial][0]["lr"])))
    drawn = {trial: runs[trial] for trial in spread(order, MOST_DRAWN)}
    left = f" {len(drawn)} of {len(runs)} runs are drawn, spread evenly over sizes and LRs."
    left = left if len(drawn) < len(runs) else ""
    figures = {
        f"probes-{name.replace('_', '-')}": replace(
            figure, caption=figure.caption + (left if len(drawn) < len(runs) else "")
        )
        for name, figure in drawings.figures(drawn).items()
    }
    movement = _movement(read)
    return ProbeSection(
        figures=figures | ({STABILITY: drawings.movement(movement)} if movement else {}),
        measured=len(runs),
        lines=[*summaries(drawn), *(one.sentence for one in of_runs(runs))],
        movement=[
            f"{kind[0].upper()}{kind[1:]}: {movement_text(movements(moved), 'tokens', 'parameters')}"
            for kind, moved in movement.items()
        ],
    )


def probe_html(section: ProbeSection, figures: PageFigures) -> Iterable[str]:
    """Yield the sections of a page; nothing if no probe measured anything."""
    if not section.measured:
        return
    yield "<h2>Inside the runs</h2>"
    yield lead(f"Runs that were measured by probes: {section.measured}.")
    yield from (paragraph(Line(text)) for text in section.lines)
    yield from (figures(name) for name in section.figures if name != STABILITY)
    if section.movement:
        yield "<h2>How activations move</h2>"
        yield figures.lead(STABILITY)
        yield from (f"<p>{html.escape(text)}</p>" for text in section.movement)
        yield figures(STABILITY, said=True)


def _movement(read: MeasuredRuns) -> dict[str, list[Any]]:
    found = {kind: of_rows(rows) for kind, rows in read.kinds().items()}
    return {kind: moved for kind, moved in found.items() if moved}


def _has_number(row: dict[str, Any]) -> bool:
    return any(row[name] is not None for name in columns_of(row))


def movement_text(found: Sequence[Movement], data: str, size: str) -> str:
    """Return what the exponents of activations say together, a sentence.

    Args:
        found: An exponent of data and of size for each activation.
        data: The word for data, such as "tokens".
        size: The word for size, such as "parameters".
    """
    verdicts = {verdict: [one.name for one in found if one.verdict == verdict] for verdict in ("data", "size")}
    unsure = len(found) - sum(map(len, verdicts.values()))
    parts = [
        f"{len(names)} of {len(found)} activations move faster with {what} than with {other} ({', '.join(names[:4])})"
        for (verdict, what, other) in (("data", data, size), ("size", size, data))
        if (names := verdicts[verdict])
    ]
    if unsure:
        parts.append(f"{unsure} of {len(found)} cannot be decided")
    return "; ".join(parts) + "."
