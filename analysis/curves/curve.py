"""What the loss curve of one trial says: whether it diverged, and its loss at the target tokens. No Ray.

Notation and shapes
    t      tokens (or any resource that only grows)     (n,)
    y      loss, smaller is better                      (n,)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from raylr.analysis import fit_power_law
from raylr.analysis.curves.schedule import Schedule, recognise_schedule

BACK_UP = 0.5
"""A loss that has climbed back this share of its fall, for `SUSTAINED` reports, has diverged."""
SUSTAINED = 3
"""Consecutive reports that make it more than a spike."""
OWN = 0.22
"""Part of an extrapolation's standard error that is a run's own; the rest is what the power law misses, which runs of
one model at other lrs share (a twentieth of the variance is taken as own in `raylr.analysis.fit_surface`,
too)."""
LEAST_REPORTS = 6
"""Reports before a curve is extrapolated."""


@dataclass
class Curve:
    """Loss reports of one trial, in the order of their tokens.

    Tokens that go back are those of a run that was resumed from an earlier checkpoint: the later reports take the place
    of the earlier ones.
    """

    tokens: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    lr: dict[float, float] = field(default_factory=dict)
    """LR of the schedule at token counts, where it was reported."""
    given: Schedule | None = None
    """The schedule, where the user named it."""

    def add(self, tokens: float, loss: float) -> bool:
        """Take in a report; return False if tokens did not grow: what was reported from there on is then dropped."""
        grew = not self.tokens or tokens > self.tokens[-1]
        while self.tokens and self.tokens[-1] >= tokens:
            self.tokens.pop()
            self.loss.pop()
        self.tokens.append(float(tokens))
        self.loss.append(float(loss))
        return grew

    def note_lr(self, tokens: float, lr: float) -> None:
        """Take in the LR of the schedule at a report."""
        if self.lr and tokens < next(reversed(self.lr)):
            self.lr = {t: value for t, value in self.lr.items() if t < tokens}
        self.lr.pop(tokens, None)  # so that the last key is the latest
        self.lr[float(tokens)] = float(lr)

    @property
    def schedule(self) -> Schedule | None:
        """The schedule that the reported LRs show, or the given one; None where neither is there."""
        seen = recognise_schedule(list(self.lr), list(self.lr.values())) if self.lr else None
        return self.given if seen is None or (seen.constant and self.given is not None) else seen

    def not_constant(self, target: float) -> str | None:
        """Return why the loss at `target` cannot be extrapolated from here, if the schedule forbids it."""
        schedule = self.schedule
        if schedule is None or (schedule.constant_until(target) and (self.given is None or
                                                                     self.given.constant_until(target))):  # fmt: skip
            return None
        reason = schedule if not schedule.constant_until(target) else self.given
        return f"{reason}; the power law (Eq. 4) holds at a constant one, so that no loss is extrapolated"

    def diverged(self) -> bool:
        """NaN or infinite, or climbed back to half its fall and stayed there."""
        if not self.loss:
            return False
        if not math.isfinite(self.loss[-1]):
            return True
        if len(self.loss) < SUSTAINED + 2:
            return False
        lowest = min(self.loss)
        fall = self.loss[0] - lowest
        return fall > 0 and min(self.loss[-SUSTAINED:]) > lowest + max(BACK_UP * fall, 0.05 * abs(lowest))

    def extrapolate(self, target: float) -> tuple[float, float]:
        """Loss at `target` and its standard error; the last loss and inf where the curve cannot tell."""
        if not self.loss:
            return math.nan, math.inf
        if self.tokens[-1] >= target:
            return float(np.interp(target, self.tokens, self.loss)), 0.0
        if self.not_constant(target) is not None:
            return self.loss[-1], math.inf
        tokens, loss_n = np.array(self.tokens), np.array(self.loss)
        begun = tokens > 0  # a report before any training, or of a counter that starts at 0, is on no power law
        if begun.sum() < LEAST_REPORTS:
            return self.loss[-1], math.inf
        schedule = self.schedule
        warmup = 0.0 if schedule is None else schedule.warmup
        fit = fit_power_law(tokens[begun], loss_n[begun], warmup_tokens=warmup)
        if not fit.ok:
            return self.loss[-1], math.inf
        loss, stderr = fit.predict(target)
        if not (math.isfinite(loss) and math.isfinite(stderr)):
            return self.loss[-1], math.inf
        return float(loss), float(stderr)
