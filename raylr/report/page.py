"""The parts of a report: one HTML file that needs nothing else; every text is escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from raylr.report.lines import Line
from raylr.store.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 160
CSS_DPI = 110
"""Pixels of the page per inch of a figure."""


def page(*, name: str, answer: str, sections: Iterable[str], footer: str) -> str:
    """Return a page: `answer` and `sections` are HTML, `name` and `footer` plain text."""
    template = Template(resources.files("raylr.report").joinpath("template.html").read_text(encoding="utf-8"))
    return template.substitute(
        name=html.escape(name), answer=answer, sections="\n".join(sections), footer=html.escape(footer)
    )


def paragraph(line: Line, style: str = "") -> str:
    """Return a line of the terminal's ending as a paragraph."""
    heading = f"{line.heading}: " if line.heading and line.heading != "Check" else ""
    kind = f' class="{style}"' if style else ""
    return f"<p{kind}>{html.escape(heading + line.text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain texts."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def picture(image: str, caption: str) -> str:
    """Return a figure, as `save` returned it, with its caption."""
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def save(figure: Figure, path: Path) -> str:
    """Write a figure as PNG and SVG; return it as an HTML image that needs no file."""
    drawn = {}
    for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": PNG_DPI})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, **options)
        drawn[kind] = buffer.getvalue()
        write_atomic(path.with_name(f"{path.name}.{kind}"), drawn[kind])
    data = base64.b64encode(drawn["png"]).decode()
    width = f"{figure.get_figwidth() * CSS_DPI:.0f}"
    return f'<img alt="{html.escape(path.name)}" width="{width}" src="data:image/png;base64,{data}">'
