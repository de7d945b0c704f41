"""MMLU and CMMLU by lm-eval, in the training environment: a second opinion, and fast enough to run during training.

lm-eval gets the log-likelihoods of the four letters from one forward pass per question, where OpenCompass makes four.
Its prompts are those of its own tasks, with five examples as in OpenCompass's: MMLU's has one space in "about anatomy"
where OpenCompass's has two; CMMLU's lacks OpenCompass's wording of the answer.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from raylr.analysis.scores.suites import LETTERS
from raylr.errors import EvaluationError, InputError, SpecError
from raylr.evaluation.backends.base import Answer, OnPortion, Portion, RunInfo, context_notes
from raylr.evaluation.backends.transformers4 import readable_by
from raylr.evaluation.process import driver_events
from raylr.evaluation.spec import ScoresSpec

DRIVER = Path(__file__).with_name("lm_eval_driver.py")
PROGRAM = "lm-eval"
NEEDED = ("lm_eval", "accelerate", "transformers")


@dataclass(frozen=True, kw_only=True)
class LmEval:
    """The backend `lm-eval`; see `raylr.evaluation.backends.base.Backend`."""

    spec: ScoresSpec

    @classmethod
    def open(cls, spec: ScoresSpec) -> Self:
        """Return the backend.

        Raises:
            InputError: lm-eval is not installed; the message has the command that installs it.
            SpecError: The spec has options of OpenCompass.
        """
        if spec.mode != "ppl":
            raise SpecError("lm-eval compares the likelihoods of the letters; only opencompass generates (mode gen)")
        if spec.engine != "transformers" or spec.allow_fallback or spec.env or spec.passes != 1:
            raise SpecError(
                "engine, allow_fallback, env and passes are options of the backend opencompass, not of lm-eval"
            )
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(
                f"the backend lm-eval needs {', '.join(missing)}, which are not installed: pip install raylr[eval]"
            )
        return cls(spec=spec)

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of the engines that may compute: one."""
        return (f"transformers-{self.spec.device}-{self.spec.dtype}",)

    def score(self, model: Path, portions: Sequence[Portion], *, work: Path, on_portion: OnPortion) -> RunInfo:
        """Score questions with lm-eval; its log is `lm-eval.log` in `work`. As in `Backend`.

        Raises:
            EvaluationError: lm-eval failed or was killed, or its results do not fit: another number of questions than
                requested, other right answers than in the data, a score that is not finite.
        """
        began = time.monotonic()
        left = dict(enumerate(portions))
        ready, scored, engine, longest, cut, context = began, 0, "", 0, 0, 0
        versions: dict[str, str] = {}
        folder, read_as = readable_by(model, version("transformers"), work)
        request = self._request(folder, portions)
        with driver_events(Path(sys.executable), DRIVER, request, work, program=PROGRAM, isolated=False) as events:
            for event in events:
                if event["event"] == "ready":
                    engine, versions, context = event["engine"], event["versions"], event["context"]
                    ready = time.monotonic()
                elif event["event"] == "portion":
                    portion = left.pop(event["portion"])
                    prompt = f"{event['task']} lm-eval {versions['lm_eval']}"
                    answers = answers_of(event["questions"], portion, engine=engine, prompt=prompt)
                    lengths = [question["tokens"] for question in event["questions"]]
                    longest, cut = max(longest, *lengths), cut + sum(length > context for length in lengths)
                    scored += len(answers)
                    on_portion(portion, answers)
        if left:
            raise EvaluationError(f"{PROGRAM} ended without {next(iter(left.values()))}")
        return RunInfo(
            backend="lm-eval",
            engine=engine,
            versions=versions,
            startup_seconds=ready - began,
            scoring_seconds=time.monotonic() - ready,
            questions=scored,
            notes=(*read_as, *_cut_note(cut, context), *context_notes(model, longest)),
        )

    def _request(self, model: Path, portions: Sequence[Portion]) -> dict[str, Any]:
        return {name: getattr(self.spec, name) for name in ("batch_size", "device", "dtype")} | {
            "model": str(Path(model).resolve()),
            "data": str(self.spec.data.resolve()),
            "portions": [[item.subject.suite, item.subject.name, item.start, item.stop] for item in portions],
        }


def answers_of(answered: Sequence[Mapping[str, Any]], portion: Portion, *, engine: str, prompt: str) -> list[Answer]:
    """Check what lm-eval found about a portion.

    Args:
        answered: The driver's questions.
        portion: What was requested.
        engine: The engine that computed.
        prompt: Name of the prompt's definition.

    Returns:
        One answer for each question: the likeliest letter, the first of equals.

    Raises:
        EvaluationError: As `LmEval.score`.
    """
    subject, expected = portion.subject, len(portion)
    if [question["index"] for question in answered] != list(range(expected)):
        raise EvaluationError(f"{subject}: {PROGRAM} scored {len(answered)} questions of {expected}")
    answers: list[Answer] = []
    for found, question in zip(answered, portion.questions, strict=True):
        index, scores, gold = portion.start + found["index"], found["scores"], LETTERS[found["gold"]]
        if gold != question.gold:
            raise EvaluationError(
                f"{subject}: question {index} has the right answer {gold}, in the data {question.gold}"
            )
        if len(scores) != len(LETTERS) or not all(math.isfinite(value) for value in scores):
            raise EvaluationError(f"{subject}: the model's output on question {index} is not finite (did it diverge?)")
        answers.append(
            Answer(
                index=index,
                gold=gold,
                prediction=LETTERS[scores.index(max(scores))],
                scores=tuple(scores),
                prompt=prompt,
                engine=engine,
            )
        )
    return answers


def _cut_note(cut: int, context: int) -> list[str]:
    return [f"{cut} prompts lost their beginning, to fit in {context} tokens"] if cut else []
