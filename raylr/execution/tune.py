"""Ray Tune as an executor: its searcher takes jobs from `Work`, its scheduler passes reports on and stops runs.

Tune's own search state is not used: the tables are the state of a study, and `Work` reads what was measured from them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.execution.placement_groups import resource_dict_to_pg_factory
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.trainable.function_trainable import wrap_function

from raylr import signals
from raylr.analysis.units import format_duration
from raylr.errors import InputError, StudyError, TrainingError
from raylr.execution.executor import Config, Job, Trainable
from raylr.execution.failures import one_sentence, reason_of
from raylr.execution.pace import FIRST_SECONDS, LEAST_SECONDS, Pace, Silence
from raylr.execution.processes import activity, note_process, process_notes
from raylr.execution.ray_private import end_trial, release_trials, survive_lost_trials
from raylr.execution.session import cluster_watch, lacking_resources, ray_session
from raylr.execution.tensorboard import TensorBoard
from raylr.execution.trials import only_own_loggers, packed, unpacked, without_state
from raylr.execution.work import Work
from raylr.external.trial import note_checkpoint
from raylr.remote.copies import ray_storage
from raylr.searchers.tune.results import BOOKKEEPING
from raylr.trainables.training.preemption import catch

KEPT = 2
"""Checkpoints of a trial that Tune keeps: the last, and the one before, which is noted until the last is whole."""
RETRIES = 1
"""How often a trial that failed is run again within one run of a study; it goes on from its last checkpoint."""
LOOK_SECONDS = 1.0
"""Least time between two looks for trials that hang."""


class TuneExecutor:
    """Trains jobs as trials of Ray Tune, on the cluster that Ray is connected to, or on this machine.

    Args:
        storage: Folder for Tune's own files.
        resources: What one trial requests of Ray.
        of_sizes: Size → what its trials request in place of that.
        first_seconds: Silence after which a trial hangs while none of the study has reported anything.
        waits: Whether a trial may wait for work that is done elsewhere, so that a process that does nothing is no hang
            unless it is stopped.
        concurrency: Most trials at the same time; None: as many as there is room for.
        callbacks: Further Tune callbacks, such as experiment trackers.
        warn: Called with a sentence that the user should read.
        hang_seconds: Silence of a trial that is never a hang, once it has reported (`raylr.execution.pace`).
    """

    def __init__(
        self,
        *,
        storage: Path,
        resources: Mapping[str, float],
        concurrency: int | None = None,
        callbacks: Sequence[Callback] = (),
        warn: Callable[[str], None] = lambda text: None,
        hang_seconds: float = LEAST_SECONDS,
        of_sizes: Mapping[str, Mapping[str, float]] | None = None,
        first_seconds: float = FIRST_SECONDS,
        waits: bool = True,
    ) -> None:
        self._storage, self._resources, self._warn = storage, dict(resources), warn
        self._concurrency, self._callbacks = concurrency, list(callbacks)
        self._pace = partial(Pace, hang_seconds, first_seconds)
        self._waits = waits
        self._of_sizes = {size: dict(resources) for size, resources in (of_sizes or {}).items()}

    def execute(self, trainable: Trainable, work: Work) -> None:
        """Train everything that `work` hands out.

        Raises:
            InputError: If one trial requests more than this machine has, which would wait forever.
            KeyboardInterrupt: On Ctrl-C.
        """
        jobs = _Jobs(work, self._pace())
        with ray_session() as own, process_notes() as notes:
            there = ray.cluster_resources()
            for requested in (self._resources, *self._of_sizes.values()):
                if lacking := lacking_resources(requested, there):
                    if own:
                        raise InputError(f"{lacking}; lower `resources` in the spec, or name a cluster by RAY_ADDRESS")
                    self._warn(f"{lacking} now; the study waits until it has grown.")
            storage, file_system = ray_storage(self._storage)
            tuner = tune.Tuner(
                tune.with_resources(_preemptible(one_sentence(unpacked(trainable)), notes), self._requested()),
                tune_config=tune.TuneConfig(
                    num_samples=-1,
                    search_alg=_JobSearcher(jobs),
                    scheduler=_ReportScheduler(jobs),
                    max_concurrent_trials=self._concurrency,
                    reuse_actors=True,
                    trial_dirname_creator=_folder_name,
                ),
                run_config=tune.RunConfig(
                    name=f"{self._storage.name}-{time.strftime('%Y%m%d-%H%M%S')}",
                    storage_path=storage,
                    storage_filesystem=file_system,
                    verbose=0,
                    callbacks=[_Events(jobs, notes, self._waits), TensorBoard(), *self._callbacks],
                    checkpoint_config=tune.CheckpointConfig(num_to_keep=KEPT),
                    failure_config=tune.FailureConfig(max_failures=RETRIES),
                ),
            )
            try:
                with only_own_loggers(), cluster_watch(own, jobs.lose):
                    try:
                        tuner.fit()
                    except BaseException:
                        jobs.release()
                        raise
            finally:
                if jobs.failure is not None:  # Tune logs some of what is raised under it, and wraps the rest
                    raise jobs.failure

    def _requested(self) -> dict[str, float] | Callable[[Config], Any]:
        """What a trial requests, as Tune takes it: one for all, or a function of the trial's config."""
        usual, of_sizes = self._resources, self._of_sizes
        if not of_sizes:
            return usual
        return lambda config: resource_dict_to_pg_factory(of_sizes.get(config.get("size", ""), usual))


def _preemptible(trainable: Trainable, notes: Path) -> type[Any]:
    """The function as Tune wraps it, with a process in which SIGTERM waits for the checkpoint of what it trains, and
    that is noted (`raylr.execution.processes`)."""
    wrapped: type[Any] = wrap_function(trainable)

    class PreemptibleTrial(wrapped):  # type: ignore[misc]  # a class that Tune makes
        def setup(self, config: Config) -> None:
            super().setup(config)
            note_process(notes, self.trial_id)
            catch()

        def reset_config(self, new_config: Config) -> Any:
            note_process(notes, self.trial_id)
            return super().reset_config(new_config)

    return PreemptibleTrial


class _Jobs:
    """The jobs by trial, shared by what Tune calls. Tune writes its searchers and callbacks to disk; a study does not
    read them back, and nobody else can."""

    def __init__(self, work: Work, pace: Pace) -> None:
        self.work, self.pace = work, pace
        self.of: dict[str, Job] = {}
        self.errors: dict[str, str] = {}
        self.hung: dict[str, str] = {}
        """Trial → why it was ended, of those that hung and whose end Tune has not noticed yet."""
        self.failure: Exception | None = None
        self.controller: Any = None
        """Tune's controller, once it has a trial."""

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Keep an exception of the block; everything ends then."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error
            raise

    def lose(self, sentence: str) -> None:
        """Keep what is in memory and let the search end, because Ray is gone; called in another thread."""
        self.failure = self.failure or TrainingError(sentence)
        self.work.keep()

    def release(self) -> None:
        """End the trials that still run and free what they hold: Tune leaves them after Ctrl-C, as long as this
        process is connected to Ray."""
        release_trials(self.controller)

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _not_by_tune, ()


def _not_by_tune() -> None:
    raise StudyError("a study is continued by `raylr search`, not by Tuner.restore")


class _JobSearcher(Searcher):  # type: ignore[misc]  # no types
    def __init__(self, jobs: _Jobs) -> None:
        super().__init__()
        self._jobs = jobs

    def set_search_properties(self, metric: str | None, mode: str | None, config: Config, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Config | str | None:
        if self._jobs.failure is not None:
            return str(Searcher.FINISHED)
        with self._jobs.noted():
            job = self._jobs.work.next()
            if job is None:
                return str(Searcher.FINISHED) if self._jobs.work.finished else None
            self._jobs.of[trial_id] = job
            return packed(job.config)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error:  # the last of its failures; other ends are passed on by the scheduler
            with self._jobs.noted():
                self._jobs.pace.forget(self._jobs.of[trial_id])
                self._jobs.work.end(self._jobs.of[trial_id], error=self._jobs.errors.get(trial_id, "unknown error"))

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text("the state of this search is the study's run table\n")

    def restore(self, checkpoint_path: str) -> None:
        _not_by_tune()


class _ReportScheduler(FIFOScheduler):  # type: ignore[misc]  # no types
    def __init__(self, jobs: _Jobs) -> None:
        super().__init__()
        self._jobs = jobs
        self._live: dict[str, Trial] = {}
        """The trials that have not ended, in the order in which they were added."""

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._jobs.controller = tune_controller
        survive_lost_trials(tune_controller)
        without_state(trial)
        self._live[trial.trial_id] = trial
        super().on_trial_add(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """As Tune's own, which looks through all trials that there ever were, in every step. None is ever paused."""
        return next((trial for trial in self._live.values() if trial.status == Trial.PENDING), None)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if self._jobs.failure is not None:
            return str(self.STOP)
        job = self._jobs.of[trial.trial_id]
        with self._jobs.noted():
            decision = self._jobs.work.report(job, reported(result))
            self._jobs.pace.heard(job, self._jobs.work.position(job))
        return str(self.CONTINUE if decision is None else self.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._live.pop(trial.trial_id, None)
        if self._jobs.failure is not None:
            return
        seconds = (trial.last_result or {}).get("time_total_s")
        with self._jobs.noted():
            self._jobs.pace.forget(self._jobs.of[trial.trial_id])
            self._jobs.work.end(self._jobs.of[trial.trial_id], seconds=seconds)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._live.pop(trial.trial_id, None)
        where = f" (in full: {trial.local_path}/error.txt)" if trial.local_path else ""
        self._jobs.errors[trial.trial_id] = f"{self._jobs.hung.get(trial.trial_id) or reason_of(trial)}{where}"


class _Events(Callback):  # type: ignore[misc]  # no types
    def __init__(self, jobs: _Jobs, notes: Path, waits: bool) -> None:
        self._jobs, self._notes, self._waits = jobs, notes, waits
        self._running: dict[str, Trial] = {}
        self._looked = 0.0

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        job = self._jobs.of[trial.trial_id]
        self._running[trial.trial_id] = trial
        self._jobs.pace.started(job, self._jobs.work.position(job))
        self._jobs.work.started(job)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._running.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._running.pop(trial.trial_id, None)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._running.pop(trial.trial_id, None)
        job, hung = self._jobs.of[trial.trial_id], self._jobs.hung.pop(trial.trial_id, None)
        self._jobs.pace.left(job, hung=hung is not None)
        with self._jobs.noted():
            self._jobs.work.tried_again(job, hung or reason_of(trial))

    def on_checkpoint(self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **info: Any) -> None:
        folder = self._jobs.of[trial.trial_id].folder
        if folder is not None:
            with self._jobs.noted():
                # A function goes on behind its checkpoint and reports no loss before it again: those come first.
                self._jobs.work.keep()
                note_checkpoint(folder, checkpoint.path)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        signals.check()
        with self._jobs.noted():
            if self._jobs.failure is not None:
                raise self._jobs.failure
            self._jobs.work.flush_due()
            now = time.monotonic()
            if now - self._looked >= LOOK_SECONDS:
                self._looked = now
                self._notice_silent()
                for silence in self._jobs.pace.look(now):
                    self._end_hung(silence)

    def _notice_silent(self) -> None:
        """Look at the processes of the trials that report nothing while there is nothing to compare them with."""
        silent = set(self._jobs.pace.silent())
        for trial_id in self._running if silent else ():
            job = self._jobs.of[trial_id]
            if job in silent and (found := activity(self._notes, trial_id)) is not None:
                used = None if self._waits else found.cpu_seconds
                self._jobs.pace.noticed(job, used, stopped=found.stopped)

    def _end_hung(self, silence: Silence) -> None:
        """End the trial of a job that hangs; Tune then tries it again. Works on a stopped process, too."""
        for trial in self._running.values():
            if self._jobs.of[trial.trial_id] is silence.job and trial.trial_id not in self._jobs.hung:
                ended = end_trial(trial)
                self._jobs.hung[trial.trial_id] = reason = _hung(silence, ended)
                if not ended:
                    self._jobs.work.note(silence.job, f"{reason}: end its process")


def _hung(silence: Silence, ended: bool) -> str:
    """Why a trial that hangs was ended, as a sentence about "it"."""
    paused = "" if silence.longest is None else f" (until then {format_duration(silence.longest)} at most)"
    idle = ", its process did nothing" if silence.idle else ""
    how = "was ended" if ended else f"cannot be ended with Ray {ray.__version__}"
    return f"it hangs: it reported nothing for {format_duration(silence.seconds)}{paused}{idle}, and {how}"


def reported(result: Mapping[str, Any]) -> Config:
    """Return what a trainable reported, without what Tune adds, nested mappings as `outer/inner`."""
    flat: Config = {}
    for key, value in result.items():
        if key in BOOKKEEPING or key == "config" or key.startswith("config/"):
            continue
        if isinstance(value, Mapping):
            flat |= {f"{key}/{inner}": item for inner, item in reported(value).items()}
        else:
            flat[key] = value
    return flat


def _folder_name(trial: Trial) -> str:
    return f"{trial.config.get('run', 'run')}_{trial.trial_id}"
