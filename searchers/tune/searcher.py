"""`PolicySearch`: runs any policy of `raylr.searchers.policies` as a Ray Tune searcher. It decides nothing itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher
from ray.tune.search.sample import Domain

from raylr.analysis.curves.schedule import Schedule
from raylr.analysis.runs import RunEnd, Setting
from raylr.errors import DamagedError, InputError
from raylr.searchers._config import as_float, copied, flatten, has, lookup, merge, number, place
from raylr.searchers.policies import history
from raylr.searchers.policies.axes import AxesPolicy
from raylr.searchers.policies.settings_policy import SettingsPolicy
from raylr.searchers.policies.stopping import ended
from raylr.searchers.policies.types import Decision, Recommendation, RunId, Suggestion
from raylr.searchers.tune.inner import InnerSearch
from raylr.searchers.tune.points import path_of, point_of
from raylr.searchers.tune.results import LOSS, LOSS_STDERR, current_lr_in, end_in, loss_in, reported
from raylr.searchers.tune.space import axis_domains, lr_domain, other_domains

logger = logging.getLogger(__name__)


class PolicySearch(Searcher):  # type: ignore[misc]  # no types
    """Asks a policy what Tune is to train, and gives it the results.

    `QuadraticSearch`, `SurfaceSearch` and `SegmentSearch` construct one with their policy.

    Args:
        policy: The policy; its range may still be open and is then taken from `param_space`.
        metric: Key of the loss in the reports; None takes TuneConfig's.
        mode: "min" or "max"; None takes TuneConfig's.
        lr_key: Key of the learning rate in the config: `a/b` (or `a.b`) for {"a": {"b": ...}}, `groups/0/lr` for lists.
        time_attr: Key in the reports that only grows: tokens, steps, epochs.
        stop_key: Key under which a suggestion holds the tokens at which its trial ends: every segment of a run is
            then a trial of its own. None leaves pausing to the scheduler.
        decides: Whether the policy decides when a trial pauses, resumes and stops; `PowerLawScheduler` then asks it.
        inner: The searcher for the other hyperparameters of `param_space`, copied for each setting after the first;
            None takes OptunaSearch, False refuses such a space.
        seed: Of the default inner searcher.

    Raises:
        InputError: For a mode that is neither "min" nor "max".
    """

    def __init__(
        self,
        policy: SettingsPolicy,
        metric: str | None = None,
        mode: str | None = None,
        *,
        lr_key: str = "lr",
        time_attr: str = "tokens",
        stop_key: str | None = None,
        decides: bool = False,
        inner: Searcher | bool | None = None,
        seed: int = 0,
    ) -> None:
        _check_mode(mode)
        super().__init__(metric=metric, mode=mode)
        self._metric: str | None = metric
        self._mode: str | None = mode
        self.policy = policy
        self.lr_key, self.time_attr, self.stop_key, self.decides = path_of(lr_key), time_attr, stop_key, decides
        self._inner_searcher, self._seed = inner, seed
        self._inner: InnerSearch | None = None
        self._space: Mapping[str, Any] = {}
        self._runs: dict[str, RunId] = {}
        self._live: set[str] = set()
        self._paused: set[str] = set()
        self._max_concurrent = 0

    # --- what Tune calls ---

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Take metric, mode and the range from the Tuner.

        Raises:
            InputError: For a space that cannot be searched, where no metric or mode is given, and for a search that
                has already finished in another Tuner.
        """
        if (metric and self._metric and metric != self._metric) or (mode and self._mode and mode != self._mode):
            return False
        _check_mode(mode)
        if self._runs and self.policy.finished:
            raise InputError(
                f"this {type(self).__name__} has finished in another Tuner, and recommend() has its answer: make a "
                "new one for another experiment"
            )
        self._require_metric(self._metric or metric, self._mode or mode)
        if self.policy.domain is None or isinstance(flatten(config).get(self.lr_key), Domain):
            self._begin(config)
        self._metric, self._mode, self._space = self._metric or metric, self._mode or mode, config
        self._set_inner(other_domains(config, self.lr_key, *self.axes))
        return True

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Run at most this many trials at once; the suggestions stay the same."""
        self._max_concurrent = max_concurrent
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the config of the next trial; None while all wait; `Searcher.FINISHED` when nothing is left.

        Raises:
            InputError: Where no metric, mode or range was given.
        """
        self._require_metric(self._metric, self._mode)
        if self.policy.domain is None:
            raise InputError(
                f"no range to search: give param_space={{{self.lr_key!r}: tune.loguniform(low, high)}} or lr_range=."
            )
        if self._max_concurrent and len(self._live - self._paused) >= self._max_concurrent:
            return None
        more: Any = {}
        coming = self.policy.peek()
        if self._inner is not None and coming is not None:
            run, point, known = coming
            more = self._inner.suggest(run.setting, trial_id, run.number, known, point)
            if not isinstance(more, dict):
                return None if more is None else Searcher.FINISHED
        found = self.policy.ask(resumed=self.stop_key is not None)
        if found is None:
            return Searcher.FINISHED if self.policy.finished else None
        self._runs[trial_id] = found.run
        self._live.add(trial_id)
        return self._config(found, more)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a report on to the policy."""
        self.decide(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass the end of a trial on to the policy; never raises."""
        self._paused.discard(trial_id)
        self._live.discard(trial_id)
        run = self._runs.get(trial_id)
        if run is None:
            logger.debug("trial %s is not one of this searcher's", trial_id)
            return
        if self._inner is not None:
            self._inner.complete(trial_id, result, error)
        if result is not None and not error:
            self.decide(trial_id, result)
        self.policy.tell(run, *self._ending(trial_id, run, result, error))

    def on_pause(self, trial_id: str) -> None:
        """A paused trial takes no slot."""
        self._paused.add(trial_id)

    def on_unpause(self, trial_id: str) -> None:
        """It runs again."""
        self._paused.discard(trial_id)

    def add_evaluated_point(
        self,
        parameters: dict[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Take in a loss that was measured elsewhere; it counts as no trial.

        Args:
            parameters: The config, with the lr at `lr_key`.
            value: The metric.
            error: Whether the trial failed; it then counts as diverged.
            pruned: Whether it was stopped early; it then has no loss at its target.
            intermediate_values: Not used.
        """
        if pruned:
            return
        point = point_of(parameters, self.lr_key, self.policy.settings)
        number_or_nan = as_float(value)
        loss = math.nan if error or number_or_nan is None else self._sign * number_or_nan
        more = (point.config,) if isinstance(self.policy, AxesPolicy) else ()
        self.policy.add(point.lr, loss, point.setting, *more)
        if self._inner is not None and not error and number_or_nan is not None:
            self._inner.add(str(point.setting), parameters, number_or_nan)

    def save(self, checkpoint_path: str) -> None:
        """Write what the search knows, as JSON."""
        state = {
            "metric": self._metric,
            "mode": self._mode,
            "trials": {trial: list(run) for trial, run in self._runs.items()},
            "live": sorted(self._live),
            "paused": sorted(self._paused),
            "inner": None if self._inner is None else self._inner.state(),
        }
        Path(checkpoint_path).write_text(history.dump(self.policy.history, state))

    def restore(self, checkpoint_path: str) -> None:
        """Continue from what `save` wrote. The search must be new and made with the same arguments.

        Raises:
            DamagedError: For a file that `save` did not write.
            InputError: For one of a later version, or of a search with other arguments.
        """
        try:
            state = history.load(Path(checkpoint_path).read_text())
        except UnicodeDecodeError as error:
            raise DamagedError(f"{checkpoint_path} is not a search that raylr saved: {error}") from error
        if self._runs:
            raise InputError("restore needs a new searcher; this one has suggested trials already")
        self._metric, self._mode = state["metric"], state["mode"]
        self.policy.replay(state["events"])
        self._runs = {trial: RunId(*run) for trial, run in state["trials"].items()}
        self._live, self._paused = set(state["live"]), set(state["paused"])
        if state["inner"] is not None and self._inner is not None:
            self._inner.load(state["inner"])

    # --- what PowerLawScheduler calls, where the policy decides ---

    def decide(
        self, trial_id: str, result: Mapping[str, Any], *, schedule: Schedule | None = None, lr_attr: str | None = None
    ) -> Decision:
        """Pass a report on to the policy and return what it decides. Reports that do not grow change nothing.

        Args:
            trial_id: The trial.
            result: Its report.
            schedule: The LR's schedule; None: as reported, or constant.
            lr_attr: Key of the current LR in the report; None: none.

        Returns:
            The policy's decision; None where there is nothing to decide about.
        """
        run, tokens = self._runs.get(trial_id), as_float(lookup(result, self.time_attr))
        loss = loss_in(result, str(self._metric), self._sign)
        if run is None or tokens is None or not math.isfinite(tokens) or loss is None:
            return None
        known = self.policy.run(run).curve.tokens
        if known and tokens <= known[-1]:
            return None
        self.policy.run(run).curve.given = schedule
        current_lr = current_lr_in(result, lr_attr)
        return self.policy.report(run, tokens, loss, *(() if current_lr is None else (current_lr,)))

    def pause(self, trial_id: str) -> None:
        """The trial stopped at its rung and can be resumed."""
        if trial_id in self._runs:
            self.policy.tell(self._runs[trial_id], RunEnd.PAUSED)
            self.on_pause(trial_id)

    def is_paused(self, trial_id: str) -> bool:
        """Whether the trial is paused and not to be resumed yet."""
        run = self._runs.get(trial_id)
        return run is not None and self.policy.run(run).end is RunEnd.PAUSED

    def resume_one(self) -> bool:
        """Let the policy resume one more paused trial; False where it wants none."""
        found = self.policy.ask(new=False)
        if found is None:
            return False
        for trial, run in self._runs.items():
            if run == found.run:
                self.on_unpause(trial)
        return True

    def close(self) -> None:
        """Tune adds no trial any more."""
        self.policy.close()

    def final(self, trial_id: str) -> tuple[float, float] | None:
        """The metric of a trial at its target and its standard error, where the policy can estimate it."""
        run, final = self._runs.get(trial_id), getattr(self.policy, "final", None)
        found = None if run is None or final is None else final(run)
        return None if found is None else (self._sign * found[0], found[1])

    # --- what people call ---

    @property
    def settings(self) -> Sequence[Setting]:
        """The settings that are searched."""
        return self.policy.settings

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.policy.finished

    def recommend(self, setting: Setting | str | None = None) -> Recommendation:
        """Return the lr that the search would choose now, with its interval, predicted loss and regret, and why."""
        return self.policy.recommend(setting).in_sign_of(self._sign)

    # --- inside ---

    @property
    def _sign(self) -> float:
        return -1.0 if self._mode == "max" else 1.0

    @property
    def axes(self) -> tuple[str, ...]:
        """Keys of the hyperparameters that are searched together with the lr."""
        return self.policy.axes if isinstance(self.policy, AxesPolicy) else ()

    def _begin(self, space: Mapping[str, Any]) -> None:
        """Give the policy the ranges of the space. What is no range there, is what the policy was made with."""
        if isinstance(self.policy, AxesPolicy):
            flat = flatten(space)
            missing = [key for key in self.axes if not self.policy.has_range(key) or isinstance(flat.get(key), Domain)]
            if missing:
                self.policy.set_axes(axis_domains(space, missing))
        self.policy.begin(lr_domain(space, self.lr_key))

    def _config(self, found: Suggestion, more: Mapping[str, Any]) -> dict[str, Any]:
        """The config of a trial: the inner searcher's keys, the setting's and the point's, and the lr."""
        config: dict[str, Any] = {}
        for key, value in more.items():
            place(config, key, value, self._space)
        merge(config, copied(found.config))
        template = merge(dict(self._space), config)
        place(config, self.lr_key, found.lr, template)
        for key, value in found.axes.items():
            place(config, key, value, template)
        if self.stop_key is not None and found.stop_at is not None:
            stop = found.stop_at
            place(config, self.stop_key, int(stop) if stop.is_integer() else stop)
        return config

    def _ending(
        self, trial_id: str, run: RunId, result: Mapping[str, Any] | None, error: bool
    ) -> tuple[RunEnd, float | None, float]:
        """How a trial ended, its loss at the target, and the standard error of that."""
        if error:
            return RunEnd.FAILED, None, 0.0
        if result is None:
            return RunEnd.NO_REPORT, None, 0.0
        metric, curve, target = str(self._metric), self.policy.run(run).curve, self.policy.target(run)
        given, at_target = end_in(result), has(result, LOSS)
        if not at_target and not has(result, metric):
            logger.error("trial %s never reported %r; it reported %s", trial_id, metric, reported(result))
            return RunEnd.NO_REPORT, None, 0.0
        if given is RunEnd.DIVERGED:
            return RunEnd.DIVERGED, None, 0.0
        if self.stop_key is not None and self._reached_its_end(run):
            return RunEnd.PAUSED, None, 0.0
        if given is None:
            given = ended(curve, target) if target is not None and curve.tokens else RunEnd.COMPLETED
        loss = loss_in(result, LOSS if at_target else metric, self._sign)
        stderr = as_float(lookup(result, LOSS_STDERR)) if at_target else 0.0
        return given, loss, stderr if number(stderr) and stderr is not None and stderr >= 0 else 0.0

    def _reached_its_end(self, run: RunId) -> bool:
        """Whether a segment ended where it was to end, and not before."""
        tokens, stop = self.policy.run(run).curve.tokens, self.policy.stop_at(run)
        return bool(tokens) and stop is not None and tokens[-1] >= stop * (1 - 1e-9)

    def _require_metric(self, metric: str | None, mode: str | None) -> None:
        if metric is None or mode is None:
            raise InputError(
                f"{type(self).__name__} has no {'metric' if metric is None else 'mode'}: give metric= and mode= in "
                "TuneConfig, or to the searcher"
            )

    def _set_inner(self, space: dict[str, Any]) -> None:
        """Pass all other hyperparameters to the inner searcher."""
        if not space:
            return
        if self._inner_searcher is False:
            raise InputError(f"inner=False leaves nothing to search {', '.join(space)}: give constants.")
        if self._inner is None:
            searcher = None if isinstance(self._inner_searcher, bool) else self._inner_searcher
            self._inner = InnerSearch(searcher, self._seed, space, [s.name for s in self.settings])
        self._inner.begin(self._metric, self._mode)


def _check_mode(mode: str | None) -> None:
    if mode is not None and mode not in ("min", "max"):
        raise InputError(f'mode must be "min" or "max", not {mode!r}')
