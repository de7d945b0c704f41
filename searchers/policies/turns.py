"""Which of many settings begins the next run: the one with the fewest runs. No Ray."""

from __future__ import annotations

import heapq


class Turns:
    """The settings that have planned runs, by the number of their runs so far.

    Each request takes a time that grows with the logarithm of their number: with hundreds of settings side by side, a
    search through all of them at every request would cost more than everything else that a suggestion needs.

    Example:
        >>> turns = Turns()
        >>> turns.note("L", 1, 0, wants=True)
        >>> turns.note("S", 0, 2, wants=True)
        >>> turns.first()
        'L'
        >>> turns.note("L", 1, 1, wants=False)
        >>> turns.first()
        'S'
    """

    def __init__(self) -> None:
        self._now: dict[str, tuple[int, int]] = {}
        self._heap: list[tuple[tuple[int, int], str]] = []
        """All that was noted and may be out of date: `_now` says what holds."""

    def note(self, name: str, place: int, runs: int, *, wants: bool) -> None:
        """Note how things are with a setting.

        Args:
            name: Its name.
            place: Its place in the order of the settings, which decides between equal numbers of runs.
            runs: Its runs so far.
            wants: Whether it has planned runs.
        """
        if not wants:
            self._now.pop(name, None)
        elif self._now.get(name) != (runs, place):
            self._now[name] = runs, place
            heapq.heappush(self._heap, ((runs, place), name))

    def first(self) -> str | None:
        """Return the setting with the fewest runs, of several the first in their order; None if there is none."""
        while self._heap and self._now.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][1] if self._heap else None
