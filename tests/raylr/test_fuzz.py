"""Mutated inputs of every kind end in a result or in one sentence: no traceback, no hang, no memory without bound.

`make fuzz` tries 10,000 of each kind, the ordinary suite a few; `fuzzing` says how. Here: specs, laws and finished
runs. Folders that raylr or Hugging Face wrote are in `test_fuzz_folders`, the command line in `test_fuzz_commands`.
"""

import gzip
import json
import random
import shutil
import sqlite3
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import command, ends, fuzzed, limited, sentence_or_result, tried
from made_study import SPEC
from mutated_tables import arrow_file, mutated_runs, runs_of
from mutations import (
    alternately,
    as_json,
    as_yaml,
    encoded,
    oddly_encoded,
    of_bytes,
    of_text,
    of_value,
    with_json_features,
)  # fmt: skip
from sanity import check_fit, check_law, check_numbers
from tensorboardX import SummaryWriter
from wandb_files import run_file

from raylr.analysis import presets
from raylr.analysis.laws.lr_law import LRLaw
from raylr.finished import fit_runs, read_finished
from raylr.spec import dump_spec, load_spec

WIDE = 100_000
"""Columns of a table that nobody means."""


def fitted(path: Path) -> None:
    """Read runs and fit them; the fits must agree with the runs."""
    check_fit(fit_runs(read_finished(path)))


def shown(path: Path) -> None:
    """What the command line prints of runs."""
    before = ends.copy()
    said = command(["fit", str(path)])
    ends.clear()
    ends.update(before)  # the caller counts this input
    assert not {"nan", "None", "inf"} & set(said.replace(",", " ").split()), said


def read_and_shown(path: Path, dice: random.Random) -> None:
    """Read runs; fit a third of them, and print the answer for one in thirty."""
    roll = dice.random()
    if roll < 0.63:
        read_finished(path)
    else:
        (fitted if roll < 0.97 else shown)(path)


SPECS = [yaml.safe_load(SPEC)]
SPECS.append(SPECS[0] | {"search": {"method": "surface", "max_trials": 5}, "scores": {"data": "q", "limit": 4}})
SPECS.append(
    {key: value for key, value in SPECS[0].items() if key not in ("corpus", "model", "target")}
    | {
        "command": {"run": ["{python}", "t.py", "--lr", "{lr}", "--w", "{width}"], "read": {"loss": "l", "steps": "s"}},
        "sizes": {"S": {"params": "20k", "args": {"width": 12}}, "M": {"params": 4e4, "args": {"width": 20}}},
        "train": {"batch_tokens": 1024, "schedule": "constant"},
    }
)
SPECS.append(
    SPECS[0]
    | {
        "sizes": {"proxy": {"hidden_size": 16, "expert_size": 16}},
        "target": None,
        "budgets": "40k",
        "transfer": {
            "init_std": [0.004, 0.1],
            "targets": [{"name": "wide", "model": {"hidden_size": 64, "expert_size": 64}, "tokens": "80k"}],
        },
    }
)
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{y}: &{y} [{','.join([f'*{x}'] * 9)}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True)
)


def kept(path: Path) -> None:
    """A spec that is accepted has finite numbers and is the same when a study's folder has kept it."""
    spec = load_spec(path, check_files=False)
    check_numbers(spec.model_dump())
    path.write_text(dump_spec(spec), encoding="utf-8")
    assert load_spec(path, check_files=False) == spec


@fuzzed()
def test_specs(dice: random.Random) -> None:
    text = alternately(as_yaml, dice.choice(SPECS), dice)
    text = BOMB + text if dice.random() < 0.02 else text
    tried(kept, "spec.yaml", oddly_encoded(text, dice), names="spec.yaml")


@fuzzed()
def test_laws(dice: random.Random) -> None:
    law = presets.get(dice.choice(presets.names()))
    text = alternately(as_json, json.loads(law.to_json()), dice)
    with sentence_or_result():
        found = LRLaw.from_json(text)
        check_law(found, *dice.choice(((1e9, 1e11, 1e6), (1.0, 1.0, 1.0), (1e15, 1e18, 1e12))))


@fuzzed()
def test_csv(dice: random.Random) -> None:
    rows = mutated_runs(dice)
    names = list(dict.fromkeys(name for row in rows for name in row))
    sign = dice.choice((",", ",", ",", ";", "\t", "|"))
    cells = [names, *([row.get(name, "") for name in names] for row in rows)]
    text = "\n".join(sign.join("" if cell is None else str(cell) for cell in line) for line in cells)
    data = oddly_encoded(of_text(text, dice) if dice.random() < 0.5 else text, dice)
    data = of_bytes(data, dice) if dice.random() < 0.05 else data
    name = dice.choice(("runs.csv", "runs.tsv", "runs.txt"))
    tried(lambda path: read_and_shown(path, dice), name, data, names="runs")


@fuzzed()
def test_json_lines(dice: random.Random) -> None:
    rows = mutated_runs(dice)
    name = dice.choice(("runs.jsonl", "runs.json"))
    text = "\n".join(as_json(row) for row in rows) if name == "runs.jsonl" else as_json(rows)
    roll = dice.random()
    text = of_text(text, dice) if roll < 0.25 else with_json_features(text, dice) if roll < 0.4 else text
    data = oddly_encoded(text, dice)
    tried(lambda path: read_and_shown(path, dice), name, gzip.compress(data) if roll > 0.99 else data, names="runs")


@fuzzed()
def test_parquet(dice: random.Random) -> None:
    name, data = arrow_file(mutated_runs(dice), dice)
    data = of_bytes(data, dice) if dice.random() < 0.2 else data
    tried(lambda path: read_and_shown(path, dice), name, data, names="runs")


@pytest.mark.parametrize("name", ["runs.csv", "runs.jsonl"])
def test_a_hundred_thousand_columns(name: str, tmp_path: Path) -> None:
    row = runs_of(random.Random(0))[0] | {f"c{i}": i for i in range(WIDE)}
    text = as_json(row) if name.endswith("l") else f"{','.join(row)}\n{','.join(map(str, row.values()))}\n"
    (tmp_path / name).write_text(text)
    with sentence_or_result():
        fitted(tmp_path / name)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("events")
    with SummaryWriter(str(folder)) as writer:
        writer.add_hparams({"lr": 1e-3, "n_params": 1e8}, {"hparam/loss": 3.0})
        for step in range(5):
            writer.add_scalar("eval/loss", 4 - 0.1 * step, step)
            writer.add_scalar("tokens", 1e6 * step, step)
    return max((path.read_bytes() for path in folder.rglob("*tfevents*")), key=len)


@fuzzed()
def test_tensorboard(dice: random.Random, events: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        for i in range(dice.choice((1, 1, 3))):
            run = dice.choice(("lr=3e-4_params=124M", "run", "lr=_params=", "lr=1e999", f"r{i}"))
            folder = Path(name) / "logs" / run
            folder.mkdir(parents=True, exist_ok=True)
            data = of_bytes(events, dice) if dice.random() < 0.5 else events
            (folder / "events.out.tfevents.1.host").write_bytes(data)
            if dice.random() < 0.7:
                text = alternately(as_yaml, {"lr": 1e-3 * 2**i, "model": {"n_params": 1e8}}, dice)
                text = BOMB + text if dice.random() < 0.02 else text
                (folder / dice.choice(("config.yaml", "config.json", "hparams.yaml"))).write_bytes(encoded(text))
        with sentence_or_result(names="logs"):
            read_and_shown(Path(name) / "logs", dice)


@fuzzed()
def test_wandb(dice: random.Random) -> None:
    with tempfile.TemporaryDirectory() as name:
        for i in range(dice.choice((1, 3, 3))):
            folder = Path(name) / "wandb" / f"offline-run-20260101_00000{i}-abc{i}"
            folder.mkdir(parents=True)
            config: Any = {"lr": {"value": 1e-3 * 2**i}, "n_params": {"value": 1e8}, "tokens": {"value": 1e9}}
            history: Any = [{"_step": j, "eval/loss": 4 - j / 10 + i**2, "tokens": j * 1e8} for j in range(4)]
            roll = dice.random()
            config = of_value(config, dice) if roll < 0.4 else config
            history = of_value(history, dice) if 0.2 < roll < 0.7 else history
            config = config if isinstance(config, dict) else {}
            history = [row for row in history if isinstance(row, dict)] if isinstance(history, list) else []
            try:
                data = run_file(f"abc{i}", config, history, dice.choice((0, 0, 1, None)))
            except (UnicodeError, AttributeError):
                data = run_file(f"abc{i}", {}, [])
            (folder / f"run-abc{i}.wandb").write_bytes(of_bytes(data, dice) if dice.random() < 0.2 else data)
        with sentence_or_result(names="wandb"):
            read_and_shown(Path(name) / "wandb", dice)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder and a SQLite file that MLflow itself wrote, with three runs."""
    from raylr.telemetry import telemetry_off

    telemetry_off()
    from mlflow.tracking import MlflowClient

    folder, made = tmp_path_factory.mktemp("mlflow"), {}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of SQLAlchemy
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        for name, scheme in {"mlruns": "", "mlflow.db": "sqlite:///"}.items():
            client = MlflowClient(tracking_uri=f"{scheme}{folder / name}")
            experiment = client.create_experiment("e", artifact_location=str(folder / "artifacts"))
            for i in range(3):
                run = client.create_run(experiment, run_name=f"r{i}").info.run_id
                client.log_param(run, "lr", 1e-3 * 2**i)
                client.log_param(run, "n_params", "1e8")
                for step in range(1, 4):
                    loss = 3.5 - 0.1 * step + 0.1 * (i - 1) ** 2
                    for metric, value in {"eval_loss": loss, "tokens": 1e8 * step}.items():
                        client.log_metric(run, metric, value, timestamp=step, step=step)
                client.set_terminated(run)
            made[name] = folder / name
    return made


def test_the_stores_are_read(stores: dict[str, Path]) -> None:
    for path in stores.values():
        with limited():
            table = read_finished(path).table
            assert sorted(table["lr"].to_pylist()) == [1e-3, 2e-3, 4e-3]
            fitted(path)


def change_base(path: Path, dice: random.Random) -> None:
    """Change an SQLite file by SQL: what is in a column, or that there is a column or table; sometimes its bytes."""
    if dice.random() < 0.2:
        path.write_bytes(of_bytes(path.read_bytes(), dice))
        return
    base = sqlite3.connect(path)
    tables = ("runs", "params", "metrics", "latest_metrics", "experiments", "alembic_version", "tags")
    table = dice.choice(tables)
    columns = [row[1] for row in base.execute(f"pragma table_info({table})")]
    value = dice.choice((None, "", "nan", "x", -1, 2**62, 1e308, -1e308, b"\xff", "lr", 0))
    column = dice.choice(columns)
    change = (
        (f"update {table} set {column} = ?", (value,)),
        (f"update {table} set {column} = ? where rowid in (select rowid from {table} limit 1)", (value,)),
        (f"delete from {table} where rowid in (select rowid from {table} limit ?)", (dice.choice((1, 100)),)),
        (f"alter table {table} rename to other", ()),
        (f"alter table {table} rename column {column} to other", ()),
    )
    try:
        base.execute(*dice.choice(change))
        base.commit()
    except sqlite3.Error:  # a constraint forbids it
        base.rollback()
    base.close()


@fuzzed(20)
def test_mlflow(dice: random.Random, stores: dict[str, Path]) -> None:
    with tempfile.TemporaryDirectory() as name:
        if dice.random() < 0.1:
            path = Path(name) / "mlflow.db"
            shutil.copy(stores["mlflow.db"], path)
            change_base(path, dice)
        else:
            path = Path(name) / "mlruns"
            shutil.copytree(stores["mlruns"], path)
            file = dice.choice(sorted(one for one in path.rglob("*") if one.is_file()))
            text = file.read_text(encoding="utf-8")
            if file.suffix == ".yaml" and dice.random() < 0.6:
                text = alternately(as_yaml, yaml.safe_load(text), dice)
            elif dice.random() < 0.1:
                file.unlink()
            else:
                text = of_text(text, dice)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(oddly_encoded(text, dice))
        before = path.read_bytes() if path.is_file() else b""
        with sentence_or_result(names=path.name):
            read_and_shown(path, dice)
        assert not before or path.read_bytes() == before, "reading has changed the store"
