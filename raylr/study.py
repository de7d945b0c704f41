"""Studies: what they have in common (`Study`), and the Fitting study: search the LR of small models, fit the law of the
optimal LR, predict, check the prediction. `raylr.transfer_study` has the Transfer study.

A study is a folder (`raylr.store.folder` lists its files). A study that is started again continues from where it
stopped; a finished study returns its result at once. Everything but `run` and `end` only reads: it needs no corpus and
no lock, and works on a read-only folder.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from raylr.analysis.cost import Cost, cost_of
from raylr.analysis.laws.lr_law import LRPrediction
from raylr.analysis.runs import RunEnd, identity_of, setting_names
from raylr.analysis.studyfit import Check, StudyFit, check_prediction, fit_study
from raylr.errors import StorageError, StudyError
from raylr.evaluation.queue import EvaluationQueue
from raylr.events import Listener
from raylr.execution.kept import ray_kept
from raylr.remote.copies import local_path, with_addresses
from raylr.spec import StudySpec
from raylr.spec.runs import axis_columns
from raylr.stages import Stages
from raylr.store.files import digest, exclusive, fetch, write_atomic
from raylr.store.folder import (
    ENDING_FILE,
    LAW_FILE,
    LOCK_FILE,
    SPEC_FILE,
    TABLES,
    StudyFolder,
    open_folder,
    read_json,
)
from raylr.store.places import local_folder, refuse_copy
from raylr.store.runs import RunStore, run_end

if TYPE_CHECKING:
    from raylr.analysis.surface.surface import LossSurface
    from raylr.execution.executor import Executor
    from raylr.searchers.optuna import FinishedRun

__all__ = ["LAW_FILE", "SPEC_FILE", "FittingStudy", "Study", "StudyResult"]


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study has found."""

    spec: StudySpec
    """The study's spec."""
    directory: Path
    """The study's folder."""
    fit: StudyFit
    """The optima, surfaces and laws."""
    prediction: LRPrediction | None
    """At the spec's target; None if it names none."""
    check: Check | None
    """None if no check was run (yet)."""
    cost: Cost
    """Tokens and FLOPs that were spent, and those of a full grid search."""


class Study(ABC):
    """One resumable job in a folder: a search, an answer, checks of it.

    Args:
        spec: What to do.
        directory: The study's folder, on storage that all nodes of the cluster share: a folder of a file system, or an
            address (`s3://`, `gs://`, `hdfs://`). `run` makes it.
        progress: Receives the events; by default nothing is shown.
        executor: Makes what trains the runs of a stage, given Tune callbacks for it; None: Ray Tune.

    Raises:
        StudyError: If the folder holds a study of another corpus, of another version of raylr, or other things, or
            is an address and the study one of another trainer, whose checkpoints are on file systems.
        StorageError: If the storage at the address does not answer.

    A spec may be changed and the study gone on with in the same folder: more sizes, budgets, trials, a wider range,
    another target. Runs that are the same run under the new spec are used again (`raylr.growth`).
    """

    ANSWER_FILE: ClassVar[str]
    """File of the folder that holds the answer."""

    def __init__(
        self,
        spec: StudySpec,
        directory: Path | str,
        *,
        progress: Listener | None = None,
        executor: Callable[[list[Any]], Executor] | None = None,
    ) -> None:
        self._require_kind(spec)
        if spec.external:
            local_folder(directory, "a study with another trainer, which writes its checkpoints into the folder,")
        self.spec, self.directory = spec, local_path(directory).resolve()
        self.progress = progress or Listener()
        self.folder = StudyFolder(self.directory, spec)
        self.executor = executor
        self._held = False
        fetch(self.directory, TABLES)
        self.folder.check_owner()
        self.evaluations, self.trials = self.folder.evaluations, self.folder.trials

    @classmethod
    def open(cls, directory: Path | str, *, progress: Listener | None = None) -> Self:
        """Open an existing study to read it, or to go on with it; nothing is written.

        Raises:
            StudyError: If there is no study of this kind in `directory`, or its spec was changed since.
        """
        return cls(open_folder(directory).spec, directory, progress=progress)

    # -- running --

    def run(self) -> Any:
        """Search, find the answer and check it; what was done before is not done again.

        Raises:
            StudyLockedError: If another process is running the study. Nothing is written then.
            StudyError: If the folder is in Ray's copy of a job's working directory, which Ray deletes.
            InputError: For a spec that cannot be trained, or when every run diverged.
            DamagedError: If a file of the tables is damaged; `raylr check` lists what it held.
            TrainingError: If runs failed for another reason than divergence.
            KeyboardInterrupt: On Ctrl-C; everything measured until then is kept.
        """
        refuse_copy(self.directory)
        with self.held(), ray_kept():
            stages = Stages(self.folder, self.progress, self.executor)
            stages.grow()
            stages.search()
            answer = self._answer(stages)
            stages.evaluate()
            return self.result(answer)

    def end(self, text: str) -> None:
        """Note that the study has ended, and what was printed then, so that the next start returns it at once."""
        busy = f"another process is running the study in {with_addresses(str(self.directory))}"
        with nullcontext() if self._held else exclusive(self.directory / LOCK_FILE, busy):
            write_atomic(self.directory / ENDING_FILE, json.dumps({"state": self._state(), "text": text}))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the study's lock for a block; `run` and `end` within it do so anyway.

        What is written between the two, such as a report, is then part of a study that is running: others do not take
        it for one that was stopped.

        Raises:
            StudyLockedError: If another process is running the study.
        """
        if self._held:
            yield
            return
        with self.folder.locked(self.progress.message):
            self._held = True
            try:
                yield
            finally:
                self._held = False

    # -- reading --

    @abstractmethod
    def result(self, answer: Any = None) -> Any:
        """Put together what the study has found so far, from its answer (what was fitted) or a new one.

        Trains nothing and writes nothing.
        """

    def ending(self) -> str | None:
        """Return what was printed at the study's end, if it has ended and nothing was measured or changed since.

        A damaged file counts as missing: the study is then put together again from its tables.

        Raises:
            DamagedError: If a file of the tables is damaged.
        """
        path = self.directory / ENDING_FILE
        if not path.exists() or (self.spec.scores and EvaluationQueue(self.directory).waiting()):
            return None
        try:
            ending = read_json(path)
        except StorageError as error:
            self.progress.message(f"{error}; it is written again.")
            return None
        if not isinstance(ending, dict) or not isinstance(ending.get("text"), str):
            self.progress.message(f"{path} is damaged: it holds no text; it is written again.")
            return None
        return str(ending["text"]) if ending.get("state") == self._state() else None

    def finished_runs(self) -> list[FinishedRun]:
        """Return the search's ended runs with their curves, as `raylr.searchers.optuna.export` takes them.

        The loss of a run that was paused on its way is that of its size's surface at the largest budget. Further
        hyperparameters that were searched are attributes.
        """
        from raylr.searchers.optuna import FinishedRun

        curves: dict[str, list[tuple[float, float]]] = {}
        axes: dict[str, dict[str, float]] = {}
        names = axis_columns(self.spec)
        for row in self.folder.rows().to_pylist():
            curves.setdefault(row["trial"], []).append((row["tokens"], row["loss"]))
            axes[row["trial"]] = {name: row[name] for name in names}
        ends = sorted(self.trials.read().to_pylist(), key=lambda row: int(row["tokens"]))
        last = {row["trial"]: row for row in ends if row["role"] == "search" and row["trial"] in curves}
        budgets = self.spec.token_budgets
        paused = any(run_end(row) is RunEnd.PAUSED for row in last.values())
        surfaces = self._surfaces() if paused else {}
        shown_as = setting_names([(row["size"], row["batch"]) for row in last.values()])
        runs = []
        for trial, row in last.items():
            name = shown_as[row["size"], row["batch"]]
            tokens, loss = zip(*sorted(curves[trial]), strict=True)
            end = run_end(row)
            final, stderr = None if end is RunEnd.DIVERGED else row["target_loss"], row["target_loss_stderr"]
            if end is RunEnd.PAUSED:
                final, stderr = surfaces[name].run_loss(row["lr"], max(budgets))
            shown = {"status": end.value, "target_loss_stderr": stderr} | axes[trial]
            runs.append(
                FinishedRun(setting=name, lr=row["lr"], tokens=tokens, loss=loss, final=final, attributes=shown)
            )
        return runs

    # -- inside --

    def _require_kind(self, spec: StudySpec) -> None:
        """Raise StudyError for a spec of another kind of study."""
        for section, kind in (("transfer", "TransferStudy"), ("modules", "ModuleStudy")):
            if getattr(spec, section) is not None:
                raise StudyError(f"the spec has {section}: it belongs to raylr.{kind}, not to raylr.FittingStudy")

    @abstractmethod
    def _answer(self, stages: Stages) -> Any:
        """Find the answer in what the search measured, write it, check it at the targets, and return it."""

    def _surfaces(self) -> Mapping[str, LossSurface]:
        """Surface of each size, for runs that were paused."""
        return {}

    def _state(self) -> str:
        """What an ending holds for: the code's version, the spec, the answer, and every row of the tables."""
        answer = self.directory / self.ANSWER_FILE
        parts = {
            "raylr": version("raylr"),
            "spec": self.spec.model_dump_json(),
            "law": digest(answer.read_bytes()) if answer.is_file() else None,
            "tables": [self.evaluations.checksum(), self.trials.checksum()],
        }
        return identity_of(parts)


class FittingStudy(Study):
    """The Fitting paradigm as one resumable job (Zhou et al. 2026, Section 3.1). Arguments are those of `Study`.

    Example:
        `study.run()` then searches, fits and predicts; it can be stopped at any time and run again.

        >>> from raylr.quickstart import quickstart_spec
        >>> study = FittingStudy(quickstart_spec(), "runs/quickstart")
        >>> study.ending() is None
        True
    """

    ANSWER_FILE = LAW_FILE

    def run(self) -> StudyResult:
        """Search, fit, predict and check, as `Study.run`."""
        result: StudyResult = super().run()
        return result

    def fit(self) -> StudyFit:
        """Fit the law to the run table as it is.

        Raises:
            InputError: If nothing was measured yet.
            DamagedError: If a file of the tables is damaged.
        """
        store = RunStore(self.folder.evaluations, self.folder.trials)
        for run, what in store.lost().items():
            self.progress.message(f"{run} lacks {what}; `raylr search` trains it again.")
        return self._fit()

    def result(self, answer: StudyFit | None = None) -> StudyResult:
        """Put together what the study has found so far, from a fit or a new one; trains nothing and writes nothing."""
        fit, table, target = answer or self.fit(), self.folder.rows(), self.spec.target
        prediction = self._predict(fit)
        return StudyResult(
            spec=self.spec,
            directory=self.directory,
            fit=fit,
            prediction=prediction,
            check=check_prediction(table, prediction.lr, self.spec.target_tokens) if prediction and target else None,
            cost=cost_of(
                self.evaluations.read(),
                sizes=[setting.size for setting in self.spec.settings()],
                grid=self.spec.lr.grid,
                budget=max(self.spec.token_budgets),
            ),
        )

    # -- inside --

    def _answer(self, stages: Stages) -> StudyFit:
        self.progress.stage("Fitting the law")
        fit = self.fit()
        write_atomic(self.directory / LAW_FILE, fit.law.to_json())
        prediction, target = self._predict(fit), self.spec.target
        if prediction and target:
            stages.check(target, prediction.lr)
        return fit

    def _surfaces(self) -> Mapping[str, LossSurface]:
        return self._fit().surfaces

    def _predict(self, fit: StudyFit) -> LRPrediction | None:
        if self.spec.target is None:
            return None
        params, conditions = self.spec.target_model().params("total"), self.spec.target_conditions()
        return fit.law.predict(params, self.spec.target_tokens, conditions=conditions)

    def _fit(self) -> StudyFit:
        spec = self.spec
        return fit_study(
            self.folder.rows(),
            spec.token_budgets,
            conditions=spec.conditions(),
            batch_exponent=spec.batch_exponent,
            lr_range=(spec.lr.low, spec.lr.high),
            decay=spec.decay_spec.decay if spec.objective == "decayed" else None,
        )
