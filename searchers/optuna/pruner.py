"""`PowerLawPruner`: stops trials whose final loss is known, in plain Optuna."""

from __future__ import annotations

import math

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from raylr.analysis.curves.schedule import Schedule
from raylr.analysis.runs import RunEnd
from raylr.errors import InputError
from raylr.searchers._config import number
from raylr.searchers.optuna.trials import curve_of, sign_of
from raylr.searchers.policies.stopping import StoppingRule, could_be_best


class PowerLawPruner(optuna.pruners.BasePruner):  # type: ignore[misc]  # no types
    """`PowerLawScheduler` as an Optuna pruner: prunes a trial that diverged, or whose loss at `target` is known.

    Optuna's `study.best_trial` is the best of those that ran to their end, so a trial that could still be the best is
    not pruned: one whose extrapolated loss lies above the best loss so far by less than three standard errors, the
    noise of a single report included. `keep_best=False` prunes it too, which saves steps, and
    `QuadraticSampler.recommend` loses nothing by it.

    Report the loss with the tokens (or steps) seen as its step: `trial.report(loss, tokens)`; steps may start at 0.
    `QuadraticSampler(target=...)` reads the extrapolated loss of a pruned trial; other samplers see the last reported
    value, as with any pruner.

    Args:
        target: Step at which the loss counts.
        min_fraction: Share of it before which no trial is pruned.
        tolerance: Standard error of the extrapolated loss, relative to it, at which it counts as known.
        keep_best: Whether a trial that could be the best so far runs to its end.
        schedule: Schedule of the trials' LR: a `raylr.analysis.Schedule`, or a name such as "cosine". Only diverged
            trials are pruned where the LR falls before the target. None takes it as constant.

    Raises:
        InputError: For a target, fraction or tolerance that is not positive.

    Example:
        >>> study = optuna.create_study(pruner=PowerLawPruner(target=1000))
    """

    def __init__(
        self,
        target: float,
        *,
        min_fraction: float = 0.4,
        tolerance: float = 1e-2,
        keep_best: bool = True,
        schedule: Schedule | str | None = None,
    ) -> None:
        if not number(target) or target <= 0:
            raise InputError(f"target must be above 0, not {target!r}")
        self.target, self.keep_best = float(target), keep_best
        self.rule = StoppingRule(min_fraction=min_fraction, tolerance=tolerance, schedule=schedule)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether to end the trial now."""
        sign = sign_of(study.direction)
        curve = curve_of(trial, sign)
        decision = self.rule.decide(curve, self.target)
        if decision is RunEnd.TRUNCATED and self.keep_best:
            ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            best = min((sign * t.value for t in ended if t.value is not None), default=math.inf)
            return not could_be_best(curve, self.target, best)
        return decision in (RunEnd.DIVERGED, RunEnd.TRUNCATED)
