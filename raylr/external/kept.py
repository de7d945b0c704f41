"""What a function of a user may change in its process, and the next run in the same process must not find changed."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def process_kept() -> Iterator[None]:
    """Call a function of a user in the block, and put back afterwards what it may have changed of its process.

    Ray Tune runs one trial after the other in a process, and fails a trial that it cannot begin there: where the
    current folder is gone, for example. Put back are the current folder, the environment, the path of imports, the
    limit of recursion, and streams that were closed.
    """
    try:
        folder = Path.cwd()
    except OSError:
        folder = Path(tempfile.gettempdir())
    variables, path, depth = dict(os.environ), list(sys.path), sys.getrecursionlimit()
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    try:
        yield
    finally:
        sys.setrecursionlimit(depth)
        sys.path[:] = path
        for name in os.environ.keys() - variables.keys():
            os.environ.pop(name, None)
        for name, value in variables.items():  # one by one: other threads read it meanwhile
            if os.environ.get(name) != value:
                os.environ[name] = value
        _go_to(folder)
        for name, stream in streams.items():
            closed = stream is None or getattr(stream, "closed", False)
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8") if closed else stream)  # noqa: SIM115
        for number in (1, 2):
            with suppress(OSError):
                _keep_open(number)


def _go_to(folder: Path) -> None:
    for place in (folder, Path(tempfile.gettempdir()), Path("/")):
        with suppress(OSError):
            os.chdir(place)
            return


def _keep_open(number: int) -> None:
    """Let a closed descriptor of a stream lead nowhere: else the next file that is opened gets what is printed."""
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
