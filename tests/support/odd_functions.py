"""What a user's function may do, besides training: each is the body of a trial that was to train.

`FAILURES` are ways to end early; `HABITS` disturb the process that they run in, and the training goes on.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil

MEGABYTE = 2**20
GROUP = "cgroup"
"""File beside the study in which a trial notes the cgroup that it made."""


class TwoArguments(Exception):
    """It is pickled, and cannot be made again: its constructor takes other arguments than `args` holds."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the data loader gave up with code {code}: {reason}")


class HoldsALock(Exception):
    """It cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("a lock is held")
        self.lock = threading.Lock()


class NoText(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Base(BaseException):
    """Not an `Exception`."""


class Sly(Exception):
    """Its text is another type's."""

    def __str__(self) -> Any:
        return 7


def raises(error: Callable[[], BaseException]) -> Callable[[Path], NoReturn]:
    def fail(folder: Path) -> NoReturn:
        raise error()

    return fail


def chained(folder: Path) -> NoReturn:
    try:
        raise KeyError("batch")
    except KeyError as error:
        raise RuntimeError("the loader failed") from error


def deep(folder: Path) -> None:
    deep(folder)


def crashes(folder: Path) -> None:
    ctypes.string_at(0)


def little_address_space(folder: Path) -> None:
    """The process may take 64 MB more than it has, and wants more than that and all it has freed before."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 64 * MEGABYTE, hard))
    try:
        bytearray(size + 512 * MEGABYTE)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def memory_group() -> Path | None:
    """A new memory cgroup below that of this process; None where none may be made."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kinds, place = line.split(":", 2)
        if kinds in ("memory", ""):
            root = Path("/sys/fs/cgroup", kinds) / place.lstrip("/")
            group, limit = root / f"raylr-fault-{os.getpid()}", "memory.limit_in_bytes" if kinds else "memory.max"
            try:
                group.mkdir(exist_ok=True)
                (group / limit).write_text(str(64 * MEGABYTE))
            except OSError:
                with suppress(OSError):
                    group.rmdir()
                continue
            return group
    return None


@contextmanager
def memory_groups(place: Path) -> Iterator[None]:
    """Remove in the end the cgroup that a trial noted beside its study, and this process's own."""
    try:
        yield
    finally:
        noted = [Path(path.read_text()) for path in place.glob(GROUP)]
        for group in [*noted, memory_group()]:
            if group is not None:
                group.rmdir()


def fills_its_cgroup(folder: Path) -> None:
    """The kernel ends the process: it may have 64 MB more than it has, and takes 512."""
    group = memory_group()
    assert group is not None
    (folder.absolute().parents[2] / GROUP).write_text(str(group))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    everything = [b"x" * MEGABYTE for _ in range(512)]
    assert everything


FAILURES: dict[str, Callable[[Path], Any]] = {
    "an exception that cannot be pickled": raises(HoldsALock),
    "an exception that cannot be unpickled": raises(lambda: TwoArguments(7, "no more data")),
    "an exception without a text": raises(NoText),
    "an exception whose text is a number": raises(Sly),
    "an empty exception": raises(ValueError),
    "an exception of bytes and a mapping": raises(lambda: ValueError(b"\xff\x00", {"a": None})),
    "an exception of many lines": raises(lambda: ValueError("shapes differ:\n  expected (3, 4)\n\n  got (4, 3)\n")),
    "an exception of a megabyte": raises(lambda: ValueError("x" * MEGABYTE)),
    "an exception of a megabyte of lines": raises(lambda: ValueError("a tensor\n" * (MEGABYTE // 9))),
    "an exception of control characters": raises(lambda: ValueError("\x1b[31mred\x1b[0m\r\0\u202e\ud800")),
    "a group of exceptions": raises(lambda: ExceptionGroup("two failed", [ValueError("one"), KeyError("two")])),
    "a chain of exceptions": chained,
    "a base exception": raises(lambda: Base("no Exception")),
    "KeyboardInterrupt": raises(KeyboardInterrupt),
    "GeneratorExit": raises(GeneratorExit),
    "StopIteration": raises(lambda: StopIteration(3)),
    "CancelledError": raises(asyncio.CancelledError),
    "recursion": deep,
    "sys.exit(0)": raises(lambda: SystemExit(0)),
    "sys.exit(3)": raises(lambda: SystemExit(3)),
    "sys.exit(text)": raises(lambda: SystemExit("no GPU found")),
    "os._exit(0)": lambda folder: os._exit(0),
    "os._exit(3)": lambda folder: os._exit(3),
    "SIGABRT": lambda folder: signal.raise_signal(signal.SIGABRT),
    "SIGSEGV": crashes,
    "little address space": little_address_space,
}


def removes_its_folder(folder: Path) -> None:
    """That of the run, and Tune's of the trial, which is the current one."""
    shutil.rmtree(folder)
    here = Path.cwd()
    if any(one.name.startswith("session_20") or one == folder.parents[2] for one in here.parents):  # nobody else's
        shutil.rmtree(here)


def changes_its_folder(folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir(parents=True)
    os.chdir(gone)
    gone.rmdir()


def closes_its_streams(folder: Path) -> None:
    sys.stdout.close()
    sys.stderr.close()
    os.close(1)
    os.close(2)
    sys.stdout = None  # type: ignore[assignment]


def clears_its_environment(folder: Path) -> None:
    os.environ.clear()
    os.environ |= {"RAY_ADDRESS": "nowhere:1", "TUNE_RESULT_DIR": "/nowhere", "PYTHONPATH": "/nowhere"}


def masks_signals(folder: Path) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    ctypes.CDLL(None).signal(signal.SIGTERM, 1)  # SIG_IGN, which Python lets the main thread alone set


def leaves_threads(folder: Path) -> None:
    for _ in range(4):
        threading.Thread(target=time.sleep, args=(10_000,), daemon=False).start()


def forks(folder: Path) -> str:
    """Children that stay, one of them in a session of its own; return their ids."""
    pids = [subprocess.Popen(["sleep", "4999"], start_new_session=own).pid for own in (False, True)]
    if (pid := os.fork()) == 0:
        os.execvp("sleep", ["sleep", "4999"])
    return " ".join(map(str, [*pids, pid]))


def prints_megabytes(folder: Path) -> None:
    for _ in range(4):
        print("x" * MEGABYTE)
        print("y\n" * (MEGABYTE // 2), file=sys.stderr)
    os.write(1, b"\xff\x00" * MEGABYTE)


def sets_up_libraries(folder: Path) -> None:
    warnings.simplefilter("error")
    logging.disable(logging.CRITICAL)
    logging.getLogger().handlers.clear()
    logging.getLogger().addHandler(logging.FileHandler("/dev/full"))
    random.seed(0)
    gc.disable()
    os.umask(0o777)
    sys.path.clear()
    sys.setrecursionlimit(200)
    threading.excepthook = sys.excepthook = lambda *_: os._exit(1)


def replaces_the_clock(folder: Path) -> None:
    time.time = lambda: -1.0


def returns_a_lock(folder: Path) -> None:
    """The file makes `faulty_trainer` return something that nobody expects, and that cannot be sent."""
    (folder / "returns").touch()


HABITS: dict[str, Callable[[Path], Any]] = {
    "removes its folder": removes_its_folder,
    "changes to a folder that is gone": changes_its_folder,
    "closes its streams": closes_its_streams,
    "clears its environment": clears_its_environment,
    "masks signals": masks_signals,
    "leaves threads": leaves_threads,
    "leaves children": forks,
    "prints megabytes": prints_megabytes,
    "returns a lock": returns_a_lock,
    "sets up libraries": sets_up_libraries,
    "replaces the clock": replaces_the_clock,
}


def takes_memory(folder: Path) -> None:
    """Until the machine has less left than FAULTY_MEMORY bytes; somebody should end the process then."""
    everything = []
    while psutil.virtual_memory().available > int(os.environ["FAULTY_MEMORY"]):
        everything.append(b"x" * (64 * MEGABYTE))
    time.sleep(60)


ODD: dict[str, Callable[[Path], Any]] = (
    FAILURES
    | HABITS
    | {
        "memory of its cgroup": fills_its_cgroup,
        "takes memory": takes_memory,
    }
)
"""All of them by their names, which are those of the marks."""
