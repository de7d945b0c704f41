"""Studies in an object store: one whose driver is killed, started again from an empty cache on what counts as another
machine, with the report at its end; and one whose driver is away for so long that another one takes it over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from faulty_program import PATIENCE, Program
from made_study import SPEC, spec_of, study_of
from object_store import Bucket, environment

from raylr.store.check import check_study
from raylr.study import FittingStudy

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def begin(tmp_path: Path, s3_server: str) -> Iterator[Callable[[str, str, str], Program]]:
    programs: list[Program] = []

    def start(spec: str, out: str, cache: str) -> Program:
        env = environment(tmp_path / cache, s3_server)
        programs.append(Program(tmp_path / spec, out, tmp_path / f"{cache}.log", env))
        return programs[-1]

    yield start
    for one in programs:
        one.kill()


def rows(study: FittingStudy, *, times: bool) -> list[str]:
    """What was measured: each loss, and with `times` how long it took, which no second training repeats."""
    return sorted(
        json.dumps({name: value for name, value in row.items() if times or "second" not in name}, sort_keys=True)
        for row in study.evaluations.read().to_pylist()
    )


def test_a_driver_killed_in_the_search_at_an_address(
    texts: Path, bucket: Bucket, tmp_path: Path, begin: Callable[..., Program], record: Callable[..., None]
) -> None:
    spec: dict[str, Any] = yaml.safe_load(SPEC)
    spec["corpus"]["files"] = [str(texts)]
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    plain, address = tmp_path / "plain", bucket.address("runs/killed")

    program = begin("spec.yaml", str(plain), "one")
    assert program.end()[0] == 0, program.printed()
    want = FittingStudy.open(plain)

    first = begin("spec.yaml", address, "killed")
    table = "runs/killed/trials"
    first.wait_for(lambda: len([name for name in bucket.names(table) if name.endswith(".parquet")]) >= 2)
    first.kill()
    with bucket.machine(tmp_path / "looks"):
        there = FittingStudy.open(address)
        kept, ended = rows(there, times=True), len(there.trials)
        assert 0 < len(kept) < len(want.evaluations)
    assert bucket.names("runs/killed/.lock")  # its claim is left: nobody gave it back

    second = begin("spec.yaml", address, "other")
    status, printed = second.end()
    assert status == 0, printed
    (silent,) = [line for line in printed.splitlines() if "held the lease of" in line]
    with bucket.machine(tmp_path / "third"):
        study = FittingStudy.open(address)
        same = rows(study, times=False) == rows(want, times=False)
        assert same
        again = len(set(kept) - set(rows(study, times=True)))
        assert again == 0
        assert check_study(address).whole
        assert study.ending()
    for name in ("law.json", "spec.yaml"):
        assert bucket.get(f"runs/killed/{name}") == (plain / name).read_bytes()
    report = bucket.get("runs/killed/report.html").decode()
    assert "Which learning rate?" in report
    figures = {path.name for path in (plain / "figures").iterdir()}
    assert {Path(name).name for name in bucket.names("runs/killed/figures")} == figures
    assert not bucket.names("runs/killed/.lock")
    assert f"{address}/report.html" in printed
    assert str(tmp_path / "other") not in printed

    third = begin("spec.yaml", address, "third")
    assert "is finished; nothing was run." in third.end()[1]
    total = len(want.evaluations)
    record(
        "driver killed, study in an object store",
        how="SIGKILL to `raylr search --out s3://…`; started again from an empty cache",
        message=" ".join(silent.split()[1:]),
        survived=f"{len(kept)} of {total} losses ({ended} ended parts of runs); {again} of them were measured again",
        same_law=same,
    )


def test_a_driver_that_sleeps_while_another_one_takes_its_study(
    texts: Path, bucket: Bucket, tmp_path: Path, record: Callable[..., None]
) -> None:
    """It is stopped, as a laptop or a virtual machine is put to sleep, until its lease has been taken over, and goes on
    behind the end of the other one: it writes nothing more."""
    address, logs = bucket.address("runs/asleep"), [tmp_path / "first.log", tmp_path / "second.log"]

    def driver(number: int, seconds: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "slow_driver", address, str(texts), str(seconds)]
        env = environment(tmp_path / f"cache-{number}", bucket.server)
        env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with logs[number].open("w") as sink:
            return subprocess.Popen(command, stdout=sink, stderr=sink, env=env)

    def whole() -> dict[str, bytes]:
        return {name: bucket.get(name) for name in bucket.names("runs/asleep")}

    def fragments() -> int:
        return sum(name.endswith(".parquet") for name in bucket.names("runs/asleep/evaluations"))

    first = driver(0, 0.4)
    try:
        deadline = time.monotonic() + PATIENCE
        while fragments() < 2:
            assert first.poll() is None, logs[0].read_text()
            assert time.monotonic() < deadline, logs[0].read_text()
            time.sleep(0.1)
        first.send_signal(signal.SIGSTOP)
        with bucket.machine(tmp_path / "looks"):
            there = rows(FittingStudy.open(address), times=True)
        assert driver(1, 0.0).wait(PATIENCE) == 0, logs[1].read_text()
        before = whole()
        first.send_signal(signal.SIGCONT)
        status = first.wait(PATIENCE)
    finally:
        first.kill()
    message = logs[0].read_text()
    assert status == 1, message
    assert "was lost" in message
    after = whole()
    changed = {name for name in before.keys() | after.keys() if after.get(name) != before.get(name)}
    assert len(changed) <= 1, changed  # a write that had begun when it was stopped may arrive (`raylr.remote.lease`)
    plain = study_of(spec_of(texts), tmp_path / "plain")
    plain.run()
    with bucket.machine(tmp_path / "third"):
        study = FittingStudy.open(address)
        same = rows(study, times=False) == rows(plain, times=False)
        assert same
        kept = len(set(there) & set(rows(study, times=True)))
        assert kept == len(there) > 0
        assert check_study(address).whole
    assert bucket.get("runs/asleep/law.json") == (plain.directory / "law.json").read_bytes()
    total = len(plain.evaluations)
    record(
        "driver asleep, study taken over",
        how="SIGSTOP until another driver has taken the lease and finished the study, then SIGCONT",
        message=message,
        survived=f"{kept} of {total} losses; the other one made {total - kept}, this one wrote nothing then but what "
        f"it was writing when it was stopped ({len(changed)} files)",
        same_law=same,
    )
