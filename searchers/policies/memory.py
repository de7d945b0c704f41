"""What the search of one setting decided before, so that a restored search does not fit its model again.

What a search decides follows from its arguments and its results alone. A memory keeps decisions by a hash of these;
other results, other arguments and another version of the model have another hash, and nothing is recalled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from raylr.searchers.policies.types import RunState


class Memory(Protocol):
    """Keeps decisions. It may forget them: a decision that is missing is made again.

    A memory that outlives a process must not recall what another version of the model has decided.
    """

    def get(self, key: str) -> Any:
        """Return what was put under this key; None if there is nothing."""

    def put(self, key: str, value: Any) -> None:
        """Keep a value that JSON can hold, whose floats come back as they are."""


def recalled(memory: Memory | None, what: str, given: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """Return what `make` returns, from the memory if it is there.

    Args:
        memory: The memory; None: it is made in any case.
        what: Name of the decision.
        given: Everything that it follows from, as plain values whose `repr` tells them apart.
        make: Makes it: lists, dicts, floats, text and truth values. The memory gives tuples back as lists.
    """
    if memory is None:
        return make()
    key = hashlib.blake2b(repr((what, given)).encode(), digest_size=16).hexdigest()
    found = memory.get(key)
    if found is None:
        found = make()
        memory.put(key, found)
    return found


def results(runs: Iterable[RunState]) -> tuple[Any, ...]:
    """Return what a model of final losses takes from runs, as plain values."""
    return tuple(
        (float(run.log_lr), tuple(map(float, run.others)), None if run.end is None else run.end.value,
         float(run.loss), float(run.stderr))
        for run in runs
    )  # fmt: skip


def numbers(*values: Any) -> tuple[Any, ...]:
    """Return numbers as Python's own, None as it is: NumPy's have another `repr`."""
    return tuple(None if value is None else float(value) for value in values)
