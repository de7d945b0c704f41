"""`SegmentSearch`: a `SurfaceSearch` for trainables that keep their own checkpoints. An adapter: what to do next is in
`_surface_policy`."""

from __future__ import annotations

from typing import Any

from raylr.searchers._config import lookup, merge, nest
from raylr.searchers.tune.quadratic_search import DECISION
from raylr.searchers.tune.surface_search import SurfaceSearch


class SegmentSearch(SurfaceSearch):
    """Freezes and thaws runs without a scheduler that pauses: each part of a run is a trial of its own.

    A suggestion holds the lr, the cell's config and, at `stop_key`, the tokens at which this trial is to end. A run
    that is to go on is suggested once more with a later end: the trainable finds the checkpoint that the first trial
    left in a place that follows from the config (the schedule must not depend on where it stops). It may report
    earlier losses again. Nothing is lost with a trial but its part, and no state of a scheduler is needed: any that
    ends diverged trials will do.

    Args:
        stop_key: Where the suggestion holds the tokens at which the trial ends, `a/b` for {"a": {"b": ...}}.
        **options: As for `SurfaceSearch`.

    Raises:
        ValueError: as `SurfaceSearch`.
    """

    def __init__(
        self, metric: str | None = None, mode: str | None = None, *, stop_key: str = "stop_at", **options: Any
    ):
        super().__init__(metric, mode, **options)
        self.stop_key = stop_key
        self._configs: dict[tuple[str, int], dict[str, Any]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Config of the next trial: the next part of an old run, or the first of a new one."""
        config = super().suggest(trial_id)  # plans what is to be planned
        if isinstance(config, dict):
            self._configs[self._trials[trial_id]] = config
            return self._until(trial_id, config)
        if self._max_concurrent and len(self._live) >= self._max_concurrent:
            return None
        for name, state in self._surfaces.items():
            if state.thaw:
                index = min(state.thaw)
                state.resume(index)
                self._trials[trial_id] = (name, index)
                self._live.add(trial_id)
                return self._until(trial_id, self._configs[name, index])
        return config

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A part has ended: at its end, where the run may go on, or before; never raises."""
        where = self._find(trial_id)
        if where is not None and result is not None and not error and lookup(result, DECISION) != "diverged":
            self.observe(trial_id, result)
            state, index = where
            run = state.runs[index]
            reached = bool(run.curve.tokens) and run.curve.tokens[-1] >= state.end_of(index) * (1 - 1e-9)
            if run.state == "active" and reached and run.rung + 1 < len(self.rungs) and not run.curve.diverged():
                state.freeze(index, can_go_on=True)
                self._live.discard(trial_id)
                return
        super().on_trial_complete(trial_id, result, error)

    def _until(self, trial_id: str, config: dict[str, Any]) -> dict[str, Any]:
        name, index = self._trials[trial_id]
        return merge(dict(config), nest(self.stop_key, round(self._surfaces[name].end_of(index))))
