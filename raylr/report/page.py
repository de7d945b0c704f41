"""The parts of a report: one HTML file that needs nothing else; every text is escaped."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from raylr.analysis.figures.interactive import describe
from raylr.analysis.figures.labels import replaced
from raylr.analysis.figures.placing import edge_note
from raylr.analysis.figures.static import render
from raylr.report.lines import Line
from raylr.store.files import storage_errors, write_atomic

if TYPE_CHECKING:
    from raylr.analysis.figures.description import Figure

CSS_DPI = 100
"""Pixels of the page per inch of a figure."""
MOST_BYTES = 3_000_000
"""A report is at most this large."""
_NEWLINE = "\n"
_PLAIN = ' "/;=,!()*+$@?[]|{}'
"""What an address in single quotes may hold as it is."""
STATEMENT = "<!--statement-->"
_CODE = re.compile("`([^`]+)`")
_WORDS = 40
"""Characters of a cell of a table from which on it is broken into lines."""
_DECIMALS = re.compile(r"(\.\d{2})\d+")
_GEOMETRY = re.compile(r'(?<=[ \n])(?:d|x|y|transform|points)="[^"]*"')


def page(*, name: str, answer: str, sections: Iterable[str], footer: str, heading: str = "Which learning rate?") -> str:
    """Return a page.

    Args:
        name: Name of the study, plain text.
        answer: The first part, HTML.
        sections: The others, HTML.
        footer: Plain text.
        heading: Plain text.
    """
    template = Template(resource("template.html"))
    body = "\n".join(sections)
    return template.substitute(
        name=html.escape(name),
        heading=html.escape(heading),
        answer=answer,
        sections=body,
        footer=html.escape(footer),
        style=resource("page.css"),
        library=library() if 'class="data"' in body else "",
    )


def paragraph(line: Line, style: str = "") -> str:
    """Return a line of the terminal's ending as a paragraph."""
    heading = f"{line.heading}: " if line.heading and line.heading != "Check" else ""
    kind = f' class="{style}"' if style else ""
    return f"<p{kind}>{inline(heading + line.text)}</p>"


def inline(text: str) -> str:
    """Return a text as HTML; text between backticks is shown as code."""
    return _CODE.sub(r"<code>\1</code>", html.escape(text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain texts, in a box that scrolls where the screen is narrower."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def _cell(text: str) -> str:
    kind = ' class="long"' if len(text) > _WORDS else ""
    return f"<td{kind}>{html.escape(text)}</td>"


class PageFigures(ABC):
    """The figures of a page, as the sections of a report ask for them: by name, where they belong.

    Args:
        figures: Name of the file → figure.
    """

    def __init__(self, figures: Mapping[str, Figure]) -> None:
        self._figures = dict(figures)
        self._html = {name: self._drawn(name, figure) for name, figure in figures.items()}

    def __call__(self, name: str, *, said: bool = False) -> str:
        """Return the HTML of a figure; "" if there is no figure of that name.

        Args:
            name: Name of its file.
            said: Whether its statement is shown elsewhere, as the first sentence of a section.
        """
        if name not in self._figures:
            return ""
        statement = "" if said else f'<p class="says">{html.escape(self._figures[name].statement)}</p>'
        return self._html[name].replace(STATEMENT, statement, 1)

    def lead(self, name: str) -> str:
        """Return the statement of a figure as the first sentence of a section; "" for an unknown name."""
        return lead(self._figures[name].statement) if name in self._figures else ""

    @abstractmethod
    def _drawn(self, name: str, figure: Figure) -> str:
        """Return the HTML of a figure, with `STATEMENT` in place of its statement."""


class Figures(PageFigures):
    """Figures of a report: written to a folder as SVG and PNG, and given to the page in both forms.

    Args:
        figures: Name of the file → figure.
        folder: Folder of the files; made if it is not there.

    Raises:
        StorageError: If the folder cannot be written.
    """

    def __init__(self, figures: Mapping[str, Figure], folder: Path) -> None:
        with storage_errors(folder, "make"):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        super().__init__(figures)

    def _drawn(self, name: str, figure: Figure) -> str:
        return _figure(name, figure, self._folder)


class DescribedFigures(PageFigures):
    """Figures of a page that is served: the page asks for their descriptions, nothing is written.

    `data` has the descriptions for plotly by the ids of the figures.

    Args:
        figures: Name → figure.
    """

    def __init__(self, figures: Mapping[str, Figure]) -> None:
        self.data: dict[str, Any] = {}
        super().__init__(figures)

    def _drawn(self, name: str, figure: Figure) -> str:
        self.data[figure_id(name)] = describe(figure)
        return (
            f'<figure id="{figure_id(name)}">{STATEMENT}<div class="live"></div>'
            f"<figcaption>{html.escape(figure.caption + edge_note(figure.panels))}</figcaption></figure>"
        )


def figure_id(name: str) -> str:
    """Return the id that a figure has on a page."""
    return re.sub("[^A-Za-z0-9-]+", "-", name)


def lead(sentence: str) -> str:
    """Return the first sentence of a section: what the data show."""
    return f'<p class="lead">{inline(sentence)}</p>'


def _figure(name: str, figure: Figure, folder: Path) -> str:
    svg, width = _files(figure, folder / name)
    data = json.dumps(describe(figure), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    image = f"data:image/svg+xml,{quote(svg.replace(_NEWLINE, ' '), safe=_PLAIN)}"
    numbered = replaced(figure.names)
    note = ""
    if numbered:
        names = ", ".join(f"{label} is {name}" for label, name in numbered.items())
        text = f" This machine has no font for some names, so that the figure shows numbers: {names}."
        note = f'<span class="static-note">{html.escape(text)}</span>'
    alt = html.escape(f"{figure.title}. {figure.statement}")
    return (
        f'<figure id="{figure_id(name)}">'
        f'{STATEMENT}<div class="static scroll"><img alt="{alt}" width="{width}" src=\'{image}\'></div>'
        f'<div class="live"></div>'
        f"<figcaption>{html.escape(figure.caption + edge_note(figure.panels))}{note}</figcaption>"
        f'<script type="text/plain" class="data">{_packed(data)}</script></figure>'
    )


def _files(figure: Figure, path: Path) -> tuple[str, int]:
    """Write a figure as SVG and PNG; return the SVG and its width on a page, in pixels."""
    found = render(figure)
    write_atomic(path.with_name(f"{path.name}.png"), found.png)
    svg = _GEOMETRY.sub(lambda part: _DECIMALS.sub(r"\1", part[0]), found.svg)
    write_atomic(path.with_name(f"{path.name}.svg"), svg)
    return svg, round(found.width * CSS_DPI)


@cache
def library() -> str:
    """Return plotly.js, compressed, with its licence and the script that draws the figures of a page with it."""
    code = plotly()
    licence = next(
        (file.read_text() for file in metadata.files("plotly") or () if file.name.startswith("LICENSE")),
        "plotly.js, Copyright Plotly, Inc., MIT licence",
    )
    comment = html.escape(licence).replace("--", "- -")
    return (
        f"<!-- The figures are drawn by plotly.js, compressed below.\n{comment}\n-->\n"
        f'<script type="text/plain" id="library">{_packed(code)}</script>\n'
        f"<script>\n{resource('figures.js')}</script>"
    )


def plotly() -> str:
    """Return the code of plotly.js."""
    return resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def resource(name: str) -> str:
    """Return a file of this package: a template, a style or a script."""
    return resources.files("raylr.report").joinpath(name).read_text(encoding="utf-8")
