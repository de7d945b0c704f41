"""Work that Ctrl-C and SIGTERM do not leave half done: they wait for the end of what is under way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

CONNECTIONS = 16
"""Items that `each` has in work at the same time."""


def undisturbed(do: Callable[[], None], interrupted: Callable[[], None] = lambda: None) -> None:
    """Call a function, in a thread if this is the main one, which alone is interrupted; then raise the interrupt.

    Args:
        do: The function.
        interrupted: Called with each interrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        do()
        return
    once, begun, ended = threading.Lock(), threading.Event(), threading.Event()
    interrupt: BaseException | None = None
    failure: list[BaseException] = []

    def run() -> None:
        with once:
            if begun.is_set():
                return
            begun.set()
        try:
            do()
        except BaseException as error:
            failure.append(error)
        finally:
            ended.set()

    while not ended.is_set():
        try:
            if not begun.is_set():  # an interrupt may come before or after the thread begins: of two, one does it
                threading.Thread(target=run).start()
            ended.wait()
        except BaseException as error:
            interrupt = error
            interrupted()
    if interrupt is not None or failure:
        raise interrupt or failure[0]


def each(do: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Call a function for each item, several at a time. After an interrupt or an error no further one is begun; it is
    raised when those that are under way have ended.

    Args:
        do: The function.
        items: What it is called for.
    """
    stop = threading.Event()

    def one(item: Item) -> None:
        if stop.is_set():
            return
        try:
            do(item)
        except BaseException:
            stop.set()
            raise

    def all_of_them() -> None:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for _ in pool.map(one, items):
                pass

    undisturbed(all_of_them, stop.set)
