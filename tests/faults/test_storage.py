"""Faults of files and of what is measured. The losses are computed in this process, without Ray."""

from __future__ import annotations

import errno
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from faulty_study import DirectExecutor, assert_same, rows_of, seen, spec_with, study_in
from tiny_runs import curve, run

from raylr.errors import InputError, RaylrError, StorageError
from raylr.execution.executor import Job
from raylr.store.check import check_study, set_aside
from raylr.study import FittingStudy
from raylr.trainables import Corpus
from raylr.trainables.training.checkpoint import RunFolder

Record = Callable[..., None]
MIDDLE = 20
"""Report before which the fault happens: of 64 and more."""


def at_middle(act: Callable[[], object]) -> Callable[[Job, int], None]:
    count = 0

    def before(job: Job, tokens: int) -> None:
        nonlocal count
        count += 1
        if count == MIDDLE:
            act()

    return before


def disturbed(folder: Path, act: Callable[[], object]) -> str:
    """Run the study in a folder with a fault in its middle; return what the user sees."""
    with pytest.raises(RaylrError) as error:
        study_in(folder, DirectExecutor(at_middle(act))).run()
    return seen(error.value)


def finished(folder: Path, undisturbed: FittingStudy) -> tuple[bool, str]:
    """Run the study to its end; return whether its law is the undisturbed one's, and what had survived."""
    there = len(FittingStudy.open(folder).evaluations) if folder.exists() else 0
    executor = DirectExecutor()
    study = study_in(folder, executor)
    study.run()
    total = len(rows_of(study))
    assert len(executor.measured) == total - there, "something was measured twice"
    assert check_study(folder).whole
    return assert_same(study, undisturbed), f"{there} of {total} losses; {len(executor.measured)} were measured then"


@contextmanager
def file_system(folder: Path, size: str) -> Iterator[bool]:
    """A small file system of its own at the folder; False where this user may not mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    made = subprocess.run(command, capture_output=True, check=False)
    try:
        yield made.returncode == 0
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> None:
    with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk(
    tmp_path: Path, undisturbed: FittingStudy, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "disk"
    with file_system(place, "2m") as real:
        if real:
            message = disturbed(place / "study", lambda: fill(place))
            (place / "filler").unlink()
        else:
            with monkeypatch.context() as patch:

                def full(handle: int) -> None:
                    raise OSError(errno.ENOSPC, "No space left on device")

                message = disturbed(place / "study", lambda: patch.setattr("os.fsync", full))
        assert "the disk is full; make room and run the same command again" in message
        same, survived = finished(place / "study", undisturbed)
    how = "a file system of 2 MB that another file fills" if real else "`fsync` raises ENOSPC (no mount allowed here)"
    record("disk full", how=how, message=message, survived=survived, same_law=same)


def test_a_disk_that_becomes_read_only(
    tmp_path: Path, undisturbed: FittingStudy, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"

    def refuse(handle: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        message = disturbed(folder, lambda: patch.setattr("os.fsync", refuse))
    assert "Read-only file system" in message
    same, survived = finished(folder, undisturbed)
    how = "`fsync` raises EROFS: a kernel lets nobody remount a file system in which a file is open"
    record("folder becomes read-only", how=how, message=message, survived=survived, same_law=same)


def test_a_folder_that_is_removed(tmp_path: Path, undisturbed: FittingStudy, record: Record) -> None:
    folder = tmp_path / "study"
    message = disturbed(folder, lambda: shutil.rmtree(folder))
    assert "its folder is not there" in message
    assert not folder.exists()
    same, survived = finished(folder, undisturbed)
    record("folder removed", how="`rm -r`", message=message, survived=survived, same_law=same)


def test_a_storage_that_is_away(tmp_path: Path, undisturbed: FittingStudy, record: Record) -> None:
    folder, away = tmp_path / "study", tmp_path / "away"
    message = disturbed(folder, lambda: folder.rename(away))
    assert "is the storage disconnected?" in message
    away.rename(folder)
    same, survived = finished(folder, undisturbed)
    how = "the folder is renamed, and renamed back before the next start"
    record("storage away", how=how, message=message, survived=survived, same_law=same)


def interrupt() -> None:
    raise KeyboardInterrupt


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    match how:
        case "torn":
            path.write_bytes(content[:-20])
        case "zero-byte":
            path.write_bytes(b"")
        case "bit-flipped":
            middle = len(content) // 3
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
        case "missing":
            path.unlink()


@pytest.mark.parametrize(
    ("table", "how", "ended"),
    [
        *(("evaluations", how, False) for how in ("torn", "zero-byte", "bit-flipped", "missing")),
        ("evaluations", "missing", True),
        ("evaluations", "torn", True),
        ("trials", "missing", False),
        ("trials", "bit-flipped", False),
        ("trials", "zero-byte", True),
    ],
)
def test_a_damaged_fragment(
    table: str, how: str, ended: bool, tmp_path: Path, undisturbed: FittingStudy, record: Record
) -> None:
    """Each table has several fragments when it is damaged (of a study that was stopped), or one (of a finished one)."""
    folder = tmp_path / "study"
    study = study_in(folder, None if ended else DirectExecutor(at_middle(interrupt)))
    try:
        study.run()
    except KeyboardInterrupt:
        assert not ended
    before = len(study.evaluations)
    path = sorted((folder / table).iterdir())[0 if how == "missing" else -1]
    damage(path, how)
    if how == "missing":
        parts = [part for part in check_study(folder).parts if not part.whole]
        message = f"raylr check: {parts[0].message}" if parts else "nothing"
        assert parts or table == "trials"  # of which one fragment that is gone was never there
    else:
        with pytest.raises(RaylrError) as error:
            study_in(folder).run()
        message = seen(error.value)
        assert f"{path} is damaged" in message
        (moved,) = set_aside(folder)
        assert moved.parent == folder / "damaged"
    executor = DirectExecutor()
    again = study_in(folder, executor)
    again.run()
    assert check_study(folder).whole
    total = len(rows_of(again))
    same = assert_same(again, undisturbed)
    if table == "evaluations" and not ended:
        kept = total - len(executor.measured)
        survived = f"{kept} of {before} losses; {before - kept} were measured again"
        survived += "" if how == "missing" else ", once `raylr check --set-aside` had moved the file away"
        record(
            f"fragment {how}",
            how="one of `evaluations/`, of a study that was stopped",
            message=message,
            survived=survived,
            same_law=same,
        )


@pytest.mark.slow
def test_a_damaged_checkpoint(
    corpus: Corpus, tmp_path: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a real training: it goes on from the one before, or from its beginning, and no loss differs."""
    want = run(corpus.path, run_dir=tmp_path / "whole")
    folder = tmp_path / "run"
    half = [row["tokens"] for row in want][1]
    run(corpus.path, run_dir=folder, stop_at=half)
    (newest,) = RunFolder(folder).whole()
    weights = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    damage(weights, "bit-flipped")
    left = list(RunFolder(folder).whole())
    assert left == []
    capsys.readouterr()
    rows = run(corpus.path, run_dir=folder)
    printed = capsys.readouterr().out
    same = curve(rows) == curve(want)
    assert same
    import deepspeed

    deepspeed.comm.destroy_process_group()
    how = "of a Qwen3-MoE in training, in its largest file"
    survived = f"{len(left)} checkpoints; the run was trained again from there, {len(rows)} of {len(want)} losses"
    message = printed or "nothing"
    record("checkpoint bit-flipped", how=how, message=message, survived=survived, same_law=same)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 20_000, 100_000])
def test_a_disk_that_is_full_amid_a_checkpoint(left: int, corpus: Corpus, tmp_path: Path, record: Record) -> None:
    """Of a real training, with room for a part of a checkpoint: it says so, the one before stays, and nothing else."""
    want = run(corpus.path, run_dir=tmp_path / "whole")
    place = tmp_path / "disk"
    points = [row["tokens"] for row in want]
    with file_system(place, "16m") as real:
        if not real:
            pytest.skip("this user may not mount a file system")
        folder = place / "run"
        run(corpus.path, run_dir=folder, stop_at=points[1])
        before = [path.name for path in RunFolder(folder).whole()]
        fill(place)
        os.truncate(place / "filler", (place / "filler").stat().st_size - left)
        with pytest.raises(StorageError) as error:
            run(corpus.path, run_dir=folder, stop_at=points[2])
        message = seen(error.value)
        assert f"{folder}: the disk is full" in message
        assert sorted(path.name for path in folder.iterdir()) == [".lock"] * (folder / ".lock").exists() + before
        assert [path.name for path in RunFolder(folder).whole()] == before
        (place / "filler").unlink()
        same = curve(run(corpus.path, run_dir=folder)) == curve(want)
    assert same
    import deepspeed

    deepspeed.comm.destroy_process_group()
    if left:
        how = f"of a Qwen3-MoE in training, in a file system that has {left / 1000:.0f} kB left"
        survived = f"the run, from the checkpoint at {points[1]} of {points[-1]} tokens"
        record(f"disk full amid a checkpoint, {left / 1000:.0f} kB left", how=how, message=message, survived=survived,
               same_law=same)  # fmt: skip


def test_losses_of_nan(tmp_path: Path, record: Record) -> None:
    executor = DirectExecutor(loss=lambda config, tokens: math.nan)
    with pytest.raises(InputError) as error:
        study_in(tmp_path / "study", executor).run()
    message = seen(error.value)
    assert "every run diverged" in message
    assert len(executor.measured) == len(set(executor.measured))
    again = len(executor.measured) - len(set(executor.measured))
    runs = len({name for name, _ in executor.measured})
    survived = f"{runs} runs, as diverged; {again} of them were trained again"
    record("NaN", how="every loss is NaN", message=message, survived=survived, same_law=None)


def test_two_drivers(tmp_path: Path, undisturbed: FittingStudy, record: Record) -> None:
    folder, heard, written = tmp_path / "study", list[str](), list[int]()

    def second() -> None:
        before = {(path, path.stat().st_mtime_ns) for path in folder.rglob("*")}
        with pytest.raises(RaylrError) as error:
            study_in(folder).run()
        heard.append(seen(error.value))
        after = {(path, path.stat().st_mtime_ns) for path in folder.rglob("*")}
        written.append(len(after ^ before))

    study = study_in(folder, DirectExecutor(at_middle(second)))
    study.run()
    (message,) = heard
    assert "another process is running the study" in message
    assert written == [0]
    survived = f"{len(rows_of(study))} losses; the second one wrote {written[0]} files, the first went on"
    record("two drivers", how="the same command while it runs", message=message, survived=survived,
           same_law=assert_same(study, undisturbed))  # fmt: skip


def test_a_spec_that_is_changed_in_between(tmp_path: Path, undisturbed: FittingStudy, record: Record) -> None:
    folder = tmp_path / "study"
    with pytest.raises(KeyboardInterrupt):
        study_in(folder, DirectExecutor(at_middle(interrupt))).run()
    file = folder / "spec.yaml"
    whole = file.read_text()
    file.write_text(whole.replace("0.1", "0.2"))
    assert file.read_text() != whole
    with pytest.raises(RaylrError) as error:
        FittingStudy.open(folder)
    message = seen(error.value)
    assert "was changed since the study began" in message
    with pytest.raises(RaylrError, match=r"train\.batch_tokens"):  # another study: none of its runs could be used again
        study_in(folder, spec=spec_with(train={"batch_tokens": 1000, "schedule": "constant"})).run()
    file.write_text(whole)
    same, survived = finished(folder, undisturbed)
    how = "its spec.yaml is edited while it is stopped"
    record("spec changed in between", how=how, message=message, survived=survived, same_law=same)


def test_no_fault_leaves_a_file_behind(tmp_path: Path, undisturbed: FittingStudy) -> None:
    """A write that fails leaves no temporary file, whatever step of it fails."""
    folder: Any = tmp_path / "study"

    def fail(*arguments: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for name in ("os.fsync", "pathlib.Path.replace"):
        with pytest.MonkeyPatch.context() as patch:
            message = disturbed(folder, lambda name=name, patch=patch: patch.setattr(name, fail))
        assert "Input/output error" in message
        assert not list(folder.rglob("*.tmp"))
    assert os.access(folder, os.W_OK)
    assert finished(folder, undisturbed)[0]
