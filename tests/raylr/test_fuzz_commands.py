"""Mutated arguments of the command line, environment variables, and records of other trainers, as in `test_fuzz`."""

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import changed_copy, command, fuzzed, sentence_or_result
from made_study import SPEC
from mutations import VALUES, as_json, encoded, of_text
from pydantic import ValidationError

from raylr.evaluation.environment import VARIABLE as EVAL_ENV
from raylr.evaluation.environment import find
from raylr.external.read import PRESETS, ReadSpec
from raylr.external.rows import Rows
from raylr.external.sources import OUTPUT, Sources
from raylr.remote.copies import CACHE

SWEEP = "lr,loss\n3e-4,3.25\n6e-4,3.20\n1.2e-3,3.174\n2.4e-3,3.185\n4.8e-3,3.244\n"
RUNS = "params,tokens,lr,loss\n" + "".join(
    f"{params:g},{tokens:g},{lr:g},{4 - 0.2 * i - 0.1 * j + 0.1 * k * k:.4f}\n"
    for i, params in enumerate((1e7, 3e7, 1e8))
    for j, tokens in enumerate((1e8, 4e8))
    for k, lr in zip((-1, 0, 1), (5e-4, 1e-3, 2e-3), strict=True)
)
COMMANDS = (
    "fit sweep.csv",
    "fit runs",
    "fit runs.csv --out law.json",
    "predict zhou2026 --params 4e9 --tokens 120e9",
    "predict law.json --params 1e9 --tokens 2e10 --batch 1e6 --extrapolate",
    "predict runs --params 2e8 --tokens 1e9",
    "suggest runs --count 2",
    "tell runs --params 1e7 --tokens 1e8 --lr 1e-3 --loss 3.5",
    "import runs.csv --out more --map lr=lr",
    "recipe runs --for megatron --params 12e9 --tokens 500e9",
    "compare runs.csv --by tokens",
    "transfer --explain study.yaml study.yaml",
    "init new.yaml --for dense",
    "check runs",
    "status runs",
    "laws",
    "--version",
)
OPTIONS = (
    "--out",
    "--params",
    "--tokens",
    "--lr",
    "--batch",
    "--help",
    "--json",
    "--for",
    "--map",
    "--count",
    "--by",
    "--",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "work"
    folder.mkdir()
    (folder / "sweep.csv").write_text(SWEEP)
    (folder / "runs.csv").write_text(RUNS)
    (folder / "study.yaml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command(["import", "runs.csv", "--out", "runs"], known=(0,))
        command(["fit", "runs", "--out", "law.json"], known=(0,))
    return folder


def of_words(words: list[str], dice: random.Random) -> list[str]:
    """Change one to three words after the first: replace, drop, repeat, swap, insert an option, change characters."""
    words = list(words)
    for _ in range(dice.randint(1, 3)):
        if len(words) < 2:
            return [*words, str(dice.choice(VALUES))]
        spot, kind = dice.randrange(1, len(words)), dice.randrange(7)
        if kind == 0:
            del words[spot]
        elif kind == 1:
            words.insert(spot, words[spot])
        elif kind == 2:
            other = dice.randrange(1, len(words))
            words[spot], words[other] = words[other], words[spot]
        elif kind == 3:
            words.insert(spot, dice.choice(OPTIONS))
        elif kind == 4:
            words[spot] = of_text(words[spot], dice)
        else:
            words[spot] = str(dice.choice(VALUES))
    return [word.replace("\0", "") for word in words]  # the operating system passes no zero


@fuzzed()
def test_arguments(dice: random.Random, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with changed_copy(folder) as work, monkeypatch.context() as patch:
        patch.chdir(work)
        command(of_words(dice.choice(COMMANDS).split(), dice))


NAMES = (EVAL_ENV, CACHE, "XDG_CACHE_HOME", "COLUMNS", "LINES", "TERM", "NO_COLOR", "FORCE_COLOR", "LANG", "TZ")
"""Variables that raylr, or the library that prints, reads; not RAYLR_DEBUG, which shows tracebacks."""


@fuzzed(10)
def test_environment_variables(dice: random.Random, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with changed_copy(folder) as work, monkeypatch.context() as patch:
        patch.chdir(work)
        patch.setenv(EVAL_ENV, str(work / "eval"))  # not this machine's
        for name in dice.sample(NAMES, 3):
            value = str(dice.choice((*VALUES, "/dev/null", str(work), str(work / "sweep.csv"))))
            patch.setenv(name, value.replace("\0", "").encode("utf-8", "ignore").decode())
        command(
            dice.choice(("laws", "fit sweep.csv", "status runs", "predict law.json --params 2e8 --tokens 1e9")).split()
        )
        with sentence_or_result():
            find()


OUTPUTS = {
    "json": '{"loss": 3.25, "tokens": 512}\n{"loss": 3.125, "tokens": 1024, "mfu": 0.4}\n',
    "megatron": " validation loss at iteration 1 | lm loss value: 3.25E+00 | lm loss PPL: 2.5E+01 |\n",
    "megatron-train": " iteration 1/ 10 | consumed samples: 16 | learning rate: 1.0E-03 | lm loss: 3.25E+00 |\n",
    "torchtitan": "[titan] - root - INFO - validate step:  1  loss:  3.25\n",
    "torchtitan-train": "[titan] - root - INFO - step:  1  loss:  3.25  grad_norm: 1.0\n",
    "nanotron": "iteration: 1 / 10 | consumed_tokens: 512 | lm_loss: 3.25 | lr: 0.001\n",
    "deepspeed": "steps: 1 loss: 3.2500 iter time (s): 0.1\n",
    "llamafactory": '{"current_steps": 1, "total_steps": 10, "eval_loss": 3.25}\n',
    "huggingface": '{"log_history": [{"step": 1, "eval_loss": 3.25}, {"step": 2, "loss": 3.0}]}\n',
}
FILES = {"llamafactory": "trainer_log.jsonl", "huggingface": "checkpoint-2/trainer_state.json"}


def test_every_output_is_read() -> None:
    for name in OUTPUTS:
        assert rows_of(name, OUTPUTS[name].encode()), name


def rows_of(name: str, output: bytes) -> list[dict[str, Any]]:
    """The rows that a study takes from what a trainer wrote."""
    read = ReadSpec.model_validate(name)
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / FILES.get(name, OUTPUT)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(output)
        rows = Rows(read, batch=512, seq_len=32, eval_at=(512, 1024))
        sources = Sources(read, Path(work))
        found = [row for record in sources.new() for row in rows.of(record)]
        return found + list(rows.end())


@fuzzed()
def test_records_of_trainers(dice: random.Random) -> None:
    name = dice.choice(sorted(OUTPUTS))
    text = of_text(OUTPUTS[name] * 3, dice)
    if dice.random() < 0.2:
        text = "\n".join(as_json({"loss": value, "tokens": dice.choice(VALUES)}) for value in VALUES)
    with sentence_or_result():
        for row in rows_of(name, encoded(text)):
            assert isinstance(row["loss"], float)
            assert 0 < row["tokens"] < 2**63


@fuzzed()
def test_read_sections(dice: random.Random) -> None:
    """What a spec's `read` may hold is checked as the spec is: by pydantic, whose errors a spec's reader words."""
    given = dict(PRESETS[dice.choice(sorted(PRESETS))])
    given[dice.choice(("format", "file", "pattern", "loss", "tokens", "steps", "diverged", "average", "other"))] = (
        dice.choice((*VALUES, "(", "(?P<loss>", r"(?P<loss>\d+)(?P<steps>\d+)", "*", "["))
    )
    with sentence_or_result():
        try:
            ReadSpec.model_validate(yaml.safe_load(yaml.safe_dump(given)))
        except ValidationError:
            return
