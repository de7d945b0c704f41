"""A study in an object store whose driver is killed, started again from an empty cache on what counts as another
machine, with the report at its end."""

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

import psutil
import pytest
import yaml
from made_study import SPEC
from object_store import Bucket, environment

from raylr.store.check import check_study
from raylr.study import FittingStudy

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1500)]
PATIENCE = 600.0
"""Seconds to wait for a program: two of them are Ray's start, and 90 those after which a lease is taken over."""


class Program:
    """`raylr search` of a study at a place, with a Ray of its own, on a machine with this cache."""

    def __init__(self, spec: Path, out: str, cache: Path, server: str) -> None:
        self.log = spec.with_name(f"{cache.name}.log")
        own = {"RAY_ADDRESS": "local", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "raylr", "search", str(spec), "--out", out]
        with self.log.open("w") as sink:
            self.process = subprocess.Popen(
                command, stdout=sink, stderr=sink, env=environment(cache, server) | own, start_new_session=True
            )

    def printed(self) -> str:
        return self.log.read_text()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, self.printed()
            assert time.monotonic() < deadline, self.printed()
            time.sleep(0.1)

    def end(self) -> str:
        """Wait for a good end; return what it printed, with nothing of Ray's and no traceback."""
        status, printed = self.process.wait(PATIENCE), self.printed()
        assert status == 0, printed
        for unwanted in ("Traceback", "stack", "ray/core", "core_worker", "FATAL"):
            assert unwanted not in printed, printed
        return printed

    def kill(self) -> None:
        """End it and all that it started; of the driver nothing is tidied up."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for one in children:
            try:
                one.kill()
            except psutil.Error:
                continue


@pytest.fixture
def begin(tmp_path: Path, s3_server: str) -> Iterator[Callable[[str, str], Program]]:
    programs: list[Program] = []

    def start(spec: str, out: str, cache: str) -> Program:
        programs.append(Program(tmp_path / spec, out, tmp_path / cache, s3_server))
        return programs[-1]

    yield start  # type: ignore[misc]
    for one in programs:
        if one.process.poll() is None:
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
    program.end()
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
    printed = second.end()
    (silent,) = [line for line in printed.splitlines() if "held the lease of" in line]
    with bucket.machine(tmp_path / "third"):
        study = FittingStudy.open(address)
        assert rows(study, times=False) == rows(want, times=False)
        assert set(kept) <= set(rows(study, times=True))  # no loss that was there was measured again
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
    assert "is finished; nothing was run." in third.end()
    total = len(want.evaluations)
    record(
        "driver killed, study in an object store",
        how="SIGKILL to `raylr search --out s3://…`; started again from an empty cache",
        message=" ".join(silent.split()[1:]),
        survived=f"{len(kept)} of {total} losses ({ended} ended parts of runs); none of them was measured again",
    )
