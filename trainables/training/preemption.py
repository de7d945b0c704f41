"""SIGTERM, which clusters send some time before they take a node away: a run that trains saves a checkpoint first.

The loop runs in a thread of a trial's process (Ray Tune has it so), signals arrive in the main thread. `catch` puts a
handler there that waits for the loop, and then does what was to be done before.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GRACE_SECONDS = 25.0
"""Longest wait for the checkpoint: Kubernetes, Slurm and spot instances give 30 s and more before the SIGKILL."""


class _State:
    def __init__(self) -> None:
        self.running = 0
        self.requested, self.saved = threading.Event(), threading.Event()


_STATE = _State()


def catch() -> None:
    """Let SIGTERM wait until the runs of this process have saved a checkpoint; to be called in the main thread."""
    before = signal.getsignal(signal.SIGTERM)
    if getattr(before, "raylr", False):
        return

    def handle(number: int, frame: Any) -> None:
        if _STATE.running:
            _STATE.requested.set()
            _STATE.saved.wait(GRACE_SECONDS)
        if callable(before):
            before(number, frame)
        else:
            raise SystemExit(128 + number)

    handle.raylr = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, handle)


@contextmanager
def training() -> Iterator[None]:
    """Mark the time in which a run of this process has something to save."""
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
