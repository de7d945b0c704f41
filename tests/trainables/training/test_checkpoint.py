import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from raylr.analysis.runs import identity_of
from raylr.errors import CheckpointError
from raylr.trainables.training.checkpoint import COMPLETE, KEEP, RunFolder, intact_state, load_state, read_state, verify

ALONE = {"workers": 1, "zero_stage": 1, "expert_parallel": 1}
A, B = {"lr": 1.0}, {"lr": 2.0}
"""What identifies two runs."""
STATE = {"identity": identity_of(A), "fields": A, "layout": ALONE}
ROW = {"step": 1, "tokens": 64, "loss": float("nan"), "run_end": None}


class Engine:
    """Saves one file, as DeepSpeed would."""

    def save_checkpoint(self, folder: str, *, tag: str, save_latest: bool) -> None:
        path = Path(folder) / tag
        path.mkdir()
        (path / "weights").write_bytes(b"w" * 1000)
        assert not save_latest


@pytest.fixture
def alone() -> Any:
    """A process group of one."""
    made = not dist.is_initialized()
    if made:
        from torch._C._distributed_c10d import HashStore

        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    if made:
        dist.destroy_process_group()


def saved(path: Path, *steps: int) -> RunFolder:
    folder = RunFolder(path)
    for step in steps:
        folder.save(Engine(), STATE | {"step": step, "history": [ROW]})
    return folder


@pytest.mark.usefixtures("alone")
def test_the_last_two_are_kept(tmp_path: Path) -> None:
    folder = saved(tmp_path / "run", 1, 2, 3, 10)
    assert sorted(p.name for p in folder.path.iterdir()) == ["step-0000000003", "step-0000000010"]
    assert KEEP == 2
    newest, older = folder.whole()
    assert older.name == "step-0000000003"
    state = read_state(newest, A, ALONE)
    assert state["step"] == 10
    assert str(state["history"]) == str([ROW])


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "incomplete", "garbled"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    folder = saved(tmp_path, 1, 2)
    newest = tmp_path / "step-0000000002"
    weights = newest / "engine" / "weights"
    match damage:
        case "flip":
            weights.write_bytes(b"w" * 999 + b"v")
        case "cut":
            weights.write_bytes(b"w" * 500)
        case "remove":
            weights.unlink()
        case "incomplete":
            (newest / COMPLETE).unlink()
        case "garbled":
            (newest / COMPLETE).write_text("{")
    assert verify(newest)
    with pytest.raises(CheckpointError, match="checkpoint: "):
        read_state(newest, A, ALONE)
    assert [path.name for path in folder.whole()] == ["step-0000000001"]


@pytest.mark.usefixtures("alone")
def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    (only,) = saved(tmp_path, 1).whole()
    with pytest.raises(CheckpointError, match=r"is of another run .*there lr: 1\.0, not 2\.0"):
        read_state(only, B, ALONE)


@pytest.mark.usefixtures("alone")
def test_another_layouts_checkpoint_is_refused(tmp_path: Path) -> None:
    (only,) = saved(tmp_path, 1).whole()
    with pytest.raises(CheckpointError, match="made with workers=1, zero_stage=1, expert_parallel=1: run"):
        read_state(only, A, ALONE | {"workers": 2})


@pytest.mark.usefixtures("alone")
def test_an_interrupted_write_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".writing-7" / "engine").mkdir(parents=True)
    folder = saved(tmp_path, 8)
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000000008"]
    folder.save(Engine(), STATE | {"step": 8, "history": []})
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000000008"]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}', '{"step": "1", "history": [], "layout": {}}', "[" * 100_000])
def test_what_is_not_a_checkpoint_is_one_sentence(tmp_path: Path, text: str) -> None:
    (only,) = saved(tmp_path, 1).whole()
    for name in (COMPLETE, "state.json"):
        before = (only / name).read_text()
        (only / name).write_text(text)
        with pytest.raises(CheckpointError, match=name):
            intact_state(only) if name == COMPLETE else load_state(only)
        (only / name).write_text(before)


def test_a_second_process_waits_for_the_folder(tmp_path: Path) -> None:
    """Threads stand for processes: each has a lock of its own on the same file."""
    entered = threading.Event()

    def second() -> None:
        with RunFolder(tmp_path / "run").alone():
            entered.set()

    thread = threading.Thread(target=second)
    with RunFolder(tmp_path / "run").alone():
        thread.start()
        assert not entered.wait(0.3)
    assert entered.wait(30)
    thread.join()


def test_empty_folders(tmp_path: Path) -> None:
    assert list(RunFolder(tmp_path / "none").whole()) == []
    (tmp_path / COMPLETE).write_text(json.dumps({}))
    assert "is empty" in verify(tmp_path)
