"""`raylr init`: a spec to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from raylr.cli.console import make_console, say
from raylr.errors import InputError

Kind = Literal["quickstart", "transfer", "moe", "dense", "own-trainer", "import"]


def init(path: Path | None = None, *, kind: Annotated[Kind, Parameter(name="--for")] = "quickstart") -> None:
    """Write a spec to start from; or, for runs that are finished, a table to fill in.

    Parameters
    ----------
    path
        The file to write; it must not exist yet. By default study.yaml, for import runs.csv.
    kind
        quickstart and transfer (short, commented), moe (a mixture of experts), dense (a dense model), own-trainer (a
        command line): with every key in a comment. import: a table of finished runs.
    """
    from raylr.store.files import storage_errors

    path = path or Path("runs.csv" if kind == "import" else "study.yaml")
    with storage_errors(path):
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(_text(kind))
        except FileExistsError:
            raise InputError(f"{path} exists already; name another file") from None
    then = f"`raylr fit {path}`" if kind == "import" else f"`raylr search {path}`"
    say(make_console(), f"Wrote {path}; edit it, then run {then}.")


def _text(kind: Kind) -> str:
    from raylr.cli.spec_template import RUNS, spec_template
    from raylr.quickstart import EXAMPLES

    if kind == "import":
        return RUNS
    return EXAMPLES[kind] if kind in EXAMPLES else spec_template(kind)
