"""Which learning rate to try next in one setting, when to stop, and what to recommend. Plain state, no Ray.

A setting goes on in rounds. All trials of a round are chosen at once, and the next round is chosen when all of them
have ended, from their results in the order in which they were chosen: so the sequence of a setting depends on its
results only, never on timing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from raylr.analysis.optimum import OptimumFit, OptimumPrior, fit_optimum
from raylr.analysis.optimum.acquisition import APART, imagined, propose
from raylr.analysis.status import Status
from raylr.searchers.policies.failures import SAME
from raylr.searchers.policies.gaps import HIDDEN, widest
from raylr.searchers.policies.memory import Memory, numbers, recalled, results
from raylr.searchers.policies.types import Recommendation, RunState

FIRST = 0.577
"""The first two lrs lie this many standard deviations of the prior on either side of its mean (thirds of a plain
range)."""
FIRST_LEAST = 0.4
"""The same in ln lr, at least: closer together, the noise would hide the slope."""
FIRST_MOST = 4
"""LRs of a first round at most, where a round may hold so many: three determine a parabola, one more shows a misfit."""
EXTEND_STEP = math.log(4.0)
"""An extended search goes at most this far beyond the lrs tried so far, in ln lr."""
EXTEND_MOST = math.log(100.0)
"""And altogether this far beyond the range."""
LEVEL = 0.9
"""Probability of the reported interval."""
MANY = 16
"""Trials from which a round grows with their number, so that the time per trial does not."""
NEAR = 2 * APART
"""An lr this close to the end of the range, in ln lr, counts as its end: no other fits between them."""
CONFIRMED = 0.02
"""A run within this of an lr, in ln lr, shows the loss there: the model itself takes such lrs as one."""
FLAT_AFTER = 4
"""LRs with a finite loss from which a search ends if none differs from the others."""
UNSURE = 2.0
"""A loss with a standard error so many times the median one weighs less than a quarter of the others: it is run again
before a search ends because the losses do not differ."""
KNOWN = (Status.OK, Status.PLATEAU)
"""Statuses with which a search ends."""


def readable(log_lr: float) -> float:
    """ln of the lr rounded to four digits: nothing is lost, and people can write it down."""
    return math.log(float(f"{math.exp(log_lr):.4g}"))


@dataclass
class CellSearch:
    """State of the search in one setting."""

    low: float
    high: float
    prior: OptimumPrior
    tolerance: float | None
    """Expected regret, in the unit of the loss, at which the optimum counts as known; None: see `fit_optimum`."""
    lr_factor: float
    max_trials: int
    extend: bool
    batch: int
    """Most lrs of a round. Fewer are planned where these would show the optimum if they ended as expected."""
    seeds: int | None = None
    """Most runs of one lr; None: as many as tell most."""
    jitter: float = 0.0
    runs: list[RunState] = field(default_factory=list)
    queue: list[float] = field(default_factory=list)
    """ln lr chosen for this round and not yet handed out."""
    given: int = 0
    """How many of `runs` came from outside and count as no trial."""
    planned: int = 0
    """How many runs there were when this round was planned; all of them had ended."""
    finished: bool = False
    memory: Memory | None = None
    """What was decided before, where that is kept."""
    _cached: tuple[tuple[int, int], OptimumFit] | None = None

    def pending(self) -> int:
        """Trials handed out and not yet ended."""
        return sum(r.running for r in self.runs)

    def next(self) -> float | None:
        """ln lr of the next trial, or None: none for now (or none any more: `finished`)."""
        if not self.queue and not self.finished and self.pending() == 0:
            self._plan()
        return self.queue[0] if self.queue else None

    def put(self, log_lr: float) -> None:
        """Begin with this lr."""
        self.queue.append(log_lr)

    def repeat(self, run: RunState) -> None:
        """Run the lr of `run` again."""
        self.put(run.log_lr)

    def start(self) -> RunState:
        """Hand out the next trial (call `next` before)."""
        run = RunState(self.queue.pop(0))
        self.runs.append(run)
        return run

    def known(self) -> bool:
        """Whether its results say something to other settings."""
        return sum(r.measured for r in self.runs) >= 2

    def moments(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of ln of the best lr, ln of the curvature, and the skew."""
        found = recalled(self.memory, "moments", self._given(), lambda: self.fit().moments())
        return {name: (mean, sd) for name, (mean, sd) in found.items()}

    def tried(self) -> int:
        """Trials handed out so far."""
        return len(self.runs) - self.given

    def ask(self) -> float:
        """ln lr of the next trial now, while others may still run: for samplers that cannot wait for a round to end."""
        if len(self.runs) < 2:
            free = [p for p in self._first() if all(abs(p - r.log_lr) > APART for r in self.runs)]
            return (free or self._first())[0]
        fit = self.fit()
        if fit.curves is None:
            low = self.low if not self.extend else self.low - EXTEND_MOST
            return readable(max(low, min(r.log_lr for r in self.runs) - FIRST_LEAST))
        if fit.status is Status.FLAT and (place := self._hidden([])) is not None:
            return readable(place)
        waiting = [r.log_lr for r in self.runs if r.running][:MANY]
        taken = [r.log_lr for r in self.runs if r.running]
        return readable(self._most_informative(imagined(fit, waiting), taken, repeats=False))

    def fit(self) -> OptimumFit:
        """Fit of all ended runs."""
        ended = [r for r in self.runs if r.measured or r.diverged]
        key = (len(ended), len(self.runs))
        if self._cached is None or self._cached[0] != key:
            low, high = self.window()
            found = fit_optimum(
                [r.lr for r in ended], [r.loss for r in ended], stderr=[r.stderr for r in ended],
                lr_range=(math.exp(low), math.exp(high)), prior=self.prior, tolerance=self.tolerance,
                lr_factor=self.lr_factor, level=LEVEL, searching=True,
            )  # fmt: skip
            self._cached = (key, found)
        return self._cached[1]

    def window(self) -> tuple[float, float]:
        """The range, as far as it was extended, ln lr."""
        tried = [r.log_lr for r in self.runs] or [self.low]
        return min(self.low, *tried), max(self.high, *tried)

    def _plan(self) -> None:
        self.planned = len(self.runs)
        self.finished, queue = recalled(self.memory, "round", self._given(), self._round)
        self.queue = list(queue)

    def _given(self) -> tuple[Any, ...]:
        """What every decision here follows from."""
        prior = numbers(*(getattr(self.prior, field.name) for field in fields(self.prior)))
        options = (self.tolerance, self.lr_factor, self.max_trials, self.extend, self.batch, self.seeds, self.given)
        return numbers(self.low, self.high, self.jitter), prior, numbers(*options), results(self.runs)

    def _round(self) -> tuple[bool, list[float]]:
        """Whether the search has ended, and ln lr of the next round if not."""
        left = self.max_trials - self.tried()
        if left <= 0 or self.settled():
            return True, []
        if not any(r.measured for r in self.runs):
            return False, self._first()[:left]
        looked: list[float] = []
        while self.fit().status is Status.FLAT and len(looked) < min(self.batch, left):
            if (place := self._hidden(looked)) is None:
                break
            looked.append(readable(place))
        if looked:
            return False, looked
        tried = len(self.runs)
        if tried >= MANY:  # one more loss changes little: place a round at the quantiles of the optimum
            size = min(max(self.batch, tried // MANY), left)
            low, high = self.window()
            places = np.log(self.fit().quantiles((np.arange(size) + 0.5) / size))
            planned = [readable(min(max(float(x), low), high)) for x in places]
            if free := [x for x in planned if not self._full(x)]:
                return False, free
        taken: list[float] = []
        for i in range(min(self.batch, left)):
            fit = imagined(self.fit(), taken)
            if taken and fit.status in KNOWN:
                break  # if the runs of this round end as expected, no more of them are needed
            confirming = self._untried_answer(fit) if i + 1 == left else None
            taken.append(self._most_informative(fit, taken) if confirming is None else confirming)
        return False, [readable(x) for x in taken]

    def _hidden(self, taken: list[float]) -> float | None:
        """ln of an lr whose loss could still show that the losses differ; None if there is none.

        It lies in a wide stretch of the range in which no run ended and where one may train, or it is one whose loss is
        known much worse than that of the others, such as a predicted one."""
        low, high = self.window()
        top = min([high, *(r.log_lr for r in self.runs if r.diverged)])
        place, width = widest([*(r.log_lr for r in self.runs), *taken], low, top)
        if width > HIDDEN:
            return place
        measured = sorted((r for r in self.runs if r.measured), key=lambda r: r.stderr)
        worst = measured[-1]
        other = [x for x in (*(r.log_lr for r in self.runs if r is not worst), *taken) if abs(x - worst.log_lr) < SAME]
        unsure = worst.stderr > UNSURE * measured[len(measured) // 2].stderr
        return worst.log_lr if unsure and not other and not self._full(worst.log_lr) else None

    def _first(self) -> list[float]:
        """First round, or another one after all of the earlier diverged."""
        diverged = [r.log_lr for r in self.runs if r.diverged]
        if self.prior.center is None:
            top = min([self.high, *diverged])
            mid, half = 0.5 * (self.low + top), FIRST * (top - self.low) / math.sqrt(12.0)
        else:
            top = min([self.high + (EXTEND_MOST if self.extend else 0.0), *diverged])
            mid, half = self.prior.center, FIRST * self.prior.center_sd
        half = max(half, FIRST_LEAST)
        mid += self.jitter * half
        count = min(max(self.batch, 2), FIRST_MOST, max(self.max_trials // 2, 2))
        step = 6.0 / (count + 1) * half  # the quantiles i / (count + 1) of a flat prior of this width
        points = [mid + step * (i - 0.5 * (count - 1)) for i in range(count)]
        if diverged:
            shift = max(0.0, points[-1] - (top - half))
            points = [p - shift for p in points]
        if not self.extend:
            points = [min(max(p, self.low), self.high) for p in points]
        apart = points[:1]
        for point in points[1:]:
            if point - apart[-1] >= APART:
                apart.append(point)
        return [readable(p) for p in apart]

    def _untried_answer(self, fit: OptimumFit) -> float | None:
        """ln of the lr that `fit` recommends, or would recommend if it had been run, if nothing was run there: the last
        run tries it, so that what is recommended at the end was measured or lies beside it."""
        low, high = self.window()
        choices = [math.log(fit.lr)] if fit.lr > 0 else []
        if fit.status in (Status.OK, Status.UNCERTAIN) and fit.losses.tried.size > 1:
            choices.append(math.log(fit.recommend(*np.exp(fit.losses.tried[[0, -1]]))[0]))
        for at in choices:
            if low <= at <= high and all(abs(at - run.log_lr) > CONFIRMED for run in self.runs):
                return at
        return None

    def _most_informative(self, fit: OptimumFit, taken: list[float], *, repeats: bool = True) -> float:
        low, high = self.window()
        if self.extend and fit.status is Status.EDGE_LOW:
            low = max(low - EXTEND_STEP, self.low - EXTEND_MOST)
        if self.extend and fit.status is Status.EDGE_HIGH:
            high = min(high + EXTEND_STEP, self.high + EXTEND_MOST)
        found = propose(fit, taken, low=math.exp(low), high=math.exp(high), repeats=repeats)
        if repeats and found is not None and self._full(readable(found)):
            found = propose(fit, taken, low=math.exp(low), high=math.exp(high), repeats=False)
        return math.log(fit.lr) if found is None else found

    def _full(self, log_lr: float) -> bool:
        """Whether this lr has as many runs as one lr may have; runs that failed do not count."""
        runs = sum(abs(r.log_lr - log_lr) < SAME for r in self.runs if r.running or r.measured or r.diverged)
        return self.seeds is not None and runs >= self.seeds

    def settled(self) -> bool:
        """Whether the optimum is known within tolerance, or no lr that may be tried can tell more."""
        fit = self.fit()
        measured = fit.losses.tried
        if fit.status in (Status.EDGE_LOW, Status.EDGE_HIGH):
            low, high = self.window()
            at_end = measured[0] <= low + NEAR if fit.status is Status.EDGE_LOW else measured[-1] >= high - NEAR
            return bool(at_end) and measured.size >= FLAT_AFTER and (not self.extend or self._at_limit(fit.status))
        if fit.status is Status.FLAT:
            return bool(measured.size >= FLAT_AFTER) and self._hidden([]) is None
        return fit.status in KNOWN

    def _at_limit(self, status: Status) -> bool:
        low, high = self.window()
        if status is Status.EDGE_LOW:
            return low <= self.low - EXTEND_MOST + 1e-6
        return high >= self.high + EXTEND_MOST - 1e-6

    def recommend(self) -> Recommendation:
        """What this setting would choose now; the loss as the policy sees it (smaller is better)."""
        ended = [r for r in self.runs if not r.running]
        done = [r for r in ended if r.measured]
        if ended and not done and any(r.diverged for r in ended):
            lowest = math.exp(min(r.log_lr for r in ended if r.diverged))
            why = f"none of {len(ended)} trials ended with a finite loss; the best lr lies below {lowest:.3g}"
            return Recommendation.nothing(Status.DIVERGED, why, len(ended), lr_high=lowest)
        if ended and all(r.says_nothing for r in ended):
            why = f"none of {len(ended)} trials reported the metric or anything else"
            return Recommendation.nothing(Status.TOO_FEW, why, len(ended))
        if not done and self.prior.center is None:
            return Recommendation.nothing(Status.TOO_FEW, "no finished trial yet", len(ended))
        fit = self.fit()
        w_low, w_high = self.window()
        lr = min(max(fit.lr, math.exp(w_low)), math.exp(w_high))
        status, reason = fit.status, fit.message
        if status in (Status.EDGE_LOW, Status.EDGE_HIGH) and not self.extend:
            end, tried = (w_low, fit.losses.tried[0]) if status is Status.EDGE_LOW else (w_high, fit.losses.tried[-1])
            if abs(end - tried) <= NEAR:
                reason += "; that is the end of the range: widen it, or allow it to be extended"
        if (w_low < self.low - 1e-9 or w_high > self.high + 1e-9) and not self.low <= math.log(lr) <= self.high:
            reason += f"; the range was extended to {math.exp(w_low):.3g} .. {math.exp(w_high):.3g}"
        if not done:
            return Recommendation(lr, fit.lr_low, fit.lr_high, None, None, status, reason, len(ended))
        ends = fit.quantiles([0.5 * (1 - LEVEL), 0.5 * (1 + LEVEL)])  # finite, where the interval is open too
        low, high = min(max(fit.lr_low, float(ends[0])), lr), max(min(fit.lr_high, float(ends[1])), lr)
        return Recommendation(lr, low, high, fit.loss, fit.regret, status, reason, len(ended))
