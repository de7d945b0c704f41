"""Which learning rate to try next in one setting, when to stop, and what to recommend. Plain state, no Ray.

A setting goes on in rounds. All trials of a round are chosen at once, and the next round is chosen when all of them
have ended, from their results in the order in which they were chosen: so the sequence of a setting depends on its
results only, never on timing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from raylr.analysis.optimum.posterior import Posterior, ShapePrior, posterior
from raylr.analysis.status import Status
from raylr.searchers.policies.types import Recommendation, RunState

FIRST = 0.577
"""The first two lrs lie this many standard deviations of the prior on either side of its mean (thirds of a plain
range)."""
FIRST_LEAST = 0.4
"""The same in ln lr, at least: closer together, the noise would hide the slope."""
EXTEND_STEP = math.log(4.0)
"""An extended search goes at most this far beyond the lrs tried so far, in ln lr."""
REACH = 0.25
"""An optimum this far beyond the lrs of an extended search still counts as inside, in ln lr."""
EXTEND_MOST = math.log(100.0)
"""And altogether this far beyond the range."""
LEVEL = 0.9
"""Probability of the reported interval."""
REFINE = 4
"""Finite losses from which, if losses repeat exactly, trials are placed to find the lowest one (mean less one
standard deviation); before, and with noisy losses, they are placed to find the shape."""
EXACT = 0.05
"""Probability of that from which it is worth it."""
MANY = 16
"""Trials from which a round grows with their number, so that the time per trial does not."""
APART = 0.05
"""No two trials are closer than this in ln lr."""


def readable(log_lr: float) -> float:
    """ln of the lr rounded to four digits: nothing is lost, and people can write it down."""
    return math.log(float(f"{math.exp(log_lr):.4g}"))


@dataclass
class CellSearch:
    """State of the search in one setting."""

    low: float
    high: float
    prior: ShapePrior
    tolerance: float
    lr_factor: float
    max_trials: int
    extend: bool
    batch: int
    jitter: float = 0.0
    runs: list[RunState] = field(default_factory=list)
    queue: list[float] = field(default_factory=list)
    """ln lr chosen for this round and not yet handed out."""
    given: int = 0
    """How many of `runs` came from outside and count as no trial."""
    planned: int = 0
    """How many runs there were when this round was planned; all of them had ended."""
    finished: bool = False
    _cached: tuple[tuple[int, int], Posterior] | None = None

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

    def start(self) -> RunState:
        """Hand out the next trial (call `next` before)."""
        run = RunState(self.queue.pop(0))
        self.runs.append(run)
        return run

    def known(self) -> bool:
        """Whether its results say something to other settings."""
        return sum(r.measured for r in self.runs) >= 2

    def moments(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of ln of the best lr, ln of the relative curvature, and the skew."""
        return self.posterior().moments()

    def tried(self) -> int:
        """Trials handed out so far."""
        return len(self.runs) - self.given

    def ask(self) -> float:
        """ln lr of the next trial now, whatever is still running: for those who cannot wait for a round to end."""
        if len(self.runs) < 2:
            free = [p for p in self._first() if all(abs(p - r.log_lr) > APART for r in self.runs)]
            return (free or self._first())[0]
        post = self.posterior()
        if post.count == 0:
            low = self.low if not self.extend else self.low - EXTEND_MOST
            return readable(max(low, min(r.log_lr for r in self.runs) - FIRST_LEAST))
        fantasies: list[tuple[float, float]] = []
        for run in self.runs:
            if run.running and len(fantasies) < MANY:
                fantasies.append((run.log_lr, post.predict(run.log_lr)[0]))
        return readable(self._most_informative(self.posterior(fantasies) if fantasies else post, []))

    def posterior(self, fantasies: list[tuple[float, float]] | None = None) -> Posterior:
        """Posterior from all ended runs (and imagined ones)."""
        ended = [r for r in self.runs if r.measured or r.diverged]
        key = (len(ended), len(self.runs))
        if not fantasies and self._cached is not None and self._cached[0] == key:
            return self._cached[1]
        x = [r.log_lr for r in ended] + [f[0] for f in fantasies or ()]
        y = [r.loss for r in ended] + [f[1] for f in fantasies or ()]
        s = [r.stderr for r in ended] + [0.0] * len(fantasies or ())
        low, high = self.window()
        out = posterior(np.array(x), np.array(y), low=low, high=high, stderr=np.array(s), prior=self.prior)
        if not fantasies:
            self._cached = (key, out)
        return out

    def window(self) -> tuple[float, float]:
        """The range, as far as it was extended, ln lr."""
        tried = [r.log_lr for r in self.runs] or [self.low]
        return min(self.low, *tried), max(self.high, *tried)

    def _plan(self) -> None:
        self.planned = len(self.runs)
        left = self.max_trials - self.tried()
        if left <= 0 or self.settled():
            self.finished = True
            return
        if not any(r.measured for r in self.runs):
            self.queue = self._first()[:left]
            return
        tried = len(self.runs)
        if tried >= MANY:  # one more loss changes little: place a round at the quantiles of the optimum
            size = min(max(self.batch, tried // MANY), left)
            low, high = self.window()
            places = self.posterior().quantiles((np.arange(size) + 0.5) / size)
            self.queue = [readable(min(max(float(x), low), high)) for x in places]
            return
        fantasies: list[tuple[float, float]] = []
        for _ in range(min(self.batch, left)):
            post = self.posterior(fantasies)
            x = self._most_informative(post, [f[0] for f in fantasies])
            fantasies.append((x, post.predict(x)[0]))
        self.queue = [readable(f[0]) for f in fantasies]

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
        points = [mid - half, mid + half]
        if diverged:
            shift = max(0.0, points[1] - (top - half))
            points = [p - shift for p in points]
        if not self.extend:
            points = [min(max(p, self.low), self.high) for p in points]
        return [readable(p) for p in (points if points[1] - points[0] >= APART else points[:1])]

    def _most_informative(self, post: Posterior, taken: list[float]) -> float:
        low, high = self.window()
        if self.extend:
            best = post.optimum()[0]
            if best < low:
                low = max(low - EXTEND_STEP, self.low - EXTEND_MOST, best - FIRST_LEAST)
            if best > high:
                high = min(high + EXTEND_STEP, self.high + EXTEND_MOST, best + FIRST_LEAST)
        allowed = (post.x >= low - 1e-9) & (post.x <= high + 1e-9)
        for t in [*taken, *(r.log_lr for r in self.runs)]:
            allowed &= np.abs(post.x - t) > APART
        if not allowed.any():
            return post.optimum(low, high)[0]
        refine = post.count >= REFINE and post.exact > EXACT
        value = post.sd - post.mean if refine else post.information()
        return float(post.x[int(np.argmax(np.where(allowed, value, -np.inf)))])

    def settled(self) -> bool:
        """Whether the optimum is known within tolerance."""
        done = sum(r.measured for r in self.runs)
        if done < (3 if self.prior.center is None else 2):
            return False
        rec = self.recommend()
        if rec.status in (Status.EDGE_LOW, Status.EDGE_HIGH):
            low, high = self.window()
            sure = max(self.posterior().beyond(low + APART, high - APART)) > LEVEL
            return sure and (not self.extend or self._at_limit(rec.status))
        return rec.status.ok

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
            why = f"none of {len(ended)} trials reported the metric, or anything at all"
            return Recommendation.nothing(Status.TOO_FEW, why, len(ended))
        if not done and self.prior.center is None:
            return Recommendation.nothing(Status.TOO_FEW, "no finished trial yet", len(ended))
        post = self.posterior()
        w_low, w_high = self.window()
        x, regret = post.optimum(w_low, w_high)
        low, high = post.interval(LEVEL)
        slack = REACH if self.extend else 0.0
        status, reason = Status.OK, f"known within tolerance after {len(done)} finite losses"
        factor = math.exp(0.5 * (high - low))
        if len(done) < 2:
            status, reason = Status.TOO_FEW, f"only {len(done)} finite losses: this is mostly the prior"
        elif max(beyond := post.beyond(w_low - slack, w_high + slack)) > 0.5:
            side, end = ("low", w_low) if beyond[0] > 0.5 else ("high", w_high)
            tail = "allow the range to be extended" if not self.extend else "more trials are needed beyond it"
            status = Status(f"edge_{side}")
            reason = (
                f"the optimum lies beyond the {'lower' if side == 'low' else 'upper'} end {math.exp(end):.3g}: {tail}"
            )
        elif regret > self.tolerance or factor > self.lr_factor:
            status = Status.UNCERTAIN
            reason = (
                f"expected regret {100 * regret:.3f} % (tolerance {100 * self.tolerance:.3f} %), "
                f"interval within a factor {factor:.2f} (tolerance {self.lr_factor:.2f})"
            )
        if status.ok and (w_low < self.low - 1e-9 or w_high > self.high + 1e-9) and not self.low <= x <= self.high:
            reason += f"; the range was extended to {math.exp(w_low):.3g} .. {math.exp(w_high):.3g}"
        loss = post.predict(x)[0] if done else None
        lows = sorted((math.exp(low), math.exp(x), math.exp(high)))
        return Recommendation(math.exp(x), lows[0], lows[2], loss, regret, status, reason, len(ended))
