"""Which learning rate and further hyperparameters to try next in one setting. Plain state, no Ray.

As `CellSearch`, over several axes: all runs of a round are chosen at once, and the next round when all of them have
ended, from their results in the order in which they were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raylr.analysis.optimum import ResponseFit, fit_response, next_points, start_points
from raylr.analysis.status import Status
from raylr.searchers._config import LRDomain
from raylr.searchers.policies.cell_search import EXTEND_MOST, EXTEND_STEP, LEVEL, readable
from raylr.searchers.policies.gaps import HIDDEN, widest
from raylr.searchers.policies.memory import Memory, numbers, recalled, results
from raylr.searchers.policies.types import AxisAnswer, Recommendation, RunState

LR = "lr"
"""Name of the first axis."""
RISK = 0.5
"""A place of the start design that diverges with at least this probability is left out."""
SPARE = 3
"""Runs beyond the parameters of a quadratic that a search may take by default: they show what it misses."""
DOWN = 0.25
"""After runs that all diverged, the lr goes down by this share of its range."""
MANY = 12
"""Runs in progress that a sampler that cannot wait takes into account."""


def default_trials(axes: int) -> int:
    """Most runs of a setting over so many axes, the learning rate included, where the user gives none."""
    return 1 + axes + axes * (axes + 1) // 2 + SPARE


@dataclass
class AxesSearch:
    """State of the search in one setting over the learning rate and further axes."""

    domains: Mapping[str, LRDomain]
    """Range of every axis, `LR` first."""
    tolerance: float | None
    """Expected regret, in the unit of the loss, at which the best place counts as known."""
    max_trials: int
    extend: bool
    batch: int
    seed: int = 0
    rising: str | None = LR
    """The axis above whose high values runs diverge; None for none."""
    runs: list[RunState] = field(default_factory=list)
    queue: list[float] = field(default_factory=list)
    """ln lr chosen for this round and not yet handed out."""
    coming: list[tuple[float, ...]] = field(default_factory=list)
    """ln of the other axes' values for each of them."""
    given: int = 0
    """How many of `runs` came from outside and count as no trial."""
    planned: int = 0
    """How many runs there were when this round was planned; all of them had ended."""
    finished: bool = False
    memory: Memory | None = None
    """What was decided before, where that is kept."""
    _cached: tuple[tuple[int, int], ResponseFit] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the axes, `LR` first."""
        return tuple(self.domains)

    def pending(self) -> int:
        """Trials handed out and not yet ended."""
        return sum(r.running for r in self.runs)

    def tried(self) -> int:
        """Trials handed out so far."""
        return len(self.runs) - self.given

    def known(self) -> bool:
        """Whether the results say something to other settings: a surface over several axes does not."""
        return False

    def moments(self) -> dict[str, tuple[float, float]]:
        """Nothing: see `known`."""
        return {}

    def next(self) -> float | None:
        """ln lr of the next trial, or None: none for now (or none any more: `finished`)."""
        if not self.queue and not self.finished and self.pending() == 0:
            self._plan()
        return self.queue[0] if self.queue else None

    def put(self, log_lr: float, others: Sequence[float] = ()) -> None:
        """Begin with this place; axes that are not given take the middle of their range."""
        if not self.queue:
            self.coming.clear()
        self.queue.append(log_lr)
        self.coming.append(tuple(others) or tuple(self._middle(name) for name in self.names[1:]))

    def repeat(self, run: RunState) -> None:
        """Run the place of `run` again."""
        self.put(run.log_lr, run.others)

    def start(self) -> RunState:
        """Hand out the next trial (call `next` before)."""
        run = RunState(self.queue.pop(0), others=self.coming.pop(0))
        self.runs.append(run)
        return run

    def ask(self) -> dict[str, float]:
        """The next place at once, while others may still run: for samplers that cannot wait for a round to end."""
        busy = [r for r in self.runs if r.running]
        fit, free = self.fit(), self._free()
        early = sum(not r.running for r in self.runs) < len(self._design())
        if fit.surfaces is None or (early and free):
            return (free or [self._lower()])[0]
        if fit.status is Status.FLAT and (place := self._hidden()) is not None:
            return place
        found = next_points(fit, 1, pending=[self._place(r) for r in busy[:MANY]], ranges=self._ranges(fit),
                            repeats=not busy)  # fmt: skip
        return found[0] if found else dict(fit.at)

    def fit(self) -> ResponseFit:
        """Fit of all ended runs."""
        ended = [r for r in self.runs if r.measured or r.diverged]
        key = (len(ended), len(self.runs))
        if self._cached is None or self._cached[0] != key:
            columns = {name: [self._place(r)[name] for r in ended] for name in self.names}
            found = fit_response(
                columns, [r.loss for r in ended], stderr=[r.stderr for r in ended] or None,
                ranges={name: (d.low, d.high) for name, d in self.domains.items()}, rising=self.rising,
                tolerance=self.tolerance, level=LEVEL,
            )  # fmt: skip
            self._cached = (key, found)
        return self._cached[1]

    def settled(self) -> bool:
        """Whether the best place is known within tolerance, or no axis changes the loss anywhere in its range."""
        if self.fit().status is Status.FLAT:
            return not self._free() and self._hidden() is None
        return self.fit().status is Status.OK

    def recommend(self) -> Recommendation:
        """What this setting would choose now; the loss as the policy sees it (smaller is better)."""
        ended = [r for r in self.runs if not r.running]
        if ended and all(r.says_nothing for r in ended):
            why = f"none of {len(ended)} trials reported the metric or anything else"
            return Recommendation.nothing(Status.TOO_FEW, why, len(ended))
        fit = self.fit()
        if not fit.at:
            return Recommendation.nothing(fit.status, fit.message, len(ended))
        answers = {name: AxisAnswer(fit.at[name], *self._interval(fit, name)) for name in self.names}
        lr = answers[LR]
        reason = fit.message
        ridges = {name: fit.ridge(LR, name) for name in self.names[1:] if name not in fit.flat}
        known = [str(r) for r in ridges.values() if r.low * r.high > 0]
        if known and fit.status in (Status.OK, Status.UNCERTAIN):
            reason += f"; {', '.join(known)}"
        return Recommendation(
            lr.value, lr.low, lr.high, fit.loss, fit.regret, fit.status, reason, len(ended),
            axes={name: answers[name] for name in self.names[1:]}, ridges=ridges,
        )  # fmt: skip

    def _interval(self, fit: ResponseFit, name: str) -> tuple[float, float]:
        """Interval within the range, as far as it was extended."""
        tried = [self._place(r)[name] for r in self.runs]
        low, high = min(self.domains[name].low, *tried), max(self.domains[name].high, *tried)
        value = fit.at[name]
        return min(max(fit.low[name], low), value), max(min(fit.high[name], high), value)

    def _plan(self) -> None:
        self.planned = len(self.runs)
        self.finished, places = recalled(self.memory, "places", self._given(), self._next_places)
        for log_lr, *others in places:
            self.put(log_lr, others)

    def _given(self) -> tuple[Any, ...]:
        """What every decision here follows from."""
        domains = tuple(
            (name, *numbers(d.low, d.high, d.step, d.origin, d.integer)) for name, d in self.domains.items()
        )
        options = numbers(self.tolerance, self.max_trials, self.extend, self.batch, self.seed, self.given)
        return domains, options, self.rising, results(self.runs)

    def _next_places(self) -> tuple[bool, list[list[float]]]:
        """Whether the search has ended, and ln of the values of all axes for each run of the next round if not."""
        left = self.max_trials - self.tried()
        if left <= 0 or self.settled():
            return True, []
        places = self._round(min(left, max(self.batch, 2) if not self.runs else self.batch))
        return False, [[readable(math.log(place[name])) for name in self.names] for place in places]

    def _round(self, size: int) -> list[dict[str, float]]:
        """Places of a round: those of the start design that are left and may train, then those that tell most."""
        fit = self.fit()
        ended = sum(r.measured or r.diverged for r in self.runs)
        free = self._free()
        if fit.surfaces is None:
            lost = [r for r in self.runs if r.diverged]
            return [self._lower()] if lost else (free or self._design())[:size]
        if len(fit.runs.diverged):
            columns = {name: [p[name] for p in free] for name in self.names}
            risk = fit.divergence_probability(columns) if free else np.empty(0)
            free = [p for p, r in zip(free, risk, strict=True) if r < RISK]
        first = free[: min(size, max(0, len(self._design()) - ended))]
        if fit.status is Status.FLAT and not first and (place := self._hidden()) is not None:
            return [place]
        more = next_points(fit, size - len(first), pending=first, ranges=self._ranges(fit))
        return [*first, *more] or [dict(fit.at)]

    def _design(self) -> list[dict[str, float]]:
        """The start design, in values that the domains allow."""
        points = start_points({name: (d.low, d.high) for name, d in self.domains.items()}, self.seed)
        return [{name: float(self.domains[name].within(math.log(v))) for name, v in p.items()} for p in points]

    def _free(self) -> list[dict[str, float]]:
        """The places of the start design that were not run."""
        return [p for p in self._design() if all(self._distance(p, r) > 1e-3 for r in self.runs)]

    def _hidden(self) -> dict[str, float] | None:
        """A place in stretches of the axes in which no run ended and where one may train, else in the middle of the
        widest; None if there is no such stretch."""
        place, found = {}, False
        lost = [r.log_lr for r in self.runs if r.diverged]
        for name, domain in self.domains.items():
            low, high = math.log(domain.low), math.log(domain.high)
            tried = [math.log(self._place(r)[name]) for r in self.runs]
            middle, width = widest(tried, low, min([high, *lost]) if name == LR else high)
            place[name] = float(domain.within(middle))
            new = all(abs(math.log(place[name]) - one) > 1e-3 for one in tried)  # few values may be allowed
            found = found or (width > HIDDEN and new)
        return place if found else None

    def _lower(self) -> dict[str, float]:
        """The place after all runs diverged: a quarter of the range below the lowest lr, in the middle otherwise."""
        domain = self.domains[LR]
        lost = [r.log_lr for r in self.runs if r.diverged] or [self._middle(LR)]
        step = DOWN * math.log(domain.high / domain.low)
        low = math.log(domain.low) - (EXTEND_MOST if self.extend else 0.0)
        return {**{n: math.exp(self._middle(n)) for n in self.names}, LR: math.exp(max(low, min(lost) - step))}

    def _ranges(self, fit: ResponseFit) -> dict[str, tuple[float, float]]:
        """What may be tried: the ranges, further out at an edge where the search may be extended."""
        out = {}
        for name, domain in self.domains.items():
            tried = [math.log(self._place(r)[name]) for r in self.runs]
            low, high = min(math.log(domain.low), *tried), max(math.log(domain.high), *tried)
            if self.extend and fit.edges.get(name) is Status.EDGE_LOW:
                low = max(low - EXTEND_STEP, math.log(domain.low) - EXTEND_MOST)
            if self.extend and fit.edges.get(name) is Status.EDGE_HIGH:
                high = min(high + EXTEND_STEP, math.log(domain.high) + EXTEND_MOST)
            out[name] = (math.exp(low), math.exp(high))
        return out

    def _middle(self, name: str) -> float:
        return 0.5 * math.log(self.domains[name].low * self.domains[name].high)

    def _place(self, run: RunState) -> dict[str, float]:
        return dict(zip(self.names, (run.lr, *(math.exp(v) for v in run.others)), strict=True))

    def _distance(self, place: Mapping[str, float], run: RunState) -> float:
        return max(abs(math.log(place[name] / value)) for name, value in self._place(run).items())
