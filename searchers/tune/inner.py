"""Whatever else `param_space` leaves open besides the lr: handed to another searcher, so that timing has no say in it
either. Needs Ray."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher

from raylr.searchers._config import lookup, merge, nest, number


class InnerSearch:
    """One searcher a cell, all alike, for the other keys of the space.

    Each hears of its own cell's trials only, in the order in which they were suggested, and only between two rounds of
    the cell: so what it suggests follows from the results, whatever the order in which they came. A result without a
    finite metric is told as an error, which any searcher must bear.
    """

    def __init__(self, searcher: Searcher | None, seed: int, space: Mapping[str, Any], cells: Sequence[str]) -> None:
        if searcher is None:
            from ray.tune.search.optuna import OptunaSearch

            searcher = OptunaSearch(seed=seed)
        self._space: dict[str, Any] = {}
        for key, domain in space.items():
            merge(self._space, nest(key, domain))
        self._searchers = {name: searcher if i == 0 else copy.deepcopy(searcher) for i, name in enumerate(cells)}
        self._asked: dict[str, list[tuple[int, str]]] = {name: [] for name in cells}
        self._ended: dict[str, tuple[dict[str, Any] | None, bool]] = {}

    def begin(self, metric: str | None, mode: str | None) -> None:
        """Tell metric, mode and space."""
        self._metric = str(metric)
        for searcher in self._searchers.values():
            searcher.set_search_properties(metric, mode, self._space)

    def suggest(self, cell: str, trial_id: str, index: int, planned: int) -> Any:
        """As `Searcher.suggest`, for run `index` of a cell whose present round was planned after `planned` runs."""
        asked = self._asked[cell]
        while asked and asked[0][0] < planned and asked[0][1] in self._ended:
            trial = asked.pop(0)[1]
            result, error = self._ended.pop(trial)
            self._searchers[cell].on_trial_complete(trial, result=result, error=error)
        more = self._searchers[cell].suggest(trial_id)
        if isinstance(more, dict):
            asked.append((index, trial_id))
        return more

    def complete(self, trial_id: str, result: Mapping[str, Any] | None, error: bool) -> None:
        """Keep a trial's end until its cell's next round."""
        good = not error and result is not None and number(lookup(result, self._metric))
        self._ended[trial_id] = (dict(result or {}) if good else None, not good)
