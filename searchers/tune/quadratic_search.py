"""`QuadraticSearch`: the search on final losses as a Ray Tune searcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher

from raylr.analysis.across import AT_ONCE
from raylr.analysis.runs import Setting
from raylr.errors import InputError
from raylr.searchers.policies.axes import AxesPolicy
from raylr.searchers.policies.quadratic import MAX_TRIALS, QuadraticPolicy
from raylr.searchers.tune.points import domain_of, paths_of, points_of
from raylr.searchers.tune.searcher import PolicySearch


class QuadraticSearch(PolicySearch):
    """Finds the learning rate of least loss in as few trials as the data allow, and reports how well it is known.

    Each trial is placed where it is most informative about the optimum, and the search ends (`FINISHED`) when the
    optimum is known within `tolerance`. The suggestions for a setting depend on its results and the seed only: not on
    timing, concurrency or the order in which results come.

    A result that is NaN, infinite or None counts as diverged: the best lr is lower. A trial that raised is run once
    more; where it raises again, and no trial at its lr or a higher one trained, it counts as diverged. A result
    without the metric does not count for its lr; the log names the keys that it had.

    Args:
        metric: Key of the loss in the reports; None takes TuneConfig's.
        mode: "min" or "max"; None takes TuneConfig's.
        lr_key: Key of the learning rate in the config: `a/b` (or `a.b`) for {"a": {"b": ...}}, `groups/0/lr` for lists.
        time_attr: Key in the reports that only grows: tokens, steps, epochs.
        lr_range: (low, high), where `param_space` holds no range.
        axes: Keys of one to three further hyperparameters that are searched together with the lr by one model (batch,
            weight decay, init std): their ranges come from `param_space` (`tune.loguniform`, `tune.lograndint`), or
            from a mapping of keys to (low, high). `recommend()` has their values in `axes`, and in `ridges` how the
            best lr moves with each of them. Neither `prior` nor `lr_tolerance` applies then.
        settings: Models and budgets to be searched in one experiment: a suggestion is the setting's config with its
            lr. They are searched `settings_at_once` at a time, cheapest first; each group starts from a prior
            for curvature and optimum that follows from the finished ones.
        points_to_evaluate: Configs to begin with, each with the lr at `lr_key`; all of their keys are used.
        evaluated_rewards: Their losses, where they are known: those are not run again.
        tolerance: Expected regret, in the unit of the loss, at which a setting is finished;
            None: a tenth of what a factor e of the lr costs, which is the same for any scale of the loss.
        lr_tolerance: Factor within which the 90 % interval must hold the best lr, to either side.
        max_trials: Most trials of a setting; None: 8 for the lr alone, and with further axes 3 more than a quadratic
            over them has parameters (9 for one, 13 for two).
        prior: What is known beforehand: an `LRLaw`, the name of a preset, an `OptimumPrior`, or earlier results (dicts
            with lr, loss and, if they vary, params and tokens).
        extend: Whether lrs beyond the range may be tried when the optimum seems to lie there.
        batch: Trials of one setting that run at once after its first two.
        settings_at_once: Settings that are searched side by side.
        inner: The searcher for the other hyperparameters of `param_space`, copied for each setting after the first;
            None takes OptunaSearch, False refuses such a space. The effect of its values on the loss counts as noise
            here.
        seed: 0 places the first lrs symmetrically; others shift them.

    Raises:
        InputError: For a range that is not positive, a grid or constant at `lr_key`, settings with one name, points
            without an lr.

    Example:
        >>> import math
        >>> search = QuadraticSearch("loss", "min", lr_range=(1e-4, 1e-1))
        >>> for trial in "abcdefgh":
        ...     config = search.suggest(trial)
        ...     if config == "FINISHED":
        ...         break
        ...     search.on_trial_complete(trial, {"loss": 2.5 + 0.03 * math.log(config["lr"] / 2e-3) ** 2})
        >>> abs(math.log(search.recommend().lr / 2e-3)) < 0.1
        True
    """

    def __init__(
        self,
        metric: str | None = None,
        mode: str | None = None,
        *,
        lr_key: str = "lr",
        time_attr: str = "tokens",
        lr_range: tuple[float, float] | None = None,
        axes: Sequence[str] | Mapping[str, tuple[float, float]] = (),
        settings: Sequence[Setting] | None = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        evaluated_rewards: Sequence[float] | None = None,
        tolerance: float | None = None,
        lr_tolerance: float = 2.0,
        max_trials: int | None = None,
        prior: Any = None,
        extend: bool = False,
        batch: int = 1,
        settings_at_once: int = AT_ONCE,
        inner: Searcher | bool | None = None,
        seed: int = 0,
    ) -> None:
        points = points_of(
            points_to_evaluate, evaluated_rewards, lr_key=lr_key, settings=settings or [Setting()], mode=mode
        )
        options: dict[str, Any] = {
            "lr_range": domain_of(lr_range), "tolerance": tolerance, "extend": extend, "batch": batch,
            "settings_at_once": settings_at_once, "points": points, "seed": seed,
        }  # fmt: skip
        policy: QuadraticPolicy
        if axes:
            if prior is not None:
                raise InputError("prior= is known for the lr alone: leave it out where axes= names further axes")
            policy = AxesPolicy(settings, axes=paths_of(axes), max_trials=max_trials, **options)
        else:
            most = MAX_TRIALS if max_trials is None else max_trials
            policy = QuadraticPolicy(settings, lr_tolerance=lr_tolerance, max_trials=most, prior=prior, **options)
        super().__init__(policy, metric, mode, lr_key=lr_key, time_attr=time_attr, inner=inner, seed=seed)
