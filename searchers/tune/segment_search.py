"""`SegmentSearch`: the search on whole loss curves for trainables that keep their own checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raylr.analysis.runs import Setting
from raylr.searchers.policies.surface import RUNGS
from raylr.searchers.tune.searcher import PolicySearch
from raylr.searchers.tune.surface_search import surface_policy


class SegmentSearch(PolicySearch):
    """The search of `SurfaceSearch` without a scheduler that pauses: each segment of a run is a trial of its own.

    A suggestion holds the lr, the setting's config and, at `stop_key`, the tokens at which this trial ends. A run that
    is to be resumed is suggested once more with a later end: the trainable finds the checkpoint that the first trial
    left in a place that follows from the config (the schedule must not depend on where it stops). It may report
    earlier losses again. A trial that is lost costs one segment, and no scheduler has state to be kept.

    Args:
        metric: Key of the loss in the reports; None takes TuneConfig's.
        mode: "min" or "max"; None takes TuneConfig's.
        stop_key: Where a suggestion holds the tokens at which the trial ends, `a/b` for {"a": {"b": ...}}.
        lr_key: Key of the learning rate in the config, as for `QuadraticSearch`.
        time_attr: Key in the reports that only grows: tokens, steps, epochs.
        lr_range: (low, high), where `param_space` holds no range.
        settings: As for `SurfaceSearch`.
        target: Tokens at which the loss counts, for a search without settings.
        points_to_evaluate: Configs to begin with.
        rungs: Shares of the target tokens at which segments end, as for `SurfacePolicy`.
        **options: As for `SurfacePolicy`.

    Raises:
        InputError: As `SurfaceSearch`.

    Example:
        >>> search = SegmentSearch("loss", "min", target=1e9, lr_range=(1e-4, 1e-1))
        >>> config = search.suggest("trial")
        >>> config["stop_at"]
        200000000
    """

    def __init__(
        self,
        metric: str | None = None,
        mode: str | None = None,
        *,
        stop_key: str = "stop_at",
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
        super().__init__(policy, metric, mode, lr_key=lr_key, time_attr=time_attr, stop_key=stop_key, inner=False)
