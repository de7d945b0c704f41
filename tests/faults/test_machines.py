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
ROOM = 4 * GIGABYTE
"""Most memory that may be used beyond what is used now before Ray ends a worker: the tests beside this take some."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "spec.yaml").write_text(SPEC)
    with nothing_left(tmp_path / "study"):
        yield tmp_path


def test_a_trial_that_takes_the_memory_of_its_machine(place: Path, undisturbed: FittingStudy, record: Record) -> None:
    """Ray's monitor ends the process before the kernel would. One trial at a time, so that it is that one."""
    memory = psutil.virtual_memory()
    room = min(ROOM, memory.available // 4)
    if room < GIGABYTE:
        pytest.skip(f"{memory.available / GIGABYTE:.1f} GB of memory are free; 4 are needed")
    spec = yaml.safe_load(SPEC)
    spec["resources"] |= {"concurrency": 1, "hang_seconds": 60}
    (place / "spec.yaml").write_text(yaml.safe_dump(spec))
    (place / "marks").mkdir()
    (place / "marks" / "takes memory").touch()
    env = {
        "RAY_memory_usage_threshold": f"{(memory.total - memory.available + room) / memory.total:.4f}",
        "RAY_memory_monitor_refresh_ms": "100",
        "FAULTY_MEMORY": str(memory.available - room - GIGABYTE // 2),
    }
    program = Program(place / "spec.yaml", str(place / "study"), place / "0.log", env)
    status, printed = program.end()
    assert status == 0, printed
    message = next((line for line in messages(printed) if "it is tried again" in line), printed)
    assert "its machine ran out of memory" in message
    study = FittingStudy.open(place / "study")
    same = assert_same(study, undisturbed)
    assert check_study(place / "study").whole
    how = f"a trial takes {room / GIGABYTE:.0f} GB, more than Ray's monitor lets be used"
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


def test_a_shared_memory_that_is_small(place: Path, undisturbed: FittingStudy, record: Record) -> None:
    words = own_shared_memory("64k")
    if not words:
        pytest.skip("this user may not mount a file system")
    program = Program(place / "spec.yaml", str(place / "study"), place / "0.log", under=words)
    status, printed = program.end()
    assert status == 0, printed
    assert "WARNING" not in printed
    study = FittingStudy.open(place / "study")
    same = assert_same(study, undisturbed)
    record("object store without room", how="/dev/shm is a file system of 64 KB", message=said(printed),
           survived=f"{len(study.evaluations)} of {len(rows_of(undisturbed))} losses", same_law=same)  # fmt: skip


def test_a_shared_memory_that_is_filled(place: Path, undisturbed: FittingStudy, record: Record) -> None:
    """By another program, while the study runs."""
    words = own_shared_memory("200m")
    if not words:
        pytest.skip("this user may not mount a file system")
    env = {"FAULTY_SECONDS": "0.3", "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(150 * 2**20)}
    program = Program(place / "spec.yaml", str(place / "study"), place / "0.log", env, under=words)
    program.further()
    shared = Path(f"/proc/{program.process.pid}/root/dev/shm")
    assert "shm" in " ".join(one.path for one in program.part("raylet").memory_maps())
    try:
        with (shared / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 2**16)
    except OSError:
        pass
    there = program.measured()
    status, printed = program.end()
    if status:
        assert status == 1, printed
        assert "the same command continues" in said(printed)
        again = Program(place / "spec.yaml", str(place / "study"), place / "1.log")
        assert again.end()[0] == 0, again.printed()
    study = FittingStudy.open(place / "study")
    same = assert_same(study, undisturbed)
    record("object store filled", how="another program fills /dev/shm while the study runs", message=said(printed),
           survived=f"{there} of {len(rows_of(undisturbed))} losses; {len(study.evaluations)} at the end",
           same_law=same)  # fmt: skip
