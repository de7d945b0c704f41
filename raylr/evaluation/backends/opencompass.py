"""MMLU and CMMLU by OpenCompass: a subprocess in its own environment, whose results are checked against the questions.

Units: the driver's `divisors` times OpenCompass's "PPL" of a prompt, negated, is a log-likelihood in nats, `score_a` …
`score_d`: of the letter after the prompt where a question is read once (`opencompass_model`), of prompt and letter
where it is read four times. The four prompts of a question differ in the letter alone, so differences of scores are
those of the letters' log-probabilities; with four passes to about 1e-3 nats, because OpenCompass sums float32 losses
over the whole prompt.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from raylr.analysis.scores.suites import LETTERS, Subject
from raylr.errors import EvaluationError
from raylr.evaluation.backends.base import Answer, OnPortion, Portion, RunInfo, context_notes
from raylr.evaluation.backends.opencompass_driver import CONFIGS
from raylr.evaluation.backends.transformers4 import readable_by
from raylr.evaluation.environment import Environment, find
from raylr.evaluation.process import driver_events, log_file
from raylr.evaluation.questions import SHOTS, suite_folder
from raylr.evaluation.spec import ScoresSpec

PROGRAM = "OpenCompass"
DRIVER = Path(__file__).with_name("opencompass_driver.py")

UNEVEN = (
    "the tokenizer writes the four letters with different numbers of tokens: OpenCompass compares mean losses per "
    "token, which need not choose the likeliest letter"
)
"""Note on a tokenizer that has " A" as one token and " B" as two."""

_SHOWN_VERSIONS = ("python", "opencompass", "torch", "transformers", "lmdeploy")


@dataclass(frozen=True, kw_only=True)
class OpenCompass:
    """The backend `opencompass`; see `raylr.evaluation.backends.base.Backend`."""

    spec: ScoresSpec
    environment: Environment

    @classmethod
    def open(cls, spec: ScoresSpec) -> Self:
        """Return the backend with the environment that the spec names, checked.

        Raises:
            InputError: As `raylr.evaluation.environment.find`.
        """
        return cls(spec=spec, environment=find(spec.env, spec.engine))

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of the engines that may compute, the preferred one first."""
        several = "" if self.spec.passes == 1 else f"-{self.spec.passes}-passes"
        plain = f"transformers-{self.spec.device}-{self.spec.dtype}{several}"
        if self.spec.engine == "transformers":
            return (plain,)
        return ("turbomind", "lmdeploy-pytorch", plain) if self.spec.allow_fallback else ("turbomind",)

    def score(self, model: Path, portions: Sequence[Portion], *, work: Path, on_portion: OnPortion) -> RunInfo:
        """Score questions with OpenCompass; its log is `opencompass.log` in `work`. As in `Backend`.

        Raises:
            EvaluationError: OpenCompass failed or was killed, or its results do not fit: another number of questions
                than requested, other right answers than in the data, a score that is not finite, another accuracy than
                the answers have. The message names the subject.
        """
        began = time.monotonic()
        left = dict(enumerate(portions))
        engine, versions, ready, longest, scored = "", dict(self.environment.versions), began, 0, 0
        context, uneven = self.spec.max_seq_len, False
        short: dict[Subject, int] = {}
        folder, read_as = readable_by(model, self.environment.versions.get("transformers", ""), work)
        request = self._request(folder, portions, work)
        with driver_events(self.environment.python, DRIVER, request, work, program=PROGRAM) as events:
            for event in events:
                if event["event"] == "ready":
                    engine, context, ready = event["engine"], event["context"], time.monotonic()
                    versions |= event["versions"]
                elif event["event"] == "portion":
                    portion = left.pop(event["portion"])
                    version = versions["opencompass"]
                    answers, cut = answers_of(event, portion, mode=self.spec.mode, engine=engine, version=version)
                    short[portion.subject] = short.get(portion.subject, 0) + cut
                    counts = event["divisors"]
                    uneven |= any(len(set(counts[at : at + 4])) > 1 for at in range(0, len(counts), 4))
                    longest, scored = max(longest, event["tokens"]), scored + len(answers)
                    on_portion(portion, answers)
        if left:
            missing = next(iter(left.values()))
            raise EvaluationError(f"OpenCompass ended without {missing} (in full: {log_file(work, PROGRAM)})")
        notes = (*read_as, *_short_notes(short, context), *([UNEVEN] if uneven else []))
        return RunInfo(
            backend="opencompass",
            engine=engine,
            versions={name: versions[name] for name in _SHOWN_VERSIONS if name in versions},
            startup_seconds=ready - began,
            scoring_seconds=time.monotonic() - ready,
            questions=scored,
            notes=(*notes, *context_notes(model, longest)),
        )

    def _request(self, model: Path, portions: Sequence[Portion], work: Path) -> dict[str, Any]:
        choice = ("mode", "engine", "allow_fallback", "device", "dtype", "passes")
        names = (*choice, "batch_size", "max_seq_len", "max_out_len")
        suites = {portion.subject.suite for portion in portions}
        return {name: getattr(self.spec, name) for name in names} | {
            "model": str(Path(model).resolve()),
            "folders": {suite: str(suite_folder(self.spec.data, suite).resolve()) for suite in suites},
            "portions": [[item.subject.suite, item.subject.name, item.start, item.stop] for item in portions],
            "gpus": self.spec.gpus,
            "work": str(Path(work).resolve()),
        }


def _short_notes(short: Mapping[Subject, int], context: int) -> list[str]:
    return [
        f"{count} prompts of {subject} have fewer than {SHOTS} examples, to fit {context} tokens"
        for subject, count in short.items()
        if count
    ]


def fetch(environment: Environment, suites: Sequence[str], work: Path) -> Path:
    """Return the folder of OpenCompass's own questions of the suites, which it downloads first if it has to.

    Raises:
        EvaluationError: It cannot.
    """
    folders: dict[str, str] = {}
    request = {"fetch": list(suites), "work": str(Path(work).resolve())}
    with driver_events(environment.python, DRIVER, request, work, program=PROGRAM) as events:
        for event in events:
            folders |= event.get("folders", {})
    roots = {Path(folder).parent for folder in folders.values()}
    if len(roots) != 1 or set(folders) != set(suites):
        raise EvaluationError(f"OpenCompass has its questions of {', '.join(suites)} in several places: {folders}")
    return roots.pop()


def answers_of(
    event: dict[str, Any], portion: Portion, *, mode: str, engine: str, version: str
) -> tuple[list[Answer], int]:
    """Read and check what OpenCompass wrote about a portion.

    Args:
        event: The driver's event "subject".
        portion: What was requested.
        mode: "ppl" or "gen".
        engine: The engine that computed.
        version: OpenCompass's version.

    Returns:
        One answer for each question, and the number of prompts that lack examples.

    Raises:
        EvaluationError: As `OpenCompass.score`.
    """
    subject, expected = portion.subject, len(portion)
    written, result = _json(event["predictions"], subject), _json(event["results"], subject)
    if len(written) != expected or set(written) != {str(index) for index in range(expected)}:
        raise EvaluationError(f"{subject}: OpenCompass scored {len(written)} questions of {expected}")
    if "accuracy" not in result:
        raise EvaluationError(f"{subject}: OpenCompass has no accuracy but {json.dumps(result)[:200]}")
    prompt_name = f"{CONFIGS[subject.suite, mode]} opencompass {version}"
    answers: list[Answer] = []
    short = 0
    for place, question in enumerate(portion.questions):
        index, found = portion.start + place, written[str(place)]
        scores: tuple[float, ...] | None = None
        if mode == "ppl":
            scores = _likelihoods(found, event["divisors"][4 * place : 4 * place + 4], subject, index)
            prediction, gold, prompt = found["prediction"], found["gold"], found["label: A"]["prompt"]
        else:
            (extracted,), (gold,) = (result["details"][place][name] for name in ("pred", "refr"))
            prediction, prompt = extracted if extracted in LETTERS else None, found["origin_prompt"]
        if gold != question.gold:
            raise EvaluationError(
                f"{subject}: question {index} has the right answer {gold}, in the data {question.gold}"
            )
        short += portion.data.dev[SHOTS - 1].text not in prompt
        answers.append(
            Answer(index=index, gold=gold, prediction=prediction, scores=scores, prompt=prompt_name, engine=engine)
        )
    right, reported = sum(answer.correct for answer in answers), result["accuracy"] / 100 * expected
    if abs(right - reported) > 0.01:
        raise EvaluationError(
            f"{subject}: {right} of {expected} answers are right, by OpenCompass's accuracy of {result['accuracy']} % "
            f"{reported:.2f}"
        )
    return answers, short


def _likelihoods(found: dict[str, Any], divisors: Sequence[int], subject: Subject, index: int) -> tuple[float, ...]:
    losses = [found[f"label: {letter}"]["PPL"] for letter in LETTERS]
    if not all(math.isfinite(loss) for loss in losses):
        raise EvaluationError(f"{subject}: the model's output on question {index} is not finite (it may have diverged)")
    return tuple(-loss * count for loss, count in zip(losses, divisors, strict=True))


def _json(path: str, subject: Subject) -> dict[str, Any]:
    try:
        return dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{subject}: OpenCompass's results cannot be read: {error}") from error
