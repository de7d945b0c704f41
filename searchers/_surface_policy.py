"""Which tokens to spend next in one cell when runs can be frozen: on a new lr, or on more of an old one. No Ray.

All runs of a cell share one model of the loss over lr and tokens (`raylr.analysis.fit_surface`). Runs stop at rungs,
shares of the target tokens: a few lrs go to the first rung; then, round by round, a new lr is tried where the optimum
at the target is expected and no run is near, or else the runs on either side of it go on to the next rung. As in
`_policy`, a round is planned when all runs of the one before have stopped, so that timing has no say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raylr.analysis import fit_surface
from raylr.searchers._curves import Curve
from raylr.searchers._policy import APART, EXTEND_MOST, EXTEND_STEP, LEVEL, Recommendation, readable
from raylr.searchers._posterior import ShapePrior

FIRST_RUNS = 4
"""Lrs of the first round: three determine a parabola, one more lets the surface see its own misfit."""
GAP = 0.7
"""The optimum wants a run within this of it, in ln lr: a factor of two."""
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


@dataclass
class SurfaceCell:
    """State of the search in one cell; what `_policy.CellSearch` is to final losses."""

    low: float
    high: float
    prior: ShapePrior
    target: float
    rungs: tuple[float, ...]
    tolerance: float
    lr_factor: float
    max_trials: int
    extend: bool
    jitter: float = 0.0
    runs: list[FrozenRun] = field(default_factory=list)
    queue: list[float] = field(default_factory=list)
    """ln lr of new runs of this round that were not handed out yet."""
    thaw: set[int] = field(default_factory=set)
    """Frozen runs that are to go on."""
    finished: bool = False
    given: int = 0
    _cached: tuple[tuple[tuple[int, str], ...], Any] | None = None

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
        return self.queue[0] if self.queue else None

    def start(self) -> FrozenRun:
        """Begin the next new run."""
        run = FrozenRun(self.queue.pop(0))
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
        return "freeze" if run.curve.tokens[-1] >= self.rungs[run.rung] * self.target else None

    def freeze(self, index: int, can_go_on: bool) -> None:
        """A run stopped at its rung; `can_go_on`: it left a checkpoint."""
        self.runs[index].state = "frozen" if can_go_on else "ended"

    def resume(self, index: int) -> None:
        """A frozen run goes on to the next rung."""
        self.thaw.discard(index)
        run = self.runs[index]
        run.state, run.rung = "active", min(run.rung + 1, len(self.rungs) - 1)

    def end(self, index: int, state: str) -> None:
        """A run ended: "ended", "diverged" or "void"."""
        self.thaw.discard(index)
        self.runs[index].state = state

    def _plan(self) -> None:
        if not self.runs:
            self.queue = self._first()[: self.max_trials]
            return
        said = self.recommend()
        if said.status == "ok":
            self.finished = True
            return
        usable = [r for r in self.runs if r.state in ("frozen", "ended")]
        if said.lr is None or not usable:
            self._retry()
            return
        optimum = math.log(said.lr)
        near = min(abs(r.log_lr - optimum) for r in usable)
        if near > GAP and len(self.runs) < self.max_trials:
            self.queue = [readable(optimum)]
            return
        frozen = [i for i, r in enumerate(self.runs) if r.state == "frozen"]
        below = [i for i in frozen if self.runs[i].log_lr <= optimum]
        above = [i for i in frozen if self.runs[i].log_lr > optimum]
        nearest = [min(side, key=lambda i: abs(self.runs[i].log_lr - optimum)) for side in (below, above) if side]
        if nearest:
            self.thaw = set(nearest)
        elif near > 2 * APART and len(self.runs) < self.max_trials:
            self.queue = [readable(optimum)]
        else:
            self.finished = True

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
        """The surface says nothing yet: go on with all, or lower if all diverged."""
        self.thaw = {i for i, r in enumerate(self.runs) if r.state == "frozen"}
        room = self.max_trials - len(self.runs)
        if self.thaw or room <= 0:
            self.finished = not self.thaw
            return
        lowest = min(r.log_lr for r in self.runs)
        floor = self.low - (EXTEND_MOST if self.extend else 0.0)
        if lowest - APART < floor:
            self.finished = True
            return
        self.queue = [readable(max(floor, lowest - d)) for d in (0.5, 1.2)][:room]

    def surface(self) -> Any:
        """The model of all runs so far (`LossSurface`)."""
        key = tuple((len(r.curve.tokens), r.state) for r in self.runs)
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
        loss, _ = self.surface().loss(np.exp([x - NARROW, x, x + NARROW]), self.target)
        return float((loss[0] - 2 * loss[1] + loss[2]) / (2 * NARROW**2 * max(abs(loss[1]), 1e-12)))

    def recommend(self) -> Recommendation:
        """What this cell would choose now at the target tokens."""
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
        lr = math.exp(x)
        loss, _ = surface.loss(lr, self.target)
        return Recommendation(lr, min(ends[0], lr), max(ends[1], lr), float(loss), regret, status, reason, stopped)
