"""A Fitting study: search the LR of small models, fit the law of the optimal LR, predict, check the prediction.

A study is a folder. Started again it goes on where it was, whatever stopped it; finished it answers at once.

    spec.yaml       what was asked
    corpus/         the tokenised text, if the spec does not name another folder
    evaluations/    the run table: one row per evaluation   } append-only Parquet fragments; every result is
    trials/         one row per ended trial                 } made again from these two alone
    checkpoints/    of runs that have not ended, and of those that the spec keeps
    waiting/        checkpoints to be evaluated; evals/, attempts/: what came of it (`raylr.evaluation.queue`)
    law.json        the law
    ending.json     what was said at the end, so that a finished study answers at once
    report.html     the report, figures/ beside it
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256 as digest
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylr.analysis.cost import Cost, cost_of
from raylr.analysis.laws.lr_law import LRPrediction
from raylr.analysis.studyfit import Check, StudyFit, check_prediction, fit_study
from raylr.analysis.units import format_count
from raylr.errors import InputError, StudyError
from raylr.evaluation.queue import EvaluationQueue
from raylr.events import Listener, Optimum, StudyPlanned
from raylr.spec import StudySpec, dump_spec, load_spec
from raylr.store.files import write_atomic
from raylr.store.runtable import evaluations_table, trials_table
from raylr.trainables.models.spec import HFSpec, ModelSpec

if TYPE_CHECKING:
    from raylr.searchers.optuna import FinishedRun
    from raylr.searchers.tune.searcher import PolicySearch

SPEC_FILE = "spec.yaml"
LAW_FILE = "law.json"
ENDING_FILE = "ending.json"
CORPUS_MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study has found."""

    spec: StudySpec
    directory: Path
    fit: StudyFit
    prediction: LRPrediction | None
    """At the spec's target; None if it names none."""
    check: Check | None
    """None if no check was run (yet)."""
    cost: Cost


class FittingStudy:
    """The Fitting paradigm as one resumable job (Zhou et al. 2026, Section 3.1).

    Args:
        spec: what to do.
        directory: the study's folder, on storage that all nodes of the cluster share; made if it is missing.
        progress: shows what happens; by default nothing is shown.

    Raises InputError if the folder holds a study of another spec.
    """

    def __init__(self, spec: StudySpec, directory: Path | str, *, progress: Listener | None = None) -> None:
        self.spec, self.directory = spec, Path(directory).resolve()
        self.progress = progress or Listener()
        self._claim()
        self.evaluations = evaluations_table(self.directory)
        self.trials = trials_table(self.directory)

    @classmethod
    def open(cls, directory: Path | str, *, progress: Listener | None = None) -> FittingStudy:
        """Open an existing study. Raises InputError if there is none in `directory`."""
        path = Path(directory)
        if not (path / SPEC_FILE).is_file():
            raise StudyError(f"{path} holds no study (there is no {SPEC_FILE} in it); `raylr search` starts one")
        return cls(load_spec(path / SPEC_FILE, check_files=False), path, progress=progress)

    def run(self) -> StudyResult:
        """Search, fit, predict and check; what was done before is not done again.

        Raises InputError for a spec that cannot be trained or when every run diverged, KeyboardInterrupt on Ctrl-C;
        everything measured until then is kept.
        """
        with self._lock():
            self._search()
            fit = self.fit()
            write_atomic(self.directory / LAW_FILE, fit.law.to_json())
            prediction = self._predict(fit)
            target = self.spec.target
            if prediction and target and target.check:
                self._check(prediction)
            self._evaluate()
            return self.result(fit)

    def fit(self) -> StudyFit:
        """Fit the law to the run table as it is. Nothing is written."""
        self.progress.stage("Fitting the law")
        return fit_study(self.evaluations.read(), self.spec.token_budgets, conditions=self.spec.conditions())

    def result(self, fit: StudyFit | None = None) -> StudyResult:
        """Put together what the study has found so far, from `fit` or a new one; trains nothing."""
        fit, table, target = fit or self.fit(), self.evaluations.read(), self.spec.target
        prediction = self._predict(fit)
        return StudyResult(
            spec=self.spec,
            directory=self.directory,
            fit=fit,
            prediction=prediction,
            check=check_prediction(table, prediction.lr, self.spec.target_tokens) if prediction and target else None,
            cost=cost_of(
                table, sizes=list(self.spec.sizes), grid=self.spec.lr.grid, budget=max(self.spec.token_budgets)
            ),
        )

    def finished_runs(self) -> list[FinishedRun]:
        """Return the search's ended runs with their curves, as `raylr.searchers.optuna.export` takes them.

        The loss of a run that was frozen on its way is that of its size's surface at the largest budget."""
        from raylr.execution.tune import FROZEN
        from raylr.searchers.optuna import FinishedRun

        curves: dict[str, list[tuple[float, float]]] = {}
        for row in self.evaluations.read(columns=["trial", "tokens", "loss"]).to_pylist():
            curves.setdefault(row["trial"], []).append((row["tokens"], row["loss"]))
        ends = sorted(self.trials.read().to_pylist(), key=lambda row: int(row["tokens"]))
        last = {row["trial"]: row for row in ends if row["role"] == "search"}
        budgets = self.spec.token_budgets
        frozen = any(row["status"] == FROZEN for row in last.values())
        surfaces = fit_study(self.evaluations.read(), budgets).surfaces if frozen else {}
        runs = []
        for trial, row in last.items():
            tokens, loss = zip(*sorted(curves[trial]), strict=True)
            final, stderr = None if row["status"] == "diverged" else row["target_loss"], row["target_loss_stderr"]
            if row["status"] == FROZEN:
                final, stderr = (float(value) for value in surfaces[row["size"]].loss(row["lr"], max(budgets)))
            shown = {"status": row["status"], "target_loss_stderr": stderr}
            runs.append(
                FinishedRun(setting=row["size"], lr=row["lr"], tokens=tokens, loss=loss, final=final, attributes=shown)
            )
        return runs

    def ending(self) -> str | None:
        """Return what was said at the study's end, if it has ended and nothing was measured since; None otherwise."""
        path = self.directory / ENDING_FILE
        if not path.exists() or (self.spec.scores and EvaluationQueue(self.directory).waiting()):
            return None
        ending = json.loads(path.read_text())
        return str(ending["text"]) if ending["state"] == self._state() else None

    def end(self, text: str) -> None:
        """Note that the study has ended, and what was said then."""
        _write(self.directory / ENDING_FILE, json.dumps({"state": self._state(), "text": text}))

    # -- stages --

    def _search(self) -> None:
        from raylr.searchers import PowerLawScheduler

        asked, search = self.spec.search, self._searcher()
        scheduler = PowerLawScheduler(
            target="tokens",
            min_fraction=asked.min_fraction if asked.truncate and asked.method == "quadratic" else 1.0,
            tolerance=asked.loss_tolerance,
            rewrite=False,
        )
        self.progress.study_planned(
            StudyPlanned(grid_tokens=self.spec.grid_tokens, optimum=lambda size: _optimum(search, size))
        )
        self._train("Searching the learning rate", search, scheduler)
        if all(row["status"] == "diverged" for row in self.trials.read().to_pylist() if row["role"] == "search"):
            lrs = self.trials.read().column("lr").to_pylist()
            raise InputError(
                f"every run diverged, at LRs from {min(lrs):.2e} to {max(lrs):.2e}; lower lr.low and lr.high, and "
                "look at the data"
            )

    def _searcher(self) -> PolicySearch:
        """The searcher that the spec asks for, with a setting for each size at the largest budget."""
        from raylr.searchers import QuadraticSearch, SegmentSearch, Setting

        budget, asked = max(self.spec.token_budgets), self.spec.search
        settings = [
            Setting(
                name=name,
                config=self._config("search", name, model, budget),
                params=model.params("total"),
                tokens=budget,
            )
            for name, model in self.spec.models().items()
        ]
        options: dict[str, Any] = {
            "metric": "loss",
            "mode": "min",
            "settings": settings,
            "lr_range": (self.spec.lr.low, self.spec.lr.high),
            "tolerance": asked.tolerance,
            "max_trials": asked.max_trials,
            "extend": asked.extend,
            "seed": self.spec.seed,
        }
        if asked.method == "quadratic":
            return QuadraticSearch(**options)
        points = self.spec.eval_at(budget)
        stops = sorted({min(point for point in points if point >= share * budget) for share in asked.rungs})
        return SegmentSearch(rungs=[stop / budget for stop in stops], budget=asked.budget, **options)

    def _predict(self, fit: StudyFit) -> LRPrediction | None:
        if self.spec.target is None:
            return None
        return fit.law.predict(self.spec.target_model().params("total"), self.spec.target_tokens)

    def _check(self, prediction: LRPrediction) -> None:
        from raylr.execution.tune import FixedSearch

        target = self.spec.target
        assert target is not None
        if not prediction.lr > 0:
            return
        config = self._config("check", target.name, self.spec.target_model(), self.spec.target_tokens)
        ratios = sorted(target.check, key=lambda ratio: (ratio != 1, ratio))  # the predicted LR first
        search = FixedSearch([{**config, "lr": float(f"{prediction.lr * ratio:.6e}")} for ratio in ratios])
        self._train(f"Checking the prediction at {target.name}", search, None)

    def _train(self, stage: str, search: Any, scheduler: Any) -> None:
        """Run what `search` asks for and was not measured yet; a stage that is done starts no cluster."""
        from raylr.evaluation.evaluator import evaluation_callbacks
        from raylr.execution.trackers import tracker_callbacks
        from raylr.execution.tune import ReplaySearch, TableWriter, ray_session, run_trials
        from raylr.trainables import trial_resources

        replay = ReplaySearch(search, self.evaluations, self.trials, self.progress)
        if not replay.needs_training():
            return
        asked = self.spec.resources
        beside = evaluation_callbacks(self.spec.scores, self.directory, self.progress)
        callbacks = [*tracker_callbacks(self.spec.trackers, self.spec.name), *beside]
        self._corpus()
        self.progress.stage(stage)
        writer = TableWriter(self.evaluations, self.trials, self.progress)
        with ray_session():
            run_trials(
                train_trial,
                replay,
                writer,
                scheduler=scheduler,
                resources=trial_resources(self.spec.train, cpus=asked.cpus, gpus=asked.gpus),
                concurrency=asked.concurrency,
                storage=self.directory / "tune",
                callbacks=callbacks,
            )
        if writer.errors:
            raise RuntimeError(
                f"{len(writer.errors)} of the runs failed, first {writer.errors[0]}; what was measured is kept, and "
                "the same command tries again"
            )
        self._drop_checkpoints()

    def _evaluate(self) -> None:
        """Evaluate the checkpoints that still wait for it, and those kept of runs that no evaluation was asked of."""
        from raylr.evaluation.evaluator import finish_evaluations

        asked = self.spec.scores
        ended = self.trials.read(columns=["trial", "role", "status"]).to_pylist()
        runs = [row["trial"] for row in ended if asked and asked.concerns(row["role"]) and row["status"] == "completed"]
        finish_evaluations(asked, self.directory, runs, self.progress)

    def _corpus(self) -> Path:
        """Return the corpus folder, tokenising the text if it is not there yet, checked against the spec."""
        from raylr.trainables import Corpus, build_corpus, python_stdlib_sources

        wanted = self.spec.corpus
        folder = self._corpus_folder()
        if not wanted.path and not (folder / CORPUS_MANIFEST).exists():
            self.progress.stage("Tokenising the text")
            files = list(wanted.files) or python_stdlib_sources()
            build_corpus(files, folder, vocab_size=wanted.vocab_size, tokenizer=wanted.tokenizer)
        corpus = Corpus.open(folder)
        checked = self.spec.target if self.spec.target and self.spec.target.check else None
        need = max([*self.spec.token_budgets, self.spec.target_tokens if checked else 0])
        if corpus.train_tokens < need:
            raise InputError(
                f"the corpus in {folder} has {format_count(corpus.train_tokens)} training tokens and the longest run "
                f"needs {format_count(need)}; give it more text or lower the budgets"
            )
        models = self.spec.models() | ({checked.name: self.spec.target_model()} if checked else {})
        for name, model in models.items():
            if model.vocab_size < corpus.vocab_size:
                raise InputError(
                    f"size {name!r} has vocab_size {model.vocab_size} and the corpus in {folder} {corpus.vocab_size}; "
                    f"set vocab_size to at least {corpus.vocab_size}"
                )
        return folder

    def _corpus_folder(self) -> Path:
        return (self.spec.corpus.path or self.directory / "corpus").resolve()

    def _config(self, role: str, size: str, model: ModelSpec | HFSpec, tokens: int) -> dict[str, Any]:
        eval_at, scored = self.spec.eval_at(tokens), self.spec.scores
        queued = scored.points(self.spec.train, tokens, eval_at) if scored and scored.concerns(role) else []
        return {
            "role": role,
            "size": size,
            "model": model.model_dump(),
            "train": self.spec.train.model_dump(),
            "corpus": str(self._corpus_folder()),
            "tokens": tokens,
            "eval_at": eval_at,
            "queue_at": queued,
            "study": str(self.directory),
        }

    # -- the folder --

    def _state(self) -> dict[str, Any]:
        """What an ending holds for: the code's version, and every fragment of the tables."""
        names = [path.name for table in (self.evaluations, self.trials) for path in table.fragments()]
        spec = self.spec.model_dump_json()
        return {"raylr": version("raylr"), "tables": digest("\n".join([spec, *names]).encode()).hexdigest()}

    def _claim(self) -> None:
        path = self.directory / SPEC_FILE
        if path.exists():
            differences = self.spec.differences(load_spec(path, check_files=False))
            if differences and not any((self.directory / "evaluations").glob("*.parquet")):
                shutil.rmtree(
                    self.directory / "corpus", ignore_errors=True
                )  # nothing measured yet: the new spec may have it
            elif differences:
                raise InputError(
                    f"{self.directory} holds a study of another spec ({'; '.join(differences[:3])}); "
                    "choose another folder"
                )
            else:
                return
        elif self.directory.is_dir() and any(self.directory.iterdir()):
            raise InputError(f"{self.directory} is not empty and holds no study; choose another folder")
        self.directory.mkdir(parents=True, exist_ok=True)
        _write(path, dump_spec(self.spec))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Keep a second process out of the folder; the lock goes with the process, however that ends."""
        with (self.directory / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another process is running the study in {self.directory}; wait for it or stop it"
                ) from None
            yield

    def _drop_checkpoints(self) -> None:
        keep = self.spec.keep_checkpoints
        for row in self.trials.read(columns=["trial", "role"]).to_pylist():
            if keep == "none" or (keep == "target" and row["role"] != "check"):
                shutil.rmtree(self.directory / "checkpoints" / row["trial"], ignore_errors=True)


def _optimum(search: PolicySearch, size: str) -> Optimum | None:
    found = search.recommend(size)
    if found.lr is None or found.lr_low is None or found.lr_high is None:
        return None
    return Optimum(lr=found.lr, lr_low=found.lr_low, lr_high=found.lr_high)


def train_trial(config: dict[str, Any]) -> None:
    """Train one trial of a study: Ray Tune's function trainable. Its own checkpoints lie in the study's folder, and
    those that wait for an evaluation."""
    from raylr.execution.tune import trial_key
    from raylr.trainables import pretrain

    keys = ("lr", "model", "train", "corpus", "tokens", "eval_at", "stop_at", "queue_at")
    run = {key: config[key] for key in keys if key in config}
    study, name = Path(config["study"]), trial_key(config)
    pretrain(
        {**run, "run_dir": str(study / "checkpoints" / name), "queue_dir": str(EvaluationQueue(study).folder_of(name))}
    )


def _write(path: Path, text: str) -> None:
    """Replace a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
