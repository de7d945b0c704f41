"""Which tokens to spend next in one cell when runs can be frozen: on a new lr, or on more of an old one. No Ray.

All runs of a cell share one model of the loss over lr and tokens (`raylr.analysis.fit_surface`). Runs stop at rungs,
shares of the target tokens: a few lrs go to the first rung; then, round by round, the tokens go where they narrow the
optimum at the target most (`raylr.analysis.surface.foresight`), to a new lr or to more of one or two old ones. As in
`cell_search`, a round is planned when all runs of the one before have stopped, so that timing has no say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raylr.analysis import LossSurface, fit_surface
from raylr.analysis.curves.curve import Curve
from raylr.analysis.optimum.posterior import ShapePrior
from raylr.analysis.surface.foresight import expected_variance
from raylr.searchers.policies.cell_search import APART, EXTEND_MOST, EXTEND_STEP, LEVEL, Recommendation, readable

FIRST_RUNS = 4
"""Lrs of the first round: three determine a parabola, one more lets the surface see its own misfit."""
PLACES = (0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9)
"""Quantiles of the optimum at the target at which a new lr may begin."""
NEAR = 0.3
"""It is not begun closer than this, in ln lr, to an old one, of which more would say nearly the same (unless that
cannot go on and the new one goes further)."""
WORTH = 0.2
"""A search ends when the tokens of a full run would take away less than this share of the optimum's variance (a tenth
of its standard deviation)."""
NARROW = 0.5
"""Half the step in ln lr over which the curvature at the target is taken."""


@dataclass
class FrozenRun:
    """One run and how far it may go."""

    log_lr: float
    curve: Curve = field(default_factory=Curve)
    rung: int = 0
    """Index of the rung at which it stops next (or stopped)."""
    state: str = "active"
    """"active", "frozen" (it can go on), "ended", "diverged" or "void"."""


@dataclass(frozen=True)
class Plan:
    """What the next tokens of a cell may go to."""

    thaw: Mapping[int, int]
    """Frozen runs, and the rung to which each goes on."""
    new: float | None = None
    """ln lr of a new run."""
    rung: int = 0
    """Where that stops."""

    def measured(self, cell: SurfaceCell) -> list[tuple[float, float]]:
        """(lr, tokens) at which it ends."""
        ends = [(cell.runs[i].log_lr, rung) for i, rung in self.thaw.items()]
        ends += [(self.new, self.rung)] if self.new is not None else []
        return [(math.exp(x), cell.rungs[rung] * cell.target) for x, rung in ends]

    def tokens(self, cell: SurfaceCell) -> float:
        """What it costs."""
        more = sum(cell.rungs[rung] * cell.target - cell.runs[i].curve.tokens[-1] for i, rung in self.thaw.items())
        return more + (cell.rungs[self.rung] * cell.target if self.new is not None else 0.0)


@dataclass
class SurfaceCell:
    """State of the search in one cell; what `_policy.CellSearch` is to final losses."""

    low: float
    high: float
    prior: ShapePrior
    target: float
    rungs: tuple[float, ...]
    budget: float
    """Most tokens, in runs to the target."""
    tolerance: float
    lr_factor: float
    max_trials: int
    extend: bool
    jitter: float = 0.0
    runs: list[FrozenRun] = field(default_factory=list)
    queue: list[tuple[float, int]] = field(default_factory=list)
    """ln lr of new runs of this round that were not handed out yet, and the rung at which each stops."""
    thaw: dict[int, int] = field(default_factory=dict)
    """Frozen runs that are to go on, and the rung to which."""
    finished: bool = False
    stuck: bool = False
    """Whether it ended because no tokens were worth spending."""
    given: int = 0
    _cached: tuple[Any, LossSurface] | None = None
    _said: tuple[Any, Recommendation] | None = None

    def pending(self) -> int:
        """Runs that are on, or about to go on."""
        return sum(r.state == "active" for r in self.runs) + len(self.thaw)

    def tried(self) -> int:
        """Runs begun."""
        return len(self.runs)

    def next(self) -> float | None:
        """ln lr of the next new run, or None for now."""
        if not self.queue and not self.finished and self.pending() == 0:
            self._plan()
        return self.queue[0][0] if self.queue else None

    def put(self, log_lr: float) -> None:
        """Begin with this lr."""
        self.queue.append((log_lr, 0))

    def start(self) -> FrozenRun:
        """Begin the next new run."""
        log_lr, rung = self.queue.pop(0)
        run = FrozenRun(log_lr, rung=rung)
        self.runs.append(run)
        return run

    def observe(self, index: int, tokens: float, loss: float) -> str | None:
        """Take in a report: "freeze" at the run's rung, "complete" at the target, "diverged", or None."""
        if index in self.thaw:
            self.resume(index)
        run = self.runs[index]
        run.curve.add(tokens, loss)
        if run.state != "active":
            return None
        if run.curve.diverged():
            return "diverged"
        if run.curve.tokens[-1] >= self.target:
            return "complete"
        return "freeze" if run.curve.tokens[-1] >= self.end_of(index) else None

    def end_of(self, index: int) -> float:
        """Tokens at which a run stops next."""
        return self.rungs[self.runs[index].rung] * self.target

    def freeze(self, index: int, can_go_on: bool) -> None:
        """A run stopped at its rung; `can_go_on`: it left a checkpoint."""
        self.runs[index].state = "frozen" if can_go_on else "ended"

    def resume(self, index: int) -> None:
        """A frozen run goes on to the next rung."""
        run = self.runs[index]
        run.state, run.rung = "active", self.thaw.pop(index, min(run.rung + 1, len(self.rungs) - 1))

    def end(self, index: int, state: str) -> None:
        """A run ended: "ended", "diverged" or "void"."""
        self.thaw.pop(index, None)
        self.runs[index].state = state

    def _plan(self) -> None:
        if not self.runs:
            self.queue = [(x, 0) for x in self._first()[: self.max_trials]]
            return
        said = self.recommend()
        if said.status == "ok":
            self.finished = True
            return
        usable = [r for r in self.runs if r.state in ("frozen", "ended")]
        if said.lr is None or not usable:
            self._retry()
            return
        plan = self._best_plan()
        if plan is None:
            self.finished = self.stuck = True
            return
        self.thaw = dict(plan.thaw)
        self.queue = [] if plan.new is None else [(plan.new, plan.rung)]

    def _best_plan(self) -> Plan | None:
        """What narrows the optimum most for its tokens; None where nothing is worth them."""
        plans = [plan for plan in self._plans() if plan.tokens(self) <= self.left()]
        if not plans:
            return None
        measured = [plan.measured(self) for plan in plans]
        variance = expected_variance(self.surface(), self.target, [[], *measured])
        rate = (variance[0] - variance[1:]) / np.array([plan.tokens(self) / self.target for plan in plans])
        best = int(np.argmax(rate))
        return plans[best] if rate[best] >= WORTH * variance[0] else None

    def left(self) -> float:
        """Tokens of the budget that are not spent yet."""
        spent = sum(run.curve.tokens[-1] for run in self.runs if run.curve.tokens)
        return (self.budget * self.target - spent) * (1 + 1e-9)

    def _plans(self) -> list[Plan]:
        """What may be done next: one or two frozen runs go on, a new lr begins, or one of each."""
        on = [(i, rung) for i, run in enumerate(self.runs) if run.state == "frozen"
              for rung in range(run.rung + 1, len(self.rungs))]  # fmt: skip
        thaws = [Plan({i: rung}) for i, rung in on]
        thaws += [Plan({i: r, j: q}) for i, r in on for j, q in on if i < j and r == q]
        new = []
        if len(self.runs) < self.max_trials:
            low, high = self.window()
            places = np.quantile(self.surface().optima(self.target), PLACES)
            for x in sorted({readable(min(max(float(x), low), high)) for x in places}):
                near = [run for run in self.runs if abs(x - run.log_lr) <= NEAR]
                if all(run.state == "ended" and abs(x - run.log_lr) > APART for run in near):
                    reached = max((run.rung for run in near), default=-1)  # they cannot go on: only further is new
                    new += [Plan({}, x, rung) for rung in range(reached + 1, len(self.rungs))]
        both = [Plan({i: r}, plan.new, plan.rung) for i, r in on for plan in new if plan.rung == 0]
        return thaws + new + both

    def _first(self) -> list[float]:
        low, high = self.low, self.high
        if self.prior.center is not None:
            reach = 1.5 * max(self.prior.center_sd, 0.4)
            low, high = self.prior.center - reach, self.prior.center + reach
            if not self.extend:
                low, high = max(low, self.low), min(high, self.high)
        shares = (np.arange(FIRST_RUNS) + 0.5 + self.jitter) / FIRST_RUNS
        return [readable(low + float(s) * (high - low)) for s in shares]

    def _retry(self) -> None:
        """The surface says nothing yet: go on with all, or lower where some diverged."""
        every = Plan({i: r.rung + 1 for i, r in enumerate(self.runs) if r.state == "frozen"})
        if every.thaw and every.tokens(self) <= self.left():
            self.thaw = dict(every.thaw)
            return
        room = self.max_trials - len(self.runs)
        if every.thaw or room <= 0 or not any(r.state == "diverged" for r in self.runs):
            self.finished = self.stuck = True
            return
        lowest = min(r.log_lr for r in self.runs)
        floor = self.low - (EXTEND_MOST if self.extend else 0.0)
        if lowest - APART < floor:
            self.finished = True
            return
        self.queue = [(readable(max(floor, lowest - d)), 0) for d in (0.5, 1.2)][:room]

    def surface(self) -> LossSurface:
        """The model of all runs so far."""
        key = self._key()
        if self._cached is None or self._cached[0] != key:
            lr, tokens, loss = [], [], []
            for run in self.runs:
                losses = list(run.curve.loss)
                if run.state == "diverged" and losses:
                    losses[-1] = math.nan  # whatever it was when it was stopped
                lr += [math.exp(run.log_lr)] * len(losses)
                tokens += run.curve.tokens
                loss += losses
            self._cached = (key, fit_surface(lr, tokens, loss))
        return self._cached[1]

    def _key(self) -> tuple[tuple[int, str], ...]:
        """What everything that is computed here follows from."""
        return tuple((len(r.curve.tokens), r.state) for r in self.runs)

    def window(self) -> tuple[float, float]:
        """The range, and what an extended search may try beyond the lrs tried so far, ln lr."""
        if not self.extend:
            return self.low, self.high
        tried = [r.log_lr for r in self.runs] or [self.low]
        low = max(min(self.low, min(tried) - EXTEND_STEP), self.low - EXTEND_MOST)
        return low, min(max(self.high, max(tried) + EXTEND_STEP), self.high + EXTEND_MOST)

    def moments(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of ln of the best lr, ln of the relative curvature, and the skew."""
        draws = self.surface().optima(self.target)
        curvature = self._curvature(float(np.mean(draws)))
        ln_c = (math.log(self.prior.curvature), self.prior.curvature_log_sd)
        if curvature > 0:
            ln_c = (math.log(curvature), 0.3)
        return {
            "center": (float(np.mean(draws)), float(np.std(draws))),
            "curvature": ln_c,
            "skew": (self.prior.skew, self.prior.skew_sd),
        }

    def close(self) -> None:
        """No new run can be begun any more: go on with the frozen ones only."""
        self.queue, self.max_trials = [], len(self.runs)

    def known(self) -> bool:
        """Whether the surface says where the optimum is."""
        return bool(self.runs) and self.surface().posterior is not None

    def _curvature(self, x: float) -> float:
        """Relative curvature of the loss at the target around ln lr = x."""
        loss = np.asarray(self.surface().loss(np.exp([x - NARROW, x, x + NARROW]), self.target)[0])
        return float((loss[0] - 2 * loss[1] + loss[2]) / (2 * NARROW**2 * max(abs(loss[1]), 1e-12)))

    def recommend(self) -> Recommendation:
        """What this cell would choose now at the target tokens."""
        key = (self._key(), self.stuck)
        if self._said is None or self._said[0] != key:
            self._said = (key, self._recommend())
        return self._said[1]

    def _recommend(self) -> Recommendation:
        stopped = sum(r.state != "active" for r in self.runs)
        if not self.runs or stopped == 0:
            return Recommendation(None, None, None, None, None, "too_few", "no run has stopped yet", stopped)
        surface = self.surface()
        if surface.posterior is None:
            status = "diverged" if surface.status == "diverged" else "too_few"
            return Recommendation(None, None, None, None, None, status, surface.message, stopped)
        low, high = self.window()
        free = math.log(surface.lr_opt(self.target))
        x = min(max(free, low), high)
        ends = surface.lr_interval(self.target, LEVEL)
        factor = math.sqrt(ends[1] / ends[0]) if ends[0] > 0 and math.isfinite(ends[1]) else math.inf
        regret = max(self._curvature(x), 0.0) * (math.log(factor) / 1.645) ** 2  # 90 % of a normal lie within 1.645 sd
        status, reason = "ok", f"known within tolerance from {stopped} runs"
        if abs(free - x) > APART:
            side = "low" if free < x else "high"
            status, reason = f"edge_{side}", f"the optimum lies beyond {math.exp(x):.3g}, the end of the range"
        elif regret > self.tolerance or factor > self.lr_factor:
            status = "uncertain"
            reason = (
                f"expected regret {100 * regret:.3f} % (tolerance {100 * self.tolerance:.3f} %), "
                f"interval within a factor {factor:.2f} (tolerance {self.lr_factor:.2f})"
            )
            if self.stuck:
                reason += "; no tokens that are left to spend would narrow it by a tenth per full run"
        lr = math.exp(x)
        loss, _ = surface.loss(lr, self.target)
        return Recommendation(lr, min(ends[0], lr), max(ends[1], lr), float(loss), regret, status, reason, stopped)
