"""A small program between raylr and a command: it starts the command, and ends it even if raylr is killed.

Called as `python supervisor.py`. Its standard input is a pipe: the first line is a JSON object (words, folder, env,
log, grace); when the pipe closes, because the trial was stopped or its process died, the command and everything that
it started get SIGTERM, and after `grace` seconds SIGKILL. It prints how the command ended as one line of JSON. Nothing
of raylr is imported here, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""Options of Linux's prctl (sys/prctl.h)."""
POLL_SECONDS = 0.05


def main() -> None:
    """Run the command of the request on standard input."""
    request = json.loads(sys.stdin.buffer.readline())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = [False]
    signal.signal(signal.SIGTERM, lambda *_: stop.__setitem__(0, True))
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # processes whose parent has died become children of this one
    try:
        with Path(request["log"]).open("ab") as sink:
            process = subprocess.Popen(
                request["words"],
                cwd=request["folder"],
                env=request["env"],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )
    except OSError as error:
        print(json.dumps({"error": f"cannot start {request['words'][0]}: {error.strerror or error}"}), flush=True)
        return
    stopped = False
    while process.poll() is None:
        ready, _, _ = select.select([sys.stdin], [], [], POLL_SECONDS)
        if ready or stop[0]:  # nothing follows the request, so that this is the end of the pipe
            stopped = process.poll() is None
            end(process, float(request["grace"]))
            break
    signal_all(signal.SIGKILL)  # what it left behind
    with contextlib.suppress(OSError):
        print(json.dumps({"status": process.returncode, "stopped": stopped}), flush=True)


def end(process: subprocess.Popen[Any], grace: float) -> None:
    """End a process group and all descendants: SIGTERM, and SIGKILL after `grace` seconds."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    signal_all(signal.SIGKILL)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def signal_all(number: int) -> None:
    """Send a signal to all descendants of this process, also those in sessions of their own (torchrun's workers)."""
    for pid in descendants():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def descendants() -> list[int]:
    """Return the processes that descend from this one; none where there is no /proc."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(path.parent.name)] = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
    found: list[int] = []
    wanted = {os.getpid()}
    while wanted:
        wanted = {pid for pid, parent in parents.items() if parent in wanted}
        found += wanted
    return found


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, int(value), 0, 0, 0)


if __name__ == "__main__":
    main()
