"""When to stop one run early: its own curve shows divergence, or determines its loss at the target. No Ray.

All decisions but `cannot_win` follow from a run's own curve, so which runs are stopped, and where, never depends on
timing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from raylr.analysis.curves.curve import Curve
from raylr.analysis.curves.schedule import Schedule
from raylr.analysis.runs import RunEnd
from raylr.errors import InputError
from raylr.searchers._config import number
from raylr.searchers.policies.types import Decision

SHORT = 0.99
"""A run that was not stopped and ended before this share of its target did not complete."""
SURE = 3.0
"""Standard errors by which a run must lie above the best one before it counts as worse (once in a thousand wrong)."""

AFTER_STOP = 4
"""Most reports of a run after the decision to stop it that are looked behind: Ray Tune's trials are one report ahead of
their scheduler, and a second decision needs two reports."""


@dataclass(frozen=True, kw_only=True)
class StoppingRule:
    """Stops a run once it diverged, reached its target, or its loss at the target is known well enough.

    Args:
        min_fraction: Share of the target before which no run is truncated; 1 never truncates.
        tolerance: Standard error of the extrapolated loss, relative to it, at which a run is truncated. Most of that
            error is shared by all lrs of a setting and moves the optimum little.
        schedule: Schedule of the runs' LR, or its name. No run is truncated whose LR falls before the target. None:
            recognised from the LRs that a curve has, and taken as constant where it has none.

    Raises:
        InputError: For a fraction outside (0, 1] or a tolerance that is not positive.

    Example:
        >>> from raylr.analysis.curves.curve import Curve
        >>> rule = StoppingRule(min_fraction=0.4, tolerance=0.01)
        >>> rule.decide(Curve([1.0, 2.0], [3.0, float("nan")]), target=10.0)
        <RunEnd.DIVERGED: 'diverged'>
    """

    min_fraction: float = 0.4
    tolerance: float = 1e-2
    schedule: Schedule | str | None = None

    def __post_init__(self) -> None:
        if not (number(self.min_fraction) and 0 < self.min_fraction <= 1):
            raise InputError(f"min_fraction must be above 0 and at most 1, not {self.min_fraction!r}")
        if not (number(self.tolerance) and self.tolerance > 0):
            raise InputError(f"tolerance must be above 0, not {self.tolerance!r}")
        object.__setattr__(self, "schedule", Schedule.of(self.schedule))

    def decide(self, curve: Curve, target: float | None) -> Decision:
        """Decide about a run that is still training.

        Args:
            curve: Its losses so far (smaller is better).
            target: Tokens at which its loss counts; None: only divergence is looked for.

        Returns:
            `DIVERGED`, `COMPLETED`, `TRUNCATED`, or None to continue.
        """
        if curve.diverged():
            return RunEnd.DIVERGED
        if target is None or not curve.tokens:
            return None
        if curve.tokens[-1] >= target:
            return RunEnd.COMPLETED
        if not self.applies(curve, target):
            return None
        loss, stderr = curve.extrapolate(target)
        allowed = self.tolerance * abs(loss)
        if not stderr <= allowed:
            return None
        # One report can agree with a wrong power law by chance; two in a row seldom do.
        before, _ = Curve(curve.tokens[:-1], curve.loss[:-1], curve.lr, curve.given).extrapolate(target)
        return RunEnd.TRUNCATED if abs(before - loss) <= allowed else None

    def applies(self, curve: Curve, target: float) -> bool:
        """Return whether a run may be stopped because of its extrapolated loss.

        Its curve must be long enough, and its LR constant until the target.
        """
        given = Schedule.of(self.schedule)
        if self.min_fraction == 1 or (given is not None and not given.constant_until(target)):
            return False
        long_enough = bool(curve.tokens) and curve.tokens[-1] >= self.min_fraction * target
        return long_enough and curve.not_constant(target) is None


def ended(curve: Curve, target: float) -> RunEnd:
    """Return how a run ended that no scheduler had stopped.

    A counter that starts at 0 (`for step in range(n)`) ends one step below its target, and the run is complete.
    """
    if not curve.tokens:
        return RunEnd.NO_REPORT
    if curve.diverged():
        return RunEnd.DIVERGED
    reached = curve.tokens[-1]
    if curve.tokens[0] == 0 and len(curve.tokens) > 1:
        reached += curve.tokens[1]
    return RunEnd.COMPLETED if reached >= SHORT * target else RunEnd.PRUNED


def final_loss(curve: Curve, target: float | None, end: RunEnd) -> tuple[float, float]:
    """Return the loss of an ended run at its target and the standard error of that loss.

    Args:
        curve: Its losses (smaller is better).
        target: Tokens at which the loss counts; None takes the last loss.
        end: How the run ended.

    Returns:
        Loss and standard error; (NaN, inf) for a run that diverged or reported nothing. A run may report once more
        after it was stopped, and its whole curve then be none that can be extrapolated: the loss is the last one plus
        the fall that the longest beginning (see `AFTER_STOP`) foretells from there on, and what that beginning missed
        at the last report is part of the error. Where no beginning can tell, the last loss, with its whole fall as
        standard error, and inf where it has not changed.
    """
    if end is RunEnd.DIVERGED or not curve.loss:
        return math.nan, math.inf
    if end is RunEnd.COMPLETED or target is None:
        return curve.loss[-1], 0.0
    loss, stderr = curve.extrapolate(target)
    for reports in range(len(curve.loss) - 1, max(len(curve.loss) - 1 - AFTER_STOP, 0), -1):
        if math.isfinite(stderr):
            break
        part = Curve(curve.tokens[:reports], curve.loss[:reports], curve.lr, curve.given)
        foretold, stderr = part.extrapolate(target)
        if math.isfinite(stderr):
            missed = curve.loss[-1] - part.extrapolate(curve.tokens[-1])[0]
            loss, stderr = foretold + missed, math.hypot(stderr, missed)
    if not math.isfinite(stderr):
        stderr = abs(curve.loss[0] - loss) or math.inf
    return float(loss), float(stderr)


def cannot_win(loss: float, stderr: float, others: Iterable[tuple[float, float]]) -> bool:
    """Return whether a run's extrapolated loss lies above the best of the `others` by twice both standard errors."""
    finite = [other for other in others if math.isfinite(other[1])]
    if not finite or not math.isfinite(stderr):
        return False
    best, error = min(finite)
    return loss - 2 * stderr > best + 2 * error


def could_be_best(curve: Curve, target: float, best: float) -> bool:
    """Return whether the loss of a run, once measured at its target, could be lower than the best one so far.

    What will be measured scatters around the extrapolated loss by the error of the extrapolation and by the noise of
    one report.

    Args:
        curve: The run's losses so far (smaller is better).
        target: Tokens at which the loss counts.
        best: The lowest loss measured at the target; infinite where there is none.
    """
    loss, stderr = curve.extrapolate(target)
    return not loss - SURE * math.hypot(stderr, noise(curve)) > best


def noise(curve: Curve) -> float:
    """Return the standard deviation of single reports around a smooth curve, from their second differences.

    The median is taken, so that neither the steep beginning of a curve nor a spike counts. Tokens need not be evenly
    spaced: each report is compared with the line through its neighbours. The estimate is raised by its own standard
    error (a median of n absolute values is as good as 0.37 n squares, so that it is 1.17 / sqrt(n) of the value): one
    that is too low would call a run hopeless that is not.
    """
    t, y = np.array(curve.tokens), np.array(curve.loss)
    if t.size < 5 or not np.isfinite(y).all():
        return 0.0
    left = (t[2:] - t[1:-1]) / (t[2:] - t[:-2])
    residual = y[1:-1] - left * y[:-2] - (1 - left) * y[2:]
    unit = np.sqrt(1 + left**2 + (1 - left) ** 2)
    # 0.6745: the median of |a standard normal|
    return float(np.median(np.abs(residual / unit)) / 0.6745) * (1 + 1.17 / math.sqrt(residual.size))
