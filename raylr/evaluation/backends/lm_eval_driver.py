"""lm-eval on one model, subject after subject, in one process of the training environment.

`raylr.evaluation.backends.lm_eval` starts it as `python lm_eval_driver.py REQUEST EVENTS`, with the protocol of
`opencompass_driver`. A process of its own, because Hugging Face's libraries read whether they are
offline when they are first imported, and because its memory is gone with it. A portion's event holds, for each
question, `scores` (log-likelihood in nats of " A" … " D" after the prompt), `gold` (the place of the right answer, as
lm-eval understands the question) and `tokens` (of the prompt). `index` counts from the start of the portion.

The prompts are lm-eval's own tasks, mmlu and cmmlu; only where their questions come from is changed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from raylr.analysis.scores.suites import LETTERS, Subject
from raylr.evaluation.backends.opencompass_driver import Emit, serve
from raylr.evaluation.backends.opencompass_model import load_strictly, load_tokenizer
from raylr.evaluation.questions import SHOTS, Question, read_subject

TASKS = {"mmlu": "mmlu/default/mmlu_{}.yaml", "cmmlu": "cmmlu/cmmlu_{}.yaml"}
"""Suite -> the definition of a subject among lm-eval's tasks."""
PACKAGES = ("lm_eval", "torch", "transformers")


def definition(subject: Subject) -> dict[str, Any]:
    """Return lm-eval's own definition of a subject, with what it includes.

    Raises:
        ValueError: It has no such number.
    """
    import lm_eval

    path = Path(str(lm_eval.__file__)).parent / "tasks" / TASKS[subject.suite].format(subject.name)
    if not path.is_file():
        raise ValueError(f"lm-eval {version('lm_eval')} has no task for {subject} ({path})")
    fields: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    included = yaml.safe_load((path.parent / fields.pop("include")).read_text(encoding="utf-8"))
    return {**included, **fields}


def as_documents(suite: str, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """Return the questions as the data sets have them that lm-eval's tasks expect: cais/mmlu and haonan-li/cmmlu."""
    if suite == "mmlu":
        return [{"question": q.text, "choices": list(q.choices), "answer": LETTERS.index(q.gold)} for q in questions]
    return [{"Question": q.text, **dict(zip(LETTERS, q.choices, strict=True)), "Answer": q.gold} for q in questions]


def task(subject: Subject, data: Path, start: int, stop: int) -> Any:
    """Return lm-eval's task of a part of a subject's test questions.

    Args:
        subject: The subject.
        data: Folder of the questions.
        start: Index of the first test question.
        stop: Index behind the last one.
    """
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    read = read_subject(data, subject)
    splits = {
        "dev": Dataset.from_list(as_documents(subject.suite, read.dev)),
        "test": Dataset.from_list(as_documents(subject.suite, read.test[start:stop])),
    }

    class LocalTask(ConfigurableTask):  # type: ignore[misc]  # no types
        def download(self, *args: Any, **kwargs: Any) -> None:
            """Instead of a download from the hub."""
            self.dataset = splits

    return LocalTask(config=definition(subject) | {"num_fewshot": SHOTS})


def questions(made: Any, model: Any) -> Iterator[dict[str, Any]]:
    """Let the model answer the questions of a task."""
    made.build_all_requests(rank=0, world_size=1)
    likelihoods = model.loglikelihood(made.instances, disable_tqdm=True)
    answered = sorted(zip(made.instances, likelihoods, strict=True), key=lambda pair: (pair[0].doc_id, pair[0].idx))
    for index, pairs in groupby(answered, key=lambda pair: pair[0].doc_id):
        letters = list(pairs)
        first = letters[0][0]
        yield {
            "index": index,
            "scores": [float(likelihood) for _, (likelihood, _) in letters],
            "gold": int(made.doc_to_target(first.doc)),
            "tokens": len(model.tok_encode(first.args[0])),
        }


def score(request: dict[str, Any], emit: Emit) -> None:
    """Load the model and score all subjects of the request."""
    emit(event="at", where="loading lm-eval")
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    emit(event="at", where="loading the model")
    tokenizer = load_tokenizer(request["model"])
    network = load_strictly(request["model"], tokenizer, device=request["device"], dtype=request["dtype"])
    model = HFLM(
        pretrained=network,
        tokenizer=tokenizer,
        batch_size=request["batch_size"],
        add_bos_token=tokenizer.bos_token is not None,  # as in training: the exported tokenizer has one only then
    )
    versions = {"python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES}
    emit(
        event="ready",
        engine=f"transformers-{request['device']}-{request['dtype']}",
        versions=versions,
        context=model.max_length,
    )
    for number, (suite, name, start, stop) in enumerate(request["portions"]):
        subject = Subject(suite, name)
        emit(event="at", where=f"scoring {subject}")
        made = task(subject, Path(request["data"]), start, stop)
        found = list(questions(made, model))
        emit(event="portion", portion=number, task=made.config.task, questions=found)


def main(path: str, descriptor: str) -> int:
    """Carry out the request in a file; return the exit status."""
    return serve(path, descriptor, score)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
