"""Ctrl-C, and SIGTERM, which clusters send some time before they kill: the first ends a command as KeyboardInterrupt.

What follows within `GRACE_SECONDS` is that same wish: a terminal, a launcher and a user each send one. After that a
further signal ends the process at once. Python drops an exception that is raised in a destructor or in a callback of a
library; `check` raises it again.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

GRACE_SECONDS = 3.0
"""Time after the first signal in which further ones change nothing: Ray takes about as long to end its processes."""
_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_received: list[tuple[int, float]] = []


@contextmanager
def signals_end(*, for_good: bool = False) -> Iterator[None]:
    """End the block at SIGINT or SIGTERM. Handlers can be set in the main thread alone; elsewhere this does nothing.

    Args:
        for_good: Whether the process ends after the block: the handlers then stay until it has.

    Raises:
        KeyboardInterrupt: At the first of them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    before = {number: signal.signal(number, _handle) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if not for_good:
                signal.signal(number, handler)
            elif not _received:
                signal.signal(number, lambda number, frame: os._exit(128 + number))


def received() -> int | None:
    """Return the first signal that the last block of `signals_end` got; None: none."""
    return _received[0][0] if _received else None


def check() -> None:
    """Raise KeyboardInterrupt if the block was to end and did not: the exception was dropped."""
    if _received and signal.getsignal(signal.SIGINT) is _handle:
        raise KeyboardInterrupt


def end_process(status: int) -> NoReturn:
    """End this process after a signal. What is registered for its end is done; the rest of Python's own end is left
    out: libraries in C++ that were interrupted amid their work crash in it."""
    with suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _handle(number: int, frame: object) -> None:
    if not _received:
        _received.append((number, time.monotonic()))
        raise KeyboardInterrupt
    if time.monotonic() - _received[0][1] > GRACE_SECONDS:
        print("raylr: ended at once; what was measured is kept.", file=sys.stderr, flush=True)
        os._exit(128 + _received[0][0])
