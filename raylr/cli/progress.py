"""How far a search has come, and how long it may still take at most."""

from __future__ import annotations

import math
from collections import Counter

from raylr.analysis.units import format_duration
from raylr.events import StudyPlanned


class SearchProgress:
    """Counts the runs and tokens of a search, and the seconds of one token of each size.

    The end of a search is not known before it comes: it stops a size when its optimum is known. What is stated is the
    most that is left, at the speed of the runs so far.
    """

    def __init__(self) -> None:
        self.plan: StudyPlanned | None = None
        self._tokens: dict[str, int] = {}
        """Tokens trained of each run."""
        self._runs: Counter[str] = Counter()
        """Size -> its runs. It is kept, as are their tokens: a study may have tens of thousands of runs."""
        self._spent: Counter[str] = Counter()
        """Size -> tokens that its runs trained."""
        self._clock: dict[str, tuple[float, int]] = {}
        """Time and tokens of the last report of each run that trains."""
        self._speed: dict[str, tuple[float, int]] = {}
        """Size -> seconds and tokens that were trained in them, by this process."""
        self._side_by_side = 1

    @property
    def spent(self) -> int:
        """Tokens that all runs trained."""
        return self._spent.total()

    def started(self, run: str, size: str, now: float) -> None:
        """Take that a run began, or was resumed."""
        self._note(run, size, 0)
        self._clock[run] = now, self._tokens[run]
        self._side_by_side = max(self._side_by_side, len(self._clock))

    def trained(self, run: str, size: str, tokens: int, now: float) -> None:
        """Take how many tokens a run has trained.

        Args:
            run: Name of the run.
            size: Name of its size; speeds are kept for each.
            tokens: Tokens that it has trained.
            now: Seconds of a clock that only rises.
        """
        self._note(run, size, tokens)
        if run in self._clock:
            then, before = self._clock[run]
            seconds, trained = self._speed.get(size, (0.0, 0))
            self._speed[size] = seconds + now - then, trained + max(tokens - before, 0)
            self._clock[run] = now, max(tokens, before)

    def ended(self, run: str, size: str, tokens: int, now: float) -> None:
        """Take the end of a run; one that was measured before this process started says nothing about the speed.

        Args:
            run: Name of the run.
            size: Name of its size.
            tokens: Tokens that it has trained.
            now: Seconds of a clock that only rises.
        """
        self.trained(run, size, tokens, now)
        self._clock.pop(run, None)

    def words(self) -> str:
        """Return "run 3 of at most 12, at most 4 min left"; "" where nothing is planned or no run has begun."""
        plan = self.plan
        if plan is None or plan.most_runs is None or not plan.params or not self._tokens:
            return ""
        runs = self._runs
        most = sum(runs[size] if plan.finished(size) else max(runs[size], plan.most_runs) for size in plan.params)
        text = f"run {sum(runs[size] for size in plan.params)} of at most {most}"
        left = self.seconds_left()
        return text if left is None else f"{text}, at most {format_duration(left)} left"

    def seconds_left(self) -> float | None:
        """Return the most seconds that the search may still take; None while no speed is known."""
        plan = self.plan
        speeds = {
            size: seconds / tokens for size, (seconds, tokens) in tuple(self._speed.items()) if tokens and seconds > 0
        }
        if plan is None or plan.most_tokens is None or not speeds:
            return None
        total = 0.0
        for size, params in plan.params.items():
            if plan.finished(size):
                continue
            total += max(plan.most_tokens - self._spent[size], 0.0) * self._seconds(size, params, speeds)
        return total / self._side_by_side

    def _note(self, run: str, size: str, tokens: int) -> None:
        """Take that a run has trained so many tokens at least."""
        if run not in self._tokens:
            self._runs[size] += 1
        before = self._tokens.get(run, 0)
        self._tokens[run] = max(tokens, before)
        self._spent[size] += max(tokens - before, 0)

    def _seconds(self, size: str, params: float, speeds: dict[str, float]) -> float:
        """Return the seconds of one token: measured, or of the nearest size, in proportion to the parameters."""
        assert self.plan is not None
        if size in speeds:
            return speeds[size]
        known = self.plan.params
        nearest = min(speeds, key=lambda other: abs(math.log(known.get(other, params) / params)))
        return speeds[nearest] * params / known.get(nearest, params)
