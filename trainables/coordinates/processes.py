"""Processes that train the networks of a check, several at a time."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

from raylr.errors import InputError

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
        yield executor


def _start() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has ended: one that is killed cannot end its workers itself."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
