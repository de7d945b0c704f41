"""MMLU and CMMLU by OpenCompass: a subprocess in its own environment, believed only as far as its files agree.

Units: OpenCompass's "PPL" of a prompt that ends in a letter is its mean loss in nats a token; times the number of
tokens that it was divided by (the driver's `divisors`) and negated it is the log-likelihood of prompt and letter,
`score_a` … `score_d`. The four prompts of a question differ in the letter alone, so differences of scores are those of
the letters' log-probabilities, to about 1e-3 nats: OpenCompass sums float32 losses over the whole prompt.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylr.analysis.scores.scores import SCORES
from raylr.analysis.scores.suites import LETTERS, Subject
from raylr.evaluation.backends.opencompass_driver import CONFIGS
from raylr.evaluation.environment import Environment
from raylr.evaluation.process import driver_events, log_file
from raylr.evaluation.questions import (
    SHOTS,
    EvaluationError,
    OnSubject,
    Row,
    RunInfo,
    SubjectData,
    context_notes,
    read_subject,
    suite_folder,
)

ENGINES = ("transformers", "turbomind")
MODES = ("ppl", "gen")
DTYPES = ("float32", "bfloat16", "float16")
PROGRAM = "OpenCompass"
DRIVER = Path(__file__).with_name("opencompass_driver.py")

UNEVEN = (
    "the tokenizer writes the four letters with different numbers of tokens: OpenCompass compares mean losses a token, "
    "which need not choose the likeliest letter"
)
"""Note on a tokenizer that has " A" as one token and " B" as two."""

_SHOWN_VERSIONS = ("python", "opencompass", "torch", "transformers", "lmdeploy")


def engines(
    *, engine: str = "transformers", device: str = "cpu", dtype: str = "float32", allow_fallback: bool = False
) -> tuple[str, ...]:
    """Return the names of the engines that may compute for these options of `score`, as every question records them."""
    plain = f"transformers-{device}-{dtype}"
    if engine == "transformers":
        return (plain,)
    return ("turbomind", "lmdeploy-pytorch", plain) if allow_fallback else ("turbomind",)


def score(
    model_dir: Path,
    subjects: Sequence[Subject],
    *,
    data: Path | None,
    limit: int | None,
    batch_size: int,
    work: Path,
    on_subject: OnSubject,
    environment: Environment,
    mode: str = "ppl",
    engine: str = "transformers",
    device: str = "cpu",
    dtype: str = "float32",
    gpus: int = 1,
    allow_fallback: bool = False,
    max_seq_len: int = 4096,
    max_out_len: int = 4,
) -> RunInfo:
    """Score the first `limit` test questions of each subject with OpenCompass.

    Args:
        model_dir: a Hugging Face folder: config, safetensors, tokenizer.
        subjects: in the order in which they are scored.
        data: folder of `raylr.evaluation.questions`; None: OpenCompass's own download.
        limit: questions a subject, from its first; None: all.
        batch_size: prompts at once.
        work: an empty folder for everything that OpenCompass writes; its log is `opencompass.log` in it.
        on_subject: told each subject as it is finished.
        environment: where OpenCompass is installed.
        mode: "ppl" compares the likelihoods of the four letters, "gen" lets the model write.
        engine: "transformers", or "turbomind" for LMDeploy on GPUs.
        device: of transformers: "cpu", "cuda" or "auto".
        dtype: of transformers: "float32", "bfloat16" or "float16".
        gpus: that TurboMind spreads the model over.
        allow_fallback: use another engine where TurboMind cannot run the model; which one ran is recorded.
        max_seq_len: tokens of a prompt beyond which examples are left out of it, then its beginning.
        max_out_len: tokens that are generated in mode "gen".

    Raises ValueError for questions that cannot be read, and EvaluationError, which names the subject, for a run that
    failed or was killed, and for results that do not fit: another number of questions than asked for, other right
    answers than in the data, a score that is not finite, another accuracy than the questions have.
    """
    began = time.monotonic()
    root = data if data is not None else fetch(environment, sorted({subject.suite for subject in subjects}), work)
    questions = {subject: read_subject(root, subject) for subject in subjects}
    request = {
        "model": str(Path(model_dir).resolve()),
        "folders": {subject.suite: str(suite_folder(root, subject.suite).resolve()) for subject in subjects},
        "subjects": [[subject.suite, subject.name] for subject in subjects],
        "mode": mode,
        "limit": limit,
        "batch_size": batch_size,
        "work": str(Path(work).resolve()),
        "engine": engine,
        "device": device,
        "dtype": dtype,
        "gpus": gpus,
        "allow_fallback": allow_fallback,
        "max_seq_len": max_seq_len,
        "max_out_len": max_out_len,
    }
    left = list(subjects)
    ran, versions, ready, longest, scored = "", dict(environment.versions), began, 0, 0
    notes: list[str] = []
    uneven = False
    with driver_events(environment.python, DRIVER, request, work, program=PROGRAM) as events:
        for event in events:
            if event["event"] == "ready":
                ran, ready = event["engine"], time.monotonic()
                versions |= event["versions"]
            elif event["event"] == "subject":
                subject = Subject(event["suite"], event["subject"])
                version = versions["opencompass"]
                rows, short = rows_of(event, questions[subject], mode=mode, engine=ran, version=version, limit=limit)
                if short:
                    notes.append(
                        f"{short} prompts of {subject} have fewer than {SHOTS} examples, to fit {max_seq_len} tokens"
                    )
                uneven |= any(
                    len(set(event["divisors"][at : at + 4])) > 1 for at in range(0, len(event["divisors"]), 4)
                )
                longest, scored = max(longest, event["tokens"]), scored + len(rows)
                left.remove(subject)
                on_subject(subject, rows)
    if left:
        raise EvaluationError(f"OpenCompass ended without {left[0]} (in full: {log_file(work, PROGRAM)})")
    return RunInfo(
        backend="opencompass",
        engine=ran,
        versions={name: versions[name] for name in _SHOWN_VERSIONS if name in versions},
        startup_seconds=ready - began,
        scoring_seconds=time.monotonic() - ready,
        questions=scored,
        notes=(*notes, *([UNEVEN] if uneven else []), *context_notes(model_dir, longest)),
    )


def fetch(environment: Environment, suites: Sequence[str], work: Path) -> Path:
    """Let OpenCompass download the questions of the suites, unless it has; return the folder of its data.

    Raises EvaluationError if it cannot.
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


def rows_of(
    event: dict[str, Any], data: SubjectData, *, mode: str, engine: str, version: str, limit: int | None
) -> tuple[list[Row], int]:
    """Read and check what OpenCompass wrote of a subject; return a row a question, and how many prompts lack examples.

    `event` is the driver's, `version` OpenCompass's. Raises EvaluationError as `score`.
    """
    subject, expected = data.subject, data.expected(limit)
    written, result = _json(event["predictions"], subject), _json(event["results"], subject)
    if len(written) != expected or set(written) != {str(index) for index in range(expected)}:
        raise EvaluationError(f"{subject}: OpenCompass scored {len(written)} questions of {expected}")
    if "accuracy" not in result:
        raise EvaluationError(f"{subject}: OpenCompass has no accuracy but {json.dumps(result)[:200]}")
    rows: list[Row] = []
    short = 0
    for index in range(expected):
        told, question = written[str(index)], data.test[index]
        if mode == "ppl":
            answer, gold, scores, prompt = _likelihoods(
                told, event["divisors"][4 * index : 4 * index + 4], subject, index
            )
        else:
            (extracted,), (gold,) = (result["details"][index][name] for name in ("pred", "refr"))
            answer = extracted if extracted in LETTERS else None
            scores, prompt = dict.fromkeys(SCORES), told["origin_prompt"]
        if gold != question.gold:
            raise EvaluationError(
                f"{subject}: question {index} has the right answer {gold}, in the data {question.gold}"
            )
        short += data.dev[SHOTS - 1].text not in prompt
        fields: Row = {"index": index, "gold": gold, "prediction": answer, "correct": answer == gold, "engine": engine}
        rows.append(fields | scores | {"prompt": f"{CONFIGS[subject.suite, mode]} opencompass {version}"})
    right, told_right = sum(row["correct"] for row in rows), result["accuracy"] / 100 * expected
    if abs(right - told_right) > 0.01:
        raise EvaluationError(
            f"{subject}: {right} of {expected} answers are right, by OpenCompass's accuracy of {result['accuracy']} % "
            f"{told_right:.2f}"
        )
    return rows, short


def _likelihoods(
    told: dict[str, Any], divisors: Sequence[int], subject: Subject, index: int
) -> tuple[str | None, str, Row, str]:
    losses = [told[f"label: {letter}"]["PPL"] for letter in LETTERS]
    if not all(math.isfinite(loss) for loss in losses):
        raise EvaluationError(f"{subject}: the model's output on question {index} is not finite (it may have diverged)")
    scores = {name: -loss * count for name, loss, count in zip(SCORES, losses, divisors, strict=True)}
    return told["prediction"], told["gold"], scores, told["label: A"]["prompt"]


def _json(path: str, subject: Subject) -> dict[str, Any]:
    try:
        return dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{subject}: OpenCompass's results cannot be read: {error}") from error
