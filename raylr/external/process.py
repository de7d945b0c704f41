"""A command in a folder of its own, which never outlives the process that started it (`raylr.external.supervisor`)."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from raylr.errors import TrainingError
from raylr.external import supervisor
from raylr.external.sources import OUTPUT

LOCK = ".lock"
"""File in the run's folder that is locked while anything of the run may still be alive."""
_SPARE_SECONDS = 20.0
"""Time that the supervisor gets for its own work, beside the grace time of the command."""


@dataclass(frozen=True)
class Exit:
    """How a command ended."""

    status: int
    """Exit status; -n if it was ended by signal n."""
    stopped: bool
    """Whether raylr ended it."""

    def __str__(self) -> str:
        if self.status >= 0:
            return f"it exited with status {self.status}"
        try:
            name = signal.Signals(-self.status).name
        except ValueError:
            name = f"signal {-self.status}"
        hint = "; the machine may have run out of memory" if name == "SIGKILL" else ""
        return f"it was ended by {name}{hint}"


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Hold a run's folder until everything that runs in it has ended; yields the descriptor to be inherited.

    A command of a study that was killed may still be saving its checkpoint: this waits for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
        yield file.fileno()


class Process:
    """A running command.

    Args:
        words: Its command line.
        folder: Its working folder; its output is appended to `OUTPUT` there.
        env: All its environment variables.
        grace: Seconds between SIGTERM and SIGKILL.
        lock: Descriptor that `alone` gave.

    Raises:
        TrainingError: If it cannot be started; raised by `poll`.
    """

    def __init__(self, words: Sequence[str], folder: Path, *, env: Mapping[str, str], grace: float, lock: int) -> None:
        self._grace = grace
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(Path(supervisor.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(lock,),
        )
        request = {
            "words": list(words),
            "folder": str(folder),
            "env": dict(env),
            "log": str(folder / OUTPUT),
            "grace": grace,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        self._exit: Exit | None = None

    def poll(self) -> Exit | None:
        """Return how the command ended; None while it runs."""
        if self._exit is None and self._process.poll() is not None:
            self._exit = self._read_exit()
        return self._exit

    def stop(self) -> Exit:
        """End the command and everything that it started: SIGTERM, then SIGKILL. Return how it ended."""
        assert self._process.stdin is not None
        if self._exit is None:
            self._process.stdin.close()
            try:
                self._process.wait(self._grace + _SPARE_SECONDS)
            except subprocess.TimeoutExpired:  # the command is its child and dies with it
                self._process.kill()
                self._process.wait()
            self._exit = self._read_exit()
        return self._exit

    def _read_exit(self) -> Exit:
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        with self._process.stdout as stream:
            lines = stream.read().splitlines()
        found = json.loads(lines[-1]) if lines else {"status": self._process.returncode or -signal.SIGKILL}
        if "error" in found:
            self._exit = Exit(127, stopped=False)
            raise TrainingError(found["error"])
        return Exit(int(found["status"]), bool(found.get("stopped", False)))


NOT_PASSED = ("RAY_", "TORCHELASTIC_")
"""Beginnings of variables that a command does not get."""
DISTRIBUTED = frozenset(
    [
        *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE"),
        *("MASTER_ADDR", "MASTER_PORT", "CROSS_RANK", "CROSS_SIZE", "LOCAL_SIZE"),
    ]
)
"""Variables of torch.distributed and DeepSpeed that a command does not get."""


def environment(folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command: this process's, with `folder` on Python's path.

    Variables of Ray are left out, and those that make a process one of several of torch.distributed: a command is a job
    of its own, and its launcher sets them.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(NOT_PASSED) and name not in DISTRIBUTED
    }
    paths = [str(folder), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"} | dict(more)
