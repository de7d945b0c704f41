"""What the processes of trials do that report nothing: whether they are stopped, and how long they have computed.

A trial writes its process id into a folder that the driver made; the driver reads the rest from /proc. Of trials on
other nodes, and where there is no /proc, nothing is known.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What a process does."""

    stopped: bool
    """Whether a signal such as SIGSTOP has stopped it."""
    cpu_seconds: float
    """Processor time that it has used so far, of all its threads."""


@contextmanager
def process_notes() -> Iterator[Path]:
    """A folder of this machine for the block, in which trials note their processes."""
    folder = Path(tempfile.mkdtemp(prefix="raylr-trials-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def note_process(folder: Path, trial: str) -> None:
    """Note that this process runs a trial; on another node, where the folder is not there, nothing is done."""
    with suppress(OSError, IndexError):
        (folder / trial).write_text(f"{os.getpid()} {_fields(os.getpid())[19]}")


def activity(folder: Path, trial: str) -> Activity | None:
    """Return what the process of a trial does; None if that is not known."""
    with suppress(OSError, ValueError, IndexError):
        pid, started = (folder / trial).read_text().split()
        fields = _fields(int(pid))
        if fields[19] == started:  # else the id belongs to another process by now
            ticks = int(fields[11]) + int(fields[12])
            return Activity(stopped=fields[0] == "T", cpu_seconds=ticks / os.sysconf("SC_CLK_TCK"))
    return None


def _fields(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat behind the name, which may hold anything: the state is the first."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
