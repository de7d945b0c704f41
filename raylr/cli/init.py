"""`raylr init`: a spec to start from."""

from __future__ import annotations

from pathlib import Path

from raylr.cli.console import make_console, say
from raylr.errors import InputError


def init(path: Path = Path("study.yaml")) -> None:
    """Write the quickstart's spec, commented, as a start for your own.

    Parameters
    ----------
    path
        The file to write; it must not exist yet.
    """
    from raylr.quickstart import QUICKSTART_YAML
    from raylr.store.files import storage_errors

    with storage_errors(path):
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(QUICKSTART_YAML)
        except FileExistsError:
            raise InputError(f"{path} exists already; name another file") from None
    say(make_console(), f"Wrote {path}; edit it, then run `raylr search {path}`.")
