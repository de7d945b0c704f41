"""A study that runs in a thread of a test and waits after every report until it may go on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from made_study import study_of
from serial_executor import SerialExecutor


class Gate:
    """Lets a study make so many more reports."""

    def __init__(self) -> None:
        self._more = threading.Condition()
        self._left = 0
        self._waiting = False
        self.reports = 0

    def __call__(self, job: Any, tokens: int) -> None:
        with self._more:
            self._waiting = True
            self._more.notify_all()
            self._more.wait_for(lambda: self._left > 0, timeout=120)
            self._waiting = False
            self._left -= 1
            self.reports += 1

    def let(self, reports: int, thread: threading.Thread) -> None:
        """Let it make reports, and wait until it has made them or has ended."""
        with self._more:
            self._left += reports
            self._more.notify_all()
            self._more.wait_for(lambda: (self._waiting and self._left == 0) or not thread.is_alive(), timeout=60)

    def open(self) -> None:
        """Let it end."""
        with self._more:
            self._left = 10**9
            self._more.notify_all()


@contextmanager
def running(spec: Any, folder: Any, monkeypatch: Any) -> Iterator[tuple[Gate, threading.Thread]]:
    """A study that runs; every report is on disk at once."""
    monkeypatch.setattr("raylr.store.table.FLUSH_SECONDS", 0.0)
    gate = Gate()
    study = study_of(spec, folder, SerialExecutor(before=gate))
    thread = threading.Thread(target=study.run)
    thread.start()
    try:
        yield gate, thread
    finally:
        gate.open()
        thread.join(60)
