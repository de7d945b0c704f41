"""Mutated inputs of every kind end in a result or in one sentence: no traceback, no hang, no memory without bound.

`make fuzz` tries 10,000 of each kind, the ordinary suite a few; `fuzzing` says how. Here: specs, laws and finished
runs. Folders that raylr or Hugging Face wrote are in `test_fuzz_folders`, the command line in `test_fuzz_commands`.
"""

import contextlib
import json
import random
import sqlite3
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fuzzing import fuzzed, sentence_or_result, tried
from made_study import SPEC
from mutations import alternately, as_json, as_yaml, encoded, of_bytes, of_text, of_value
from tensorboardX import SummaryWriter
from wandb_files import run_file

from raylr.analysis import presets
from raylr.analysis.laws.lr_law import LRLaw
from raylr.finished import cells_of, read_finished
from raylr.spec import load_spec


def fitted(path: Path) -> None:
    """Read runs and collect their cells."""
    cells_of(read_finished(path).table)


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


@fuzzed()
def test_specs(dice: random.Random) -> None:
    text = alternately(as_yaml, dice.choice(SPECS), dice)
    text = BOMB + text if dice.random() < 0.02 else text
    tried(lambda path: load_spec(path, check_files=False), "spec.yaml", encoded(text))


@fuzzed()
def test_laws(dice: random.Random) -> None:
    law = presets.get(dice.choice(presets.names()))
    text = alternately(as_json, json.loads(law.to_json()), dice)
    with sentence_or_result():
        found = LRLaw.from_json(text)
        found.predict(params=1e9, tokens=1e11, batch=1e6)


TABLE = [
    {
        "run": f"r{i}",
        "params": 1.24e8 * (1 + i % 2),
        "tokens": 2.5e9,
        "batch_tokens": 524288,
        "seq_len": 1024,
        "lr": 1e-3 * 2 ** (i // 2),
        "val_loss": 3.2 + 0.01 * i,
        "seed": i % 3,
        "status": "finished",
        "optimizer": "adamw",
    }
    for i in range(8)
]


@fuzzed()
def test_csv(dice: random.Random) -> None:
    rows = of_value(TABLE, dice) if dice.random() < 0.5 else TABLE
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = "\n".join([",".join(map(str, names)), *(",".join(str(row.get(name, "")) for name in names) for row in rows)])
    data = encoded(of_text(text, dice))
    tried(fitted, dice.choice(("runs.csv", "runs.tsv")), of_bytes(data, dice) if dice.random() < 0.1 else data)


@fuzzed()
def test_json_lines(dice: random.Random) -> None:
    rows = of_value(TABLE, dice)
    if dice.random() < 0.5 and isinstance(rows, list):
        name, text = "runs.jsonl", "\n".join(as_json(row) for row in rows)
    else:
        name, text = "runs.json", as_json(rows)
    tried(fitted, name, encoded(of_text(text, dice) if dice.random() < 0.4 else text))


@fuzzed()
def test_parquet(dice: random.Random) -> None:
    rows = of_value(TABLE, dice)
    sink = pa.BufferOutputStream()
    try:
        table = pa.Table.from_pylist(rows) if isinstance(rows, list) else pa.table({})
        pq.write_table(table, sink)
    except (pa.ArrowException, TypeError, AttributeError, OverflowError, UnicodeError, ValueError):
        pq.write_table(pa.Table.from_pylist(TABLE), sink := pa.BufferOutputStream())
    data = sink.getvalue().to_pybytes()
    tried(fitted, "runs.parquet", of_bytes(data, dice) if dice.random() < 0.6 else data)


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
        folder = Path(name) / "logs" / dice.choice(("lr=3e-4_params=124M", "run", "lr=_params=", "lr=1e999"))
        folder.mkdir(parents=True)
        (folder / "events.out.tfevents.1.host").write_bytes(of_bytes(events, dice))
        settings_text = alternately(as_yaml, {"lr": 1e-3, "model": {"n_params": 1e8}}, dice)
        (folder / "config.yaml").write_bytes(encoded(settings_text))
        with sentence_or_result():
            fitted(Path(name) / "logs")


@fuzzed()
def test_wandb(dice: random.Random) -> None:
    config = of_value({"lr": {"value": 1e-3}, "n_params": {"value": 1e8}, "tokens": {"value": 1e9}}, dice)
    history = of_value([{"_step": i, "eval/loss": 4 - i / 10, "tokens": i * 1e8} for i in range(4)], dice)
    config = config if isinstance(config, dict) else {}
    history = [row for row in history if isinstance(row, dict)] if isinstance(history, list) else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "wandb" / "offline-run-20260101_000000-abc"
        folder.mkdir(parents=True)
        try:
            data = run_file("abc", config, history, dice.choice((0, 1, None)))
        except (UnicodeError, AttributeError):
            data = run_file("abc", {}, [])
        (folder / "run-abc.wandb").write_bytes(of_bytes(data, dice) if dice.random() < 0.6 else data)
        with sentence_or_result():
            fitted(Path(name) / "wandb")


def mlflow_folder(root: Path, dice: random.Random) -> None:
    run = root / "1" / "0123456789abcdef0123456789abcdef"
    meta = {"artifact_location": str(root), "experiment_id": "1", "lifecycle_stage": "active", "name": "e"}
    info = {
        "artifact_uri": str(run), "end_time": 2, "entry_point_name": "", "experiment_id": "1",
        "lifecycle_stage": "active", "run_id": run.name, "run_name": "r", "run_uuid": run.name,
        "source_name": "", "source_type": 4,
        "source_version": "", "start_time": 1, "status": 3, "tags": [], "user_id": "u",
    }  # fmt: skip
    files = {
        "1/meta.yaml": yaml.safe_dump(meta),
        f"1/{run.name}/meta.yaml": yaml.safe_dump(info),
        f"1/{run.name}/params/lr": "0.001",
        f"1/{run.name}/params/n_params": "1e8",
        f"1/{run.name}/metrics/eval_loss": "1 3.5 1\n2 3.4 2\n3 3.3 3\n",
        f"1/{run.name}/metrics/tokens": "1 1e8 1\n2 2e8 2\n3 3e8 3\n",
    }
    changed = dice.choice(sorted(files))
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(of_text(text, dice) if path == changed else text))
    for kind in ("params", "metrics", "tags"):
        (run / kind).mkdir(exist_ok=True)


@fuzzed(20)
def test_mlflow(dice: random.Random) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "mlruns"
        if dice.random() < 0.2:
            root = Path(name) / "mlflow.db"
            with contextlib.closing(sqlite3.connect(root)) as base:
                base.execute("create table experiments (experiment_id text, name text)")
                base.commit()
            root.write_bytes(of_bytes(root.read_bytes(), dice))
        else:
            mlflow_folder(root, dice)
        with sentence_or_result():
            fitted(root)
