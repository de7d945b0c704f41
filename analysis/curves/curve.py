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

BACK_UP = 0.5
"""A loss that has climbed back this share of its fall, for `SUSTAINED` reports, has diverged."""
SUSTAINED = 3
"""Consecutive reports that make it more than a spike."""
OWN = 0.22
"""Part of an extrapolation's standard error that is a run's own; the rest is what the power law misses, which runs of
one model at other lrs miss alike (a twentieth of the variance is taken as own in `raylr.analysis.fit_surface`,
too)."""
LEAST_REPORTS = 6
"""Reports before a curve is extrapolated."""


@dataclass
class Curve:
    """Loss reports of one trial; tokens only grow."""

    tokens: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)

    def add(self, tokens: float, loss: float) -> bool:
        """Append a report; False (and left out) if tokens did not grow."""
        if self.tokens and tokens <= self.tokens[-1]:
            return False
        self.tokens.append(float(tokens))
        self.loss.append(float(loss))
        return True

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
        tokens, loss_n = np.array(self.tokens), np.array(self.loss)
        begun = tokens > 0  # a report before any training, or of a counter that starts at 0, is on no power law
        if begun.sum() < LEAST_REPORTS:
            return self.loss[-1], math.inf
        fit = fit_power_law(tokens[begun], loss_n[begun])
        if not fit.ok:
            return self.loss[-1], math.inf
        loss, stderr = fit.predict(target)
        if not (math.isfinite(loss) and math.isfinite(stderr)):
            return self.loss[-1], math.inf
        return float(loss), float(stderr)
