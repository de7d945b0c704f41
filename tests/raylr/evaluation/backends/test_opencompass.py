import json
import math
import shutil
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import letter_scorer
import psutil
import pytest
from made_questions import write_questions
from saved_models import (
    as_transformers_5_saves_it,
    bring_code,
    lose_a_weight,
    rename_the_architecture,
    shrink_the_vocabulary,
)
from shared_driver import SharedDriver

from raylr.analysis.scores.suites import LETTERS, SUITES, Subject
from raylr.errors import EvaluationError
from raylr.evaluation.backends import opencompass, opencompass_driver
from raylr.evaluation.backends.base import Answer, Portion
from raylr.evaluation.backends.opencompass import UNEVEN, OpenCompass, answers_of, fetch
from raylr.evaluation.environment import Environment
from raylr.evaluation.questions import SubjectData, read_subject
from raylr.evaluation.spec import ScoresSpec

ANATOMY, GENETICS = Subject("mmlu", "anatomy"), Subject("cmmlu", "genetics")
PLAIN = "transformers-cpu-float32"
READ: dict[str, Any] = {"mode": "ppl", "engine": PLAIN, "version": "0.5.4"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    for subject in (ANATOMY, GENETICS):
        write_questions(folder, subject.suite, subject.name)
    return folder


def whole(data: SubjectData) -> Portion:
    return Portion(data=data, start=0, stop=len(data.test))


# -- OpenCompass's files --


def written(folder: Path, data: SubjectData, **changes: Any) -> dict[str, Any]:
    """The driver's event of a subject, and the files that it names, as OpenCompass writes them in mode "ppl"."""
    shown = data.dev[4].text
    predictions = {
        str(index): {"prediction": "B", "gold": question.gold}
        | {f"label: {letter}": {"PPL": 2.0 - (letter == "B"), "prompt": shown} for letter in LETTERS}
        for index, question in enumerate(data.test)
    }
    right = sum(question.gold == "B" for question in data.test)
    files = {"predictions": predictions, "results": {"accuracy": 100 * right / len(data.test)}}
    event: dict[str, Any] = {"portion": 0, "divisors": [10] * 4 * len(data.test), "tokens": 10}
    for name, content in files.items():
        path = folder / f"{name}.json"
        changes.get(name, lambda content: None)(content)
        path.write_text(json.dumps(content))
        event[name] = str(path)
    return event


def test_scores_are_log_likelihoods(tmp_path: Path, data: Path) -> None:
    questions = read_subject(data, ANATOMY)
    rows, short = answers_of(written(tmp_path, questions), whole(questions), **READ)
    assert short == 0
    assert [row.index for row in rows] == list(range(6))
    assert [row.gold for row in rows] == [question.gold for question in questions.test]
    assert {row.prediction for row in rows} == {"B"}
    assert all(row.correct == (row.gold == "B") for row in rows)
    assert rows[0].scores == (-20.0, -10.0, -20.0, -20.0)
    assert {(row.engine, row.prompt) for row in rows} == {(PLAIN, "mmlu_ppl_ac766d opencompass 0.5.4")}


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.pop(key) and None


def change(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def act(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return act


@pytest.mark.parametrize(
    ("name", "act", "message"),
    [
        ("predictions", drop("5"), "mmlu/anatomy: OpenCompass scored 5 questions of 6"),
        ("predictions", change({}, "6"), "scored 7 questions of 6"),
        ("predictions", change("E", "3", "gold"), "question 3 has the right answer E, in the data "),
        ("predictions", change(math.nan, "2", "label: C", "PPL"), "question 2 is not finite"),
        ("results", change("CUDA error", "error"), None),
        (
            "results",
            lambda content: content.update(accuracy=content["accuracy"] + 100 / 6),
            "by OpenCompass.s accuracy",
        ),
    ],
)
def test_files_that_do_not_fit_are_errors(tmp_path: Path, data: Path, name: str, act: Any, message: str | None) -> None:
    questions = read_subject(data, ANATOMY)
    event = written(tmp_path, questions, **{name: act})
    if message is None:
        answers_of(event, whole(questions), **READ)
    else:
        with pytest.raises(EvaluationError, match=message):
            answers_of(event, whole(questions), **READ)


def test_a_failed_task_is_an_error_with_its_reason(tmp_path: Path, data: Path) -> None:
    questions = read_subject(data, ANATOMY)
    event = written(tmp_path, questions, results=lambda content: (content.clear(), content.update(error="no GPU")))
    with pytest.raises(EvaluationError, match=r'no accuracy but .*"error": "no GPU"'):
        answers_of(event, whole(questions), **READ)
    Path(event["results"]).unlink()
    with pytest.raises(EvaluationError, match="mmlu/anatomy: OpenCompass's results cannot be read"):
        answers_of(event, whole(questions), **READ)


def test_prompts_that_lost_examples_are_counted(tmp_path: Path, data: Path) -> None:
    questions = read_subject(data, ANATOMY)
    event = written(tmp_path, questions, predictions=change("Question 0 alone", "0", "label: A", "prompt"))
    assert answers_of(event, whole(questions), **READ)[1] == 1


FAKE = """
import json, os, sys, time
events = os.fdopen(int(sys.argv[2]), "w", buffering=1)
for event in json.loads({found!r}):
    events.write(json.dumps(event) + "\\n")
time.sleep(60)
"""


def test_no_process_is_left_when_the_reader_stops(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, hugging_face: Path
) -> None:
    """With a driver that hands over one portion and then hangs."""
    questions = read_subject(data, ANATOMY)
    ready = {"event": "ready", "engine": PLAIN, "context": 64, "versions": {"opencompass": "0.5.4"}}
    found = [ready, written(tmp_path, questions) | {"event": "portion"}]
    driver = tmp_path / "hanging_driver.py"
    driver.write_text(FAKE.format(found=json.dumps(found)))
    monkeypatch.setattr(opencompass, "DRIVER", driver)
    python = types.SimpleNamespace(python=Path(sys.executable), versions={})
    backend = OpenCompass(spec=ScoresSpec(data=data, backend="opencompass"), environment=python)  # type: ignore[arg-type]
    kept: list[int] = []

    def interrupt(portion: Portion, answers: Sequence[Answer]) -> None:
        assert any(driver.name in " ".join(child.cmdline()) for child in psutil.Process().children())
        kept.append(len(answers))
        raise KeyboardInterrupt

    (tmp_path / "work").mkdir()
    with pytest.raises(KeyboardInterrupt):
        backend.score(hugging_face, [whole(questions)] * 2, work=tmp_path / "work", on_portion=interrupt)
    assert kept == [6]
    assert not any(driver.name in " ".join(child.cmdline()) for child in psutil.Process().children())


# -- OpenCompass itself, in one process for all tests; `tests/raylr/cli/test_evaluation.py` starts it for real --

MODULES = (
    *(f"opencompass.{name}" for name in ("models", "registry", "tasks", "partitioners", "utils", "datasets")),
    *("opencompass.openicl", "mmengine.config", "transformers.models.qwen3_moe.modeling_qwen3_moe"),
)


@pytest.fixture(scope="module")
def process(environment: Environment) -> Iterator[SharedDriver]:
    shared = SharedDriver(environment.python, opencompass.DRIVER, MODULES)
    yield shared
    shared.close()


@pytest.fixture
def shared(process: SharedDriver, monkeypatch: pytest.MonkeyPatch) -> SharedDriver:
    monkeypatch.setattr(opencompass, "driver_events", process.driver_events)
    return process


def scored(
    model: Path,
    environment: Environment,
    data: Path,
    work: Path,
    *,
    parts: Sequence[tuple[Subject, int, int]] = ((ANATOMY, 0, 4), (ANATOMY, 4, 6), (GENETICS, 0, 6)),
    **fields: Any,
) -> tuple[dict[Subject, list[Answer]], Any]:
    found: dict[Subject, list[Answer]] = {}

    def keep(portion: Portion, answers: Sequence[Answer]) -> None:
        assert len(answers) == len(portion)
        found.setdefault(portion.subject, []).extend(answers)

    backend = OpenCompass(
        spec=ScoresSpec(data=data, backend="opencompass", batch_size=4, **fields), environment=environment
    )
    portions = [Portion(data=read_subject(data, subject), start=start, stop=stop) for subject, start, stop in parts]
    work.mkdir(exist_ok=True)
    return found, backend.score(model, portions, work=work, on_portion=keep)


def differences(scores: Sequence[float]) -> list[float]:
    return [value - scores[0] for value in scores]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("shared")
def test_answers_are_those_of_an_independent_scorer_in_one_pass_and_in_four(
    model: Path, environment: Environment, data: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network, tokenizer = AutoModelForCausalLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    once, info = scored(model, environment, data, tmp_path / "1")
    four, info_of_four = scored(model, environment, data, tmp_path / "4", passes=4)
    assert list(once) == list(four) == [ANATOMY, GENETICS]
    for subject in once:
        want = letter_scorer.score(network, tokenizer, "opencompass", data, subject.suite, subject.name, 6)
        assert [row.index for row in once[subject]] == list(range(6))
        for row, of_four, (gold, answer, scores) in zip(once[subject], four[subject], want, strict=True):
            assert row.gold == of_four.gold == gold
            assert row.scores is not None
            assert of_four.scores is not None
            assert differences(row.scores) == pytest.approx(differences(scores), abs=1e-4)
            assert -30 < max(row.scores) < 0
            assert differences(of_four.scores) == pytest.approx(differences(scores), abs=5e-3)
            assert of_four.scores[0] < scores[0] - 100  # OpenCompass's is the loss of all tokens
            assert row.prediction == answer
            assert of_four.prediction == answer or sorted(scores)[-1] - sorted(scores)[-2] < 5e-3
    assert len({row.prediction for rows in once.values() for row in rows}) > 1
    assert (info.backend, info.engine, info.questions) == ("opencompass", PLAIN, 12)
    assert info_of_four.engine == f"{PLAIN}-4-passes"
    assert info.versions["opencompass"] == "0.5.4"
    assert info.startup_seconds > 0 < info.scoring_seconds
    assert info.notes == (f"the longest prompt has {longest(tokenizer, data)} tokens, the model was made for 32",)


def longest(tokenizer: Any, data: Path) -> int:
    asked = [("mmlu", "anatomy", index) for index in range(6)] + [("cmmlu", "genetics", index) for index in range(6)]
    texts = [f"{letter_scorer.prompt('opencompass', data, *one)} A" for one in asked]
    return max(len(tokenizer(text)["input_ids"]) for text in texts)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("shared")
def test_a_tokenizer_with_letters_of_several_tokens_gives_a_note(
    model: Path, environment: Environment, data: Path, tmp_path: Path
) -> None:
    """The scores are still likelihoods of the text where " A" is one token and " B" two."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shutil.copytree(model, tmp_path / "model")
    fields = json.loads((model / "tokenizer.json").read_text())
    vocabulary, merges = fields["model"]["vocab"], fields["model"]["merges"]
    vocabulary["ĠA"] = vocabulary.pop("".join(merges.pop()))
    merges.append(["Ġ", "A"])
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(fields))
    found, info = scored(tmp_path / "model", environment, data, tmp_path / "work", parts=[(ANATOMY, 0, 2)])
    assert UNEVEN in info.notes
    network = AutoModelForCausalLM.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = letter_scorer.prompt("opencompass", data, "mmlu", "anatomy", 1)
    likelihoods = [likelihood(network, tokenizer, f"{text} {letter}") for letter in LETTERS]
    assert found[ANATOMY][1].scores == pytest.approx(likelihoods, rel=1e-5)


def likelihood(network: Any, tokenizer: Any, text: str) -> float:
    import torch

    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        log_probs = network(ids).logits[0, :-1].double().log_softmax(-1)
    return float(log_probs.gather(1, ids[0, 1:, None]).sum())


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("shared")
def test_generated_answers(model: Path, environment: Environment, data: Path, tmp_path: Path) -> None:
    """Of a portion that does not begin with the first question, and by a model as transformers 5 saves it, with code
    that is not run."""
    saved = shutil.copytree(model, tmp_path / "model")
    as_transformers_5_saves_it(saved)
    bring_code(saved)
    parts = [(ANATOMY, 2, 5), (GENETICS, 2, 5)]
    found, info = scored(saved, environment, data, tmp_path / "work", parts=parts, mode="gen", max_out_len=2)
    for subject, rows in found.items():
        assert [(row.index, row.gold) for row in rows] == [
            (index, question.gold) for index, question in enumerate(read_subject(data, subject).test) if 2 <= index < 5
        ]
        assert all(row.prediction in (*LETTERS, None) for row in rows)
        assert all(row.scores is None for row in rows)
        assert rows[0].prompt == f"{opencompass_driver.CONFIGS[subject.suite, 'gen']} opencompass 0.5.4"
    assert info.questions == 6
    assert not (saved / "ran").exists()


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_a_weight, r"failed loading the model: .* 1 weights .* are missing, as model\.norm\.weight"),
        (shrink_the_vocabulary, r"failed loading the model: .*the tokenizer .* has \d+ tokens .* vocabulary 300"),
        (rename_the_architecture, r"has no causal language model of the architecture 'transformer_of_2030'"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    model: Path, environment: Environment, data: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(model, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(EvaluationError, match=message):
        scored(tmp_path / "model", environment, data, tmp_path / "work", parts=[(ANATOMY, 0, 1)])
    assert "Traceback" in (tmp_path / "work" / "opencompass.log").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("shared")
def test_opencompass_own_data_is_found_in_its_cache(
    environment: Environment, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download itself needs a network; what it leaves in the cache is the same."""
    shutil.copytree(data, tmp_path / "cache" / "data")
    monkeypatch.setenv("COMPASS_DATA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    found = fetch(environment, ["mmlu", "cmmlu"], tmp_path / "work")
    assert read_subject(found, ANATOMY) == read_subject(data, ANATOMY)
    assert read_subject(found, GENETICS) == read_subject(data, GENETICS)


FACTS = """
import importlib, inspect
from opencompass.models.turbomind import TurboMindModel
for (suite, mode), name in driver.CONFIGS.items():
    module = importlib.import_module(f"opencompass.configs.datasets.{suite}.{name}")
    names = [config["name"] for config in getattr(module, f"{suite}_datasets")]
    emit(event="config", suite=suite, mode=mode, names=names)
emit(event="turbomind", parameters=list(inspect.signature(TurboMindModel.__init__).parameters))
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_opencompass_has_what_the_driver_needs(process: SharedDriver) -> None:
    """Its subjects are ours; and its TurboMind model, which needs a GPU to run, takes the arguments it is given."""
    *configs, turbomind = process.run(FACTS)
    assert [(one["suite"], one["mode"]) for one in configs] == list(opencompass_driver.CONFIGS)
    assert all(set(one["names"]) == set(SUITES[one["suite"]].test_questions) for one in configs)
    request = {"engine": "turbomind", "gpus": 2}
    request |= dict.fromkeys(("model", "batch_size", "max_seq_len", "max_out_len"), 8)
    of_opencompass = {"type", "abbr", "run_cfg", "batch_size", "max_out_len"}
    assert set(opencompass_driver.model_config(request)) - of_opencompass <= set(turbomind["parameters"])
