"""Whole programs under Ray, whose processes are killed and stopped: one study that is disturbed again and again, and
started again by the same command each time until it ends with the law of the undisturbed one."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from faulty_program import Program, last_line, messages, nothing_left, said
from faulty_study import SPEC, assert_same, rows_of
from odd_functions import memory_group, memory_groups

from raylr.analysis.units import format_lr
from raylr.store.check import check_study
from raylr.store.files import write_atomic
from raylr.study import FittingStudy

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3000)]
Record = Callable[..., None]
STOPPED_SECONDS = 60.0
"""How long the driver is stopped: several times the silence after which a trial hangs (4 s, or 8 intervals of 0.8)."""
YEARS = 3 * 365 * 86_400
CLOCK = """
import time
_time = time.time
def _moved():
    with open({offset!r}) as file:
        return _time() + float(file.read())
time.time = _moved
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "spec.yaml").write_text(SPEC)
    with nothing_left(tmp_path / "study"):
        yield tmp_path


def start(place: Path, path: str = "", under: tuple[str, ...] = (), **env: str) -> Program:
    log = place / f"{len(list(place.glob('*.log')))}.log"
    env = {"FAULTY_SECONDS": "0.8"} | env
    return Program(place / "spec.yaml", str(place / "study"), log, env, path=path, under=under)


def repeated(study: Path) -> int:
    """Steps that were made more than once."""
    logs = [log.read_text().split() for log in study.glob("runs/*/steps.log")]
    return sum(len(steps) - len(set(steps)) for steps in logs)


def survivors(place: Path, undisturbed: FittingStudy) -> str:
    """What is on disk, as the table says it."""
    return f"{len(FittingStudy.open(place / 'study').evaluations)} of {len(rows_of(undisturbed))} losses"


def test_a_study_that_is_disturbed_again_and_again(place: Path, undisturbed: FittingStudy, record: Record) -> None:
    rows: list[dict[str, str]] = []

    def note(fault: str, how: str, message: str) -> None:
        rows.append({"fault": fault, "how": how, "message": message, "survived": survivors(place, undisturbed)})

    program = start(place)
    program.further()
    listening = {
        (one.name(), connection.laddr.ip)
        for one in program.descendants()
        for connection in one.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening
    program.process.send_signal(signal.SIGKILL)
    assert program.process.wait() == -signal.SIGKILL
    note("driver killed", "SIGKILL to `raylr search`", said(program.printed()))

    program = start(place)
    program.further()
    program.process.send_signal(signal.SIGTERM)
    status, printed = program.end()
    assert status == 143, printed
    note("SIGTERM", "to `raylr search`", last_line(printed))

    program = start(place)
    program.further()
    program.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    program.process.send_signal(signal.SIGINT)
    status, printed = program.end()
    assert status == 130, printed
    note("SIGINT twice", "Ctrl-C, and again 0.3 s later", last_line(printed))

    for name, words in (("raylet", "Ray's process on this machine"), ("gcs_server", "Ray's head process")):
        program = start(place)
        program.further()
        program.part(name).kill()
        status, printed = program.end()
        assert status == 1, printed
        assert words in last_line(printed)
        note({"raylet": "raylet killed", "gcs_server": "GCS killed"}[name], "SIGKILL", last_line(printed))

    status, printed = start(place).end()
    assert status == 0, printed
    same = assert_same(FittingStudy.open(place / "study"), undisturbed)
    assert check_study(place / "study").whole
    assert repeated(place / "study") <= 5 * (psutil.cpu_count() or 1)  # what each trial did since its last checkpoint
    for row in rows:
        record(**row, same_law=same)


def test_a_driver_that_is_stopped_for_a_while(place: Path, undisturbed: FittingStudy, record: Record) -> None:
    """No trial counts as hung because nobody listened to it, and another driver is refused meanwhile."""
    program = start(place)
    program.further()
    program.process.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    other = start(place)
    status, printed = other.end()
    assert status == 2
    assert "another process is running the study" in last_line(printed)
    time.sleep(max(0.0, STOPPED_SECONDS - (time.monotonic() - begun)))
    seconds, there = time.monotonic() - begun, survivors(place, undisturbed)
    program.process.send_signal(signal.SIGCONT)
    status, printed = program.end()
    assert status == 0, printed
    assert "hangs" not in printed
    same = assert_same(FittingStudy.open(place / "study"), undisturbed)
    again = repeated(place / "study")
    assert again == 0
    how = f"SIGSTOP to `raylr search`, and SIGCONT {seconds:.0f} s later"
    survived = f"{there}; {len(rows_of(undisturbed))} at the end, {again} steps made again"
    record("driver stopped", how=how, message=said(printed), survived=survived, same_law=same)


@pytest.mark.parametrize(
    ("fault", "how", "offsets"),
    [
        ("clock set back", "`time.time` loses an hour, in every process", [-3600]),
        (
            "clock years ahead and back",
            "`time.time` gains three years and loses them again, in every process",
            [YEARS, 0],
        ),
    ],
)
def test_a_clock_that_jumps(
    fault: str, how: str, offsets: list[int], place: Path, undisturbed: FittingStudy, record: Record
) -> None:
    clock = place / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(CLOCK.format(offset=str(clock / "offset")))
    write_atomic(clock / "offset", "0")
    program = start(place, path=str(clock))
    for offset in offsets:
        program.further()
        write_atomic(clock / "offset", str(offset))
    there = survivors(place, undisturbed)
    status, printed = program.end()
    assert status == 0, printed
    same = assert_same(FittingStudy.open(place / "study"), undisturbed)
    assert check_study(place / "study").whole
    total = len(rows_of(undisturbed))
    record(fault, how=how, message=said(printed), survived=f"{there} before the last jump, {total} at the end",
           same_law=same)  # fmt: skip


FAULTS = {
    "kill": ("worker killed", "SIGKILL to a trial's process", "killed or crashed"),
    "term": ("worker terminated", "SIGTERM to a trial's process", "ended by SIGTERM"),
    "stop": ("worker stopped", "SIGSTOP to a trial's process", "it hangs"),
    "hang": ("trial hangs", "its function sleeps and reports nothing", "it hangs"),
    "memory of its cgroup": ("out of memory, by the kernel", "a trial's process fills a cgroup of 64 MB", "memory"),
    "leaves children": ("trial forks children", "three, one in a session of its own; none of them ends", ""),
    "prints megabytes": ("trial prints megabytes", "10 MB to its two streams, 2 of them bytes that are no text", ""),
    "returns a lock": ("trial returns something odd", "a lock, which cannot be sent", ""),
}
"""Mark → the fault, how it is made, and words of what the user sees."""


def test_trials_that_are_killed_and_that_hang(place: Path, undisturbed: FittingStudy, record: Record) -> None:
    marks = place / "marks"
    marks.mkdir()
    if memory_group() is None:
        pytest.skip("no cgroup may be made here")
    for name in FAULTS:
        (marks / name).touch()
    with memory_groups(place):
        program = start(place)
        status, printed = program.end()
    assert status == 0, printed
    assert sorted(path.name for path in marks.glob(".*")) == sorted(f".{name}" for name in FAULTS)
    heard = [line for line in messages(printed) if "it is tried again from its last checkpoint" in line]
    study = FittingStudy.open(place / "study")
    same = assert_same(study, undisturbed)
    assert check_study(place / "study").whole
    again, total = repeated(place / "study"), len(rows_of(study))
    assert again <= len(heard), "it did not go on from its checkpoint"  # a busy machine may have made some hang
    for name, (fault, how, words) in FAULTS.items():
        size, lr = (marks / f".{name}").read_text().split()[:2]
        label = f"{size}-lr{format_lr(float(lr))}: "
        found = [line for line in heard if line.startswith(label)]
        assert bool(found) == bool(words), (name, printed)
        assert words in "".join(found[:1])
        survived = f"{total} of {total} losses; {again} of the steps in all were made again"
        record(fault, how=how, message=found[0] if found else "nothing", survived=survived, same_law=same)
    children = [int(pid) for pid in (marks / ".leaves children").read_text().split()[2:]]
    assert len(children) == 3
    assert not [pid for pid in children if psutil.pid_exists(pid)], "children of a trial are left"


def test_counts_of_steps(tmp_path: Path) -> None:
    """What the tests above count."""
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "steps.log").write_text("1\n2\n2\n3\n3\n")
    assert repeated(tmp_path) == 2
    assert Counter(messages(" 0:01 S-lr1.0e-3: it hangs.\n 0:01   S   LR 1\nraylr: no\n")) == Counter(
        ["S-lr1.0e-3: it hangs.", "raylr: no"]
    )
