import inspect
import json
import math
import pickle
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import letter_scorer
import psutil
import pytest
from made_questions import write_questions

from raylr.analysis.scores.suites import LETTERS, SUITES, Subject
from raylr.errors import EvaluationError
from raylr.evaluation.backends import opencompass_driver
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
    event: dict[str, Any] = {"divisors": [10] * 4 * len(data.test), "tokens": 10}
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


# -- the driver's configurations and its choice of the engine --

REQUEST = {
    "model": "/model",
    "work": "/work",
    "engine": "turbomind",
    "device": "cpu",
    "dtype": "float32",
    "gpus": 2,
    "allow_fallback": False,
    "batch_size": 8,
    "max_seq_len": 4096,
    "max_out_len": 4,
}


def test_the_configuration_for_turbomind() -> None:
    config = opencompass_driver.model_config(REQUEST)
    assert config["type"] == "opencompass.models.TurboMindModel"
    assert config["engine_config"] == {
        "session_len": 4096,
        "max_batch_size": 64,
        "tp": 2,
        "enable_prefix_caching": False,
    }
    assert config["run_cfg"] == {"num_gpus": 2}
    plain = opencompass_driver.model_config(REQUEST | {"engine": "transformers"})
    assert plain["type"] == "StrictBaseModel"
    assert plain["model_kwargs"] == {"device_map": "cpu", "torch_dtype": "torch.float32"}


@pytest.mark.parametrize(
    ("runs", "allowed", "outcome"),
    [
        ("turbomind", False, "turbomind"),
        ("turbomind", True, "turbomind"),
        ("pytorch", True, "lmdeploy-pytorch"),
        ("pytorch", False, "in its pytorch engine, not in TurboMind"),
        (None, True, PLAIN),
        (None, False, "No module named 'lmdeploy'"),
    ],
)
def test_another_engine_runs_only_if_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, runs: str | None, allowed: bool, outcome: str
) -> None:
    """`runs`: the engine that LMDeploy takes, None without LMDeploy."""

    def build(config: dict[str, Any]) -> Any:
        if config["type"] == "StrictBaseModel":
            return object()
        if runs is None:
            raise ModuleNotFoundError("No module named 'lmdeploy'")
        return types.SimpleNamespace(pipe=types.SimpleNamespace(async_engine=types.SimpleNamespace(backend=runs)))

    monkeypatch.setitem(sys.modules, "opencompass.utils", types.SimpleNamespace(build_model_from_cfg=build))
    monkeypatch.setattr(opencompass_driver, "register_strict_model", lambda: None)
    monkeypatch.setattr(opencompass_driver, "as_config", lambda fields, request: fields)
    monkeypatch.setattr(opencompass_driver, "check_folder", lambda path, engine: None)
    request = REQUEST | {"allow_fallback": allowed}
    if " " in outcome:
        with pytest.raises((RuntimeError, ImportError), match=outcome):
            opencompass_driver.build_model(request)
    else:
        engine = opencompass_driver.build_model(request)[2]
        assert engine == outcome
        assert engine in engines(engine="turbomind", gpus=1, allow_fallback=allowed)


def engines(**fields: Any) -> tuple[str, ...]:
    spec = ScoresSpec(data=Path("questions"), backend="opencompass", **fields)
    return OpenCompass(spec=spec, environment=Environment(folder=Path("nowhere"), versions={})).engines


MADE_BY_4 = {
    "config.json": {"rope_theta": 1e6},
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
}
MADE_BY_5 = {"config.json": {"rope_parameters": {}}, "tokenizer_config.json": {"tokenizer_class": "TokenizersBackend"}}
MADE_BY_BOTH = {"config.json": {"rope_parameters": {}, "rope_theta": 1e6}}
WITH_CODE = {"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["tokenization.Own", None]}}}


@pytest.mark.parametrize(
    ("files", "here", "engine", "message"),
    [
        (MADE_BY_4, "4.57.6", "transformers", None),
        (MADE_BY_4, "5.23.0", "transformers", None),
        (MADE_BY_5, "5.23.0", "transformers", None),
        (MADE_BY_BOTH, "4.57.6", "turbomind", None),
        (MADE_BY_5, "4.57.6", "transformers", "was saved by transformers 5, and this environment has 4.57.6"),
        ({"config.json": MADE_BY_5["config.json"]}, "4.57.6", "turbomind", "was saved by transformers 5"),
        ({"tokenizer_config.json": MADE_BY_5["tokenizer_config.json"]}, "4.57.6", "transformers", "by transformers 5"),
        (WITH_CODE, "4.57.6", "turbomind", "brings Python code of its own"),
        (WITH_CODE, "5.23.0", "transformers", None),
        ({}, "4.57.6", "transformers", None),
    ],
)
def test_folders_that_would_be_misread_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    files: dict[str, Any],
    here: str,
    engine: str,
    message: str | None,
) -> None:
    monkeypatch.setattr(opencompass_driver, "version", lambda name: here)
    for name, fields in files.items():
        (tmp_path / name).write_text(json.dumps(fields))
    if message is None:
        opencompass_driver.check_folder(str(tmp_path), engine)
    else:
        with pytest.raises(ValueError, match=message):
            opencompass_driver.check_folder(str(tmp_path), engine)


def test_the_names_of_engines() -> None:
    assert engines() == (PLAIN,) == engines(allow_fallback=True)
    assert engines(device="cuda", gpus=1, dtype="bfloat16") == ("transformers-cuda-bfloat16",)
    assert engines(engine="turbomind", gpus=1) == ("turbomind",)


def test_what_losses_were_divided_by() -> None:
    def tokenizer(prompt: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in prompt]}

    tokenizer.pad_token_id = ord("_")  # type: ignore[attr-defined]
    model = types.SimpleNamespace(tokenizer=tokenizer, max_seq_len=4)
    assert opencompass_driver.divisors(model, PLAIN, ["abc", "a_b", "abcdef"]) == ([3, 2, 4], 6)
    assert opencompass_driver.divisors(model, "turbomind", ["abc"]) == ([2], 3)


# -- OpenCompass itself --


def scored(
    model: Path,
    environment: Environment,
    data: Path,
    work: Path,
    *,
    subjects: Sequence[Subject] = (ANATOMY, GENETICS),
    start: int = 0,
    stop: int = 6,
    **fields: Any,
) -> tuple[dict[Subject, Sequence[Answer]], Any]:
    found: dict[Subject, Sequence[Answer]] = {}
    backend = OpenCompass(
        spec=ScoresSpec(data=data, backend="opencompass", batch_size=4, **fields), environment=environment
    )
    portions = [Portion(data=read_subject(data, subject), start=start, stop=stop) for subject in subjects]
    return found, backend.score(model, portions, work=work, on_subject=found.__setitem__)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_answers_are_those_of_an_independent_scorer(
    model: Path, environment: Environment, data: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network, tokenizer = AutoModelForCausalLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    found, info = scored(model, environment, data, tmp_path)
    assert list(found) == [ANATOMY, GENETICS]
    answers = set()
    for subject, rows in found.items():
        want = letter_scorer.score(network, tokenizer, "opencompass", data, subject.suite, subject.name, 6)
        assert len(rows) == 6
        for row, (gold, answer, scores) in zip(rows, want, strict=True):
            assert row.gold == gold
            assert row.scores is not None
            assert [value - row.scores[0] for value in row.scores] == pytest.approx(
                [value - scores[0] for value in scores], abs=5e-3
            )
            assert row.prediction == answer or sorted(scores)[-1] - sorted(scores)[-2] < 5e-3
        answers |= {row.prediction for row in rows}
    assert len(answers) > 1
    assert (info.backend, info.engine, info.questions) == ("opencompass", PLAIN, 12)
    assert info.versions["opencompass"] == "0.5.4"
    assert info.startup_seconds > 0
    assert info.scoring_seconds > 0
    assert any("the model was made for 32" in note for note in info.notes)


@pytest.mark.slow
@pytest.mark.timeout(1500)
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
    (tmp_path / "work").mkdir()
    found, info = scored(tmp_path / "model", environment, data, tmp_path / "work", subjects=[ANATOMY], stop=2)
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
def test_generated_answers(model: Path, environment: Environment, data: Path, tmp_path: Path) -> None:
    """Of a portion that does not begin with the first question, and by a model as transformers 5 saves it, with code
    that is not run."""
    saved = shutil.copytree(model, tmp_path / "model")
    as_transformers_5_saves_it(saved)
    bring_code(saved)
    (tmp_path / "work").mkdir()
    found, info = scored(saved, environment, data, tmp_path / "work", mode="gen", start=2, stop=5, max_out_len=2)
    for subject, rows in found.items():
        assert [(row.index, row.gold) for row in rows] == [
            (index, question.gold) for index, question in enumerate(read_subject(data, subject).test) if 2 <= index < 5
        ]
        assert all(row.prediction in (*LETTERS, None) for row in rows)
        assert all(row.scores is None for row in rows)
        assert rows[0].prompt == f"{opencompass_driver.CONFIGS[subject.suite, 'gen']} opencompass 0.5.4"
    assert info.questions == 6
    assert not (saved / "ran").exists()


def as_transformers_5_saves_it(folder: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    AutoConfig.from_pretrained(folder).save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    assert "rope_theta" not in json.loads((folder / "config.json").read_text())
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "TokenizersBackend"


def bring_code(folder: Path) -> None:
    """Bring a tokenizer in Python, as folders from elsewhere can; importing it leaves a file behind."""
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nOwn = None\n")
    fields = json.loads((folder / "tokenizer_config.json").read_text())
    auto_map = {"AutoTokenizer": ["own.Own", "own.Own"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields | {"auto_map": auto_map}))


def lose_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


class Writes:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.slow
def test_code_in_pickled_weights_is_not_run(model: Path, tmp_path: Path) -> None:
    """Both drivers load models by this function."""
    import torch
    from transformers import AutoTokenizer

    folder = shutil.copytree(model, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Writes(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        opencompass_driver.load_strictly(
            str(folder), AutoTokenizer.from_pretrained(folder), device="cpu", dtype="float32"
        )
    assert not (tmp_path / "ran").exists()


def shrink_the_vocabulary(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][:300].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_a_weight, r"failed loading the model: .* 1 weights .* are missing, as model\.norm\.weight"),
        (shrink_the_vocabulary, r"failed loading the model: .*the tokenizer .* has \d+ tokens .* vocabulary 300"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    model: Path, environment: Environment, data: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(model, tmp_path / "model")
    damage(tmp_path / "model")
    (tmp_path / "work").mkdir()
    with pytest.raises(EvaluationError, match=message):
        scored(tmp_path / "model", environment, data, tmp_path / "work", subjects=[ANATOMY], stop=1)
    assert "Traceback" in (tmp_path / "work" / "opencompass.log").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1500)
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
import importlib, inspect, json, sys
sys.path.append(sys.argv[1])
import opencompass_driver as driver
from opencompass.models.turbomind import TurboMindModel
names = {}
for (suite, mode), name in driver.CONFIGS.items():
    module = importlib.import_module(f"opencompass.configs.datasets.{suite}.{name}")
    names[f"{suite} {mode}"] = [config["name"] for config in getattr(module, f"{suite}_datasets")]
print(json.dumps([names, list(inspect.signature(TurboMindModel.__init__).parameters)]))
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_opencompass_has_what_the_driver_needs(environment: Environment) -> None:
    """Its subjects are ours; and its TurboMind model, which needs a GPU to run, takes the arguments it is given."""
    folder = Path(inspect.getfile(opencompass_driver)).parent
    done = subprocess.run([environment.python, "-I", "-c", FACTS, folder], capture_output=True, text=True, check=True)
    names, parameters = json.loads(done.stdout.splitlines()[-1])
    for suite, mode in opencompass_driver.CONFIGS:
        assert set(names[f"{suite} {mode}"]) == set(SUITES[suite].test_questions)
    of_opencompass = {"type", "abbr", "run_cfg", "batch_size", "max_out_len"}
    assert set(opencompass_driver.model_config(REQUEST)) - of_opencompass <= set(parameters)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_no_process_is_left_when_the_reader_stops(
    model: Path, environment: Environment, data: Path, tmp_path: Path
) -> None:
    driver = Path(opencompass_driver.__file__).name

    def interrupt(subject: Subject, rows: Sequence[Answer]) -> None:
        assert any(driver in " ".join(child.cmdline()) for child in psutil.Process().children())
        raise KeyboardInterrupt

    backend = OpenCompass(spec=ScoresSpec(data=data, backend="opencompass"), environment=environment)
    portions = [Portion(data=read_subject(data, subject), start=0, stop=1) for subject in (ANATOMY, GENETICS)]
    with pytest.raises(KeyboardInterrupt):
        backend.score(model, portions, work=tmp_path, on_subject=interrupt)
    assert not any(driver in " ".join(child.cmdline()) for child in psutil.Process().children())
