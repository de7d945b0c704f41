"""Which tokens to spend next in one setting when runs can be paused: on a new lr, or on more of an old one. No Ray.

All runs of a setting share one model of the loss over lr and tokens (`raylr.analysis.fit_surface`). Runs pause at
rungs, shares of the target tokens: a few lrs go to the first rung; then, round by round, the tokens go where they
narrow the optimum at the target most (`raylr.analysis.surface.foresight`), to a new lr or to more of one or two old
ones. As in `cell_search`, a round is planned when all runs of the one before have stopped, so that the plans follow
from the results and never from timing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from raylr.analysis import LossSurface, fit_surface
from raylr.analysis.optimum import OptimumPrior
from raylr.analysis.optimum.acquisition import APART
from raylr.analysis.runs import RunEnd
from raylr.analysis.status import Status
from raylr.analysis.surface.foresight import expected_variance
from raylr.searchers.policies.cell_search import EXTEND_MOST, EXTEND_STEP, LEVEL, readable
from raylr.searchers.policies.memory import Memory, numbers, recalled, results
from raylr.searchers.policies.types import Decision, Recommendation, RunState

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


STOPPED = (RunEnd.PAUSED, RunEnd.COMPLETED, RunEnd.TRUNCATED, RunEnd.PRUNED)
"""Ends of runs that stopped without having diverged or failed."""
ENDED = (RunEnd.COMPLETED, RunEnd.TRUNCATED, RunEnd.PRUNED)
"""The same of runs that cannot be resumed."""


@dataclass(frozen=True)
class Plan:
    """What the next tokens of a setting may be spent on."""

    resumed: Mapping[int, int]
    """Paused runs to be resumed, and the rung to which each continues."""
    new: float | None = None
    """ln lr of a new run."""
    rung: int = 0
    """Rung at which the new run pauses."""

    def measured(self, cell: SurfaceCell) -> list[tuple[float, float]]:
        """(lr, tokens) at which it ends."""
        ends = [(cell.runs[i].log_lr, rung) for i, rung in self.resumed.items()]
        ends += [(self.new, self.rung)] if self.new is not None else []
        return [(math.exp(x), cell.rungs[rung] * cell.target) for x, rung in ends]

    def tokens(self, cell: SurfaceCell) -> float:
        """What it costs."""
        more = sum(cell.rungs[rung] * cell.target - cell.runs[i].curve.tokens[-1] for i, rung in self.resumed.items())
        return more + (cell.rungs[self.rung] * cell.target if self.new is not None else 0.0)


UNKNOWN_LOG_SD = 20.0
"""Standard deviation of ln of a curvature that the surface does not show: it says nothing to other settings."""


@dataclass
class SurfaceCell:
    """State of the search in one setting; what `cell_search.CellSearch` is to final losses."""

    low: float
    high: float
    prior: OptimumPrior
    target: float
    rungs: tuple[float, ...]
    budget: float
    """Most tokens, in runs to the target."""
    tolerance: float
    lr_factor: float
    max_trials: int
    extend: bool
    jitter: float = 0.0
    runs: list[RunState] = field(default_factory=list)
    queue: list[float] = field(default_factory=list)
    """ln lr of new runs of this round that were not handed out yet."""
    rung: int = 0
    """Rung at which the new runs of this round pause."""
    resumed: dict[int, int] = field(default_factory=dict)
    """Paused runs that are to be resumed, and the rung to which each continues."""
    planned: int = 0
    """Number of runs when this round was planned; none of them was running."""
    finished: bool = False
    stuck: bool = False
    """Whether it ended because no tokens were worth spending."""
    given: int = 0
    """Always 0: a final loss that was measured elsewhere is no curve."""
    memory: Memory | None = None
    """What was decided before, where that is kept."""
    _surface: tuple[Any, LossSurface] | None = None
    _recommended: tuple[Any, Recommendation] | None = None

    def pending(self) -> int:
        """Runs that are running, or are to be resumed."""
        return sum(r.running for r in self.runs) + len(self.resumed)

    def tried(self) -> int:
        """Runs begun."""
        return len(self.runs)

    def next(self) -> float | None:
        """ln lr of the next new run, or None for now."""
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
        """Begin the next new run."""
        run = RunState(self.queue.pop(0), rung=self.rung)
        self.runs.append(run)
        return run

    def observe(self, index: int, tokens: float, loss: float) -> Decision:
        """Take in a report: `PAUSED` at the run's rung, `COMPLETED` at the target, `DIVERGED`, or None (continue)."""
        if index in self.resumed:
            self.resume(index)
        run = self.runs[index]
        run.curve.add(tokens, loss)
        if not run.running:
            return None
        if run.curve.diverged():
            return RunEnd.DIVERGED
        if run.curve.tokens[-1] >= self.target:
            return RunEnd.COMPLETED
        return RunEnd.PAUSED if run.curve.tokens[-1] >= self.end_of(index) else None

    def end_of(self, index: int) -> float:
        """Tokens at which a run pauses next."""
        return self.rungs[self.runs[index].rung] * self.target

    def resume(self, index: int) -> None:
        """Resume a paused run: it continues to the rung planned for it."""
        run = self.runs[index]
        run.end, run.rung = None, self.resumed.pop(index, min(run.rung + 1, len(self.rungs) - 1))

    def end(self, index: int, end: RunEnd) -> None:
        """Note how a run ended."""
        self.resumed.pop(index, None)
        self.runs[index].end = end

    def _plan(self) -> None:
        self.planned = len(self.runs)
        found = recalled(self.memory, "segments", self._given(), self._next_segments)
        self.finished, self.stuck, self.rung = found["finished"], found["stuck"], found["rung"]
        self.queue, self.resumed = list(found["new"]), {int(run): int(rung) for run, rung in found["resumed"]}

    def _given(self) -> tuple[Any, ...]:
        """What every decision here follows from."""
        prior = numbers(*(getattr(self.prior, one.name) for one in fields(self.prior)))
        options = (self.budget, self.tolerance, self.lr_factor, self.max_trials, self.extend, self.jitter, self.rung)
        curves = tuple(
            (numbers(*run.curve.tokens), numbers(*run.curve.loss), numbers(*run.curve.lr, *run.curve.lr.values()),
             repr(run.curve.given), run.rung)
            for run in self.runs
        )  # fmt: skip
        places = numbers(self.low, self.high, self.target, *self.rungs)
        return places, prior, numbers(*options), results(self.runs), curves

    def _next_segments(self) -> dict[str, Any]:
        """What the next round is."""
        self._decide()
        return {"finished": self.finished, "stuck": self.stuck, "rung": self.rung, "new": self.queue,
                "resumed": list(self.resumed.items())}  # fmt: skip

    def _decide(self) -> None:
        room = min(FIRST_RUNS, self.max_trials) - len(self.runs)
        if room > 0:  # points that the user gave come first and take the place of the nearest of these
            first = sorted(self._first(), key=lambda x: -min((abs(x - r.log_lr) for r in self.runs), default=0.0))
            self.queue, self.rung = sorted(first[:room]), 0
            return
        found = self.recommend()
        if found.status.ok:
            self.finished = True
            return
        usable = [r for r in self.runs if r.end in STOPPED]
        if found.lr is None or not usable:
            self._retry()
            return
        plan = self._best_plan()
        if plan is None:
            self.finished = self.stuck = True
            return
        self.resumed = dict(plan.resumed)
        self.queue, self.rung = ([] if plan.new is None else [plan.new]), plan.rung

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
        """What may be done next: one or two paused runs continue, a new lr begins, or one of each."""
        on = [(i, rung) for i, run in enumerate(self.runs) if run.end is RunEnd.PAUSED
              for rung in range(run.rung + 1, len(self.rungs))]  # fmt: skip
        resumed = [Plan({i: rung}) for i, rung in on]
        resumed += [Plan({i: r, j: q}) for i, r in on for j, q in on if i < j and r == q]
        new = []
        if len(self.runs) < self.max_trials:
            low, high = self.window()
            places = np.quantile(self.surface().optima(self.target), PLACES)
            for x in sorted({readable(min(max(float(x), low), high)) for x in places}):
                near = [run for run in self.runs if abs(x - run.log_lr) <= NEAR]
                if all(run.end in ENDED and abs(x - run.log_lr) > APART for run in near):
                    reached = max((run.rung for run in near), default=-1)  # they cannot be resumed: only further is new
                    new += [Plan({}, x, rung) for rung in range(reached + 1, len(self.rungs))]
        both = [Plan({i: r}, plan.new, plan.rung) for i, r in on for plan in new if plan.rung == 0]
        return resumed + new + both

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
        """The surface says nothing yet: continue all runs, or begin lower ones where some diverged."""
        every = Plan({i: r.rung + 1 for i, r in enumerate(self.runs) if r.end is RunEnd.PAUSED})
        if every.resumed and every.tokens(self) <= self.left():
            self.resumed = dict(every.resumed)
            return
        room = self.max_trials - len(self.runs)
        if every.resumed or room <= 0 or not any(r.diverged for r in self.runs):
            self.finished = self.stuck = True
            return
        lowest = min(r.log_lr for r in self.runs)
        floor = self.low - (EXTEND_MOST if self.extend else 0.0)
        if lowest - APART < floor:
            self.finished = True
            return
        self.queue, self.rung = [readable(max(floor, lowest - d)) for d in (0.5, 1.2)][:room], 0

    def surface(self) -> LossSurface:
        """The model of all runs so far."""
        key = self._key()
        if self._surface is None or self._surface[0] != key:
            lr, tokens, loss, current = [], [], [], []
            given = next((run.curve.given for run in self.runs if run.curve.given is not None), None)
            for run in self.runs:
                reports = [(t, y) for t, y in zip(run.curve.tokens, run.curve.loss, strict=True) if t > 0]
                if run.diverged and reports:
                    reports[-1] = (reports[-1][0], math.nan)  # its last report was finite
                lr += [run.lr] * len(reports)
                tokens += [t for t, _ in reports]
                loss += [y for _, y in reports]
                current += [run.curve.lr.get(t, math.nan) for t, _ in reports]
            self._surface = (key, fit_surface(lr, tokens, loss, current_lr=current, schedule=given))
        return self._surface[1]

    def _key(self) -> tuple[tuple[int, str | None], ...]:
        """What everything that is computed here follows from."""
        return tuple((len(r.curve.tokens), r.end) for r in self.runs)

    def window(self) -> tuple[float, float]:
        """The range, and what an extended search may try beyond the lrs tried so far, ln lr."""
        if not self.extend:
            return self.low, self.high
        tried = [r.log_lr for r in self.runs] or [self.low]
        low = max(min(self.low, min(tried) - EXTEND_STEP), self.low - EXTEND_MOST)
        return low, min(max(self.high, max(tried) + EXTEND_STEP), self.high + EXTEND_MOST)

    def moments(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of ln of the best lr, ln of the curvature, and the skew."""
        found = recalled(self.memory, "moments", self._given(), self._moments)
        return {name: (mean, sd) for name, (mean, sd) in found.items()}

    def _moments(self) -> dict[str, tuple[float, float]]:
        draws = self.surface().optima(self.target)
        at = float(np.mean(draws))
        curvature = self._curvature(at) * abs(float(np.ravel(self.surface().loss(math.exp(at), self.target)[0])[0]))
        ln_c = (math.log(curvature), 0.3) if curvature > 0 else (0.0, UNKNOWN_LOG_SD)
        return {
            "center": (float(np.mean(draws)), float(np.std(draws))),
            "curvature": ln_c,
            "skew": (self.prior.skew, self.prior.skew_sd),
        }

    def close(self) -> None:
        """No new run can be begun any more: only resume paused ones."""
        self.queue, self.max_trials = [], len(self.runs)

    def known(self) -> bool:
        """Whether the surface says where the optimum is."""
        return bool(self.runs) and bool(
            recalled(self.memory, "known", self._given(), lambda: self.surface().posterior is not None)
        )

    def _curvature(self, x: float) -> float:
        """Relative curvature of the loss at the target around ln lr = x."""
        loss = np.asarray(self.surface().loss(np.exp([x - NARROW, x, x + NARROW]), self.target)[0])
        return float((loss[0] - 2 * loss[1] + loss[2]) / (2 * NARROW**2 * max(abs(loss[1]), 1e-12)))

    def recommend(self) -> Recommendation:
        """What this setting would choose now at the target tokens."""
        key = (self._key(), self.stuck)
        if self._recommended is None or self._recommended[0] != key:
            self._recommended = (key, self._recommend())
        return self._recommended[1]

    def _recommend(self) -> Recommendation:
        stopped = sum(not r.running for r in self.runs)
        if not self.runs or stopped == 0:
            return Recommendation.nothing(Status.TOO_FEW, "no run has stopped yet", stopped)
        surface = self.surface()
        falls = next((why for r in self.runs if (why := r.curve.not_constant(self.target)) is not None), None)
        if falls is not None:
            return Recommendation.nothing(
                Status.NOT_CONSTANT, f"{falls}; search by final losses, as QuadraticSearch does", stopped
            )
        if surface.posterior is None:
            status = Status.DIVERGED if surface.status == Status.DIVERGED else Status.TOO_FEW
            return Recommendation.nothing(status, surface.message, stopped)
        low, high = self.window()
        free = math.log(surface.lr_opt(self.target))
        x = min(max(free, low), high)
        ends = surface.lr_interval(self.target, LEVEL)
        factor = math.sqrt(ends[1] / ends[0]) if ends[0] > 0 and math.isfinite(ends[1]) else math.inf
        regret = max(self._curvature(x), 0.0) * (math.log(factor) / 1.645) ** 2  # 90 % of a normal lie within 1.645 sd
        status, reason = Status.OK, f"known within tolerance from {stopped} runs"
        if abs(free - x) > APART:
            side = "low" if free < x else "high"
            status, reason = Status(f"edge_{side}"), f"the optimum lies beyond {math.exp(x):.3g}, the end of the range"
        elif regret > self.tolerance or factor > self.lr_factor:
            status = Status.UNCERTAIN
            reason = (
                f"expected regret {100 * regret:.3f} % (tolerance {100 * self.tolerance:.3f} %), "
                f"interval within a factor {factor:.2f} (tolerance {self.lr_factor:.2f})"
            )
            if self.stuck:
                reason += "; no tokens that are left to spend would narrow it by a tenth per full run"
        lr = math.exp(x)
        loss, _ = surface.loss(lr, self.target)
        return Recommendation(lr, min(ends[0], lr), max(ends[1], lr), float(loss), regret, status, reason, stopped)
