"""Ray Tune under a study: trials run by Tune, everything measured goes to the run table, nothing is measured twice.

Tune is only the executor here. What a study knows is in its two tables (`raylr.store.runtable`). When a study is
started again, its searcher starts from nothing and is answered from the tables until it asks for something that was not
measured: a searcher whose suggestions depend on results alone ends where an undisturbed run would have ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from raylr.analysis.runs import RunEnd
from raylr.events import Listener, LossMeasured, RunEnded, RunStarted
from raylr.searchers.tune.results import DECISION, LOSS, LOSS_STDERR
from raylr.store.table import Table

Config = dict[str, Any]
Row = dict[str, Any]


FROZEN = "frozen"
"""Status of a run that ended at the end of a part and may go on."""
_RETRIES = 1
"""How often a trial that raised is run again within one run of a study; it goes on from its last checkpoint."""


def trial_key(config: Mapping[str, Any]) -> str:
    """Name a trial by what it measures, the same in every run of a study: role, size and LR."""
    return f"{config['role']}-{config['size']}-lr{config['lr']:.6e}"


def end_of(config: Mapping[str, Any]) -> int:
    """Tokens at which a trial ends by itself: those of its run, or of the part of it that it is."""
    return int(config.get("stop_at", config["tokens"]))


class FixedSearch(Searcher):
    """Suggests the configurations of a list, each once."""

    def __init__(self, configs: Sequence[Config]) -> None:
        super().__init__(metric="loss", mode="min")
        self._left = list(configs)

    def suggest(self, trial_id: str) -> Config | str:
        """Return the next configuration, or FINISHED."""
        return self._left.pop(0) if self._left else str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: a list learns nothing."""


class ReplaySearch(Searcher):
    """Stands before a searcher and answers from the tables what was measured in an earlier run of the study.

    `suggest` returns only what must still be run. The inner searcher hears of known trials exactly what it heard, or
    would have heard, from Tune: every evaluation, then the last result with what the scheduler added to it.
    """

    def __init__(self, inner: Searcher, evaluations: Table, trials: Table, progress: Listener) -> None:
        super().__init__(metric=inner.metric, mode=inner.mode)
        self.inner, self._progress = inner, progress
        self._ended: dict[str, list[Row]] = {}
        for row in sorted(trials.read().to_pylist(), key=lambda row: int(row["tokens"])):
            self._ended.setdefault(row["trial"], []).append(row)
        self._curves: dict[str, list[Row]] = {}
        for row in evaluations.read().to_pylist() if self._ended else []:
            self._curves.setdefault(row["trial"], []).append(row)
        self._inner_id: dict[str, str] = {}
        self._asked = 0
        self._ahead: tuple[str, Config] | str | None = None

    def set_search_properties(self, metric: str | None, mode: str | None, config: Config, **spec: Any) -> bool:
        """Pass the metric and its mode on."""
        super().set_search_properties(metric, mode, config, **spec)
        return bool(self.inner.set_search_properties(metric, mode, config, **spec))

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Pass the limit on."""
        return bool(self.inner.set_max_concurrency(max_concurrent))

    def suggest(self, trial_id: str) -> Config | str | None:
        """Return the inner searcher's next suggestion that was not measured yet, None (ask later), or FINISHED."""
        answer = self._ahead or self._next()
        self._ahead = None
        if not isinstance(answer, tuple):
            return answer
        self._inner_id[trial_id], config = answer
        return config

    def save(self, checkpoint_path: str) -> None:
        """Write nothing that matters: the tables are the state, and a study never restores Tune's snapshot."""
        Path(checkpoint_path).write_text("the state of this search is the study's run table\n")

    def restore(self, checkpoint_path: str) -> None:
        """Raise RuntimeError: a study goes on from its tables; `raylr search` does that."""
        raise RuntimeError("a study is continued by `raylr search`, not by Tuner.restore")

    def needs_training(self) -> bool:
        """Whether anything is left to run; a finished study learns so without a cluster."""
        self._ahead = self._ahead or self._next()
        return not isinstance(self._ahead, str)

    def _next(self) -> tuple[str, Config] | str | None:
        while True:
            inner_id = f"{self._asked:05d}"
            config: Config | str | None = self.inner.suggest(inner_id)
            if not isinstance(config, dict):
                return config
            self._asked += 1
            known = self._known(config)
            if known is None:
                return inner_id, config
            self._replay(inner_id, config, known)

    def _known(self, config: Config) -> Row | None:
        """How this trial ended, if it did: at its end or beyond, or before it for another reason than a part's end."""
        ends = self._ended.get(trial_key(config), [])
        return next((row for row in ends if row["status"] != FROZEN or row["tokens"] >= end_of(config)), None)

    def _replay(self, inner_id: str, config: Config, known: Row) -> None:
        for row in self._curves.get(known["trial"], []):
            if row["tokens"] > known["tokens"]:
                continue
            self.inner.on_trial_result(inner_id, {**row, "config": config})
        self.inner.on_trial_complete(inner_id, result={**json.loads(known["result"]), "config": config}, error=False)
        self._progress.run_ended(_ended(known, known=True))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a result on."""
        self.inner.on_trial_result(self._inner_id[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass a trial's end on."""
        if trial_id in self._inner_id:
            self.inner.on_trial_complete(self._inner_id[trial_id], result=result, error=error)


class TableWriter(Callback):
    """Writes every evaluation and every trial's end to the run table, the moment Tune hears of it."""

    def __init__(self, evaluations: Table, trials: Table, progress: Listener) -> None:
        self._evaluations, self._trials, self._progress = evaluations, trials, progress
        self.errors: list[str] = []

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tell the listener."""
        config = trial.config
        self._progress.run_started(
            RunStarted(
                run=trial_key(config),
                role=config["role"],
                size=config["size"],
                lr=config["lr"],
                tokens=config["tokens"],
            )
        )

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: Row, **info: Any) -> None:
        """Write one evaluation."""
        config = trial.config
        row: Row = {name: result.get(name) for name in self._evaluations.schema.names}
        row |= {"trial": trial_key(config), "role": config["role"], "size": config["size"], "lr": config["lr"]}
        row["seed"] = config["train"]["seed"]
        row["diverged"] = result.get("run_end") == RunEnd.DIVERGED
        self._evaluations.append([row])
        self._progress.loss_measured(LossMeasured(run=row["trial"], tokens=row["tokens"], loss=row["loss"]))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Write a trial's end. A trial that just ended before its end, undiverged, is an error and not written."""
        result, config = trial.last_result, trial.config
        decision = result.get(DECISION)
        reached = int(result.get("tokens") or 0)
        if result.get("run_end") == RunEnd.DIVERGED or decision == "diverged":
            status = "diverged"
        elif reached >= config["tokens"]:
            status = "completed"
        elif reached >= end_of(config):
            status = FROZEN
        elif decision in ("truncated", "pruned"):
            status = decision
        else:
            self.errors.append(f"{trial_key(config)} ended after {reached} of {end_of(config)} tokens")
            return
        measured = result.get("loss")
        row = {
            "trial": trial_key(config),
            "role": config["role"],
            "size": config["size"],
            "lr": config["lr"],
            "tokens": reached,
            "target_tokens": config["tokens"],
            "flops": result.get("flops"),
            "status": status,
            "loss": measured,
            "target_loss": measured if status == "completed" else result.get(LOSS),
            "target_loss_stderr": 0.0 if status == "completed" else result.get(LOSS_STDERR),
            "seconds": result.get("time_total_s"),
            "result": json.dumps({key: value for key, value in result.items() if isinstance(value, int | float | str)}),
        }
        self._trials.append([row])
        self._progress.run_ended(_ended(row))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note the error; the trial is not in the table, so the next run of the study tries it again."""
        text = str(trial.get_error() or "unknown error").strip().splitlines()[-1]
        self.errors.append(f"{trial_key(trial.config)}: {text} (in full: {trial.local_path}/error.txt)")


def _ended(row: Row, *, known: bool = False) -> RunEnded:
    """Return the event of a row of the table of trials."""
    names = ("role", "size", "lr", "tokens", "loss", "target_tokens", "target_loss", "target_loss_stderr")
    end = RunEnd.PAUSED if row["status"] == FROZEN else RunEnd(row["status"])
    return RunEnded(run=row["trial"], end=end, known=known, **{name: row[name] for name in names})


def run_trials(
    trainable: Callable[[Config], None],
    search: ReplaySearch,
    writer: TableWriter,
    *,
    scheduler: TrialScheduler | None,
    resources: Mapping[str, float],
    concurrency: int | None,
    storage: Path,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Run what `search` suggests until it has finished, `resources` a trial, at most `concurrency` side by side.

    Raises KeyboardInterrupt on Ctrl-C, with everything written.
    """
    tuner = tune.Tuner(
        tune.with_resources(trainable, dict(resources)),
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=-1,
            search_alg=search,
            scheduler=scheduler,
            max_concurrent_trials=concurrency,
            reuse_actors=True,
            trial_dirname_creator=_folder_name,
        ),
        run_config=tune.RunConfig(
            name=f"{storage.name}-{time.strftime('%Y%m%d-%H%M%S')}",
            storage_path=str(storage),
            verbose=0,
            callbacks=[writer, *callbacks],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            failure_config=tune.FailureConfig(max_failures=_RETRIES),
        ),
    )
    tuner.fit()


def _folder_name(trial: Trial) -> str:
    return f"{trial_key(trial.config)}_{trial.trial_id}"


@contextlib.contextmanager
def ray_session() -> Iterator[None]:
    """Connect to the cluster that RAY_ADDRESS names or that the job runs on, or start a quiet local one for now."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the study shows its own progress
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends at once: the tables are always complete
    for name in ("ray.tune", "ray._private.authentication"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are told by TableWriter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    try:
        yield
    finally:
        ray.shutdown()
