"""The search over the learning rate and further axes on Optuna's trials. No state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from raylr.analysis.optimum import start_points
from raylr.errors import InputError
from raylr.searchers._config import LRDomain
from raylr.searchers.optuna.trials import domain_of, lr_of, run_of
from raylr.searchers.policies.axes_search import LR, MANY, AxesSearch
from raylr.searchers.policies.failures import without_repeats
from raylr.searchers.policies.types import RunState


def space_of(trials: Sequence[FrozenTrial], keys: Sequence[str]) -> dict[str, BaseDistribution]:
    """The distributions of all `keys` in the last trial that has them as ranges of positive numbers; else empty."""
    for trial in reversed(trials):
        if all(key in trial.distributions for key in keys):
            try:
                for key in keys:
                    domain_of(key, trial.distributions[key])
            except InputError:
                continue
            return {key: trial.distributions[key] for key in keys}
    return {}


def search_of(
    trials: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution], *, sign: float, target: float | None,
    objective: int, tolerance: float | None,
) -> AxesSearch:  # fmt: skip
    """Return the search over a space, with all trials that have values for all of its axes.

    Args:
        trials: The trials of the study.
        space: Axis → its distribution, the learning rate first.
        sign: 1 to minimise, -1 to maximise.
        target: Tokens of a whole run; None: the last report counts.
        objective: Index of the loss among the objectives.
        tolerance: Regret at which the search may end; None: the default.
    """
    keys = list(space)
    domains = {LR if i == 0 else key: domain_of(key, space[key]) for i, key in enumerate(keys)}
    search = AxesSearch(domains=domains, tolerance=tolerance, max_trials=10**9, extend=False, batch=1)
    for trial in trials:
        values = [lr_of(trial, key) for key in keys]
        lr, *others = values
        if lr is None or trial.state is TrialState.WAITING:
            continue
        if all(v is not None for v in others):
            run = run_of(trial, lr, sign, target, objective)
            run.others = tuple(math.log(v) for v in others if v is not None)
            search.runs.append(run)
    without_repeats(search.runs)
    return search


def ask_now(search: AxesSearch, keys: Sequence[str], unknown: int) -> dict[str, float | int]:
    """The next place: key → value.

    Args:
        search: The search with all runs, running ones included; changed in place.
        keys: Keys of the axes, in the order of the search's.
        unknown: Number of workers that were given a place before and have not written it down: it follows from the same
            results.
    """
    for _ in range(min(unknown, MANY)):
        place = search.ask()
        lr, *others = (math.log(place[name]) for name in search.names)
        search.runs.append(RunState(lr, others=tuple(others)))
    place = search.ask()
    domains = search.domains.values()
    return {key: d.within(math.log(place[name])) for key, name, d in zip(keys, search.names, domains, strict=True)}


def first_value(domain: LRDomain, axis: int, axes: int, number: int) -> float | int:
    """Return the value of one axis in an early trial: that of the start design.

    Args:
        domain: Range of the axis.
        axis: Number of the axis.
        axes: Number of axes.
        number: Number of the trial.
    """
    ranges = {str(k): (domain.low, domain.high) for k in range(axes)}  # the other axes' own ranges do not matter
    points = start_points(ranges)
    return domain.within(math.log(points[number % len(points)][str(axis)]))
