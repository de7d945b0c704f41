"""The same search in plain Optuna: a sampler, a pruner, and a way to show finished trials in optuna-dashboard.

    study = optuna.create_study(sampler=QuadraticSampler(), pruner=PowerLawPruner(target=20_000))
    study.optimize(objective, n_trials=8)
    print(study.sampler.recommend(study))

Adapters only: what to try is decided in `_policy`, when to stop a curve in `_curves`. Both are stateless: everything
is read from the study's trials, so that they work with any storage, several workers, and a study that is loaded
again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from raylr.analysis.curves.curve import OWN, Curve
from raylr.searchers._config import LRDomain, check_range
from raylr.searchers.policies.cell_search import CellSearch, Recommendation, Run
from raylr.searchers.policies.cells import Cell
from raylr.searchers.policies.priors import prior_for


class QuadraticSampler(optuna.samplers.BaseSampler):
    """`QuadraticSearch` as an Optuna sampler: suggests the parameter `lr_key`, and leaves all others to
    `independent_sampler`.

    A failed trial and a NaN value count as diverged: the best lr is lower than theirs. A pruned trial counts with its
    intermediate values extrapolated to `target` steps, or not at all without a target.

    Args:
        lr_key: Name of the learning rate in `trial.suggest_float`; its range must be positive.
        target: Step (tokens) at which the loss of a pruned trial counts; give the same to `PowerLawPruner`.
        tolerance: Expected regret, relative to the loss, at which the optimum counts as known.
        lr_tolerance: And the factor within which its 90 % interval must lie.
        stop: Whether to stop the study then.
        prior: An `LRLaw`, the name of a preset, or a `ShapePrior`; a law needs `params` and `tokens`.
        params: Parameters of the model, for the law.
        tokens: Training tokens, for the law.
        independent_sampler: For all other parameters; TPESampler by default.
        seed: Of that default sampler.

    Raises:
        ValueError: when sampling, for a range of `lr_key` that is not positive or not numeric.
    """

    def __init__(
        self,
        *,
        lr_key: str = "lr",
        target: float | None = None,
        tolerance: float = 1e-3,
        lr_tolerance: float = 2.0,
        stop: bool = False,
        prior: Any = None,
        params: float | None = None,
        tokens: float | None = None,
        independent_sampler: optuna.samplers.BaseSampler | None = None,
        seed: int | None = None,
    ):
        self.lr_key, self.target, self.stop = lr_key, target, stop
        self._tolerance, self._lr_factor = tolerance, lr_tolerance
        self._prior = prior_for(prior, Cell("", params=params, tokens=tokens))
        self._inner = independent_sampler or optuna.samplers.TPESampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What the inner sampler samples jointly; never the lr."""
        space = self._inner.infer_relative_search_space(study, trial)
        return {k: v for k, v in space.items() if k != self.lr_key}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Sampled by the inner sampler."""
        return dict(self._inner.sample_relative(study, trial, search_space)) if search_space else {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The next lr, or the inner sampler's value of another parameter."""
        if param_name != self.lr_key:
            return self._inner.sample_independent(study, trial, param_name, param_distribution)
        domain = _domain(param_name, param_distribution)
        log_lr = self._search(study, domain, leave_out=trial.number).ask()
        return min(max(domain.value(log_lr), domain.low), domain.high)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Passed on to the inner sampler."""
        self._inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Stop the study when the optimum is known, if asked to."""
        self._inner.after_trial(study, trial, state, values)
        if self.stop and self._found(study):
            study.stop()

    def reseed_rng(self) -> None:
        """Passed on to the inner sampler; the lr needs no random numbers."""
        self._inner.reseed_rng()

    def recommend(self, study: Study) -> Recommendation:
        """The lr that the search would choose now, with its interval, and why."""
        domain = self._domain_of(study)
        if domain is None:
            return Recommendation(None, None, None, None, None, "too_few", f"no trial has a {self.lr_key!r} yet", 0)
        out = self._search(study, domain).recommend()
        if out.loss is None or study.direction is not StudyDirection.MAXIMIZE:
            return out
        return Recommendation(**{**out.__dict__, "loss": -out.loss})

    def _found(self, study: Study) -> bool:
        domain = self._domain_of(study)
        return domain is not None and self._search(study, domain).settled()

    def _domain_of(self, study: Study) -> LRDomain | None:
        for trial in study.get_trials(deepcopy=False):
            if self.lr_key in trial.distributions:
                return _domain(self.lr_key, trial.distributions[self.lr_key])
        return None

    def _search(self, study: Study, domain: LRDomain, leave_out: int = -1) -> CellSearch:
        search = CellSearch(
            low=math.log(domain.low), high=math.log(domain.high), prior=self._prior, tolerance=self._tolerance,
            lr_factor=self._lr_factor, max_trials=10**9, extend=False, batch=1,
        )  # fmt: skip
        sign = -1.0 if study.direction is StudyDirection.MAXIMIZE else 1.0
        for trial in study.get_trials(deepcopy=False):
            if trial.number != leave_out and self.lr_key in trial.params:
                run = Run(math.log(trial.params[self.lr_key]))
                run.state, run.loss, run.stderr = self._outcome(trial, sign)
                search.runs.append(run)
        return search

    def _outcome(self, trial: FrozenTrial, sign: float) -> tuple[str, float, float]:
        """State, loss and standard error of a trial."""
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            good = math.isfinite(trial.value)
            return ("done", sign * trial.value, 0.0) if good else ("diverged", math.nan, 0.0)
        if trial.state is TrialState.FAIL:
            return "diverged", math.nan, 0.0
        if trial.state is TrialState.PRUNED:
            curve = _curve(trial, sign)
            if curve.diverged():
                return "diverged", math.nan, 0.0
            loss, stderr = curve.extrapolate(self.target) if self.target else (math.nan, math.inf)
            return ("done", loss, OWN * stderr) if math.isfinite(stderr) else ("void", math.nan, 0.0)
        return "pending", math.nan, 0.0


class PowerLawPruner(optuna.pruners.BasePruner):
    """`PowerLawScheduler` as an Optuna pruner: prunes a trial that diverged, or whose loss at `target` is already
    known.

    Optuna's `study.best_trial` is the best of those that ran to their end: so a trial that would be the best so far is
    let run (`keep_best=False` prunes it too: fewer steps, and `QuadraticSampler.recommend` loses nothing by it).

    Report the loss with the tokens (or steps) seen as its step: `trial.report(loss, tokens)`.
    `QuadraticSampler(target=...)` reads the extrapolated loss of a pruned trial; other samplers see the last reported
    value, as with any pruner.

    Args:
        target: Step at which the loss counts.
        min_fraction: Share of it before which no trial is pruned.
        tolerance: Standard error of the extrapolated loss, relative to it, at which it counts as known.
        keep_best: Whether a trial with the lowest (extrapolated) loss so far runs to its end.

    Raises:
        ValueError: for a target, fraction or tolerance that is not positive.
    """

    def __init__(self, target: float, *, min_fraction: float = 0.4, tolerance: float = 1e-2, keep_best: bool = True):
        if not target > 0 or not 0 < min_fraction <= 1 or not tolerance > 0:
            raise ValueError(
                f"target and tolerance must be above 0 and min_fraction in (0, 1], not {target!r}, {tolerance!r} and "
                f"{min_fraction!r}"
            )
        self.target, self.min_fraction, self.tolerance = float(target), min_fraction, tolerance
        self.keep_best = keep_best

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to end the trial now."""
        sign = -1.0 if study.direction is StudyDirection.MAXIMIZE else 1.0
        curve = _curve(trial, sign)
        said = curve.verdict(self.target, min_fraction=self.min_fraction, tolerance=self.tolerance)
        if said == "truncated" and self.keep_best:
            ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            best = min((sign * t.value for t in ended if t.value is not None), default=math.inf)
            return curve.extrapolate(self.target)[0] > best
        return said in ("diverged", "truncated")


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One trial for `export`."""

    cell: str
    """Its model size and budget; each becomes a study."""
    lr: float
    """Its learning rate."""
    tokens: Sequence[float]
    """Tokens of its evaluations, (n,)."""
    loss: Sequence[float]
    """Losses at them, (n,)."""
    final: float | None = None
    """The loss that counts (measured or extrapolated); None or NaN for a diverged run."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What else to show, JSON values."""


def export(
    runs: Iterable[FinishedRun], storage: str, *, name: str, lr_range: tuple[float, float] | None = None
) -> list[str]:
    """Write finished runs into an Optuna storage (such as `sqlite:///study.db`) for optuna-dashboard.

    Each cell becomes the study `name/cell`, whose trials have `lr`, the loss curve as intermediate values at their
    tokens, and the attributes. Studies of the same name are replaced. Returns the names. `lr_range` is the range to
    show, widened to the lrs of each cell (a search may leave its range). Raises ValueError without runs."""
    by_cell: dict[str, list[FinishedRun]] = {}
    for run in runs:
        by_cell.setdefault(run.cell, []).append(run)
    if not by_cell:
        raise ValueError("no runs to export")
    names = []
    for cell, members in by_cell.items():
        lrs = [r.lr for r in members] + list(lr_range or ())
        low, high = min(lrs), max(lrs)
        full = f"{name}/{cell}" if cell else name
        if full in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=full, storage=storage)
        study = optuna.create_study(study_name=full, storage=storage, direction="minimize")
        study.add_trials([_frozen(run, low, high) for run in members])
        names.append(full)
    return names


def _frozen(run: FinishedRun, low: float, high: float) -> FrozenTrial:
    good = run.final is not None and math.isfinite(run.final)
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if good else TrialState.FAIL,
        value=run.final if good else None,
        params={"lr": run.lr},
        distributions={"lr": FloatDistribution(low, high, log=True)},
        intermediate_values={round(t): float(v) for t, v in zip(run.tokens, run.loss, strict=True) if math.isfinite(v)},
        user_attrs=dict(run.attributes),
    )


def _domain(name: str, distribution: BaseDistribution) -> LRDomain:
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise ValueError(
            f"{name!r} is {distribution}, not a numeric range: use suggest_float(name, low, high, log=True)"
        )
    low, high = float(distribution.low), float(distribution.high)
    check_range(low, high, name)
    return LRDomain(low, high, integer=isinstance(distribution, IntDistribution))


def _curve(trial: FrozenTrial, sign: float) -> Curve:
    curve = Curve()
    for step, value in sorted(trial.intermediate_values.items()):
        curve.add(step, sign * value)
    return curve
