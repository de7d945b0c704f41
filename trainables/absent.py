"""Packages that count as not installed while others are imported, which load them for nothing that is used here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """Let `import` fail for these packages within the block, but for those that were imported before.

    It is so for all threads of the process: only for imports at the beginning of a program.
    """
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # None hides a module
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
