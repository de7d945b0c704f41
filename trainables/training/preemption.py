"""SIGTERM, which clusters send some time before they take a node away: a run that trains saves a checkpoint first.

The loop runs in a thread of a trial's process (Ray Tune has it so), signals arrive in the main thread, which takes what
the loop reports and so must not wait for it. `catch` puts a handler there that asks for a checkpoint; once it is saved,
the signal is sent again, and what was to be done before is done.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GRACE_SECONDS = 25.0
"""Longest wait for the checkpoint: Kubernetes, Slurm and spot instances give 30 s and more before the SIGKILL."""


class _State:
    def __init__(self) -> None:
        self.running, self.ending = 0, False
        self.requested, self.saved = threading.Event(), threading.Event()


_STATE = _State()


def catch() -> None:
    """Let SIGTERM wait until the runs of this process have saved a checkpoint; to be called in the main thread."""
    before = signal.getsignal(signal.SIGTERM)
    if getattr(before, "raylr", False):
        return

    def handle(number: int, frame: Any) -> None:
        if _STATE.running and not _STATE.ending:
            if not requested():
                _STATE.requested.set()
                threading.Thread(target=_end_once_saved, daemon=True).start()
        elif callable(before):
            before(number, frame)
        else:
            raise SystemExit(128 + number)

    handle.raylr = True  # type: ignore[attr-defined]  # marks it as raylr's
    signal.signal(signal.SIGTERM, handle)


def _end_once_saved() -> None:
    _STATE.saved.wait(GRACE_SECONDS)
    _STATE.ending = True
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def training() -> Iterator[None]:
    """Mark the time in which a run of this process has something to save."""
    if not _STATE.running and not requested():
        _STATE.saved.clear()  # of a run before this one in the same process
    _STATE.running += 1
    try:
        yield
    finally:
        _STATE.running -= 1
        if not _STATE.running:
            _STATE.saved.set()


def requested() -> bool:
    """Return whether this process is to end: the run saves a checkpoint after its step."""
    return _STATE.requested.is_set()


def saved() -> None:
    """Note that a checkpoint was saved, so that a process that is to end does so."""
    if requested():
        _STATE.saved.set()
