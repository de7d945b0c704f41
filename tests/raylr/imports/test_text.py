import json
from pathlib import Path

import pytest

from raylr.errors import DataError
from raylr.imports import text
from raylr.imports.sources import read_runs
from raylr.imports.text import flat, named_values


def write(folder: Path, name: str, text: str | bytes) -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def test_json_lines_with_nested_settings(tmp_path: Path) -> None:
    lines = [
        {"id": f"r{i}", "state": "finished", "config": {"optim": {"lr": lr}, "n_params": {"value": 1e8}},
         "summary": {"val_loss": 3.0 + i, "_step": 10}}
        for i, lr in enumerate((1e-3, 2e-3))
    ]  # fmt: skip
    found = read_runs([write(tmp_path, "runs.jsonl", "\n".join(json.dumps(line) for line in lines))])
    assert [(run.run, run.lr, run.loss, run.params) for run in found.runs] == [
        ("r0", 1e-3, 3.0, 1e8), ("r1", 2e-3, 4.0, 1e8),
    ]  # fmt: skip


def test_other_delimiters_and_a_byte_order_mark(tmp_path: Path) -> None:
    for delimiter in ";\t|":
        text = "\ufefflr,loss\n1e-3,3.0\n".replace(",", delimiter)
        assert read_runs([write(tmp_path, "a.csv", text)]).runs[0].loss == 3.0


def test_a_chart_of_wandb(tmp_path: Path) -> None:
    text = (
        '"Step","lr=1e-3_params=124M - val/loss","lr=1e-3_params=124M - val/loss__MIN",'
        '"lr=3e-3_params=124M - val/loss"\n'
        "10,3.5,3.4,3.6\n20,3.1,3.0,\n"
    )
    found = read_runs([write(tmp_path, "chart.csv", text)])
    assert [(run.lr, run.loss, run.params) for run in found.runs] == [(1e-3, 3.1, 124e6), (3e-3, 3.6, 124e6)]


def test_the_log_of_a_hugging_face_trainer(tmp_path: Path) -> None:
    folder = tmp_path / "lr=1e-3" / "checkpoint-20"
    folder.mkdir(parents=True)
    history = [{"step": 10, "loss": 4.0, "learning_rate": 1e-3}, {"step": 20, "eval_loss": 3.5}]
    file = write(folder, "trainer_state.json", json.dumps({"global_step": 20, "log_history": history}))
    (run,) = read_runs([file]).runs
    assert (run.lr, run.loss, run.run) == (1e-3, 3.5, "lr=1e-3")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"lr,loss\n1e-3,\xff\n", "line 2: not text in UTF-8"),
        ("a.csv", b"lr,loss\n1e-3,\0\n", "line 2: a NUL byte"),
        ("a.csv", b'lr,loss\n"1e-3,3\n', "line"),
        ("a.jsonl", b'{"lr": 1}\n{"lr"\n', "line 2: not JSON"),
        ("a.jsonl", b"[1, 2]", "entry 1: not an object"),
        ("a.json", b"", "is empty"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_runs([write(tmp_path, name, content)])


def test_names_hold_settings() -> None:
    assert named_values("run-lr3e-4-seed=1") == {"lr": "3e-4", "seed": "1"}
    assert named_values("colr3") == {}
    assert flat({"a": {"b": 1, "c": {"value": 2}}, "d": [1]}) == {"a.b": 1, "a.c": 2, "d": "[1]"}


def test_a_step_that_is_no_count_is_named_with_its_line(tmp_path: Path) -> None:
    content = b'{"run": "a", "lr": 1e-3, "loss": 3, "step": 1}\n{"run": "a", "lr": 1e-3, "loss": 2, "step": 1e300}\n'
    with pytest.raises(DataError, match="line 2: step is 1e\\+300, which is not a count"):
        read_runs([write(tmp_path, "a.jsonl", content)])


def test_values_nested_too_deep_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 reads JSON that is nested deeper than its functions can call themselves."""
    deep: dict[str, object] = {"lr": 1e-3, "loss": 3.0}
    for _ in range(5_000):
        deep = {"a": deep}
    monkeypatch.setattr(text, "_parsed", lambda path, content, line: deep)
    with pytest.raises(DataError, match=r"a\.jsonl holds values that are nested too deep"):
        read_runs([write(tmp_path, "a.jsonl", b"{}")])
