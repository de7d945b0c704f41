"""`SurfaceSearch`: the search on whole loss curves as a Ray Tune searcher whose trials pause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raylr.analysis.runs import Setting
from raylr.errors import InputError
from raylr.searchers.policies.surface import RUNGS, SurfacePolicy
from raylr.searchers.tune.points import domain_of, points_of
from raylr.searchers.tune.searcher import PolicySearch


class SurfaceSearch(PolicySearch):
    """Finds the best learning rate at a token target from trials of which most see a fraction of the tokens.

    Use it with `PowerLawScheduler`, which pauses, resumes and stops trials as the policy of the search decides. A few
    lrs run to the first rung. From then on the next tokens are spent where they narrow the optimum at the target most:
    on a new lr, or on resuming a paused trial. Trainables that report checkpoints are paused and resumed; others end at
    their rung, and only new lrs follow. With any other scheduler every trial runs to its end. Suggestions and
    resumptions depend on the results only, never on timing.

    Args:
        metric: Key of the loss in the reports; None takes TuneConfig's.
        mode: "min" or "max"; None takes TuneConfig's.
        lr_key: Key of the learning rate in the config, as for `QuadraticSearch`.
        time_attr: Key in the reports that only grows: tokens, steps, epochs.
        lr_range: (low, high), where `param_space` holds no range.
        settings: As for `QuadraticSearch`; each needs `tokens`, its target. None takes one setting, at `target`.
        target: Tokens at which the loss counts, for a search without settings.
        points_to_evaluate: Configs to begin with.
        rungs: Shares of the target tokens at which trials pause, as for `SurfacePolicy`.
        **options: As for `SurfacePolicy`: budget, tolerance, lr_tolerance, max_trials, prior, extend,
            settings_at_once, seed.

    Raises:
        InputError: For rungs that do not rise to 1, for settings without tokens, and for a space with other
            hyperparameters: all trials of a setting share one surface.

    Example:
        >>> search = SurfaceSearch("loss", "min", target=1e9, lr_range=(1e-4, 1e-1))
        >>> config = search.suggest("trial")
        >>> 1e-4 < config["lr"] < 1e-1
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
        settings: Sequence[Setting] | None = None,
        target: float | None = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        rungs: Sequence[float] = RUNGS,
        **options: Any,
    ) -> None:
        policy = surface_policy(settings, target, lr_range, points_to_evaluate, lr_key, rungs=rungs, **options)
        super().__init__(policy, metric, mode, lr_key=lr_key, time_attr=time_attr, inner=False, decides=True)


def surface_policy(
    settings: Sequence[Setting] | None,
    target: float | None,
    lr_range: tuple[float, float] | None,
    points: Sequence[Mapping[str, Any]] | None,
    lr_key: str,
    **options: Any,
) -> SurfacePolicy:
    """Return the policy of `SurfaceSearch` and `SegmentSearch` for their arguments.

    Args:
        settings: What is searched; None: one setting.
        target: Tokens of a whole run.
        lr_range: Lowest and highest LR.
        points: Configurations to evaluate first.
        lr_key: Key of the LR in a configuration.
        **options: Further options of `SurfacePolicy`.
    """
    if options.pop("inner", False) is not False:
        raise InputError("the surface is that of one model: other hyperparameters cannot be searched with it")
    if options.pop("evaluated_rewards", None) is not None:
        raise InputError("a search over whole curves cannot take in final losses: leave out evaluated_rewards")
    settings = settings or [Setting(tokens=target)]
    found = points_of(points, None, lr_key=lr_key, settings=settings, mode=None)
    return SurfacePolicy(settings, lr_range=domain_of(lr_range), points=found, **options)
