"""What is said of a disk that cannot take a checkpoint, and what is left there."""

import errno
from pathlib import Path

import pytest

from raylr.errors import CheckpointError, StorageError
from raylr.trainables.training.disk import written

FULL = "the disk is full"


def fail(folder: Path, error: BaseException) -> None:
    with written(folder):
        folder.mkdir(parents=True)
        (folder / "weights").touch()
        raise error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), FULL),
        (RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file"), FULL),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError("a text alone"), "a text alone"),
    ],
)
def test_what_the_disk_is_to_blame_for_is_a_sentence(error: Exception, says: str, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "step-1"
    with pytest.raises(StorageError, match=f"cannot write a checkpoint into {folder.parent}: {says}"):
        fail(folder, error)
    assert not folder.exists()


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error"), CheckpointError("no"), KeyboardInterrupt(), SystemExit(1)]
)
def test_anything_else_stays_what_it_is(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught:
        fail(tmp_path / "step-1", error)
    assert caught.value is error
    assert not (tmp_path / "step-1").exists()


def test_what_is_written_stays(tmp_path: Path) -> None:
    with written(tmp_path / "step-1"):
        (tmp_path / "step-1").mkdir()
    assert (tmp_path / "step-1").is_dir()
