"""The page of coordinate checks, and each check's verdict in a sentence."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raylr.analysis.figures.coordinates import figures
from raylr.report.lines import Line
from raylr.report.page import Figures, page, paragraph, table
from raylr.store.files import write_atomic

if TYPE_CHECKING:
    from raylr.analysis.coordinates import CoordinateCheck, Judged

PAGE = "coord-check.html"
FOOTER = (
    "Made by raylr coord-check, after Figures 8 and 9 of Zhou et al. 2026: slopes of ln std over ln of the scale, with "
    "half of their 90 % intervals."
)


def write_page(folder: Path, checks: Sequence[CoordinateCheck], note: str) -> list[Path]:
    """Write the page of some checks, and its figures as PNG and SVG.

    Args:
        folder: The folder of the check.
        checks: What was found.
        note: What such checks cannot see, a sentence without a full stop.

    Returns:
        The files written, the page first.

    Raises:
        StorageError: If they cannot be written.
    """
    drawn = Figures(figures(checks), folder / "figures")
    name = ", ".join(dict.fromkeys(check.axis for check in checks))
    answer = "<br>".join(f"<b>{html.escape(sentence(check))}</b>" for check in checks)
    text = page(
        name=f"over {name}", heading="Does it transfer?", answer=f'<div class="answer">{answer}</div>',
        sections=_sections(checks, drawn, note), footer=FOOTER,
    )  # fmt: skip
    write_atomic(folder / PAGE, text)
    names = [f"{one}.{kind}" for one in figures(checks) for kind in ("png", "svg")]
    return [folder / PAGE, *(folder / "figures" / one for one in names)]


def _sections(checks: Sequence[CoordinateCheck], drawn: Figures, note: str) -> Iterable[str]:
    for axis in dict.fromkeys(check.axis for check in checks):
        yield f"<h2>Over {axis}</h2>"
        yield drawn.lead(f"slopes_{axis}")
        mine = [check for check in checks if check.axis == axis]
        wrong = [(check, row) for check in mine for row in check.deviating()]
        if wrong:
            yield table(
                ["under", "activation", "slope", "expected", ""],
                [[check.variant, _of(row), _slope(row), str(row.expected), row.verdict.value] for check, row in wrong],
            )
        yield drawn(f"slopes_{axis}", said=True)
        yield drawn(f"changes_{axis}")
        yield drawn(f"raw_{axis}")
    yield paragraph(Line(f"Not seen: {note}."), "dim")


def sentence(check: CoordinateCheck) -> str:
    """Return the verdict of a check in one sentence."""
    worst, unsure = check.worst, len(check.undecided())
    what = f"{check.variant} over {check.axis}"
    rest = f"; {unsure} cannot tell" if unsure else ""
    if worst is None:
        return f"{what}: {check.verdict}, {len(check.rows) - unsure} of {len(check.rows)} slopes are{rest}."
    names = dict.fromkeys(_of(row) for row in check.deviating())
    return (
        f"{what}: {worst.verdict}. {len(check.deviating())} of {len(check.rows)} slopes are not as expected{rest}; "
        f"most: {_of(worst)} {_slope(worst)} (expected {worst.expected})"
        + (f"; also {', '.join(list(names)[1:3])}" if len(names) > 1 else "")
        + "."
    )


def _of(row: Judged) -> str:
    return f"{row.name}, {'x_0' if row.step == 0 else f'x_{row.step} − x_0'}"


def _slope(row: Judged) -> str:
    if row.found.problem:
        return f"({row.found.problem})"
    return f"{row.found.slope:+.2f} ± {(row.found.high - row.found.low) / 2:.2f}"
