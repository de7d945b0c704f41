"""Processes that train the networks of a check, several at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

from raylr.errors import InputError

_LEFT_TO_PARENT = (signal.SIGINT, signal.SIGTERM)
"""Signals that may reach a whole process group (Ctrl-C, the end of a job on a cluster): the parent ends its workers."""
MOST_WORKERS = 4
"""Processes that are started at most, unless more are wanted: each holds torch in memory."""


@contextmanager
def worker_processes(count: int | None = None) -> Iterator[Executor | None]:
    """Start processes, each of which trains one network at a time.

    Args:
        count: How many; None: one for each core, at most `MOST_WORKERS`.

    Yields:
        The executor; None for a count of 1, which is this process.

    Raises:
        InputError: If `count` is below 1.
    """
    count = min(os.cpu_count() or 1, MOST_WORKERS) if count is None else count
    if count < 1:
        raise InputError(f"workers={count} must be at least 1")
    if count == 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_start) as executor:
        with _blocked():
            for _ in range(count):  # a pool starts a worker for each task, while none is idle
                executor.submit(os.getpid)
        yield executor


@contextmanager
def _blocked() -> Iterator[None]:
    """Start processes here with the signals of `_LEFT_TO_PARENT` blocked, until `_start` ignores them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start() -> None:
    for number in _LEFT_TO_PARENT:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _LEFT_TO_PARENT)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has ended: one that is killed cannot end its workers itself."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
