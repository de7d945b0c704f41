"""One evaluation of one model: export the checkpoint, score what is not scored yet, keep every question, add up.

    OUT/
      evals/           the scored questions, a folder an evaluation, a fragment a subject: what a kill leaves behind
      evals.parquet    the same in one file, written at the end of every evaluation
      .eval-…/         working folder of a running evaluation; of one that failed, its log, until the next begins

Subjects whose questions are all in the table, of the same model, prompts, engine and data, are not scored again.
"""

from __future__ import annotations

import errno
import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from raylr.analysis.scores.scores import Scores, questions_table, summarise, write_evals
from raylr.analysis.scores.suites import SUITES, Subject, resolve
from raylr.errors import InputError
from raylr.evaluation.backends import opencompass as eval_opencompass
from raylr.evaluation.environment import Environment, find
from raylr.evaluation.model import EvaluatedModel, open_model
from raylr.evaluation.questions import EvaluationError, Row, RunInfo, SubjectData, present, read_subject, suite_folder
from raylr.events import EvaluationPlanned, Listener, SubjectScored

BACKENDS = ("opencompass", "lm-eval")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found."""

    model: EvaluatedModel = field(repr=False)
    scores: Scores
    info: RunInfo | None
    """None: everything was in the table already."""
    known: int
    """Questions that were in the table already."""
    evals: Path
    """The file of all questions scored in this folder, `evals.parquet`."""
    seconds: float
    """Of everything, the export included."""

    @property
    def questions_per_second(self) -> float | None:
        """Of the scoring alone, start-up left out; None if nothing was scored."""
        if self.info is None or not self.info.questions:
            return None
        return self.info.questions / self.info.scoring_seconds


def evaluate(
    checkpoint: Path | str,
    subjects: Sequence[Subject],
    *,
    data: Path,
    out: Path,
    backend: str = "opencompass",
    mode: str = "ppl",
    limit: int | None = None,
    batch_size: int = 8,
    environment: Environment | None = None,
    run: str | None = None,
    tokens: int | None = None,
    phase: str | None = None,
    label: str | None = None,
    progress: Listener | None = None,
    **options: Any,
) -> Evaluation:
    """Score a model on subjects of MMLU and CMMLU.

    Args:
        checkpoint: a training checkpoint of raylr or a run's folder (the latest one in it), or a Hugging Face folder.
        subjects: `raylr.analysis.scores.suites.resolve` makes them from names, `choose_subjects` by what the data has.
        data: the questions, as `raylr.evaluation.questions` says.
        out: where the scored questions are kept, a study's folder or any other; several evaluations may share it.
        backend: "opencompass", in its own environment, or "lm-eval", in this one.
        mode: "ppl" or "gen" (OpenCompass alone).
        limit: questions a subject, from its first; None: all.
        batch_size: prompts at once.
        environment: OpenCompass's; None: the default one.
        run, tokens, phase, label: what the table calls the model, where its own `raylr.json` does not say or should not
            count.
        progress: told what happens.
        options: of the backend: see `score` of its module in `backends`.

    Raises InputError or ValueError for what cannot be evaluated as asked, and EvaluationError for an evaluation that
    failed; the subjects that were scored until then are kept, and the same call goes on with the others.
    """
    began = time.monotonic()
    heard = progress or Listener()
    if backend not in BACKENDS:
        raise InputError(f"there is no backend {backend!r}; there are {' and '.join(BACKENDS)}")
    if not subjects:
        raise InputError("there are no subjects to evaluate")
    for name, value in (("limit", limit), ("batch size", batch_size)):
        if value is not None and value < 1:
            raise InputError(f"the {name} must be at least 1, got {value}")
    if backend == "lm-eval" and mode != "ppl":
        raise InputError("lm-eval compares the likelihoods of the letters; only OpenCompass generates (mode gen)")
    if backend == "opencompass":
        options = options | {
            "environment": environment or find(engine=options.get("engine", "transformers")),
            "mode": mode,
        }
    questions = {subject: read_subject(data, subject) for subject in subjects}
    out = Path(out)
    with _room(out), _working_folder(out) as work:
        heard.stage(f"Opening {checkpoint}")
        model = open_model(checkpoint, work / "model")
        shared = {
            "run": model.run if run is None else run,
            "checkpoint": label or model.checkpoint,
            "tokens": model.tokens if tokens is None else tokens,
            "phase": model.phase if phase is None else phase,
            "backend": backend,
            "mode": mode,
            "model_hash": model.hash,
        }
        wanted = _Wanted(shared, questions, limit)
        engine, left = wanted.left(questions_table(out).read(shared), _engines(backend, options))
        total = sum(item.expected(limit) for item in questions.values())
        known = total - sum(questions[subject].expected(limit) for subject in left)
        heard.evaluation_planned(EvaluationPlanned(questions=total, known=known))
        info = None
        if left:
            heard.stage(f"Starting {backend}")
            (work / backend).mkdir()
            given = {"data": data, "limit": limit, "batch_size": batch_size, "work": work / backend, **options}
            info = _score_left(wanted, left, model.folder, out, heard, given)
            if known and info.engine != engine:
                raise EvaluationError(
                    f"{known} of the questions were scored by {engine} before, the others by {info.engine} now; both "
                    "are kept, but one evaluation has one engine: run it again with one that scores all"
                )
            engine = info.engine
        scores = summarise(wanted.of(questions_table(out).read(shared), engine))
        evals = write_evals(out)
    return Evaluation(model=model, scores=scores, info=info, known=known, evals=evals, seconds=time.monotonic() - began)


def choose_subjects(
    suites: Sequence[str], names: Sequence[str] | None, data: Path
) -> tuple[list[Subject], dict[str, list[str]]]:
    """Return the subjects to evaluate, and by suite those that the data folder lacks.

    Subjects that are asked for by name must be there. Without names it is all that are there, and at least one of each
    suite. Raises InputError naming what is missing.
    """
    asked = resolve(suites, names)
    for suite in {subject.suite for subject in asked}:
        suite_folder(data, suite)
    there = present(data, asked)
    missing: dict[str, list[str]] = {}
    for subject in asked:
        if subject not in there:
            missing.setdefault(subject.suite, []).append(subject.name)
    if missing and names is not None:
        listed = ", ".join(f"{suite}/{name}" for suite, lacking in missing.items() for name in lacking)
        raise InputError(f"{data} has no questions of {listed}")
    empty = [suite for suite in suites if not any(subject.suite == suite for subject in there)]
    if empty:
        raise InputError(f"{data} has the questions of no subject of {SUITES[empty[0]].title}")
    return there, missing


def study_of(checkpoint: Path) -> Path | None:
    """Return the study's folder that a checkpoint lies in, None if it lies in none."""
    for parent in checkpoint.resolve().parents:
        if parent.name == "checkpoints" and (parent.parent / "spec.yaml").is_file():
            return parent.parent
    return None


@dataclass(frozen=True)
class _Wanted:
    """Which rows of the table of questions belong to an evaluation."""

    shared: dict[str, Any]
    questions: dict[Subject, SubjectData]
    limit: int | None

    def of(self, table: pa.Table, engine: str) -> pa.Table:
        """Return the evaluation's rows by this engine, from a table of all its rows."""
        table = table.filter(pc.equal(table["engine"], engine))
        parts = [table.slice(0, 0)]
        for subject, data in self.questions.items():
            rows = table.filter(
                pc.and_(pc.equal(table["suite"], subject.suite), pc.equal(table["subject"], subject.name))
            )
            rows = rows.filter(pc.equal(rows["data_hash"], data.hash))
            parts.append(rows.filter(pc.less(rows["index"], data.expected(self.limit))))
        return pa.concat_tables(parts)

    def left(self, table: pa.Table, engines: Sequence[str]) -> tuple[str, list[Subject]]:
        """Return the engine among `engines` that has scored most subjects whole, and the subjects it has left."""
        best = engines[0], list(self.questions)
        for engine in engines:
            done: dict[tuple[str, str], int] = {}
            for row in self.of(table, engine).select(["suite", "subject"]).to_pylist():
                done[row["suite"], row["subject"]] = done.get((row["suite"], row["subject"]), 0) + 1
            left = [
                subject
                for subject, data in self.questions.items()
                if done.get((subject.suite, subject.name), 0) < data.expected(self.limit)
            ]
            if len(left) < len(best[1]):
                best = engine, left
        return best


def _score_left(
    wanted: _Wanted, left: Sequence[Subject], model: Path, out: Path, heard: Listener, given: dict[str, Any]
) -> RunInfo:
    """Run the backend on the subjects that are left, and keep each as it comes."""
    kept = len(wanted.questions) - len(left)

    def keep(subject: Subject, rows: list[Row]) -> None:
        nonlocal kept
        named = {"suite": subject.suite, "subject": subject.name, "data_hash": wanted.questions[subject].hash}
        with _lock(out):
            questions_table(out).append([row | wanted.shared | named for row in rows])
        kept += 1
        correct = sum(row["correct"] for row in rows)
        heard.subject_scored(SubjectScored(subject=str(subject), questions=len(rows), correct=correct))

    try:
        return cast(RunInfo, _backend(wanted.shared["backend"])(model, left, on_subject=keep, **given))
    except EvaluationError as error:
        if not kept:
            raise
        raise EvaluationError(
            f"{error}; {kept} of {len(wanted.questions)} subjects are kept, run it again for the others"
        ) from error


def _backend(name: str) -> Any:
    if name == "opencompass":
        return eval_opencompass.score
    from raylr.evaluation.backends import lm_eval as eval_lm

    return eval_lm.score


def _engines(backend: str, options: dict[str, Any]) -> tuple[str, ...]:
    names = ("engine", "device", "dtype", "allow_fallback")
    given = {name: options[name] for name in names if name in options}
    if backend == "opencompass":
        return eval_opencompass.engines(**given)
    from raylr.evaluation.backends import lm_eval as eval_lm

    return tuple(eval_lm.engines(**given))


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Let one process at a time do what follows."""
    with (out / ".evals.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _room(out: Path) -> Iterator[None]:
    """Say of a full disk what it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise EvaluationError(
            f"the disk of {error.filename or out} is full; make room and run it again: the subjects in {out} are kept"
        ) from error


@contextmanager
def _working_folder(out: Path) -> Iterator[Path]:
    """Make a working folder in `out`; it goes when all went well, else at the next evaluation."""
    out.mkdir(parents=True, exist_ok=True)
    with _lock(out):
        for stale in out.glob(".eval-*"):
            with (stale / "lock").open("w") as handle, suppress(BlockingIOError):  # held: it is running
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(stale)
        work = Path(tempfile.mkdtemp(prefix=".eval-", dir=out))
        held = (work / "lock").open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    with held:
        try:
            yield work
        except BaseException:
            shutil.rmtree(work / "model" if any(work.glob("*/*.log")) else work, ignore_errors=True)
            raise
        shutil.rmtree(work)
