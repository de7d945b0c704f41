"""Lines of text on a console: headings in a column of their own, long lines broken between words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from raylr.remote.copies import copy_of, with_addresses

if TYPE_CHECKING:
    from rich.console import Console

HEADING = 12
"""Columns of the headings."""
LEAST_WIDTH = 20
"""Columns of text on the narrowest terminal."""


class Line(NamedTuple):
    """One line of a command's output."""

    text: str
    heading: str = ""
    """The word in front of the first line of a paragraph."""
    dim: bool = False


def broken(text: str, console: Console, indent: int) -> list[str]:
    """Return a text in lines that fit a console behind an indent: one line in a file, whose reader may be of any width.

    Args:
        text: One paragraph.
        console: A console of `raylr.cli.console.make_console`.
        indent: Columns in front of every line.
    """
    if not getattr(console, "breaks_lines", console.is_terminal):
        return [text]
    room = max(console.width - indent, LEAST_WIDTH)
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def show_lines(lines: Sequence[Line], console: Console) -> None:
    """Print lines, with their headings in a column of 12, broken between words where the width is known."""
    from rich.text import Text

    for line in lines:
        for i, part in enumerate(broken(line.text, console, HEADING)):
            heading = line.heading if i == 0 else ""
            text = Text.assemble((f"{heading:<{HEADING}}", "bold"), part, style="dim" if line.dim else "")
            console.print(text, soft_wrap=True, highlight=False)


def show_again(text: str, console: Console) -> None:
    """Print what `show_lines` printed to a file, for a console that may be narrower."""
    for line in text.splitlines():
        head, rest = line[:HEADING], line[HEADING:]
        parts = [line] if len(line) <= console.width else broken(rest, console, HEADING)
        for i, part in enumerate(parts):
            shown = part if len(parts) == 1 and part is line else f"{head if i == 0 else '':<{HEADING}}{part}"
            console.print(shown, markup=False, highlight=False, soft_wrap=True)


def shown_path(path: Path) -> str:
    """Return a path as a person would write it: its address, or from the working directory where it lies below it."""
    if copy_of(path) is not None:
        return with_addresses(str(path))
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
