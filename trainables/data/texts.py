"""Text that every machine has: the sources of Python's standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from raylr.errors import DataError

SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})


def python_stdlib_sources() -> list[Path]:
    """Return the .py files of the running Python's standard library: real text (12 MB) that every machine has.

    Test suites are left out: many distributions do not install them, and the corpus should differ little between
    machines.

    Returns:
        The files, sorted.

    Raises:
        DataError: If the library is not installed as files.

    Example:
        >>> any(file.name == "textwrap.py" for file in python_stdlib_sources())
        True
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    found = sorted(p for p in root.rglob("*.py") if not SKIPPED_FOLDERS & set(p.relative_to(root).parts))
    if not found:
        raise DataError(
            f"no .py files under {root}: this Python keeps its library elsewhere; give text files of your own"
        )
    return found
