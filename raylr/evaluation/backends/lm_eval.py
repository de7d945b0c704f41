"""MMLU and CMMLU by lm-eval, in the training environment: a second opinion, and quick enough for checks while training.

lm-eval gets the log-likelihoods of the four letters from one forward pass a question, where OpenCompass makes four. Its
prompts are its own tasks', five examples as in OpenCompass's: MMLU's has one space in "about anatomy" where
OpenCompass's has two; CMMLU's is without OpenCompass's wording of the answer.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylr.analysis.scores.scores import SCORES
from raylr.analysis.scores.suites import LETTERS, Subject
from raylr.evaluation.process import driver_events
from raylr.evaluation.questions import (
    EvaluationError,
    OnSubject,
    Row,
    RunInfo,
    SubjectData,
    context_notes,
    read_subject,
)

DRIVER = Path(__file__).with_name("lm_eval_driver.py")
PROGRAM = "lm-eval"
NEEDED = ("lm_eval", "accelerate", "transformers")


def check_installed() -> None:
    """Raises ValueError, saying what to install, if this environment has no lm-eval."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"the backend lm-eval needs {', '.join(missing)}, which are not installed: pip install raylr[eval]"
        )


def engines(*, device: str = "cpu", dtype: str = "float32") -> tuple[str, ...]:
    """The names of the engines that may compute for these options, as they are recorded with every question."""
    return (f"transformers-{device}-{dtype}",)


def score(
    model_dir: Path,
    subjects: Sequence[Subject],
    *,
    data: Path | None,
    limit: int | None,
    batch_size: int,
    work: Path,
    on_subject: OnSubject,
    device: str = "cpu",
    dtype: str = "float32",
) -> RunInfo:
    """Score the first `limit` test questions of each subject with lm-eval.

    Args:
        model_dir: a Hugging Face folder: config, safetensors, tokenizer.
        subjects: in the order in which they are scored.
        data: folder of `raylr.evaluation.questions`.
        limit: questions a subject, from its first; None: all.
        batch_size: questions at once.
        work: an empty folder for what lm-eval writes; its log is `lm-eval.log` in it.
        on_subject: told each subject as it is finished.
        device: "cpu" or "cuda".
        dtype: "float32", "bfloat16" or "float16".

    Raises ValueError without `data` or lm-eval and for questions that cannot be read, and EvaluationError for a run
    that failed or was killed, and for results that do not fit: another number of questions than asked for, other right
    answers than in the data, a score that is not finite.
    """
    began = time.monotonic()
    check_installed()
    if data is None:
        raise ValueError("the backend lm-eval downloads nothing: name the folder of the questions")
    questions = {subject: read_subject(data, subject) for subject in subjects}
    request = {
        "model": str(Path(model_dir).resolve()),
        "data": str(Path(data).resolve()),
        "subjects": [[subject.suite, subject.name] for subject in subjects],
        "limit": limit,
        "batch_size": batch_size,
        "device": device,
        "dtype": dtype,
    }
    ready, scored, ran, longest, cut, context = began, 0, "", 0, 0, 0
    versions: dict[str, str] = {}
    left = list(subjects)
    with driver_events(Path(sys.executable), DRIVER, request, work, program=PROGRAM, isolated=False) as events:
        for event in events:
            if event["event"] == "ready":
                ran, versions, context, ready = event["engine"], event["versions"], event["context"], time.monotonic()
            elif event["event"] == "subject":
                subject = Subject(event["suite"], event["subject"])
                named = f"{event['task']} lm-eval {versions['lm_eval']}"
                rows = rows_of(event["questions"], questions[subject], engine=ran, prompt=named, limit=limit)
                lengths = [question["tokens"] for question in event["questions"]]
                longest, cut = max(longest, *lengths), cut + sum(length > context for length in lengths)
                scored += len(rows)
                left.remove(subject)
                on_subject(subject, rows)
    if left:
        raise EvaluationError(f"{PROGRAM} ended without {left[0]}")
    return RunInfo(
        backend="lm-eval",
        engine=ran,
        versions=versions,
        startup_seconds=ready - began,
        scoring_seconds=time.monotonic() - ready,
        questions=scored,
        notes=(*_cut_note(cut, context), *context_notes(model_dir, longest)),
    )


def rows_of(
    answered: Sequence[dict[str, Any]], data: SubjectData, *, engine: str, prompt: str, limit: int | None
) -> list[Row]:
    """Check what lm-eval found of a subject; return a row a question. The prediction is the likeliest letter, the first
    of equals.

    Raises EvaluationError as `score`.
    """
    subject, expected = data.subject, data.expected(limit)
    if [question["index"] for question in answered] != list(range(expected)):
        raise EvaluationError(f"{subject}: {PROGRAM} scored {len(answered)} questions of {expected}")
    rows: list[Row] = []
    for index, (question, asked) in enumerate(zip(answered, data.test, strict=False)):
        scores, gold = question["scores"], LETTERS[question["gold"]]
        if gold != asked.gold:
            raise EvaluationError(f"{subject}: question {index} has the right answer {gold}, in the data {asked.gold}")
        if len(scores) != len(LETTERS) or not all(math.isfinite(value) for value in scores):
            raise EvaluationError(f"{subject}: the model's output on question {index} is not finite (did it diverge?)")
        answer = LETTERS[scores.index(max(scores))]
        row: Row = {"index": index, "gold": gold, "prediction": answer, "correct": answer == gold}
        rows.append(row | dict(zip(SCORES, scores, strict=True)) | {"prompt": prompt, "engine": engine})
    return rows


def _cut_note(cut: int, context: int) -> list[str]:
    return [f"{cut} prompts lost their beginning, to fit in {context} tokens"] if cut else []
