"""`driver_events` by a process that several tests share (`driver_server`): what they test is what is evaluated, not how
a program starts, which costs ten seconds of a processor each time."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raylr.evaluation.process import _events, _variables, log_file

SERVER = Path(__file__).with_name("driver_server.py")


class SharedDriver:
    """The process. `driver_events` has the signature of `raylr.evaluation.process.driver_events`."""

    def __init__(self, python: Path, driver: Path, modules: Sequence[str], *, isolated: bool = True) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="driver-")
        flags = "-I" if isolated else "-P"
        with (Path(self._folder.name) / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(python), flags, str(SERVER), str(driver), ",".join(modules)],
                env=_variables(Path(self._folder.name), isolated),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
            )
        self._requests, self._status = 0, 0
        assert self._line() == "ready\n"

    @contextmanager
    def driver_events(
        self, python: Path, driver: Path, request: Mapping[str, Any], work: Path, *, program: str, isolated: bool = True
    ) -> Iterator[Iterator[dict[str, Any]]]:
        path = Path(work) / "request.json"
        path.write_text(json.dumps(request))
        with self._asked(work, program, request=str(path.resolve())) as events:
            yield events

    def run(self, code: str) -> list[dict[str, Any]]:
        """Run Python there, where `driver` is the driver and `emit` takes the events that are returned."""
        work = Path(self._folder.name)
        with self._asked(work, "code", code=code) as events:
            return list(events)

    @contextmanager
    def _asked(self, work: Path, program: str, **asked: str) -> Iterator[Iterator[dict[str, Any]]]:
        assert self._process.stdin is not None
        log = log_file(work, program)
        self._requests, self._status = self._requests + 1, None
        fifo = Path(self._folder.name) / f"events-{self._requests}"
        os.mkfifo(fifo)
        env = {key: value for key, value in os.environ.items() if key.startswith("COMPASS")}
        places = {"work": str(work.resolve()), "log": str(log.resolve()), "events": str(fifo), "env": env}
        self._process.stdin.write(json.dumps(asked | places) + "\n")
        try:
            with fifo.open(encoding="utf-8") as stream:
                yield _events(self, stream, log, program)  # type: ignore[arg-type]  # of a process it needs `wait` alone
        finally:
            self.wait()

    def wait(self) -> int:
        """Return the exit status of the request, as a process would."""
        if self._status is None:
            self._status = int(self._line())
        return self._status

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (Path(self._folder.name) / "server.log").read_text()
        return line

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._folder.cleanup()
