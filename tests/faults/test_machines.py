"""Machines that run out of something: memory, by Ray's own measure, and the shared memory of Ray's object store."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from faulty_program import Program, messages, nothing_left, said
from faulty_study import SPEC, assert_same, rows_of

from raylr.store.check import check_study
from raylr.study import FittingStudy

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3000)]
Record = Callable[..., None]
GIGABYTE = 2**30
ROOM = 2 * GIGABYTE
"""Memory that is left before Ray ends a worker; a trial takes as much again."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "spec.yaml").write_text(SPEC)
    with nothing_left(tmp_path / "study"):
        yield tmp_path


def test_a_trial_that_takes_the_memory_of_its_machine(place: Path, undisturbed: FittingStudy, record: Record) -> None:
    """Ray's monitor ends the process before the kernel would. One trial at a time, so that it is that one."""
    memory = psutil.virtual_memory()
    if memory.available < 3 * ROOM:
        pytest.skip(f"{memory.available / GIGABYTE:.0f} GB of memory are free; {3 * ROOM / GIGABYTE:.0f} are needed")
    spec = yaml.safe_load(SPEC)
    spec["resources"]["concurrency"] = 1
    (place / "spec.yaml").write_text(yaml.safe_dump(spec))
    (place / "marks").mkdir()
    (place / "marks" / "takes memory").touch()
    env = {
        "RAY_memory_usage_threshold": f"{(memory.total - memory.available + ROOM) / memory.total:.4f}",
        "RAY_memory_monitor_refresh_ms": "100",
    }
    program = Program(place / "spec.yaml", str(place / "study"), place / "0.log", env)
    status, printed = program.end()
    assert status == 0, printed
    (message,) = [line for line in messages(printed) if "it is tried again" in line]
    assert "its machine ran out of memory" in message
    study = FittingStudy.open(place / "study")
    same = assert_same(study, undisturbed)
    assert check_study(place / "study").whole
    how = f"a trial takes memory until Ray's monitor sees less than its threshold leaves ({ROOM / GIGABYTE:.0f} GB)"
    record("out of memory, by Ray", how=how, message=message,
           survived=f"{len(study.evaluations)} of {len(rows_of(undisturbed))} losses", same_law=same)  # fmt: skip


def own_shared_memory(size: str) -> tuple[str, ...]:
    """Words before a command that gives it a /dev/shm of its own; empty where this user may not have one."""
    unshare = shutil.which("unshare")
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    for flags in ("-m", "-rm"):
        words = (unshare or "unshare", flags, "sh", "-c", script, "sh")
        if unshare and subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            return words
    return ()


@pytest.mark.parametrize(
    ("fault", "size"), [("object store without room", "64k"), ("object store of little room", "40m")]
)
def test_a_shared_memory_that_is_small(
    fault: str, size: str, place: Path, undisturbed: FittingStudy, record: Record
) -> None:
    words = own_shared_memory(size)
    if not words:
        pytest.skip("this user may not mount a file system")
    program = Program(place / "spec.yaml", str(place / "study"), place / "0.log", under=words)
    status, printed = program.end()
    print(status, printed)
    assert status == 0, printed
    study = FittingStudy.open(place / "study")
    same = assert_same(study, undisturbed)
    record(fault, how=f"/dev/shm is a file system of {size.upper()}B", message=said(printed),
           survived=f"{len(study.evaluations)} of {len(rows_of(undisturbed))} losses", same_law=same)  # fmt: skip


def test_a_shared_memory_that_is_filled(place: Path, undisturbed: FittingStudy, record: Record) -> None:
    """By another program, while the study runs."""
    words = own_shared_memory("400m")
    if not words:
        pytest.skip("this user may not mount a file system")
    env = {"FAULTY_SECONDS": "0.3"}
    program = Program(place / "spec.yaml", str(place / "study"), place / "0.log", env, under=words)
    program.further()
    shared = Path(f"/proc/{program.process.pid}/root/dev/shm")
    try:
        with (shared / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 2**16)
    except OSError:
        pass
    there = program.measured()
    status, printed = program.end()
    print(status, printed)
    if status:
        assert status == 1, printed
        assert "the same command continues" in said(printed)
        again = Program(place / "spec.yaml", str(place / "study"), place / "1.log")
        assert again.end()[0] == 0, again.printed()
    study = FittingStudy.open(place / "study")
    same = assert_same(study, undisturbed)
    record("object store filled", how="another program fills /dev/shm while the study runs", message=said(printed),
           survived=f"{there} of {len(rows_of(undisturbed))} losses", same_law=same)  # fmt: skip
