"""Whole programs under Ray, whose processes are killed and stopped: one study that is disturbed again and again, and
started again by the same command each time until it ends with the law of the undisturbed one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from faulty_study import SPEC, assert_same, rows_of

from raylr.store.check import check_study
from raylr.study import FittingStudy

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3000)]
PATIENCE = 900.0
"""Seconds to wait for a program; the machine may be busy (300 were too few at a load of 60)."""
CLOCK = """
import time
_time, _begun = time.time, time.monotonic()
time.time = lambda: _time() - (3600 if time.monotonic() - _begun > 8 else 0)
"""


class Program:
    """`raylr search` of the study in a folder, with a Ray of its own."""

    def __init__(self, place: Path, **env: str) -> None:
        self.place, self.study = place, place / "study"
        self.log = place / f"{len(list(place.glob('*.log')))}.log"
        self.before = self.measured()
        own = {"RAY_ADDRESS": "local", "FAULTY_SECONDS": "0.8", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        own["PYTHONPATH"] = os.pathsep.join(filter(None, [env.pop("first", ""), own["PYTHONPATH"]]))
        command = [sys.executable, "-m", "raylr", "search", str(place / "spec.yaml"), "--out", str(self.study)]
        with self.log.open("w") as sink:
            self.process = subprocess.Popen(
                command, stdout=sink, stderr=sink, env=os.environ | own | env, start_new_session=True
            )

    def measured(self) -> int:
        return len(FittingStudy.open(self.study).evaluations) if (self.study / "spec.yaml").exists() else 0

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def further(self, losses: int = 4) -> None:
        """Wait until it has measured so many more losses."""
        self.wait_for(lambda: self.measured() >= self.before + losses)

    def part(self, name: str) -> psutil.Process:
        """One of Ray's processes of this program."""
        return next(one for one in psutil.Process(self.process.pid).children(recursive=True) if name in one.name())

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its status and what it printed, with nothing of Ray's and no traceback."""
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(self.log.read_text())
        printed = self.log.read_text()
        for unwanted in ("Traceback", "stack", "ray/core", "state-dump", "core_worker", "rpc_client"):
            assert unwanted not in printed, printed
        return status, printed

    def kill(self) -> None:
        for one in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
            try:
                one.kill()
            except psutil.Error:
                continue
        self.process.wait()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "spec.yaml").write_text(SPEC)
    yield tmp_path
    for one in psutil.process_iter():  # nothing of these programs may stay
        try:
            if str(tmp_path / "study") in " ".join(one.cmdline()):
                one.kill()
        except psutil.Error:
            continue


def last_line(printed: str) -> str:
    return printed.strip().splitlines()[-1]


def test_a_study_that_is_disturbed_again_and_again(
    place: Path, undisturbed: FittingStudy, record: Callable[..., None]
) -> None:
    rows: list[dict[str, str]] = []
    total = len(rows_of(undisturbed))

    def note(fault: str, how: str, message: str, program: Program) -> None:
        kept = FittingStudy.open(place / "study")
        rows.append(
            {"fault": fault, "how": how, "message": message, "survived": f"{len(kept.evaluations)} of {total} losses"}
        )

    program = Program(place)
    program.further()
    listening = {
        (one.name(), connection.laddr.ip)
        for one in psutil.Process(program.process.pid).children(recursive=True)
        for connection in one.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening
    program.process.send_signal(signal.SIGKILL)
    assert program.process.wait() == -signal.SIGKILL
    note("driver killed", "SIGKILL to `raylr search`", "nothing: it is gone", program)

    program = Program(place)
    program.further()
    program.process.send_signal(signal.SIGTERM)
    status, printed = program.end()
    assert status == 143, printed
    note("SIGTERM", "to `raylr search`", last_line(printed), program)

    program = Program(place)
    program.further()
    program.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    program.process.send_signal(signal.SIGINT)
    status, printed = program.end()
    assert status == 130, printed
    note("SIGINT twice", "Ctrl-C, and again 0.3 s later", last_line(printed), program)

    for name, words in (("raylet", "Ray's process on this machine"), ("gcs_server", "Ray's head process")):
        program = Program(place)
        program.further()
        program.part(name).kill()
        status, printed = program.end()
        assert status == 1, printed
        assert words in last_line(printed)
        note({"raylet": "raylet killed", "gcs_server": "GCS killed"}[name], "SIGKILL", last_line(printed), program)

    clock = place / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(CLOCK)
    program = Program(place, first=str(clock))
    status, printed = program.end()
    assert status == 0, printed
    note("clock set back", "`time.time` loses an hour after 8 s, in every process", "nothing", program)
    study = FittingStudy.open(place / "study")
    assert_same(study, undisturbed)
    assert check_study(place / "study").whole
    repeated = sum(
        sum(Counter(log.read_text().split()).values()) - len(set(log.read_text().split()))
        for log in (place / "study").glob("runs/*/steps.log")
    )
    assert repeated <= 5 * psutil.cpu_count()  # what each trial did since its last checkpoint
    for row in rows:
        record(**row)


def test_trials_that_are_killed_and_that_hang(
    place: Path, undisturbed: FittingStudy, record: Callable[..., None]
) -> None:
    marks = place / "marks"
    marks.mkdir()
    faults = {
        "kill": ("worker killed", "SIGKILL to a trial's process", "killed or crashed"),
        "term": ("worker terminated", "SIGTERM to a trial's process", "ended by SIGTERM"),
        "stop": ("worker stopped", "SIGSTOP to a trial's process", "it hangs"),
        "hang": ("trial hangs", "its function sleeps and reports nothing", "it hangs"),
    }
    for name in faults:
        (marks / name).touch()
    program = Program(place, FAULTY_MARKS=str(marks))
    status, printed = program.end()
    assert status == 0, printed
    lines = [line for line in printed.splitlines() if "it is tried again from its last checkpoint" in line]
    assert sorted(path.name for path in marks.iterdir()) == sorted(f".{name}" for name in faults)
    assert len(lines) == len(faults), printed
    study = FittingStudy.open(place / "study")
    same = assert_same(study, undisturbed)
    assert check_study(place / "study").whole
    for log in (place / "study").glob("runs/*/steps.log"):
        assert max(Counter(log.read_text().split()).values()) == 1, "it did not go on from its checkpoint"
    for fault, how, words in faults.values():
        line = lines.pop(next(number for number, line in enumerate(lines) if words in line))
        message = re.sub(r"^ *\d+:\d\d +", "", line)  # without the time before it
        record(
            fault, how=how, message=message, survived="every loss; the run goes on from its checkpoint", same_law=same
        )
