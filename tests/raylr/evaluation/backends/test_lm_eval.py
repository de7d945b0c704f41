import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import letter_scorer
import pytest
from made_questions import write_questions
from shared_data import DATA
from shared_driver import SharedDriver

from raylr.analysis.scores.suites import LETTERS, Subject, resolve
from raylr.errors import DataError, EvaluationError, InputError, SpecError
from raylr.evaluation.backends import lm_eval
from raylr.evaluation.backends.base import Answer, Portion
from raylr.evaluation.backends.lm_eval import LmEval, answers_of
from raylr.evaluation.backends.lm_eval_driver import as_documents, definition
from raylr.evaluation.questions import Question, SubjectData, read_subject, subject_file
from raylr.evaluation.spec import ScoresSpec

SUBJECTS = [Subject("mmlu", "anatomy"), Subject("cmmlu", "genetics")]
LM_EVAL = "lm-eval"
REAL = [Subject("mmlu", "abstract_algebra"), Subject("cmmlu", "anatomy")]
Found = dict[Subject, list[Answer]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up questions of `SUBJECTS`."""
    folder = tmp_path_factory.mktemp("questions")
    for subject in SUBJECTS:
        write_questions(folder, subject.suite, subject.name, questions=8)
    return folder


def loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def driver() -> Iterator[SharedDriver]:
    """lm-eval in one process for these tests; `test_evaluator.py` starts it for real."""
    modules = ("lm_eval.models.huggingface", "datasets", "transformers.models.qwen3_moe.modeling_qwen3_moe")
    shared = SharedDriver(Path(sys.executable), lm_eval.DRIVER, modules, isolated=False)
    yield shared
    shared.close()


def by_lm_eval(model: Path, data: Path, work: Path, requested: Sequence[Portion]) -> tuple[Found, Any]:
    found: Found = {}

    def keep(portion: Portion, answers: Sequence[Answer]) -> None:
        found.setdefault(portion.subject, []).extend(answers)

    backend = LmEval.open(ScoresSpec(data=data, batch_size=3))
    return found, backend.score(model, requested, work=work, on_portion=keep)


@pytest.mark.slow
def test_likelihoods_are_those_of_an_independent_scorer(
    model: Path, made: Path, tmp_path: Path, driver: SharedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of questions that are made up, and of real ones where they are at hand; of one subject in two portions."""
    monkeypatch.setattr(lm_eval, "driver_events", driver.driver_events)
    network, tokenizer = loaded(model)
    asked = [(subject, 0, 8) for subject in SUBJECTS]
    if (DATA / "mmlu").is_dir():
        for subject, split in itertools.product(REAL, ("dev", "test")):
            (subject_file(made, subject, split)).symlink_to(subject_file(DATA, subject, split))
        asked += [(REAL[0], 2, 3), (REAL[0], 3, 5), (REAL[1], 2, 5)]
    (tmp_path / "work").mkdir()
    portions = [Portion(data=read_subject(made, subject), start=start, stop=stop) for subject, start, stop in asked]
    found, info = by_lm_eval(model, made, tmp_path / "work", portions)
    assert list(found) == list(dict.fromkeys(subject for subject, *_ in asked))
    for subject, rows in found.items():
        start, stop = (0, 8) if subject in SUBJECTS else (2, 5)
        want = letter_scorer.score(network, tokenizer, LM_EVAL, made, subject.suite, subject.name, stop)[start:]
        assert [row.index for row in rows] == list(range(start, stop))
        assert [(row.gold, row.prediction) for row in rows] == [(gold, answer) for gold, answer, _ in want]
        for row, (_, _, scores) in zip(rows, want, strict=True):
            assert row.scores == pytest.approx(scores, abs=1e-4)
        assert {row.engine for row in rows} == {info.engine} == set(LmEval(spec=ScoresSpec(data=made)).engines)
        assert rows[0].prompt.startswith(f"{subject.suite}_{subject.name} lm-eval ")
    assert len({row.prediction for rows in found.values() for row in rows}) > 1
    assert (info.backend, info.questions) == ("lm-eval", sum(map(len, portions)))
    assert info.startup_seconds > 0 < info.scoring_seconds
    assert "the model was made for 32" in info.notes[0]

    for name in ("empty", "work2"):
        (tmp_path / name).mkdir()
    with pytest.raises(EvaluationError, match="lm-eval failed loading the model"):
        by_lm_eval(tmp_path / "empty", made, tmp_path / "work2", portions[:1])


def test_what_is_missing_is_named(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"virology.* is missing"):
        read_subject(made, Subject("mmlu", "virology"))
    monkeypatch.setattr(lm_eval, "NEEDED", ("lm_eval", "no_such_package"))
    with pytest.raises(InputError, match=r"needs no_such_package.* pip install raylr\[eval\]"):
        LmEval.open(ScoresSpec(data=made))


@pytest.mark.parametrize(
    "fields", [{"mode": "gen"}, {"engine": "turbomind", "gpus": 1}, {"env": "somewhere"}, {"passes": 4}]
)
def test_options_of_opencompass_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="opencompass"):
        LmEval.open(ScoresSpec(data=Path("questions"), **fields))


def question(index: int, **fields: Any) -> dict[str, Any]:
    return {"index": index, "scores": [-1.0, -2.0, -3.0, -4.0], "gold": 0, "tokens": 9} | fields


@pytest.mark.parametrize(
    ("answered", "problem"),
    [
        ([question(0)], "scored 1 questions of 2"),
        ([question(0), question(0)], "scored 2 questions of 2"),
        ([question(0), question(1, gold=2)], "question 1 has the right answer C, in the data A"),
        ([question(0, scores=[0.0, float("nan"), 0.0, 0.0]), question(1)], "question 0 is not finite"),
        ([question(0), question(1, scores=[0.0, 0.0, 0.0])], "question 1 is not finite"),
    ],
)
def test_results_that_do_not_fit_are_errors(answered: list[dict[str, Any]], problem: str) -> None:
    requested = Question("?", ("a", "b", "c", "d"), "A")
    data = SubjectData(subject=SUBJECTS[0], dev=(requested,) * 5, test=(requested,) * 3)
    with pytest.raises(EvaluationError, match=problem):
        answers_of(answered, Portion(data=data, start=0, stop=2), engine="e", prompt="p")
    good = [question(0), question(1, scores=[-2.0, -1.0, -1.0, -9.0])]
    answers = answers_of(good, Portion(data=data, start=1, stop=3), engine="e", prompt="p")
    assert [(row.index, row.prediction, row.correct) for row in answers] == [(1, "A", True), (2, "B", False)]
    assert answers[1].row() | {"score_a": -2.0, "score_d": -9.0, "correct": False} == answers[1].row()


def test_lm_evals_own_tasks_are_used(made: Path) -> None:
    for subject in resolve(["mmlu", "cmmlu"]):
        fields = definition(subject)
        assert fields["task"] == f"{subject.suite}_{subject.name}"
        assert fields["doc_to_choice"] == list(LETTERS)
        assert "include" not in fields
    read = read_subject(made, SUBJECTS[1])
    (document,) = as_documents("cmmlu", read.test[:1])
    assert (document["Question"], document["A"], document["Answer"]) == (
        read.test[0].text,
        read.test[0].choices[0],
        read.test[0].gold,
    )
    with pytest.raises(ValueError, match="has no task for mmlu/nothing"):
        definition(Subject("mmlu", "nothing"))
