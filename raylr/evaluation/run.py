"""One evaluation of one model: export the checkpoint, score what is not scored yet, keep every question, add up.

    OUT/
      evals/           the scored questions (`raylr.evaluation.tables`): what a kill leaves behind
      evals.parquet    the same in one file, written at the end of every evaluation
      .eval-…/         working folder of a running evaluation; of one that failed, its log, until the next begins

Questions that are in the table already, of the same model, prompts, engine and data, are not scored again: neither
under a larger limit nor, if the weights are the same, under another name of run or checkpoint.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raylr.analysis.scores.scores import Scores, summarise
from raylr.analysis.scores.suites import Subject
from raylr.errors import EvaluationError, StorageError, StudyLockedError
from raylr.evaluation.backends.base import Answer, Backend, Portion, RunInfo, open_backend
from raylr.evaluation.model import EvaluatedModel, open_model
from raylr.evaluation.questions import SubjectData, choose_subjects, read_subject
from raylr.evaluation.spec import ScoresSpec
from raylr.evaluation.tables import QuestionTable
from raylr.events import EvaluationPlanned, Listener, SubjectScored
from raylr.store.files import exclusive
from raylr.store.places import opened

PORTION = 100
"""Questions that a backend gets at a time, at most. A kill loses no more. Scoring them takes seconds or minutes; what
is done once a portion (reading the questions, writing the answers) takes tenths of a second."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found."""

    model: EvaluatedModel = field(repr=False)
    scores: Scores
    info: RunInfo | None
    """What the backend reported; None if everything was in the table already."""
    known: int
    """Questions that were in the table already."""
    evals: Path
    """The file of all questions scored in this folder, `evals.parquet`."""
    seconds: float
    """Wall time of everything, the export included."""

    @property
    def questions_per_second(self) -> float | None:
        """Speed of the scoring alone, start-up left out; None if nothing was scored."""
        if self.info is None or not self.info.questions:
            return None
        return self.info.questions / self.info.scoring_seconds


def evaluate(
    checkpoint: Path | str,
    spec: ScoresSpec,
    out: Path | str,
    *,
    run: str | None = None,
    label: str | None = None,
    tokens: int | None = None,
    phase: str | None = None,
    listener: Listener | None = None,
) -> Evaluation:
    """Score a model on subjects of MMLU and CMMLU.

    Args:
        checkpoint: A training checkpoint of raylr, the folder of a run (its latest checkpoint), or a Hugging Face
            folder; or its address.
        spec: What to score and with what.
        out: Where the scored questions are kept, the folder of a study or any other, or its address; several
            evaluations may share it.
        run: Name of the training run in the table of questions; None: as recorded in the checkpoint.
        label: Name of the checkpoint in the table; None: its path.
        tokens: Tokens that it was trained on; None: as recorded in the checkpoint.
        phase: "stable" or "decay"; None: as recorded in the checkpoint.
        listener: Receives the progress.

    Returns:
        The scores. Questions that were scored before are part of them.

    Raises:
        InputError: The checkpoint or the questions do not fit the spec.
        EvaluationError: The evaluation failed. The questions that were scored until then are kept, and the same call
            continues with the others.
        StorageError: The disk is full; likewise.

    Example:
        >>> spec = ScoresSpec(data="questions", suites=("mmlu",), limit=40)  # doctest: +SKIP
        >>> evaluate("runs/study/checkpoints/check-XL", spec, Path("scores")).scores.row("mmlu")  # doctest: +SKIP
    """
    began = time.monotonic()
    progress = listener or Listener()
    backend = open_backend(spec)
    subjects, _ = choose_subjects(spec.suites, spec.subjects, spec.data)
    questions = {subject: read_subject(spec.data, subject) for subject in subjects}
    out = opened(out)
    with _room(out), _working_folder(out) as work:
        progress.stage(f"Opening {checkpoint}")
        model = open_model(opened(checkpoint), work / "model")
        shared = {
            "run": model.run if run is None else run,
            "checkpoint": label or model.checkpoint,
            "tokens": model.tokens if tokens is None else tokens,
            "phase": model.phase if phase is None else phase,
            "backend": spec.backend,
            "mode": spec.mode,
            "model_hash": model.hash,
        }
        wanted = _Wanted(shared, questions, spec.limit)
        table = QuestionTable(out)
        kept = table.read(shared)
        if len(kept) < wanted.total:
            table.append(wanted.of_the_same_model(table.read()))
            kept = table.read(shared)
        engine, left = wanted.left(kept, backend.engines)
        known = wanted.total - sum(len(portion) for portion in left)
        progress.evaluation_planned(EvaluationPlanned(questions=wanted.total, known=known))
        info = None
        if left:
            progress.stage(f"Starting {spec.backend}")
            (work / "backend").mkdir()
            info = _score(backend, model.folder, left, wanted, table, work / "backend", progress)
            if known and info.engine != engine:
                raise EvaluationError(
                    f"{known} of the questions were scored by {engine} before, the others by {info.engine} now; both "
                    "are kept, but one evaluation has one engine: run it again with one that scores all"
                )
            engine = info.engine
        scores = summarise(wanted.rows(table.read(shared), engine))
        evals = table.finish(shared)
    return Evaluation(model=model, scores=scores, info=info, known=known, evals=evals, seconds=time.monotonic() - began)


def study_of(checkpoint: Path) -> Path | None:
    """Return the study's folder that a checkpoint lies in, None if it lies in none."""
    for parent in checkpoint.resolve().parents:
        if parent.name == "checkpoints" and (parent.parent / "spec.yaml").is_file():
            return parent.parent
    return None


@dataclass(frozen=True)
class _Wanted:
    """Which rows of the table of questions belong to an evaluation."""

    shared: Mapping[str, Any]
    """Columns that all its rows have in common."""
    questions: Mapping[Subject, SubjectData]
    limit: int | None

    @property
    def total(self) -> int:
        """Number of questions."""
        return sum(data.expected(self.limit) for data in self.questions.values())

    def rows(self, table: pa.Table, engine: str) -> pa.Table:
        """Return the evaluation's rows by this engine, from a table of all its rows."""
        table = table.filter(pc.equal(table["engine"], engine))
        parts = [table.slice(0, 0)]
        for subject, data in self.questions.items():
            of_subject = pc.and_(pc.equal(table["suite"], subject.suite), pc.equal(table["subject"], subject.name))
            rows = table.filter(pc.and_(of_subject, pc.equal(table["data_hash"], data.hash)))
            parts.append(rows.filter(pc.less(rows["index"], data.expected(self.limit))))
        return pa.concat_tables(parts)

    def of_the_same_model(self, table: pa.Table) -> list[dict[str, Any]]:
        """Return the questions that the same weights answered under another name, as rows of this evaluation.

        Args:
            table: All questions.
        """
        for name in ("backend", "mode", "model_hash"):
            table = table.filter(pc.equal(table[name], self.shared[name]))
        hashes = pa.array([data.hash for data in self.questions.values()])
        rows = table.filter(pc.is_in(table["data_hash"], value_set=hashes)).to_pylist()
        return [row | dict(self.shared) for row in rows]

    def left(self, table: pa.Table, engines: Sequence[str]) -> tuple[str, list[Portion]]:
        """Return the engine among `engines` that has scored most questions, and the questions that it has left."""
        best: tuple[str, list[Portion]] | None = None
        for engine in engines:
            done: dict[Subject, set[int]] = {subject: set() for subject in self.questions}
            for row in self.rows(table, engine).select(["suite", "subject", "index"]).to_pylist():
                done[Subject(row["suite"], row["subject"])].add(row["index"])
            left = [
                Portion(data=data, start=start, stop=stop)
                for subject, data in self.questions.items()
                for start, stop in _stretches(set(range(data.expected(self.limit))) - done[subject])
            ]
            if best is None or sum(map(len, left)) < sum(map(len, best[1])):
                best = engine, left
        assert best is not None, "a backend has at least one engine"
        return best


def _stretches(indices: set[int]) -> list[tuple[int, int]]:
    """Return the stretches of successive numbers, as start and stop (exclusive), none longer than `PORTION`."""
    found: list[tuple[int, int]] = []
    for index in sorted(indices):
        if found and found[-1][1] == index and index - found[-1][0] < PORTION:
            found[-1] = found[-1][0], index + 1
        else:
            found.append((index, index + 1))
    return found


def _score(
    backend: Backend,
    model: Path,
    left: Sequence[Portion],
    wanted: _Wanted,
    table: QuestionTable,
    work: Path,
    progress: Listener,
) -> RunInfo:
    """Run the backend on what is left, and keep each portion as it comes."""
    kept = wanted.total - sum(map(len, left))

    def keep(portion: Portion, answers: Sequence[Answer]) -> None:
        nonlocal kept
        subject = portion.subject
        named = {"suite": subject.suite, "subject": subject.name, "data_hash": portion.data.hash}
        table.append([answer.row() | dict(wanted.shared) | named for answer in answers])
        kept += len(answers)
        correct = sum(answer.correct for answer in answers)
        progress.subject_scored(SubjectScored(subject=str(subject), questions=len(answers), correct=correct))

    try:
        return backend.score(model, left, work=work, on_portion=keep)
    except EvaluationError as error:
        if not kept:
            raise
        raise EvaluationError(
            f"{error}; {kept} of {wanted.total} questions are kept, run it again for the others"
        ) from error


@contextmanager
def _room(out: Path) -> Iterator[None]:
    """Report a full disk in one sentence."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageError(
            f"the disk of {error.filename or out} is full; make room and run it again: what was scored in {out} is kept"
        ) from error


@contextmanager
def _working_folder(out: Path) -> Iterator[Path]:
    """Make a working folder in `out`. It is removed at the end if all went well, otherwise by the next evaluation."""
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        with exclusive(out / ".evals.lock", f"another evaluation begins in {out}", timeout=-1):
            for stale in out.glob(".eval-*"):
                with suppress(StudyLockedError), exclusive(stale / "lock", "it belongs to a running evaluation"):
                    shutil.rmtree(stale)
            work = Path(tempfile.mkdtemp(prefix=".eval-", dir=out))
            held.enter_context(exclusive(work / "lock", f"{work} is in use"))
        try:
            yield work
        except BaseException:
            shutil.rmtree(work / "model" if any(work.glob("*/*.log")) else work, ignore_errors=True)
            raise
        shutil.rmtree(work)
