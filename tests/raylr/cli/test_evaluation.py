"""`raylr eval` as a user runs it: on a model trained here, in OpenCompass's own environment."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import letter_scorer
import psutil
import pyarrow.parquet as pq
import pytest
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
@pytest.mark.skipif(not (DATA / "mmlu").is_dir(), reason=f"no questions in {DATA}: set RAYLR_DATA")
def test_a_model_trained_here_on_real_questions(checkpoint: Path, tmp_path: Path) -> None:
    set_up()
    arguments = (checkpoint, "--suite", "mmlu,cmmlu", "--data", DATA, "--subjects", "abstract_algebra,cmmlu/anatomy")
    done = call(*arguments, "--limit", "5", "--out", tmp_path / "out", "--json", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    for name in ("MMLU abstract_algebra", "CMMLU anatomy", "MMLU STEM, naive (1 of 19 subjects)", "questions/s"):
        assert name in done.stdout, done.stdout
    assert "start-up" in done.stdout
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["questions_scored"] == 10
    assert not found["complete"]
    assert found["startup_seconds"] > 0 < found["questions_per_second"]
    assert 0 < found["validation_loss"] < 6
    assert len(found["missing"]["mmlu"]) == 56

    kept = pq.read_table(tmp_path / "out" / "evals.parquet").to_pylist()
    assert {(row["run"], row["tokens"], row["phase"]) for row in kept} == {("tiny", 10240, "stable")}
    check_against_the_independent_scorer(export_checkpoint(checkpoint, tmp_path / "hf"), kept)
    for row in found["rows"]:
        if row["level"] == "subject":
            mine = [item["correct"] for item in kept if item["subject"] == row["name"]]
            assert (row["accuracy"], row["questions"]) == (sum(mine) / 5, 5)

    again = call(*arguments, "--limit", "5", "--out", tmp_path / "out")
    assert again.returncode == 0, again.stderr
    assert "all 10 questions were scored before" in again.stdout


def check_against_the_independent_scorer(model: Path, kept: list[dict[str, Any]]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network, tokenizer = AutoModelForCausalLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    for suite, subject in (("mmlu", "abstract_algebra"), ("cmmlu", "anatomy")):
        rows = [row for row in kept if (row["suite"], row["subject"]) == (suite, subject)]
        want = letter_scorer.score(network, tokenizer, "opencompass", DATA, suite, subject, 5)
        for row, (gold, answer, scores) in zip(rows, want, strict=True):
            assert row["gold"] == gold
            margin = sorted(scores)[-1] - sorted(scores)[-2]
            assert row["prediction"] == answer or margin < 5e-3
            assert [row[name] - row["score_a"] for name in SCORES] == pytest.approx(
                [value - scores[0] for value in scores], abs=5e-3
            )


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_kill_ends_with_the_reason_and_loses_one_subject(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    set_up()
    model, out = export_checkpoint(checkpoint, tmp_path / "hf"), tmp_path / "out"
    arguments = (model, "--suite", "mmlu", "--data", data, "--out", out)

    killed = start(*arguments)
    until(lambda: fragments(out) >= 1, killed)
    driver_of(killed).kill()
    assert killed.wait(60) == 1
    printed = (tmp_path / "printed").read_text()
    assert "raylr: OpenCompass was ended by SIGKILL scoring mmlu/" in printed
    assert "of 8 subjects are kept, run it again for the others" in printed
    assert 1 <= fragments(out) < 8

    known = fragments(out) * 3
    resumed = call(*arguments, "--json", tmp_path / "scores.json")
    assert resumed.returncode == 0, resumed.stderr
    found = json.loads((tmp_path / "scores.json").read_text())
    assert (found["questions_known_before"], found["questions_scored"]) == (known, 24 - known)
    keys = [(row["subject"], row["index"]) for row in pq.read_table(out / "evals.parquet").to_pylist()]
    assert sorted(keys) == [(name, index) for name in MADE for index in range(3)]


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    out = Path(arguments[-1]).parent / "printed"
    slow = os.environ | {"OMP_NUM_THREADS": "1"}
    with out.open("wb") as sink:
        return subprocess.Popen(command(*arguments, "--batch-size", "1"), stdout=sink, stderr=sink, env=slow)


def fragments(out: Path) -> int:
    return len(list((out / "evals").glob("*/[0-9]*.parquet")))


def driver_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    return next(child for child in psutil.Process(process.pid).children() if DRIVER in " ".join(child.cmdline()))


def until(done: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end
        assert process is None or process.poll() is None, "it ended by itself"
        time.sleep(0.01)


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
            "engine, allow_fallback and env are options of the backend opencompass",
        ),
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
