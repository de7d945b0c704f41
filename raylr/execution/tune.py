"""Ray Tune as an executor: its searcher takes jobs from `Work`, its scheduler passes reports on and stops runs.

Tune's own search state is not used: the tables are the state of a study, and `Work` reads what was measured from them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from raylr.errors import InputError, StudyError, TrainingError
from raylr.execution.executor import Config, Job, Trainable
from raylr.execution.work import Work
from raylr.external.trial import note_checkpoint
from raylr.searchers.tune.results import BOOKKEEPING

KEPT = 2
"""Checkpoints of a trial that Tune keeps: the last, and the one before, which is noted until the last is whole."""
RETRIES = 1
"""How often a trial that raised is run again within one run of a study; it goes on from its last checkpoint."""


class TuneExecutor:
    """Trains jobs as trials of Ray Tune, on the cluster that Ray is connected to, or on this machine.

    Args:
        storage: Folder for Tune's own files.
        resources: What one trial requests of Ray.
        concurrency: Most trials at the same time; None: as many as there is room for.
        callbacks: Further Tune callbacks, such as experiment trackers.
        warn: Called with a sentence that the user should read.
    """

    def __init__(
        self,
        *,
        storage: Path,
        resources: Mapping[str, float],
        concurrency: int | None = None,
        callbacks: Sequence[Callback] = (),
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._storage, self._resources, self._warn = storage, dict(resources), warn
        self._concurrency, self._callbacks = concurrency, list(callbacks)

    def execute(self, trainable: Trainable, work: Work) -> None:
        """Train everything that `work` hands out.

        Raises:
            InputError: If one trial requests more than this machine has, which would wait forever.
            KeyboardInterrupt: On Ctrl-C.
        """
        jobs = _Jobs(work)
        with ray_session() as own:
            if lacking := lacking_resources(self._resources, ray.cluster_resources()):
                if own:
                    raise InputError(f"{lacking}; lower `resources` in the spec, or name a cluster by RAY_ADDRESS")
                self._warn(f"{lacking} now; the study waits until it has grown.")
            tuner = tune.Tuner(
                tune.with_resources(trainable, self._resources),
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
                    storage_path=str(self._storage),
                    verbose=0,
                    callbacks=[_Events(jobs), *self._callbacks],
                    checkpoint_config=tune.CheckpointConfig(num_to_keep=KEPT),
                    failure_config=tune.FailureConfig(max_failures=RETRIES),
                ),
            )
            try:
                tuner.fit()
            finally:
                if jobs.failure is not None:  # Tune logs some of what is raised under it, and wraps the rest
                    raise jobs.failure


class _Jobs:
    """The jobs by trial, shared by what Tune calls. Tune writes its searchers and callbacks to disk; a study never
    reads them back, so that a copy holds nothing."""

    def __init__(self, work: Work | None = None) -> None:
        self._work = work
        self.of: dict[str, Job] = {}
        self.errors: dict[str, str] = {}
        self.failure: Exception | None = None

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Keep an exception of the block; everything ends then."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error
            raise

    @property
    def work(self) -> Work:
        if self._work is None:
            raise StudyError("a study is continued by `raylr search`, not by Tuner.restore")
        return self._work

    def __reduce__(self) -> tuple[type[_Jobs], tuple[()]]:
        return _Jobs, ()


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
            return dict(job.config)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error:  # the last of its failures; other ends are passed on by the scheduler
            with self._jobs.noted():
                self._jobs.work.end(self._jobs.of[trial_id], error=self._jobs.errors.get(trial_id, "unknown error"))

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text("the state of this search is the study's run table\n")

    def restore(self, checkpoint_path: str) -> None:
        raise StudyError("a study is continued by `raylr search`, not by Tuner.restore")


class _ReportScheduler(FIFOScheduler):  # type: ignore[misc]  # no types
    def __init__(self, jobs: _Jobs) -> None:
        super().__init__()
        self._jobs = jobs

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if self._jobs.failure is not None:
            return str(self.STOP)
        with self._jobs.noted():
            decision = self._jobs.work.report(self._jobs.of[trial.trial_id], reported(result))
        return str(self.CONTINUE if decision is None else self.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        if self._jobs.failure is not None:
            return
        seconds = (trial.last_result or {}).get("time_total_s")
        with self._jobs.noted():
            self._jobs.work.end(self._jobs.of[trial.trial_id], seconds=seconds)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        lines = (_local_error(trial) or str(trial.get_error() or "")).strip().splitlines()
        text = lines[-1].removeprefix(f"{TrainingError.__module__}.{TrainingError.__name__}: ") if lines else ""
        text = text or "unknown error"
        where = f" (in full: {trial.local_path}/error.txt)" if trial.local_path else ""
        self._jobs.errors[trial.trial_id] = f"{text}{where}"  # Tune may try it again


def _local_error(trial: Trial) -> str:
    """The driver's own copy of a trial's error: `get_error` reads the storage's, which is written some time later."""
    try:
        return Path(trial.error_file).read_text(errors="replace")
    except (OSError, TypeError):
        return ""


class _Events(Callback):  # type: ignore[misc]  # no types
    def __init__(self, jobs: _Jobs) -> None:
        self._jobs = jobs

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._jobs.work.started(self._jobs.of[trial.trial_id])

    def on_checkpoint(self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **info: Any) -> None:
        folder = self._jobs.of[trial.trial_id].folder
        if folder is not None:
            with self._jobs.noted():
                note_checkpoint(folder, checkpoint.path)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        with self._jobs.noted():
            self._jobs.work.flush_due()


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


def lacking_resources(requested: Mapping[str, float], there: Mapping[str, float]) -> str:
    """Return in words what one trial requests and the cluster does not have at all; "" if it has everything.

    Args:
        requested: What a trial requests, as Tune takes it: `cpu`, `gpu`, and further names as they are.
        there: What the cluster has in all, `ray.cluster_resources()`.
    """
    for name, amount in requested.items():
        known = {"cpu": "CPU", "gpu": "GPU"}.get(name, name)
        if amount > there.get(known, 0.0):
            return f"one trial requests {amount:g} {known}s and Ray's cluster has {there.get(known, 0.0):g}"
    return ""


@contextlib.contextmanager
def ray_session() -> Iterator[bool]:
    """Connect to the cluster that RAY_ADDRESS names or that the job runs on, or start a quiet local one for now.

    A cluster that happens to run on this machine is left alone: Ray would connect to the latest one, and wait for
    minutes where that is about to end.

    Yields:
        Whether the cluster was started here, so that it does not grow.
    """
    if ray.is_initialized():
        yield False
        return
    own = os.environ.get("RAY_ADDRESS", "local") == "local"
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the study shows its own progress
    if own:  # without a dashboard, too, Ray starts the part of it that sends usage statistics
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends at once: the tables are always complete
    for name in ("ray.tune", "ray._private.authentication"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # `Work.errors` has the errors
    before = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            ray.init(
                "local" if own else None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
            )
        except Exception as error:  # of Ray's own: no cluster at the address, or a machine too busy to start one
            ray.shutdown()
            what = "start on this machine" if own else f"connect to the cluster at {os.environ['RAY_ADDRESS']}"
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise TrainingError(
                f"Ray did not {what}: {reason}. Nothing is lost; the same command continues."
            ) from error
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's own handler prints the stack of its C++ and ends the process
    try:
        yield own
    finally:
        ray.shutdown()
