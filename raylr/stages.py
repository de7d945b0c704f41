"""The stages of a study: search, check, evaluate. Each starts from the tables and trains only what is not in them.

search ──▶ fit ──▶ check at the target ──▶ evaluate
   │                  │
   └── Work ◀─────────┘   asks a policy, takes known results from the tables, gives the rest to an executor
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from raylr.analysis.curves.schedule import Schedule
from raylr.analysis.runs import Run, RunEnd, Setting
from raylr.analysis.units import format_lr, format_name
from raylr.breadth import breadth_of, room_of, settle_breadth
from raylr.corpus import open_corpus
from raylr.decays import DECAY, decay_fingerprint, decayed_job
from raylr.errors import InputError, StudyError, TrainingError
from raylr.events import Listener, StudyPlanned
from raylr.execution.executor import Executor, Job
from raylr.execution.work import FixedPolicy, Policy, Work
from raylr.external.runs import ExternalRuns, Model
from raylr.global_lrs import global_lrs
from raylr.growth import from_plain, goes_on, growth, points_of
from raylr.remote.copies import place_of
from raylr.searchers.policies.branching import PartSuggestion
from raylr.searches import optimum_now, search_policy, search_settings
from raylr.spec import load_spec
from raylr.spec.batches import StudySetting, TrainSettings
from raylr.spec.decay import decayed_tokens, judged
from raylr.spec.external import ExternalModel
from raylr.spec.modules import most_runs
from raylr.spec.runs import axes_of, placed
from raylr.spec.sections import TargetSpec
from raylr.spec.transfer import TransferTarget, transfer_warnings
from raylr.store.files import fetch, inside, names_in, remove_inside
from raylr.store.folder import CORPUS, SPEC_FILE, TABLES, StudyFolder
from raylr.store.runs import RunStore, run_end
from raylr.trainables.training.identity import identity_fields
from raylr.trainables.training.spec import TrainSpec
from raylr.trial import train_trial

TRAINABLE = "raylr.trainables.pretrain"
"""Name of the trainable in a run's identity."""
AT_TARGET, SEEDS = ("check", "arm", "sweep"), ("seed", "data_seed")
"""Roles of runs at a target; training settings in which two runs of one arm differ."""


class Stages:
    """Runs the stages of one study, under its lock.

    Args:
        folder: The study's folder, locked and claimed.
        listener: Receives the events.
        executor: Makes the executor of a stage from Tune callbacks; None: Ray Tune.
    """

    def __init__(
        self, folder: StudyFolder, listener: Listener, executor: Callable[[list[Any]], Executor] | None = None
    ) -> None:
        self.folder, self.spec, self.listener = folder, folder.spec, listener
        self._executor, self._own_executor = executor or self._tune, executor is not None
        self.store = RunStore(folder.evaluations, folder.trials, folder.failures, folder.plans)
        self._external = ExternalRuns(self.spec, folder.path) if self.spec.external else None
        self._fingerprint, self._eval_at = folder.corpus, cache(folder.spec.eval_at)
        for run, what in self.store.lost().items():
            listener.message(f"{run} lacks {what}; it is trained again.")

    # -- the stages --

    def grow(self) -> None:
        """Claim a folder that holds measurements of another spec for this one, and say what becomes of its runs.

        Raises:
            StudyError: If none of them would be used again: then it is another study.
        """
        if not self.folder.grows:
            return
        settings = {(one.size, one.train.batch_tokens): one for one in self.spec.settings()}
        sizes = {one.size: one for one in settings.values()}
        models, targets = self.spec.models(), {target.name: target for target in self.spec.targets}

        def run_of(row: Mapping[str, Any], measured: Mapping[str, Any]) -> Run | None:
            check, size, there = row["role"] in AT_TARGET, row["size"], measured["train"]
            target = targets.get(size) if check else None
            if (target is None) if check else (size not in sizes):
                return None
            if target is not None:
                train, model = judged(self.spec, self.spec.target_train(target)), self.spec.target_model(target)
                tokens = self.spec.tokens_of(target)
            else:
                setting = settings.get((size, there.get("batch_tokens")), sizes[size])
                train, model, tokens = setting.train, models[size], max(self.spec.token_budgets)
                if row["role"] == DECAY:
                    train, tokens = judged(self.spec, train), int(measured["tokens"])
                    if tokens not in self.spec.token_budgets:
                        return None
            train = train.model_copy(update={name: there[name] for name in SEEDS if name in there})
            axes = axes_of(self.spec, size, measured)
            if axes is None:
                return None
            if axes:
                assert target is None or isinstance(target, TransferTarget)
                model, train, _ = placed(self.spec, model, train, axes, target)
            return self.run_of(row["role"], size, model, tokens, float(measured["lr"]), train)

        old = load_spec(self.folder.path / SPEC_FILE, check_files=False)
        same = goes_on(old, self.spec)
        changes = self.spec.differences(old)
        found = growth(self.folder.trials.read().to_pylist(), run_of, changes)
        if found.left_out and not found.reused:
            named = {change.partition(":")[0] for change in changes[:3]}
            further = [reason for reason in found.reasons if reason.partition(":")[0] not in named][:3]
            why = f" ({'; '.join(further)})" if further else ""
            raise StudyError(
                f"{self.folder.path} holds a study of another spec ({'; '.join(changes[:3])}), none of whose "
                f"{len(found.left_out)} runs could be used again{why}; choose another folder"
            )
        self.listener.message(found.sentence())
        points = self.folder.points
        if not same and self.spec.objective == "stable":
            points = points_of(self.spec, self.store, found.reused)
        self.folder.grow(points, found.left_out, self.folder.side_by_side if same else None)

    def search(self) -> None:
        """Search the LR of every size.

        Raises:
            InputError: If every run diverged.
            TrainingError: If runs failed for another reason.
        """
        settings = search_settings(self.spec)
        with contextlib.ExitStack() as held:
            settle_breadth(self.folder, self.listener, lambda: 1 if self._own_executor else room_of(self.spec, held))
            self._search(settings, self.policy())

    def _search(self, settings: Sequence[Setting], policy: Any) -> None:
        warnings = [*self.spec.schedule_warnings(), *self.spec.batch_warnings(), *transfer_warnings(self.spec)]
        for warning in warnings:
            self.listener.message(warning)
        self.listener.study_planned(
            StudyPlanned(
                grid_tokens=self.spec.grid_tokens,
                optimum=lambda name: optimum_now(policy, name),
                params={setting.name: float(setting.params or 1) for setting in settings},
                most_runs=most_runs(self.spec),
                most_tokens=self._most_tokens,
                finished=policy.ended,
            )
        )
        self._train("Searching the learning rate", policy, self.search_job())
        left_out = set(self.folder.left_out)
        trials = self.folder.trials.read().to_pylist()
        rows = [row for row in trials if row["role"] == "search" and row["trial"] not in left_out]
        if rows and all(run_end(row) is RunEnd.DIVERGED for row in rows):
            lrs = [row["lr"] for row in rows]
            raise InputError(
                f"every run diverged, at LRs from {min(lrs):.2e} to {max(lrs):.2e}; lower lr.low and lr.high, and look "
                "at the data"
            )

    def policy(self) -> Any:
        """Return the policy of the search; it knows nothing yet."""
        settings = search_settings(self.spec)
        names = {setting.name for setting in settings}
        points = [point for point in from_plain(self.folder.points) if point.setting in names]
        breadth = breadth_of(self.folder)
        return search_policy(self.spec, settings, points, global_lrs(self.spec), breadth, self.store.plans)

    def search_job(self) -> Callable[[Any], Job]:
        """Return what makes a job of a suggestion of the search's policy."""
        models, budget = self.spec.models(), max(self.spec.token_budgets)
        searched = {setting.name: setting for setting in self.spec.settings()}

        def job_of(suggestion: Any) -> Job:
            if isinstance(suggestion, PartSuggestion):
                setting = searched[suggestion.of.run.setting]
                return decayed_job(self.spec, self.folder, self._job, setting, models[setting.size], suggestion)
            setting = searched[suggestion.run.setting]
            stop_at = None if suggestion.stop_at is None else self._segment_end(budget, float(suggestion.stop_at))
            return self._job(
                "search", setting, models[setting.size], budget, suggestion.lr, suggestion.run, stop_at,
                suggestion.repeat, suggestion.axes,
            )  # fmt: skip

        return job_of

    @property
    def _most_tokens(self) -> float:
        """Most tokens of the search of one setting."""
        search, budget = self.spec.search, max(self.spec.token_budgets)
        if self.spec.objective == "decayed":
            return search.max_trials * decayed_tokens(self.spec)
        return budget * (search.budget if search.method == "surface" else float(most_runs(self.spec)))

    def check(self, target: TargetSpec, lr: float, axes: Mapping[str, float] | None = None) -> None:
        """Train a target at the multiples of `lr` that the spec names, at `lr` itself first.

        Args:
            target: One of the spec's targets.
            lr: The predicted LR; in a transfer study that of the proxy, which the rule multiplies.
            axes: The proxy's other hyperparameters, in a transfer study.
        """
        if not lr > 0 or not target.check:
            return
        model, tokens = self.spec.target_model(target), self.spec.tokens_of(target)
        train = judged(self.spec, self.spec.target_train(target))
        setting = StudySetting(name=target.name, size=target.name, train=train)
        ratios = sorted(target.check, key=lambda ratio: (ratio != 1, ratio))
        lrs = [float(f"{lr * ratio:.6e}") for ratio in ratios]

        def job_of(chosen: float) -> Job:
            return self._job("check", setting, model, tokens, chosen, None, None, 0, axes, target)

        self._train(f"Checking the prediction at {format_name(target.name)}", FixedPolicy(lrs), job_of)

    def evaluate(self) -> None:
        """Score the checkpoints that wait for it, and the kept ones of completed runs that have no score."""
        from raylr.evaluation.evaluator import finish_evaluations

        scores = self.spec.scores
        if scores is None:
            return
        rows = self.folder.trials.read(columns=["trial", "role", "end"]).to_pylist()
        runs = [row["trial"] for row in rows if scores.concerns(row["role"]) and run_end(row) is RunEnd.COMPLETED]
        for run in runs:
            inside(self.folder.checkpoints, run)
        finish_evaluations(scores, self.folder.path, runs, self.listener)
        fetch(self.folder.path, TABLES)  # at an address the scores were written from wherever a task ran

    # -- training --

    def _train(self, stage: str, policy: Policy, job_of: Callable[[Any], Job]) -> None:
        """Train what the policy suggests and was not measured yet; a stage that is done starts no cluster."""
        if self._fingerprint is None and self._external is None:
            self._open_corpus()
        work = Work(policy, job_of, self.store, self.listener)
        if work.needs_training():
            callbacks = self._callbacks()
            self._external.check() if self._external else self._open_corpus()
            self.listener.stage(stage)
            try:
                self._executor(callbacks).execute(self._external.trainable if self._external else train_trial, work)
            finally:
                self.store.flush()
            if work.errors:
                raise TrainingError(
                    f"{len(work.errors)} of the runs failed, first {work.errors[0]}; what was measured is kept, and "
                    "the same command tries again"
                )
        self.store.compact()
        self._drop_checkpoints()

    def _callbacks(self) -> list[Any]:
        from raylr.evaluation.evaluator import evaluation_callbacks
        from raylr.execution.trackers import tracker_callbacks

        beside = evaluation_callbacks(self.spec.scores, self.folder.path, self.listener)
        return [*tracker_callbacks(self.spec.trackers, self.spec.name), *beside]

    def _tune(self, callbacks: list[Any]) -> Executor:
        from raylr.execution.requests import trial_requests
        from raylr.execution.tune import TuneExecutor

        requested, (resources, of_sizes) = self.spec.resources, trial_requests(self.spec)
        return TuneExecutor(
            storage=self.folder.path / "tune",
            resources=resources,
            of_sizes=of_sizes,
            concurrency=requested.concurrency,
            callbacks=callbacks,
            warn=self.listener.message,
            hang_seconds=requested.hang_seconds,
            first_seconds=requested.first_report_seconds,
            waits=self.spec.external or getattr(self.spec.train, "workers", 1) > 1,
        )

    def _job(
        self,
        role: str,
        setting: StudySetting,
        model: Model,
        tokens: int,
        lr: float,
        handle: Any,
        stop_at: int | None,
        repeat: int = 0,
        axes: Mapping[str, float] | None = None,
        target: TargetSpec | None = None,
    ) -> Job:
        reseeded = SEEDS if self.spec.modules is not None else SEEDS[:1]
        seeds = {name: getattr(setting.train, name) + repeat for name in reseeded if hasattr(setting.train, name)}
        train, columns = setting.train.model_copy(update=seeds), dict[str, Any]()
        if axes:
            assert target is None or isinstance(target, TransferTarget)
            model, train, columns = placed(self.spec, model, train, axes, target)
        run = self.store.named(self.run_of(role, setting.name, model, tokens, lr, train))
        eval_at = list(self._eval_at(tokens, train.batch_tokens if role in AT_TARGET else None))
        if self._external is not None:
            return self._external.job(
                role, setting, model, tokens, lr, run=run, train=train, eval_at=eval_at, stop_at=stop_at, handle=handle,
                columns=columns,
            )  # fmt: skip
        assert isinstance(train, TrainSpec)
        assert not isinstance(model, ExternalModel)
        scores = self.spec.scores
        queued = scores.points(train, tokens, eval_at) if scores and scores.concerns(role) else []
        config: dict[str, Any] = {
            "run": run.name,
            "study": self.folder.place,
            "role": role,
            "size": setting.size,
            "lr": lr,
            "model": model.model_dump(),
            "train": train.model_dump(),
            "corpus": place_of(self._corpus_path()),
            "tokens": tokens,
            "eval_at": eval_at,
            "queue_at": queued,
        }
        config |= {} if stop_at is None else {"stop_at": stop_at}
        if train.schedule == "wsd" and self.spec.decay is not None and self.spec.decay.corpus is not None:
            config["decay_corpus"] = str(self.spec.decay.corpus)
        return Job(
            run=run,
            role=role,
            size=setting.size,
            setting=setting.name,
            batch=train.batch_tokens,
            lr=lr,
            tokens=tokens,
            stop_at=tokens if stop_at is None else stop_at,
            seed=train.seed,
            config=config,
            handle=handle,
            columns={"optimizer": train.optimizer.label, **columns},
            axes=dict(axes or {}),
            flops_per_token=model.flops_per_token(train.seq_len),
            eval_at=eval_at,
            schedule=Schedule.named(train.schedule) if train.schedule == "constant" else None,
        )

    def run_of(
        self, role: str, name: str, model: Model, tokens: int, lr: float, train: TrainSettings | None = None
    ) -> Run:
        """Return the run of these settings, which people see as `name`; `train` has the seed and the batch.

        The purpose is among what is measured: the runs of the check are a sample of their own, which no run of the
        search is part of. Everything else is defined by the trainable (`raylr.trainables.training.identity`).

        Args:
            role: "search" or "check".
            name: The setting, for people.
            model: Its model.
            tokens: Length of the run.
            lr: Peak LR.
            train: Training settings; None: those of the spec.
        """
        train = train or self.spec.train
        if self._external is not None:
            return self._external.run(role, name, model, tokens, lr, train)
        assert not isinstance(model, ExternalModel)
        assert isinstance(train, TrainSpec)
        fields = identity_fields(
            model=model, train=train, lr=lr, tokens=tokens, corpus=self._fingerprint or "",
            decay_corpus=decay_fingerprint(self.spec) if train.schedule == "wsd" else None,
        )  # fmt: skip
        return Run(measured={"trainable": TRAINABLE, "purpose": role} | fields, label=f"{name}-lr{format_lr(lr)}")

    def _segment_end(self, tokens: int, stop_at: float) -> int:
        """The first measurement of the loss at or after `stop_at`: a segment ends where its loss is known."""
        return min((point for point in self._eval_at(tokens, None) if point >= stop_at * (1 - 1e-9)), default=tokens)

    # -- the corpus and the checkpoints --

    def _corpus_path(self) -> Path:
        return self.spec.corpus.path or self.folder.path / CORPUS

    def _open_corpus(self) -> None:
        """Open or make the corpus; note what the runs are trained on."""
        self._fingerprint = open_corpus(self.folder, self._corpus_path(), self.listener)

    def _drop_checkpoints(self) -> None:
        keep = self.spec.keep_checkpoints
        if keep == "all":
            return
        there = {folder: names_in(folder) for folder in (self.folder.checkpoints, self.folder.trunks)}
        for row in self.folder.trials.read(columns=["trial", "role"]).to_pylist():
            if keep == "none" or row["role"] != "check":
                for folder, names in there.items():
                    if inside(folder, row["trial"]).name in names:
                        remove_inside(folder, row["trial"])
                if self._external is not None:
                    self._external.drop_checkpoints(row["trial"])
