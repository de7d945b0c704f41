"""`raylr search` of a study as a program of its own, to be disturbed from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from raylr.study import FittingStudy

PATIENCE = 900.0
"""Seconds to wait for a program; the machine may be busy (300 were too few at a load of 60)."""
RAYS = ("Traceback", "stack", "ray/core", "state-dump", "core_worker", "rpc_client", "FATAL")
"""What no output of raylr holds."""


class Program:
    """`raylr search`, with a Ray of its own.

    Args:
        spec: The spec's file.
        out: The study's folder or address.
        log: File for what it prints.
        env: Further environment variables.
        path: Folder that comes first on its PYTHONPATH.
        under: Words before the command.
    """

    def __init__(
        self,
        spec: Path,
        out: str,
        log: Path,
        env: Mapping[str, str] | None = None,
        path: str = "",
        under: Sequence[str] = (),
    ) -> None:
        self.study, self.log = Path(out), log
        self.before = self.measured()
        own = {"RAY_ADDRESS": "local", "PYTHONPATH": os.pathsep.join(filter(None, [path, *sys.path]))}
        command = [*under, sys.executable, "-m", "raylr", "search", str(spec), "--out", out]
        with log.open("w") as sink:
            self.process = subprocess.Popen(
                command, stdout=sink, stderr=sink, env=os.environ | (env or {}) | own, start_new_session=True
            )

    def measured(self) -> int:
        """How many losses the study has in its folder; 0 of one at an address."""
        return len(FittingStudy.open(self.study).evaluations) if (self.study / "spec.yaml").exists() else 0

    def printed(self) -> str:
        return self.log.read_text()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, self.printed()
            assert time.monotonic() < deadline, self.printed()
            time.sleep(0.1)

    def further(self, losses: int = 4) -> None:
        """Wait until it has measured so many more losses."""
        self.wait_for(lambda: self.measured() >= self.before + losses)
        self.before = self.measured()

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def part(self, name: str) -> psutil.Process:
        """One of Ray's processes of this program."""
        return next(one for one in self.descendants() if name in one.name())

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its status and what it printed, with nothing of Ray's and no traceback."""
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(self.printed())
        printed = self.printed()
        for unwanted in RAYS:
            assert unwanted not in printed, printed
        return status, printed

    def kill(self) -> None:
        """End it and all that it started; of the driver nothing is tidied up."""
        if self.process.poll() is not None:
            return
        children = self.descendants()
        self.process.kill()
        self.process.wait()
        for one in children:
            try:
                one.kill()
            except psutil.Error:
                continue


@contextmanager
def nothing_left(of: Path) -> Iterator[None]:
    """After the block no process runs that names the folder."""
    try:
        yield
    finally:
        for one in psutil.process_iter():
            try:
                if str(of) in " ".join(one.cmdline()):
                    one.kill()
            except psutil.Error:
                continue


def last_line(printed: str) -> str:
    return printed.strip().splitlines()[-1]


def messages(printed: str) -> list[str]:
    """What a program said beside its progress: errors, and sentences about runs, without the time before them."""
    lines = [re.sub(r"^ *\d+:\d\d +", "", line) for line in printed.splitlines()]
    return [line for line in lines if re.match(r"(raylr: |Stopped\.|Ray |[SM]-lr\S+: )", line)]


def said(printed: str) -> str:
    """The last message of a program, or that there was none."""
    found = messages(printed)
    return found[-1] if found else "nothing"
