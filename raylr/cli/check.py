"""`raylr check`: whether a study's folder is whole."""

from __future__ import annotations

from typing import Annotated

from raylr.cli.console import make_console, say
from raylr.cli.places import Use
from raylr.errors import EXIT_FAILURE
from raylr.remote.copies import with_addresses


def check(study: Annotated[str, Use.READ], *, set_aside: bool = False) -> None:
    """Check whether a study is whole: its files, and every evaluation of every run that has ended.

    Prints a verdict and a table. Exit status 0 if everything is whole, 1 if not. Nothing is written.

    Parameters
    ----------
    study
        A study's folder, or its address.
    set_aside
        Move damaged files of the run table to STUDY/damaged first, so that `raylr search` measures again what they
        held.
    """
    from rich.table import Table

    from raylr.store.check import check_study
    from raylr.store.check import set_aside as move

    console = make_console()
    for path in move(study) if set_aside else ():
        say(console, f"Moved to {path}")
    found = check_study(study)
    say(console, found.verdict)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("part", "whole", "what was found"):
        table.add_column(name, overflow="fold")
    for part in found.parts:
        table.add_row(part.name, "yes" if part.whole else "no", with_addresses(part.message))
    console.print(table)
    if not found.whole:
        raise SystemExit(EXIT_FAILURE)
