"""Passes all hyperparameters of `param_space` except the lr to another searcher, independently of timing. Needs
Ray."""

from __future__ import annotations

import base64
import copy
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from raylr.searchers._config import as_float, flatten, lookup, nest, number

logger = logging.getLogger(__name__)


class InnerSearch:
    """One searcher for each setting, all of one kind, for the other keys of the space.

    Each is given the results of its own setting's trials only, in the order in which they were suggested, and only
    between two rounds of the setting: so what it suggests follows from the results, not from the order in which they
    came. A result without a finite metric is reported to it as an error, which any searcher must bear.

    Args:
        searcher: The searcher to use, copied for each setting after the first; None takes OptunaSearch.
        seed: Of that default searcher.
        space: Flattened key → domain.
        settings: Names of the settings.
    """

    def __init__(self, searcher: Searcher | None, seed: int, space: Mapping[str, Any], settings: Sequence[str]) -> None:
        if searcher is None:
            from ray.tune.search.optuna import OptunaSearch

            searcher = OptunaSearch(seed=seed)
        self._space = dict(space)
        self._searchers = {name: searcher if i == 0 else copy.deepcopy(searcher) for i, name in enumerate(settings)}
        self._suggested: dict[str, list[tuple[int, str, dict[str, Any], bool]]] = {name: [] for name in settings}
        self._ended: dict[str, tuple[dict[str, Any] | None, bool]] = {}
        self._metric = ""

    def begin(self, metric: str | None, mode: str | None) -> None:
        """Set metric, mode and space."""
        self._metric = str(metric)
        for searcher in self._searchers.values():
            searcher.set_search_properties(metric, mode, nest(self._space))

    def suggest(self, setting: str, trial_id: str, index: int, planned: int, fixed: Mapping[str, Any]) -> Any:
        """Suggest the other keys for run `index` of a setting whose present round was planned after `planned` runs.

        Args:
            setting: Name of the setting.
            trial_id: The trial.
            index: Number of the run among those of its setting.
            planned: Number of runs when this round was planned.
            fixed: Values of the user's point, nested; they replace the searcher's own.

        Returns:
            Flattened key → value, None (ask again later), or `Searcher.FINISHED`.
        """
        waiting = self._suggested[setting]
        while waiting and waiting[0][0] < planned and waiting[0][1] in self._ended:
            _, trial, fixed_values, suggested = waiting.pop(0)
            self._digest(setting, trial, fixed_values, suggested, *self._ended.pop(trial))
        values = {key: lookup(fixed, key) for key in self._space if lookup(fixed, key) is not None}
        more: Any = {}
        incomplete = len(values) < len(self._space)
        if incomplete:
            more = self._searchers[setting].suggest(trial_id)
            if not isinstance(more, dict):
                return more
        waiting.append((index, trial_id, {**flatten(more), **values} if values else {}, incomplete))
        return {**flatten(more), **values}

    def complete(self, trial_id: str, result: Mapping[str, Any] | None, error: bool) -> None:
        """Keep a trial's end until its setting's next round."""
        good = not error and result is not None and number(lookup(result, self._metric))
        self._ended[trial_id] = (dict(result or {}) if good else None, not good)

    def add(self, setting: str, values: Mapping[str, Any], score: float) -> None:
        """Give a result that was measured elsewhere to the searcher of a setting, if it takes such."""
        point = {key: lookup(values, key) for key in self._space}
        if any(value is None for value in point.values()):
            return  # measured with values that are not known
        try:
            self._searchers[setting].add_evaluated_point(point, score)
        except Exception as error:  # what a foreign searcher raises is its own; the lr search does not need it
            logger.warning("%s took no evaluated point: %s", type(self._searchers[setting]).__name__, error)

    def _digest(
        self,
        setting: str,
        trial: str,
        fixed: dict[str, Any],
        suggested: bool,
        result: dict[str, Any] | None,
        error: bool,
    ) -> None:
        searcher = self._searchers[setting]
        if not fixed:
            searcher.on_trial_complete(trial, result=result, error=error)
            return
        if suggested:  # the trial ran with values of the user's point: the searcher's own were not tried
            searcher.on_trial_complete(trial, result=None, error=True)
        score = None if result is None else as_float(lookup(result, self._metric))
        if score is not None:
            self.add(setting, fixed, score)

    def state(self) -> dict[str, Any]:
        """Return plain values: each searcher's own saved state, in base64, and what it was not given yet."""
        return {
            "searchers": {name: base64.b64encode(_saved(s)).decode() for name, s in self._searchers.items()},
            "suggested": {name: [list(entry) for entry in waiting] for name, waiting in self._suggested.items()},
            "ended": {trial: [_plain(result), error] for trial, (result, error) in self._ended.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take in what `state` returned. Each searcher restores itself, by its own means."""
        for name, encoded in state["searchers"].items():
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "searcher"
                path.write_bytes(base64.b64decode(encoded))
                self._searchers[name].restore(str(path))
        self._suggested = {
            name: [(i, trial, dict(v), own) for i, trial, v, own in entries]
            for name, entries in state["suggested"].items()
        }
        self._ended = {trial: (result, error) for trial, (result, error) in state["ended"].items()}


def _saved(searcher: Searcher) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "searcher"
        searcher.save(str(path))
        return path.read_bytes()


def _plain(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The numbers and texts of a result: all that a searcher may ask for."""
    if result is None:
        return None
    numbers = {key: as_float(value) for key, value in result.items()}
    return {k: numbers[k] if numbers[k] is not None else v for k, v in result.items()
            if numbers[k] is not None or isinstance(v, str | bool)}  # fmt: skip
