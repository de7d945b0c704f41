"""`raylr eval` as a user runs it: on a model trained here, in OpenCompass's own environment."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import letter_scorer
import psutil
import pyarrow.parquet as pq
import pytest
from made_backend import NAME, MadeBackend
from made_questions import write_questions
from shared_data import DATA
from tiny_runs import run

from raylr.analysis.scores.scores import SCORES
from raylr.analysis.scores.suites import SUITES
from raylr.cli.app import main
from raylr.evaluation.backends import opencompass_driver
from raylr.evaluation.environment import Environment, set_up
from raylr.trainables import build_corpus
from raylr.trainables.export.hf import export_checkpoint

DRIVER = Path(opencompass_driver.__file__).name


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a short run."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "text").mkdir()
    for i in range(60):
        (folder / "text" / f"{i}.py").write_text("\n".join(f"def f{j}(x):\n    return x * {i * j}" for j in range(30)))
    build_corpus([folder / "text"], folder / "corpus", vocab_size=400, validation_fraction=0.1)
    run(folder / "corpus", lr=1e-2, steps=40, run_dir=folder / "tiny")
    yield folder / "tiny"
    import deepspeed

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()


MADE = sorted(SUITES["mmlu"].test_questions)[:8]
REAL = (("mmlu", "abstract_algebra"), ("cmmlu", "anatomy"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for subject in MADE:
        write_questions(tmp_path / "data", "mmlu", subject, questions=3)
    return tmp_path / "data"


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "raylr", "eval", *map(str, arguments)]


def call(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"COLUMNS": "140", "OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=given, timeout=240, check=False)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_kill_ends_with_the_reason_and_loses_what_was_being_scored(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a model trained here, on real questions where they are at hand, with OpenCompass as its process."""
    set_up()
    data = DATA
    if not (DATA / "mmlu").is_dir():
        data = tmp_path / "data"
        for suite, subject in REAL:
            write_questions(data, suite, subject, questions=5)
    out = tmp_path / "out"
    asked = ("--data", data, "--subjects", "mmlu/abstract_algebra,cmmlu/anatomy", "--limit", "5", "--out", out)
    arguments = ["eval", *map(str, (checkpoint, *asked))]
    monkeypatch.setenv("COLUMNS", "140")

    with driver_killed(lambda: fragments(out) >= 1), pytest.raises(SystemExit) as killed:
        main([*arguments, "--batch-size", "1"])
    assert killed.value.code == 1
    printed = capsys.readouterr().err
    assert "raylr: OpenCompass was ended by SIGKILL scoring cmmlu/anatomy" in printed
    assert "5 of 10 questions are kept, run it again for the others" in printed

    with pytest.raises(SystemExit) as done:
        main([*arguments, "--json", str(tmp_path / "scores.json")])
    shown = capsys.readouterr()
    assert done.value.code == 0, shown.err
    for name in ("MMLU abstract_algebra", "CMMLU anatomy", "MMLU STEM, naive (1 of 19 subjects)", "questions/s"):
        assert name in shown.out, shown.out
    assert "start-up" in shown.out
    found = json.loads((tmp_path / "scores.json").read_text())
    assert (found["questions_known_before"], found["questions_scored"]) == (5, 5)
    assert not found["complete"]
    assert found["startup_seconds"] > 0 < found["questions_per_second"]
    assert 0 < found["validation_loss"] < 6
    assert len(found["missing"]["mmlu"]) == 56

    kept = pq.read_table(out / "evals.parquet").to_pylist()
    assert [(row["suite"], row["subject"], row["index"]) for row in kept] == [
        (suite, subject, index) for suite, subject in REAL for index in range(5)
    ]
    assert {(row["run"], row["tokens"], row["phase"]) for row in kept} == {("tiny", 10240, "stable")}
    check_against_the_independent_scorer(export_checkpoint(checkpoint, tmp_path / "hf"), kept, data)
    for row in found["rows"]:
        if row["level"] == "subject":
            mine = [item["correct"] for item in kept if item["subject"] == row["name"]]
            assert (row["accuracy"], row["questions"]) == (sum(mine) / 5, 5)


def check_against_the_independent_scorer(model: Path, kept: list[dict[str, Any]], data: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network, tokenizer = AutoModelForCausalLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    for suite, subject in REAL:
        rows = [row for row in kept if (row["suite"], row["subject"]) == (suite, subject)]
        want = letter_scorer.score(network, tokenizer, "opencompass", data, suite, subject, 5)
        for row, (gold, answer, scores) in zip(rows, want, strict=True):
            assert (row["gold"], row["prediction"]) == (gold, answer)
            assert [row[name] - row["score_a"] for name in SCORES] == pytest.approx(
                [value - scores[0] for value in scores], abs=1e-4
            )


def fragments(out: Path) -> int:
    return len(list((out / "evals").glob("*/[0-9]*.parquet")))


@contextmanager
def driver_killed(when: Callable[[], bool]) -> Iterator[None]:
    """Kill OpenCompass, which the block starts, once `when` is true."""
    ended = threading.Event()

    def watch() -> None:
        while not when():
            if ended.wait(0.01):
                return
        for child in psutil.Process().children():
            if DRIVER in " ".join(child.cmdline()):
                child.kill()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A Hugging Face folder for a backend that reads nothing of it but the weights' bytes."""
    folder = tmp_path / "model"
    folder.mkdir()
    files = {"config.json": '{"model_type": "llama"}', "model.safetensors": "weights", "tokenizer.json": "{}"}
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_a_subject_needs_no_suite_and_a_larger_limit_scores_what_it_adds(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_questions(tmp_path / "data", "mmlu", "anatomy", questions=30)  # and nothing of cmmlu
    MadeBackend.reset()
    given = ["eval", str(model), "--subjects", "mmlu/anatomy", "--data", "data", "--backend", NAME]
    for limit, scored in ((20, 20), (25, 5)):
        with pytest.raises(SystemExit) as ended:
            main([*given, "--limit", str(limit), "--json", "found.json"])
        assert ended.value.code == 0
        found = json.loads(Path("found.json").read_text())
        assert (found["questions_known_before"], found["questions_scored"]) == (limit - scored, scored)
        assert {row["suite"] for row in found["rows"]} == {"mmlu"}
        assert re.search(rf"MMLU anatomy +{limit} of 135", capsys.readouterr().out)
    assert [[(str(subject), *part) for subject, *part in call] for call in MadeBackend.calls] == [
        [("mmlu/anatomy", 0, 20)],
        [("mmlu/anatomy", 20, 25)],
    ]
    rows = pq.read_table("runs/eval/evals.parquet").to_pylist()
    assert [row["index"] for row in rows] == list(range(25))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": "nowhere"}, "there is no model or checkpoint in nowhere"),
        ({"suite": "mmul"}, "unknown suite 'mmul'; did you mean 'mmlu'"),
        ({"data": "nowhere"}, "there is no data folder "),
        ({"subjects": "anatmy"}, "no subject 'anatmy' in MMLU; nearest: anatomy"),
        ({"subjects": "anatomy,nutrition"}, "has no questions of mmlu/nutrition"),
        ({"env": "nowhere"}, "there is no environment for OpenCompass in"),
        (
            {"backend": "lm-eval", "engine": "turbomind"},
            "engine, allow_fallback, env and passes are options of the backend opencompass",
        ),
        ({"suite": "cmmlu", "subjects": "mmlu/anatomy"}, "mmlu/anatomy is of MMLU, which is not among the suites"),
        ({"limit": "0"}, "limit: must be greater than or equal to 1, got 0"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    changes: dict[str, str],
    message: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With an environment that only claims to have OpenCompass: nothing here gets as far as to use it."""
    environment = Environment(folder=tmp_path, versions={})
    if "env" not in changes:
        monkeypatch.setattr("raylr.evaluation.backends.opencompass.find", lambda env, engine: environment)
    monkeypatch.chdir(tmp_path)
    options = {"checkpoint": ".", "suite": "mmlu", "data": str(data)} | changes
    given = ["eval", options.pop("checkpoint")]
    for name, value in options.items():
        given += [f"--{name}", value]
    with pytest.raises(SystemExit) as ended:
        main(given)
    printed = capsys.readouterr().err
    assert (ended.value.code, printed.count("\n")) == (2, 1), printed
    assert message in printed


def test_the_help_names_what_there_is() -> None:
    done = call("--help")
    assert done.returncode == 0
    for name in ("setup", "--suite", "--data", "--subjects", "--limit", "--json", "--backend", "--env"):
        assert name in done.stdout
    assert call("setup", "--help").returncode == 0


def test_a_partial_suite_gives_a_warning(data: Path) -> None:
    from raylr.cli.evaluation import _warnings
    from raylr.evaluation.questions import choose_subjects

    chosen, missing = choose_subjects(["mmlu"], None, data)
    (line,) = _warnings(missing, chosen)
    assert line == (
        f"MMLU: 49 of its {len(SUITES['mmlu'].test_questions)} subjects are not in the data; averages are over the 8 "
        "that are, not the whole suite"
    )
