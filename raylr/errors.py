"""The one exception that a user's mistake becomes: a sentence saying what was wrong, where, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_BAD_INPUT = 2
"""Exit status of the command line for bad input, as of getopt and most Unix tools."""


class InputError(ValueError):
    """Bad input, said in one sentence; the command line prints it and exits with `EXIT_BAD_INPUT`."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the known name closest to `name`, or the known names if none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
