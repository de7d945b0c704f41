"""Questions of MMLU and CMMLU in OpenCompass's layout, and what every evaluation backend is given and returns.

    DATA/mmlu/{dev,test}/<subject>_{dev,test}.csv    question, A, B, C, D, right letter; no header
    DATA/cmmlu/{dev,test}/<subject>.csv              number, question, A, B, C, D, right letter; a header

`DATA/data/mmlu` is found too: OpenCompass's own cache lies so. The dev questions are the examples of the prompt.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raylr.analysis.scores.suites import LETTERS, SUITES, Subject

SHOTS = 5
"""Examples in the prompt, the first dev questions (as in the prompts of both backends)."""

_COLUMNS = {"mmlu": 6, "cmmlu": 7}


@dataclass(frozen=True)
class Question:
    """One multiple-choice question."""

    text: str
    choices: tuple[str, str, str, str]
    gold: str
    """The right letter."""


@dataclass(frozen=True, kw_only=True)
class SubjectData:
    """The questions of one subject."""

    subject: Subject
    dev: tuple[Question, ...]
    test: tuple[Question, ...]

    @property
    def hash(self) -> str:
        """Of all dev and test questions, for the column `data_hash`."""
        parts = [[(item.text, item.choices, item.gold) for item in split] for split in (self.dev, self.test)]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()

    def expected(self, limit: int | None) -> int:
        """Return how many test questions an evaluation with this limit scores."""
        return len(self.test) if limit is None else min(limit, len(self.test))


class EvaluationError(RuntimeError):
    """An evaluation that failed, with the reason; what was scored before is kept."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a backend says of one run of it."""

    backend: str
    engine: str
    """What computed: "transformers", "turbomind", …"""
    versions: Mapping[str, str]
    startup_seconds: float
    """From the call until the first question could be scored: start of the process, imports, loading the model."""
    scoring_seconds: float
    questions: int
    """Scored in this run."""
    notes: tuple[str, ...] = ()
    """Things to know about the scores, each a sentence."""


Row = dict[str, Any]
OnSubject = Callable[[Subject, list[Row]], None]
"""Is told each subject as it is finished, with a row a question: index, gold, prediction, correct, score_a … score_d
(None in mode "gen"), prompt and engine, named as in `raylr.analysis.scores.scores.QUESTION_SCHEMA`."""


class Backend(Protocol):
    """The `score` function of a backend."""

    def __call__(
        self,
        model_dir: Path,
        subjects: Sequence[Subject],
        *,
        data: Path | None,
        limit: int | None,
        batch_size: int,
        work: Path,
        on_subject: OnSubject,
        **options: Any,
    ) -> RunInfo:
        """Score the first `limit` questions of each of the subjects with the Hugging Face model in `model_dir`."""


def suite_folder(data: Path, suite: str) -> Path:
    """Return the folder of a suite's questions. Raises ValueError if `data` holds none."""
    if not data.is_dir():
        raise ValueError(
            f"there is no data folder {data}; it should hold {' and '.join(SUITES)} in OpenCompass's layout"
        )
    for folder in (data / suite, data / "data" / suite):
        if (folder / "test").is_dir() and (folder / "dev").is_dir():
            return folder
    raise ValueError(f"{data} holds no {suite}/dev and {suite}/test with the questions of {SUITES[suite].title}")


def subject_file(data: Path, subject: Subject, split: str) -> Path:
    """Return where the questions of a subject lie, `split` being "dev" or "test"; the file need not be there."""
    name = f"{subject.name}_{split}.csv" if subject.suite == "mmlu" else f"{subject.name}.csv"
    return suite_folder(data, subject.suite) / split / name


def present(data: Path, subjects: Sequence[Subject]) -> list[Subject]:
    """Return those of the subjects whose dev and test questions are in the folder."""
    return [
        subject
        for subject in subjects
        if all(subject_file(data, subject, split).is_file() for split in ("dev", "test"))
    ]


def read_subject(data: Path, subject: Subject) -> SubjectData:
    """Read the questions of a subject.

    Raises ValueError for a missing file, a row with another number of columns, a right answer that is no letter, and
    fewer dev questions than the prompt shows; each names file and line.
    """
    dev, test = (_read(subject_file(data, subject, split), subject) for split in ("dev", "test"))
    if len(dev) < SHOTS:
        path = subject_file(data, subject, "dev")
        raise ValueError(f"{path} has {len(dev)} questions and the prompt shows {SHOTS} examples")
    if not test:
        raise ValueError(f"{subject_file(data, subject, 'test')} has no questions")
    return SubjectData(subject=subject, dev=dev, test=test)


def context_notes(model_dir: Path, longest: int) -> list[str]:
    """Return what to say of prompts of `longest` tokens: nothing, or that the model in this folder was made for fewer.

    That is the length of the sequences that an export says it was trained on, else the configuration's.
    """
    for name, key in (("raylr.json", "seq_len"), ("config.json", "max_position_embeddings")):
        path = Path(model_dir) / name
        context = json.loads(path.read_text()).get(key) if path.is_file() else None
        if context:
            told = f"the longest prompt has {longest} tokens, the model was made for {context}"
            return [told] if longest > context else []
    return []


def _read(path: Path, subject: Subject) -> tuple[Question, ...]:
    if not path.is_file():
        raise ValueError(f"there are no questions of {subject}: {path} is missing")
    width, header = _COLUMNS[subject.suite], subject.suite == "cmmlu"
    questions = []
    try:
        with path.open(encoding="utf-8") as stream:
            reader = csv.reader(stream)
            for number, row in enumerate(reader):
                if header and number == 0:
                    continue
                if len(row) != width:
                    raise ValueError(f"line {reader.line_num} has {len(row)} columns, {subject.suite} has {width}")
                text, a, b, c, d, gold = row[width - 6 :]
                if gold not in LETTERS:
                    raise ValueError(
                        f"line {reader.line_num} has the right answer {gold!r}, which is none of {LETTERS}"
                    )
                questions.append(Question(text, (a, b, c, d), gold))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as questions: {error}") from error
    return tuple(questions)
