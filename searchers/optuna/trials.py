"""Reading Optuna's trials: their curves, how they ended, and the range of a parameter. No state."""

from __future__ import annotations

import math

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from raylr.analysis.curves.curve import OWN, Curve
from raylr.analysis.runs import RunEnd
from raylr.errors import InputError
from raylr.searchers._config import LRDomain, as_float, check_range
from raylr.searchers.policies.types import RunState


def curve_of(trial: FrozenTrial, sign: float) -> Curve:
    """Return the intermediate values of a trial as a curve (smaller is better)."""
    curve = Curve()
    for step, value in sorted(trial.intermediate_values.items()):
        curve.add(step, sign * value)
    return curve


def run_of(trial: FrozenTrial, lr: float, sign: float, target: float | None, objective: int) -> RunState:
    """Return a trial as a run.

    A failed trial counts as failed: Optuna fails trials whose value is NaN as well as those that raised.

    Args:
        trial: The trial.
        lr: Its learning rate.
        sign: -1 where the objective is maximised.
        target: Step at which the loss of a pruned trial counts.
        objective: Index of the objective.
    """
    run = RunState(math.log(lr), curve=curve_of(trial, sign))
    if trial.state is TrialState.COMPLETE and trial.values is not None:
        value = sign * trial.values[objective]
        run.end, run.loss = (RunEnd.COMPLETED, value) if math.isfinite(value) else (RunEnd.DIVERGED, math.nan)
    elif trial.state is TrialState.FAIL:
        run.end = RunEnd.DIVERGED if run.curve.diverged() else RunEnd.FAILED
    elif trial.state is TrialState.PRUNED:
        loss, stderr = run.curve.extrapolate(target) if target else (math.nan, math.inf)
        if run.curve.diverged():
            run.end = RunEnd.DIVERGED
        elif math.isfinite(stderr):
            run.end, run.loss, run.stderr = RunEnd.TRUNCATED, loss, OWN * stderr
        else:
            run.end = RunEnd.NO_REPORT
    return run


def lr_of(trial: FrozenTrial, key: str) -> float | None:
    """Return a trial's learning rate; None for one that has none, or none that has a logarithm (0, or a name)."""
    value = as_float(trial.params.get(key))
    return value if value is not None and math.isfinite(value) and value > 0 else None


def sign_of(direction: StudyDirection) -> float:
    """Return -1 for a direction that is maximised."""
    return -1.0 if direction is StudyDirection.MAXIMIZE else 1.0


def domain_of(name: str, distribution: BaseDistribution) -> LRDomain:
    """Return a parameter's range.

    Raises:
        InputError: For one that is not numeric or not positive.
    """
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise InputError(
            f"{name!r} is {distribution}, not a numeric range: use suggest_float(name, low, high, log=True)"
        )
    low, high = float(distribution.low), float(distribution.high)
    if low < high or low <= 0:
        check_range(low, high, name)
    step = distribution.step
    integer = isinstance(distribution, IntDistribution)
    if step is None or (integer and step == 1):
        return LRDomain(low, high, integer=integer)
    return LRDomain(low, high, step=float(step), origin=low, integer=integer)
