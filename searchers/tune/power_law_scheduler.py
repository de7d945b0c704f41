"""`PowerLawScheduler`: a Ray Tune scheduler that stops trials whose final loss is known, and pauses those that a
searcher's policy wants paused. It decides nothing itself: see `raylr.searchers.policies.stopping` and `surface`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ray.train.constants import CHECKPOINT_DIR_NAME
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from raylr.analysis.curves.curve import Curve
from raylr.analysis.curves.schedule import Schedule
from raylr.analysis.runs import RunEnd
from raylr.errors import InputError
from raylr.searchers._config import as_float, lookup, number
from raylr.searchers.policies.stopping import StoppingRule, cannot_win, ended, final_loss
from raylr.searchers.policies.types import Decision
from raylr.searchers.tune.results import DECISION, LOSS, LOSS_STDERR, MEASURED, current_lr_in, loss_in, reported

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController

    from raylr.searchers.tune.searcher import PolicySearch

logger = logging.getLogger(__name__)

CONTINUE, PAUSE, STOP = str(TrialScheduler.CONTINUE), str(TrialScheduler.PAUSE), str(TrialScheduler.STOP)


class PowerLawScheduler(TrialScheduler):  # type: ignore[misc]  # no types
    """Watches the loss of each trial over its tokens and lets it continue, or stops it because it

    * reached its target (`completed`),
    * diverged: NaN, infinite, or climbed back most of its fall (`diverged`),
    * is known: the power law (Eq. 4 of Zhou et al., 2026) extrapolates it to the target precisely enough
      (`truncated`),
    * cannot win: its extrapolated loss lies above the best trial's by more than both errors (`pruned`; only with
      `prune`).

    With a `SurfaceSearch` its policy decides instead: it also pauses trials, and resumes those whose continuation
    would change the answer.

    The loss at the target, its standard error and the decision (a `RunEnd`) go into the trial's last result as
    `raylr/loss`, `raylr/loss_stderr` and `raylr/decision`, which `QuadraticSearch` reads. The metric itself is replaced
    by the loss at the target, and the reported one stays as `raylr/measured`: so any searcher, and `get_best_result`,
    compare losses at one token count.

    A power law holds at a constant learning rate. Report the LR of the schedule as `current_lr` (or name its key as
    `lr_attr`), or name the `schedule`: trials whose LR falls before the target are neither truncated nor pruned, and
    their metric is left as it is.

    All but pruning follow from a trial's own curve: which trials are stopped, and where, never depends on timing.

    Args:
        metric: Key of the loss in the reports; None takes TuneConfig's.
        mode: "min" or "max"; None takes TuneConfig's.
        time_attr: Key in the reports that only grows: tokens, steps, epochs. It may start at 0.
        target: Where the loss counts: a number, or the key of a trial's config that holds it (`a/b` if nested).
        min_fraction: Share of the target before which no trial is truncated or pruned; 1 turns both off.
        tolerance: Standard error of the extrapolated loss, relative to it, at which a trial is truncated. Most of that
            error is shared by all lrs and moves the optimum little.
        prune: Whether to stop trials that cannot win (which are those depends on timing).
        rewrite: Whether to replace the metric of a trial that was stopped before its target.
        schedule: Schedule of the trials' LR, if it is known: a `raylr.analysis.Schedule`, or a name such as "constant"
            or "cosine". None: recognised from the LR in the reports, and taken as constant where there is none.
        lr_attr: Key of that LR in the reports; None looks for `current_lr`, `learning_rate` and `lr`.

    Raises:
        InputError: For a target, fraction or tolerance that is not positive.
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
        schedule: Schedule | str | None = None,
        lr_attr: str | None = None,
    ) -> None:
        super().__init__()
        if mode is not None and mode not in ("min", "max"):
            raise InputError(
                f'mode must be "min" or "max", not {mode!r}; a SurfaceSearch needs no mode to pause trials'
            )
        if not isinstance(target, str) and not (number(target) and target > 0):
            raise InputError(f"target must be a positive number or a key of the config, not {target!r}")
        self.rule = StoppingRule(min_fraction=min_fraction, tolerance=tolerance, schedule=schedule)
        self.schedule, self.lr_attr = Schedule.of(schedule), lr_attr
        self._metric, self._mode = metric, mode
        self.time_attr, self.target, self.prune, self.rewrite = time_attr, target, prune, rewrite
        self._curves: dict[str, Curve] = {}
        self._extrapolated: dict[str, tuple[float, float]] = {}
        self._decisions: dict[str, RunEnd] = {}
        self._checkpointed: set[str] = set()
        self._logged: set[str] = set()

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode from the Tuner."""
        if (self._metric and metric) or (self._mode and mode):
            return False
        self._metric, self._mode = self._metric or metric, self._mode or mode
        return True

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """A new trial, or a failed one that begins again."""
        self._curves[trial.trial_id] = Curve(given=self.schedule)
        self._extrapolated.pop(trial.trial_id, None)
        search = _deciding(tune_controller)
        if search is not None and trial.status == Trial.PENDING and search.is_paused(trial.trial_id):
            trial.set_status(Trial.PAUSED)  # restored: Tune brings paused trials back as pending

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """Tune tells the searcher."""

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Decide about a running trial; never raises."""
        curve = self._curves.setdefault(trial.trial_id, Curve(given=self.schedule))
        tokens, loss = as_float(lookup(result, self.time_attr)), loss_in(result, str(self._metric), self._sign)
        if tokens is None or not number(tokens):
            self._log_once(
                self.time_attr,
                f"no number at {self.time_attr!r} in the reports, which have {reported(result)}: give the key of what "
                "grows as time_attr. Trials run to their end.",
            )
            return CONTINUE
        if loss is None:
            self._log_once(
                str(self._metric),
                f"no {self._metric!r} in a report, which has {reported(result)}: such reports are left out.",
            )
            return CONTINUE
        if (lr := current_lr_in(result, self.lr_attr)) is not None:
            curve.note_lr(tokens, lr)
        before = curve.tokens[-1] if curve.tokens else tokens
        if not curve.add(tokens, loss):
            self._log_once(
                "backwards",
                f"{self.time_attr!r} of trial {trial.trial_id} went from {before:g} to {tokens:g}: it must grow, "
                "unless the trial was resumed from an earlier checkpoint. The later reports count.",
            )
            return CONTINUE
        search = _deciding(tune_controller)
        if search is not None:
            return self._follow(search, trial, result)
        self._log_schedule(trial, curve)
        decision = self._decide(trial, curve)
        if decision is None:
            return CONTINUE
        self._decisions[trial.trial_id] = decision
        return STOP

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """Put the loss at the target, its error and the decision where the searcher will see them."""
        curve, search = self._curves.get(trial.trial_id, Curve()), _deciding(tune_controller)
        if search is not None:
            self._write_final(search, trial)
            return
        target = self._target_of(trial)
        if target is None or not curve.loss or self._metric is None:
            return
        decision = self._decisions.get(trial.trial_id) or ended(curve, target)
        last = trial.last_result
        last[DECISION] = str(decision)
        loss, last[LOSS_STDERR] = final_loss(curve, target, decision)
        last[LOSS] = self._sign * loss
        known = curve.not_constant(target) is None
        if known and decision not in (RunEnd.COMPLETED, RunEnd.DIVERGED) and self.rewrite and self._metric in last:
            last[MEASURED], last[self._metric] = last[self._metric], last[LOSS]

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """A trial that never ran, or was paused, is gone."""
        self._curves.pop(trial.trial_id, None)

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """Pending trials first; then paused ones (where a policy decides: those that it resumes)."""
        trials = tune_controller.get_trials()
        pending = next((t for t in trials if t.status == Trial.PENDING), None)
        search = _deciding(tune_controller)
        if pending is not None or search is None:
            return pending or next((t for t in trials if t.status == Trial.PAUSED), None)
        if tune_controller.search_alg.is_finished():
            search.close()
        paused = [t for t in trials if t.status == Trial.PAUSED]
        while paused:
            resumed = next((t for t in paused if not search.is_paused(t.trial_id)), None)
            if resumed is not None:
                return resumed
            if not search.resume_one():
                break
        if search.finished:
            for trial in paused:
                self._decisions[trial.trial_id] = RunEnd.TRUNCATED
                self._write_final(search, trial)
                tune_controller.stop_trial(trial)
        return None

    def debug_string(self) -> str:
        """One line for Tune's console output."""
        ends = list(self._decisions.values())
        counts = ", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends))) or "no trial stopped yet"
        return f"PowerLawScheduler: {counts}"

    def _follow(self, search: PolicySearch, trial: Trial, result: dict[str, Any]) -> str:
        """Continue, pause or stop as the searcher's policy decides."""
        if result.get(CHECKPOINT_DIR_NAME):
            self._checkpointed.add(trial.trial_id)
        decision = search.decide(trial.trial_id, result, schedule=self.schedule, lr_attr=self.lr_attr)
        if decision is None:
            return CONTINUE
        if decision is RunEnd.PAUSED:
            if result.get(CHECKPOINT_DIR_NAME):
                search.pause(trial.trial_id)
                return PAUSE
            if trial.trial_id in self._checkpointed:
                return CONTINUE  # until its next checkpoint: pausing now would lose tokens
            decision = RunEnd.TRUNCATED
        self._decisions[trial.trial_id] = decision
        return STOP

    def _write_final(self, search: PolicySearch, trial: Trial) -> None:
        decision = self._decisions.get(trial.trial_id, RunEnd.COMPLETED)
        trial.last_result[DECISION] = str(decision)
        final = (float("nan"), float("inf")) if decision is RunEnd.DIVERGED else search.final(trial.trial_id)
        if final is not None:
            trial.last_result[LOSS], trial.last_result[LOSS_STDERR] = final

    def _decide(self, trial: Trial, curve: Curve) -> Decision:
        """What to stop this trial for, or None."""
        target = self._target_of(trial)
        decision = self.rule.decide(curve, target)
        if decision is None and self.prune and target is not None and self.rule.applies(curve, target):
            loss, stderr = self._extrapolated[trial.trial_id] = curve.extrapolate(target)
            others = [v for t, v in self._extrapolated.items() if t != trial.trial_id]
            if cannot_win(loss, stderr, others):
                return RunEnd.PRUNED
        return decision

    def _target_of(self, trial: Trial) -> float | None:
        if not isinstance(self.target, str):
            return float(self.target)
        value = as_float(lookup(trial.config or {}, self.target))
        if value is not None and number(value) and value > 0:
            return value
        self._log_once(
            f"target {self.target}",
            f"target={self.target!r} is not a positive number in the config of trial {trial.trial_id}, which has "
            f"{sorted(trial.config or {})}: give a number, or a key of the config. Trials run to their end.",
        )
        return None

    def _log_schedule(self, trial: Trial, curve: Curve) -> None:
        """Log once why trials are not truncated, or that their LR is taken as constant without being known."""
        target = self._target_of(trial)
        if target is None or curve.tokens[-1] < self.rule.min_fraction * target or self.rule.min_fraction == 1:
            return
        if (why := curve.not_constant(target)) is not None:
            self._log_once("schedule", f"{why}. Such trials run to their end.")
        elif curve.schedule is None:
            self._log_once(
                "no LR",
                "PowerLawScheduler extrapolates losses by a power law, which holds at a constant LR, and the reports "
                'have no LR to check that by. Give schedule="constant" if the LR is constant, another schedule if not '
                '(such as "cosine"), or report the LR of each step as "current_lr".',
                level=logging.WARNING,
            )

    @property
    def _sign(self) -> float:
        return -1.0 if self._mode == "max" else 1.0

    def _log_once(self, key: str, message: str, level: int = logging.ERROR) -> None:
        if key not in self._logged:
            self._logged.add(key)
            logger.log(level, message)


def _deciding(controller: TuneController) -> PolicySearch | None:
    """The searcher under all wrappers, where its policy decides about trials."""
    searcher: Any = getattr(controller, "search_alg", None)
    while hasattr(searcher, "searcher"):
        searcher = searcher.searcher
    return searcher if getattr(searcher, "decides", False) is True else None
