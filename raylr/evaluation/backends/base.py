"""What every backend is given and what it returns: the extension point of the evaluation.

    backend = open_backend(spec)                     # checks that the spec can be evaluated here
    backend.score(model, portions, work=…, on_portion=…)

A backend gets portions of subjects (some questions of one subject), and hands over each portion's answers as soon as
they are there, so that a kill loses one portion. It keeps nothing itself; `raylr.evaluation.run` does.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, cast

from raylr.analysis.scores.scores import SCORES
from raylr.analysis.scores.suites import Subject
from raylr.errors import InputError, nearest
from raylr.evaluation.backends import BACKENDS
from raylr.evaluation.questions import Question, SubjectData
from raylr.evaluation.spec import ScoresSpec


@dataclass(frozen=True, kw_only=True)
class Portion:
    """The test questions `start` to `stop` (exclusive) of a subject that are to be scored."""

    data: SubjectData
    start: int
    stop: int

    def __str__(self) -> str:
        """Return subject and questions for messages, such as "mmlu/anatomy, questions 20 to 24"."""
        return f"{self.subject}, questions {self.start} to {self.stop - 1}"

    @property
    def subject(self) -> Subject:
        """The subject."""
        return self.data.subject

    @property
    def questions(self) -> tuple[Question, ...]:
        """The questions of the portion."""
        return self.data.test[self.start : self.stop]

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model answered to one question."""

    index: int
    """Of the question in the subject's test set, from 0."""
    gold: str
    """The right letter."""
    prediction: str | None
    """The letter answered; None for generated text without an answer in it, which counts as wrong."""
    scores: tuple[float, ...] | None
    """Log-likelihoods of the letters A, B, C and D in nats, up to a constant of the question; None in mode "gen"."""
    prompt: str
    """Name of the prompt's definition in the backend."""
    engine: str
    """The engine that computed the answer."""

    @property
    def correct(self) -> bool:
        """Whether the right letter was answered."""
        return self.prediction == self.gold

    def row(self) -> dict[str, Any]:
        """Return the answer as columns of `raylr.analysis.scores.scores.QUESTION_SCHEMA`."""
        row = {name: getattr(self, name) for name in ("index", "gold", "prediction", "correct", "prompt", "engine")}
        return row | dict(zip(SCORES, self.scores or [None] * len(SCORES), strict=True))


OnPortion = Callable[[Portion, Sequence[Answer]], None]
"""Receives the answers of each portion as soon as all of them are there."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a backend reports about one call of `Backend.score`."""

    backend: str
    engine: str
    """The engine that computed, one of `Backend.engines`."""
    versions: Mapping[str, str]
    """Package -> version, of those that the scores depend on."""
    startup_seconds: float
    """From the call until the first question could be scored: start of the process, imports, loading the model."""
    scoring_seconds: float
    questions: int
    """Questions scored in this call."""
    notes: tuple[str, ...] = ()
    """What a reader of the scores should know, each a sentence."""


class Backend(Protocol):
    """A program that puts multiple-choice questions to a model."""

    @classmethod
    def open(cls, spec: ScoresSpec) -> Self:
        """Return the backend for a spec.

        Raises:
            InputError: The spec cannot be evaluated by this backend, or something that it needs is not installed.
        """

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of the engines that may compute under the spec, the preferred one first. Every answer records its."""

    def score(self, model: Path, portions: Sequence[Portion], *, work: Path, on_portion: OnPortion) -> RunInfo:
        """Score questions with a model.

        Args:
            model: A Hugging Face folder: configuration, weights, tokenizer.
            portions: What to score, in this order. A subject may have several portions; no question is in two of them.
            work: An empty folder for everything that the program writes, its log included.
            on_portion: Receives the answers of each portion.

        Raises:
            EvaluationError: The program failed or was killed, or its results do not fit the questions. Answers that
                were handed over before are valid.
        """


def open_backend(spec: ScoresSpec) -> Backend:
    """Return the backend that a spec names, checked.

    Raises:
        InputError: There is no such backend, or it cannot evaluate the spec here.
    """
    module, _, name = BACKENDS.get(spec.backend, spec.backend).partition(":")
    try:
        backend = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        if spec.backend in BACKENDS:
            raise
        raise InputError(
            f"the backend {spec.backend!r} cannot be imported ({error}){nearest(spec.backend, BACKENDS)}"
        ) from error
    return cast(Backend, backend.open(spec))


def context_notes(model: Path, longest: int) -> list[str]:
    """Return a note if the longest prompt exceeds the sequences that a model was made for, else nothing.

    Args:
        model: A Hugging Face folder. The length is that of the training sequences if the folder is an export of raylr,
            otherwise `max_position_embeddings`.
        longest: Tokens of the longest prompt.
    """
    for name, key in (("raylr.json", "seq_len"), ("config.json", "max_position_embeddings")):
        path = Path(model) / name
        context = json.loads(path.read_text()).get(key) if path.is_file() else None
        if context:
            note = f"the longest prompt has {longest} tokens, the model was made for {context}"
            return [note] if longest > context else []
    return []
