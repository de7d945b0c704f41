"""`PowerLawScheduler`: a Ray Tune scheduler that ends trials whose final loss is already known. An adapter: the math
is in `_curves`."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from ray.train.constants import CHECKPOINT_DIR_NAME
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from raylr.analysis.curves.curve import Curve
from raylr.searchers._config import has, lookup, number, real
from raylr.searchers.tune.quadratic_search import DECISION, LOSS, LOSS_STDERR
from raylr.searchers.tune.results import reported
from raylr.searchers.tune.surface_search import SurfaceSearch

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController

logger = logging.getLogger(__name__)

MEASURED = "raylr/measured"
"""The metric as it was last reported, where it was replaced by the extrapolated one."""


class PowerLawScheduler(TrialScheduler):
    """Watches the loss of each trial over its tokens and decides: go on, or stop because it

    * reached its target ("complete"),
    * diverged: NaN, infinite, or climbed back most of its fall ("diverged"),
    * is known: the power law (Eq. 4 of Zhou et al., 2026) extrapolates it to the target precisely enough ("truncated"),
    * cannot win: its extrapolated loss lies above the best trial's by more than both errors ("pruned"; only with
      `prune`).

    The loss at the target, its standard error and the decision go into the trial's last result as `raylr/loss`,
    `raylr/loss_stderr` and `raylr/decision`, which `QuadraticSearch` reads. The metric itself is replaced by the loss
    at the target, and the reported one stays as `raylr/measured`: so any searcher, and `get_best_result`, compare
    losses at one token count.

    All but pruning follow from a trial's own curve: which trials are stopped, and where, never depends on timing.

    Args:
        metric: Key of the loss in the reports; None takes TuneConfig's.
        mode: "min" or "max"; None takes TuneConfig's. "freeze" (with TuneConfig's min or max) pauses trials where a
            `SurfaceSearch` says so and thaws only those whose continuation would change the answer; with other
            searchers trials are stopped as usual.
        time_attr: Key in the reports that only grows: tokens, steps, epochs.
        target: Where the loss counts: a number, or the key of a trial's config that holds it (`a/b` if nested).
        min_fraction: Share of the target before which no trial is truncated or pruned; 1 turns both off.
        tolerance: Standard error of the extrapolated loss, relative to it, at which a trial is truncated. Most of that
            error is shared by all lrs and moves the optimum little.
        prune: Whether to stop trials that cannot win (which are those depends on timing).
        rewrite: Whether to replace the metric of a trial that was stopped before its target.

    Raises:
        ValueError: for a target, fraction or tolerance that is not positive.
    """

    def __init__(
        self,
        metric: str | None = None,
        mode: str | None = None,
        *,
        time_attr: str = "tokens",
        target: float | str = "tokens_target",
        min_fraction: float = 0.4,
        tolerance: float = 1e-2,
        prune: bool = False,
        rewrite: bool = True,
    ):
        super().__init__()
        if mode is not None and mode not in ("min", "max", "freeze"):
            raise ValueError(f'mode must be "min", "max" or "freeze", not {mode!r}')
        if not isinstance(target, str) and not target > 0:
            raise ValueError(f"target must be a positive number or a key of the config, not {target!r}")
        if not 0 < min_fraction <= 1:
            raise ValueError(f"min_fraction must be above 0 and at most 1, not {min_fraction!r}")
        if not tolerance > 0:
            raise ValueError(f"tolerance must be above 0, not {tolerance!r}")
        self._freezing = mode == "freeze"
        self._metric, self._mode = metric, None if mode == "freeze" else mode
        self.time_attr, self.target = time_attr, target
        self.min_fraction, self.tolerance, self.prune, self.rewrite = min_fraction, tolerance, prune, rewrite
        self._curves: dict[str, Curve] = {}
        self._last: dict[str, tuple[float, float]] = {}
        self._decisions: dict[str, str] = {}
        self._checkpointed: set[str] = set()
        self._said: set[str] = set()

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode from the Tuner."""
        if (self._metric and metric) or (self._mode and mode):
            return False
        self._metric, self._mode = self._metric or metric, self._mode or mode
        return True

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """A new trial, or a failed one that begins again."""
        self._curves[trial.trial_id] = Curve()
        self._last.pop(trial.trial_id, None)
        search = self._surface(tune_controller)
        if search is not None and trial.status == Trial.PENDING and search.frozen(trial.trial_id):
            trial.set_status(Trial.PAUSED)  # restored: Tune brings paused trials back as pending

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """The searcher hears of it from Tune."""

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Decide about a running trial; never raises."""
        curve = self._curves.setdefault(trial.trial_id, Curve())
        tokens, loss = lookup(result, self.time_attr), self._loss(result)
        if not number(tokens):
            self._say(
                self.time_attr,
                f"no number at {self.time_attr!r} in the reports, which have {reported(result)}: give the key of what "
                "grows as time_attr. Trials run to their end.",
            )
            return str(TrialScheduler.CONTINUE)
        if not has(result, str(self._metric)):
            self._say(
                str(self._metric),
                f"no {self._metric!r} in a report, which has {reported(result)}: such reports are left out.",
            )
            return str(TrialScheduler.CONTINUE)
        if not curve.add(tokens, loss):
            self._say(
                "backwards",
                f"{self.time_attr!r} of trial {trial.trial_id} went from {curve.tokens[-1]:g} to {tokens:g}: it must "
                "grow. Reports that do not are left out of the curve.",
            )
            return str(TrialScheduler.CONTINUE)
        search = self._surface(tune_controller)
        if search is not None:
            return self._freeze(search, trial, result)
        decision = self._decide(trial, curve)
        if decision is None:
            return str(TrialScheduler.CONTINUE)
        self._decisions[trial.trial_id] = decision
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """Put the loss at the target, its error and the decision where the searcher will see them."""
        curve = self._curves.get(trial.trial_id, Curve())
        search = self._surface(tune_controller)
        if search is not None:
            self._write_final(search, trial)
            return
        target = self._target_of(trial)
        if target is None or not curve.loss or self._metric is None:
            return
        decision = self._decisions.get(trial.trial_id)
        if decision is None:  # it ended by itself
            short = curve.tokens[-1] < 0.99 * target
            decision = "diverged" if curve.diverged() else "ended_early" if short else "complete"
        last = trial.last_result
        last[DECISION] = decision
        if decision == "diverged":
            last[LOSS], last[LOSS_STDERR] = math.nan, math.inf
            return
        loss, stderr = (curve.loss[-1], 0.0) if decision == "complete" else curve.extrapolate(target)
        if not math.isfinite(stderr):
            stderr = abs(loss - min(curve.loss[0], loss)) or abs(loss)
        sign = -1.0 if self._mode == "max" else 1.0
        last[LOSS], last[LOSS_STDERR] = sign * loss, stderr
        if decision != "complete" and self.rewrite and self._metric in last:
            last[MEASURED], last[self._metric] = last[self._metric], sign * loss

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """A trial that never ran, or was paused, is gone."""
        self._curves.pop(trial.trial_id, None)

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """Pending trials first; of the paused ones those that are to go on (any, unless freezing)."""
        search = self._surface(tune_controller)
        if search is not None:
            return self._thaw(search, tune_controller)
        waiting = [t for t in tune_controller.get_trials() if t.status in (Trial.PENDING, Trial.PAUSED)]
        return next((t for t in waiting if t.status == Trial.PENDING), waiting[0] if waiting else None)

    def debug_string(self) -> str:
        """One line for Tune's console output."""
        counts = {d: list(self._decisions.values()).count(d) for d in sorted(set(self._decisions.values()))}
        said = ", ".join(f"{n} {d}" for d, n in counts.items()) or "no trial stopped yet"
        return f"PowerLawScheduler: {said}"

    def _surface(self, controller: TuneController) -> SurfaceSearch | None:
        """The searcher to share a model with, when freezing."""
        if not self._freezing:
            return None
        searcher = _base_searcher(controller)
        if isinstance(searcher, SurfaceSearch):
            return searcher
        self._say(
            "freeze",
            f'mode="freeze" needs a SurfaceSearch, not {type(searcher).__name__}: trials are stopped, not paused.',
        )
        return None

    def _freeze(self, search: SurfaceSearch, trial: Trial, result: dict[str, Any]) -> str:
        """Pause, stop or go on as the shared model says."""
        if result.get(CHECKPOINT_DIR_NAME):
            self._checkpointed.add(trial.trial_id)
        said = search.observe(trial.trial_id, result)
        if said is None:
            return str(TrialScheduler.CONTINUE)
        if said == "freeze":
            if result.get(CHECKPOINT_DIR_NAME):
                search.freeze(trial.trial_id, can_go_on=True)
                return str(TrialScheduler.PAUSE)
            if trial.trial_id in self._checkpointed:
                return str(TrialScheduler.CONTINUE)  # until its next checkpoint: pausing now would lose tokens
            search.freeze(trial.trial_id, can_go_on=False)
            said = "truncated"
        self._decisions[trial.trial_id] = said
        return str(TrialScheduler.STOP)

    def _thaw(self, search: SurfaceSearch, controller: TuneController) -> Trial | None:
        """The next trial to run; ends the frozen ones when the search has finished."""
        trials = controller.get_trials()
        for trial in trials:
            if trial.status == Trial.PENDING:
                return trial
        search.plan(no_more_trials=controller.search_alg.is_finished())
        paused = [t for t in trials if t.status == Trial.PAUSED]
        for trial in paused:
            if search.wants(trial.trial_id):
                search.on_unpause(trial.trial_id)
                return trial
        if search.finished:
            for trial in paused:
                self._decisions[trial.trial_id] = "truncated"
                self._write_final(search, trial)
                controller.stop_trial(trial)
        return None

    def _write_final(self, search: SurfaceSearch, trial: Trial) -> None:
        decision = self._decisions.get(trial.trial_id, "complete")
        final = (math.nan, math.inf) if decision == "diverged" else search.final(trial.trial_id)
        trial.last_result[DECISION] = decision
        if final is not None:
            trial.last_result[LOSS], trial.last_result[LOSS_STDERR] = final

    def _decide(self, trial: Trial, curve: Curve) -> str | None:
        """What to stop this trial for, or None."""
        target = self._target_of(trial)
        if target is None:
            return "diverged" if curve.diverged() else None
        decision = curve.verdict(target, min_fraction=self.min_fraction, tolerance=self.tolerance)
        if decision is None and self.prune and curve.tokens[-1] >= self.min_fraction * target:
            loss, stderr = self._last[trial.trial_id] = curve.extrapolate(target)
            if math.isfinite(stderr) and self._cannot_win(trial.trial_id, loss, stderr):
                return "pruned"
        return decision

    def _cannot_win(self, trial_id: str, loss: float, stderr: float) -> bool:
        others = [v for t, v in self._last.items() if t != trial_id and math.isfinite(v[1])]
        if not others:
            return False
        best, error = min(others)
        return loss - 2 * stderr > best + 2 * error

    def _target_of(self, trial: Trial) -> float | None:
        if not isinstance(self.target, str):
            return float(self.target)
        value = lookup(trial.config or {}, self.target)
        if number(value) and value > 0:
            return float(value)
        self._say(
            f"target {self.target}",
            f"target={self.target!r} is no positive number in the config of trial {trial.trial_id}, which has "
            f"{sorted(trial.config or {})}: give a number, or a key of the config. Trials run to their end.",
        )
        return None

    def _loss(self, result: dict[str, Any]) -> float:
        value = lookup(result, str(self._metric))
        if not real(value):
            return math.nan
        return -float(value) if self._mode == "max" else float(value)

    def _say(self, key: str, message: str) -> None:
        if key not in self._said:
            self._said.add(key)
            logger.error(message)


def _base_searcher(controller: TuneController) -> Any:
    searcher: Any = getattr(controller, "search_alg", None)
    while hasattr(searcher, "searcher"):
        searcher = searcher.searcher
    return searcher
