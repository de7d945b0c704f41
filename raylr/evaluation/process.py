"""Runs a backend's program as a subprocess and reads its events.

The program is called as `python DRIVER REQUEST EVENTS`: a JSON file, and the number of a file descriptor that takes one
line of JSON for each event (`opencompass_driver` lists them). Its standard input is a pipe that is held open here; the
program ends when that closes, so it never outlives this process. Everything else that it prints goes to
`<program>.log` in the working folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from raylr.errors import EvaluationError
from raylr.telemetry import OFF

_DROPPED = ("RAY_", "DATASET_SOURCE")
"""Environment variables (by prefix) that would change where a program takes its data from, or what it connects to."""
_SAFE_PATH = "-P"
"""Python's option that keeps the driver's own folder out of `sys.path` (`-I` includes it): `backends/lm_eval.py` would
be imported in place of the package lm_eval."""


def log_file(work: Path, program: str) -> Path:
    """Return the path of a program's log."""
    return Path(work) / f"{program.lower()}.log"


@contextmanager
def driver_events(
    python: Path, driver: Path, request: Mapping[str, Any], work: Path, *, program: str, isolated: bool = True
) -> Iterator[Iterator[dict[str, Any]]]:
    """Run a driver on a request and yield its events, except "at" and "failed".

    The program has ended when the context ends.

    Args:
        python: The interpreter.
        driver: The script.
        request: What to do, plain JSON.
        work: The program's working folder.
        program: Its name in messages and of its log.
        isolated: Whether the program imports nothing but what its interpreter's own environment has.

    Raises:
        EvaluationError: While iterating: the program reported a failure, was killed, or ended with a status other
            than 0.
    """
    path, log = Path(work) / "request.json", log_file(work, program)
    path.write_text(json.dumps(request, indent=1))
    read, write = os.pipe()
    with os.fdopen(read, encoding="utf-8") as stream, log.open("ab") as sink:
        try:
            process = subprocess.Popen(
                [str(python), "-I" if isolated else _SAFE_PATH, str(driver), str(path.resolve()), str(write)],
                cwd=work,
                env=_variables(Path(work), isolated),
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                pass_fds=(write,),
                start_new_session=True,
            )
        finally:
            os.close(write)
        try:
            yield _events(process, stream, log, program)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _events(process: subprocess.Popen[bytes], stream: IO[str], log: Path, program: str) -> Iterator[dict[str, Any]]:
    where = "starting"
    for line in stream:
        if not line.endswith("\n"):
            break  # cut off by a kill
        event = json.loads(line)
        where = event.get("where", where)
        if event["event"] == "failed":
            raise EvaluationError(f"{program} failed {where}: {event['error']} (in full: {log})")
        if event["event"] != "at":
            yield event
    status = process.wait()
    if status < 0:
        name = signal.Signals(-status).name
        hint = "; the machine may have run out of memory" if name == "SIGKILL" else ""
        raise EvaluationError(f"{program} was ended by {name} {where}{hint} (in full: {log})")
    if status:
        lines = log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
        raise EvaluationError(f"{program} ended with status {status} {where}: {lines[-1]} (in full: {log})")


def _variables(work: Path, isolated: bool) -> dict[str, str]:
    dropped = (*_DROPPED, "PYTHON", "VIRTUAL_ENV") if isolated else _DROPPED
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    own = {"HF_HOME": str(work.resolve() / "huggingface"), "TOKENIZERS_PARALLELISM": "false"}
    return {**OFF, **kept, **offline, **own}
