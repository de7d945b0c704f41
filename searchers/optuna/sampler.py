"""`QuadraticSampler`: the search on final losses as an Optuna sampler."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from raylr.analysis.runs import Setting
from raylr.analysis.status import Status
from raylr.errors import InputError
from raylr.searchers._config import LRDomain
from raylr.searchers.optuna.axes import ask_now as ask_place
from raylr.searchers.optuna.axes import first_value, search_of, space_of
from raylr.searchers.optuna.trials import domain_of, lr_of, run_of, sign_of
from raylr.searchers.policies.axes import require_axes
from raylr.searchers.policies.axes_search import AxesSearch
from raylr.searchers.policies.cell_search import CellSearch
from raylr.searchers.policies.failures import without_repeats
from raylr.searchers.policies.parallel import ask_now
from raylr.searchers.policies.policy import require_tolerances
from raylr.searchers.policies.priors import prior_for
from raylr.searchers.policies.types import Recommendation


class QuadraticSampler(optuna.samplers.BaseSampler):  # type: ignore[misc]  # no types
    """`QuadraticSearch` as an Optuna sampler: suggests the parameter `lr_key`, and leaves all others to
    `independent_sampler`.

    A trial whose value is not finite counts as diverged: the best lr is lower than its own. So does a failed trial
    (Optuna fails trials that return NaN) unless one at its lr or a higher one succeeded. A pruned trial counts with its
    intermediate values extrapolated to `target` steps; without a target they are not extrapolated.

    Trials that run side by side, in threads or processes, get different lrs: those that other workers were given and
    have not written down yet are worked out from the same results.

    Args:
        lr_key: Name of the learning rate in `trial.suggest_float`; its range must be positive.
        axes: Names of one to three further parameters (batch, weight decay, init std) that are searched together with
            the lr by one model; their ranges must be positive, and neither `prior` nor `lr_tolerance` applies then.
        target: Step (tokens) at which the loss of a pruned trial counts; give the same to `PowerLawPruner`.
        tolerance: Expected regret, in the unit of the loss, at which the optimum counts as known;
            None: a tenth of what a factor e of the lr costs, which is the same for any scale of the loss.
        lr_tolerance: Factor within which the 90 % interval must hold the best lr, to either side.
        stop: Whether to stop the study then.
        prior: An `LRLaw`, the name of a preset, or an `OptimumPrior`; a law needs `params` and `tokens`.
        params: Parameters of the model, for the law.
        tokens: Training tokens, for the law.
        objective: Index of the objective that the lr is judged by, in a study with several.
        independent_sampler: For all other parameters; TPESampler by default.
        seed: Of that default sampler.

    Raises:
        InputError: For arguments that cannot work; when sampling, for a range of `lr_key` that is not positive or not
            numeric.

    Example:
        >>> import math
        >>> optuna.logging.set_verbosity(optuna.logging.ERROR)
        >>> study = optuna.create_study(sampler=QuadraticSampler(stop=True))
        >>> def objective(trial):
        ...     return 50 + math.log(trial.suggest_float("lr", 1e-4, 1e-1, log=True) / 2e-3) ** 2
        >>> study.optimize(objective, n_trials=20)
        >>> abs(math.log(study.sampler.recommend(study).lr / 2e-3)) < 0.1
        True
    """

    def __init__(
        self,
        *,
        lr_key: str = "lr",
        axes: Sequence[str] = (),
        target: float | None = None,
        tolerance: float | None = None,
        lr_tolerance: float = 2.0,
        stop: bool = False,
        prior: Any = None,
        params: float | None = None,
        tokens: float | None = None,
        objective: int = 0,
        independent_sampler: optuna.samplers.BaseSampler | None = None,
        seed: int | None = None,
    ) -> None:
        require_tolerances(tolerance, lr_tolerance)
        self.lr_key, self.target, self.stop, self.objective = lr_key, target, stop, objective
        self._keys = (lr_key, *require_axes(axes, lr_key)) if axes else (lr_key,)
        if axes and prior is not None:
            raise InputError("prior= is known for the lr alone: leave it out where axes= names further axes")
        self._tolerance, self._lr_factor = tolerance, lr_tolerance
        self._prior = prior_for(prior, Setting(params=params, tokens=tokens))
        self._inner = independent_sampler or optuna.samplers.TPESampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what is sampled jointly: the inner sampler's parameters, and the lr with its axes if it has any."""
        space = self._inner.infer_relative_search_space(study, trial)
        own = space_of(study.get_trials(deepcopy=False), self._keys) if len(self._keys) > 1 else {}
        return {**{k: v for k, v in space.items() if k not in self._keys}, **own}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return what the inner sampler samples, and the next place of the lr and its axes."""
        rest = {k: v for k, v in search_space.items() if k not in self._keys}
        out = dict(self._inner.sample_relative(study, trial, rest)) if rest else {}
        if len(rest) == len(search_space):
            return out
        trials = study.get_trials(deepcopy=False)
        waiting = [t for t in trials if t.state is TrialState.RUNNING and t.number < trial.number]
        unknown = sum(any(key not in t.params for key in self._keys) for t in waiting)
        search = self._axes_search(study, [t for t in trials if t.number != trial.number], search_space)
        return {**out, **ask_place(search, self._keys, unknown)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the next lr, or the inner sampler's value of another parameter.

        Called by Optuna as `optuna.samplers.BaseSampler.sample_independent`.
        """
        if len(self._keys) > 1 and param_name in self._keys:
            axis, domain = self._keys.index(param_name), domain_of(param_name, param_distribution)
            return first_value(domain, axis, len(self._keys), trial.number)
        if param_name != self.lr_key:
            return self._inner.sample_independent(study, trial, param_name, param_distribution)
        domain, trials = domain_of(param_name, param_distribution), study.get_trials(deepcopy=False)
        waiting = [t for t in trials if t.state is TrialState.RUNNING and t.number < trial.number]
        unknown = sum(self.lr_key not in t.params for t in waiting)
        others = [t for t in trials if t.number != trial.number]
        parallel = any(t.state is TrialState.RUNNING for t in others)
        search = self._search(study, others, domain)
        return ask_now(search, domain, unknown, number=trial.number if parallel else None)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Call the inner sampler's."""
        self._inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Stop the study when the optimum is known, if `stop` is set.

        Called by Optuna as `optuna.samplers.BaseSampler.after_trial`.
        """
        self._inner.after_trial(study, trial, state, values)
        if self.stop and self._found(study):
            study.stop()

    def reseed_rng(self) -> None:
        """Call the inner sampler's; the lr needs no random numbers."""
        self._inner.reseed_rng()

    def recommend(self, study: Study) -> Recommendation:
        """Return the lr that the search would choose now, with its interval, and why."""
        if len(self._keys) > 1:
            trials = study.get_trials(deepcopy=False)
            space = space_of(trials, self._keys)
            if not space:
                why = f"no trial has positive ranges of {', '.join(self._keys)} yet"
                return Recommendation.nothing(Status.TOO_FEW, why)
            found = self._axes_search(study, trials, space).recommend()
            return found.in_sign_of(sign_of(self._direction(study)))
        domain = self._domain_of(study)
        if domain is None:
            return Recommendation.nothing(Status.TOO_FEW, f"no trial has a positive {self.lr_key!r} yet")
        found = self._search(study, study.get_trials(deepcopy=False), domain).recommend()
        return found.in_sign_of(sign_of(self._direction(study)))

    def _found(self, study: Study) -> bool:
        if len(self._keys) > 1:
            trials = study.get_trials(deepcopy=False)
            space = space_of(trials, self._keys)
            return bool(space) and self._axes_search(study, trials, space).settled()
        domain = self._domain_of(study)
        return domain is not None and self._search(study, study.get_trials(deepcopy=False), domain).settled()

    def _domain_of(self, study: Study) -> LRDomain | None:
        """The range of the last trial whose lr has one; others (a category, a range from 0) cannot be searched."""
        for trial in reversed(study.get_trials(deepcopy=False)):
            if self.lr_key in trial.distributions:
                try:
                    return domain_of(self.lr_key, trial.distributions[self.lr_key])
                except InputError:
                    continue
        return None

    def _direction(self, study: Study) -> optuna.study.StudyDirection:
        if not 0 <= self.objective < len(study.directions):
            raise InputError(f"objective={self.objective} of a study with {len(study.directions)} objectives")
        return study.directions[self.objective]

    def _axes_search(
        self, study: Study, trials: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution]
    ) -> AxesSearch:
        return search_of(
            trials, {key: space[key] for key in self._keys}, sign=sign_of(self._direction(study)), target=self.target,
            objective=self.objective, tolerance=self._tolerance,
        )  # fmt: skip

    def _search(self, study: Study, trials: Sequence[FrozenTrial], domain: LRDomain) -> CellSearch:
        search = CellSearch(
            low=math.log(domain.low), high=math.log(domain.high), prior=self._prior, tolerance=self._tolerance,
            lr_factor=self._lr_factor, max_trials=10**9, extend=False, batch=1,
        )  # fmt: skip
        sign = sign_of(self._direction(study))
        for trial in trials:
            lr = lr_of(trial, self.lr_key)
            if lr is not None and trial.state is not TrialState.WAITING:
                search.runs.append(run_of(trial, lr, sign, self.target, self.objective))
        without_repeats(search.runs)
        return search
