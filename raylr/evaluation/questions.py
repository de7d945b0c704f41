"""Questions of MMLU and CMMLU in OpenCompass's layout.

    DATA/mmlu/{dev,test}/<subject>_{dev,test}.csv    question, A, B, C, D, right letter; no header
    DATA/cmmlu/{dev,test}/<subject>.csv              number, question, A, B, C, D, right letter; a header

`DATA/data/mmlu` is found too: OpenCompass's own cache lies so. The dev questions are the examples of the prompt.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raylr.analysis.scores.suites import LETTERS, SUITES, Subject, resolve
from raylr.errors import DataError

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
        """Return a hash of all dev and test questions, for the column `data_hash`."""
        parts = [[(item.text, item.choices, item.gold) for item in split] for split in (self.dev, self.test)]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()

    def expected(self, limit: int | None) -> int:
        """Return how many test questions an evaluation with this limit scores."""
        return len(self.test) if limit is None else min(limit, len(self.test))


def suite_folder(data: Path, suite: str) -> Path:
    """Return the folder of a suite's questions.

    Raises:
        DataError: There is no such file in `data`.
    """
    if not data.is_dir():
        raise DataError(
            f"there is no data folder {data}; it should hold {' and '.join(SUITES)} in OpenCompass's layout"
        )
    for folder in (data / suite, data / "data" / suite):
        if (folder / "test").is_dir() and (folder / "dev").is_dir():
            return folder
    raise DataError(f"{data} holds no {suite}/dev and {suite}/test with the questions of {SUITES[suite].title}")


def subject_file(data: Path, subject: Subject, split: str) -> Path:
    """Return the file of a subject's questions, `split` being "dev" or "test"; it need not exist."""
    name = f"{subject.name}_{split}.csv" if subject.suite == "mmlu" else f"{subject.name}.csv"
    return suite_folder(data, subject.suite) / split / name


def present(data: Path, subjects: Sequence[Subject]) -> list[Subject]:
    """Return the subjects whose dev and test questions are in the folder."""
    return [
        subject
        for subject in subjects
        if all(subject_file(data, subject, split).is_file() for split in ("dev", "test"))
    ]


def read_subject(data: Path, subject: Subject) -> SubjectData:
    """Read the questions of a subject.

    Args:
        data: Folder of the questions.
        subject: The subject.

    Raises:
        DataError: A file is missing, a row has another number of columns, a right answer is no letter, or there are
            fewer dev questions than the prompt shows. The message names file and line.
    """
    dev, test = (_read(subject_file(data, subject, split), subject) for split in ("dev", "test"))
    if len(dev) < SHOTS:
        path = subject_file(data, subject, "dev")
        raise DataError(f"{path} has {len(dev)} questions and the prompt shows {SHOTS} examples")
    if not test:
        raise DataError(f"{subject_file(data, subject, 'test')} has no questions")
    return SubjectData(subject=subject, dev=dev, test=test)


def choose_subjects(
    suites: Sequence[str], names: Sequence[str] | None, data: Path
) -> tuple[list[Subject], dict[str, list[str]]]:
    """Return the subjects to evaluate, by what the data folder has.

    Args:
        suites: Names of suites.
        names: Names of subjects, such as "anatomy" or "cmmlu/anatomy"; each must be in the folder. None: all subjects
            of the suites that the folder has, at least one of each suite.
        data: Folder of the questions.

    Returns:
        The subjects, and suite -> names of its subjects that the folder lacks.

    Raises:
        DataError: Something is missing; the message names it.
    """
    wanted = resolve(suites, names)
    for suite in dict.fromkeys(subject.suite for subject in wanted):
        suite_folder(data, suite)
    there = present(data, wanted)
    missing: dict[str, list[str]] = {}
    for subject in wanted:
        if subject not in there:
            missing.setdefault(subject.suite, []).append(subject.name)
    if missing and names is not None:
        listed = ", ".join(f"{suite}/{name}" for suite, lacking in missing.items() for name in lacking)
        raise DataError(f"{data} has no questions of {listed}")
    empty = [suite for suite in missing if not any(subject.suite == suite for subject in there)]
    if empty:
        raise DataError(f"{data} has the questions of no subject of {SUITES[empty[0]].title}")
    return there, missing


class _BadLine(Exception):
    """A line of a file is not a question; `_read` adds the name of the file."""


def _read(path: Path, subject: Subject) -> tuple[Question, ...]:
    if not path.is_file():
        raise DataError(f"there are no questions of {subject}: {path} is missing")
    width, header = _COLUMNS[subject.suite], subject.suite == "cmmlu"
    questions = []
    try:
        with path.open(encoding="utf-8") as stream:
            reader = csv.reader(stream)
            for number, row in enumerate(reader):
                if header and number == 0:
                    continue
                if len(row) != width:
                    raise _BadLine(f"line {reader.line_num} has {len(row)} columns, {subject.suite} has {width}")
                text, a, b, c, d, gold = row[width - 6 :]
                if gold not in LETTERS:
                    raise _BadLine(
                        f"line {reader.line_num} has the right answer {gold!r}, which is not one of {LETTERS}"
                    )
                questions.append(Question(text, (a, b, c, d), gold))
    except (_BadLine, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as questions: {error}") from error
    return tuple(questions)
