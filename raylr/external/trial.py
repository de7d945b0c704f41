"""Ray Tune's function trainables of studies with another trainer: one runs a command, one calls a function."""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raylr.analysis.runs import RunEnd
from raylr.errors import InputError, TrainingError
from raylr.execution.ray_private import ended_by_tune
from raylr.execution.reports import number, problem_of
from raylr.external.kept import process_kept
from raylr.external.placeholders import CHECKPOINT, LENGTHS, STOPS, fill
from raylr.external.process import Exit, Process, alone, environment
from raylr.external.rows import Row, Rows
from raylr.external.sources import OUTPUT, Sources
from raylr.spec.external import CommandSpec
from raylr.spec.fields import kind_of
from raylr.store.files import write_atomic
from raylr.trainables.models.loading import load_function

POLL_SECONDS = 0.2
"""Longest time between two looks at what a command wrote; shorter at the beginning, for commands that end soon."""
ATTEMPTS = "attempts.jsonl"
"""File in the run's folder: one line for each time that the command was started and ended without being stopped."""
PROBLEM = "problem"
"""Key of a report in which a trial without a loss gives the reason."""
NEWEST = "checkpoint.json"
"""File in the run's folder with the path of the newest checkpoint that a function reported to Tune."""


def command_trial(config: dict[str, Any]) -> None:
    """Train one run, or continue it, by a command: Ray Tune's function trainable.

    Args:
        config: `command` (fields of `CommandSpec`), `values` (placeholder → value), `dir`, `eval_at`, `stop_at`,
            `batch`, `seq_len`.

    Raises:
        TrainingError: If the command failed; one sentence, to which the last lines of its output belong.
    """
    from ray import tune

    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "600")  # a command that is stopped gets its grace time
    run_command(config, tune.report)


def run_command(config: Mapping[str, Any], report: Callable[[Row], None]) -> None:
    """Run the command of a run and pass on each of its losses; see `command_trial`.

    Rows that it wrote in an earlier process are reported first. `report` may raise to end the run.
    """
    command, folder = CommandSpec.model_validate(config["command"]), Path(config["dir"])
    sources = Sources(command.read, folder)
    eval_at, stop_at = list(config["eval_at"]), int(config["stop_at"])
    rows = Rows(command.read, batch=config["batch"], seq_len=config["seq_len"], eval_at=eval_at)
    run = _Reporter(sources, rows, report, stop_at=stop_at)
    with alone(folder) as lock:
        run.look()
        if run.over:
            return
        before, whole = rows.records, stop_at == eval_at[-1]
        used_names = command.placeholders() | command.file_placeholders()
        words, used = _words(command, config["values"], folder)
        process = Process(words, folder, env=_variables(command, config["values"]), grace=command.grace_seconds,
                          lock=lock)  # fmt: skip
        try:
            ended = _follow(process, run, rows, command)
            if ended is None and not run.diverged and used_names & (LENGTHS if whole else STOPS):
                _wait(process, command.grace_seconds)  # it knows its end, and saves what it has
        finally:
            process.stop()
        if ended is None:
            return
        run.look(last=True)
        _note(folder, used, ended, progress=rows.records > before)
        if run.over:
            return
        if ended.status != 0:
            raise TrainingError(f"{ended} (in full: {folder / OUTPUT})")
        if not run.reported:
            report({PROBLEM: _why_nothing(command, sources, rows)})


class _Reporter:
    """Passes on what is new, until the run is over."""

    def __init__(self, sources: Sources, rows: Rows, report: Callable[[Row], None], *, stop_at: int) -> None:
        self._sources, self._rows, self._report, self._stop_at = sources, rows, report, stop_at
        self.over = self.diverged = False
        self.reported = 0

    def look(self, *, last: bool = False) -> None:
        """Report the new rows; with `last`, what was held back until the command has ended too."""
        for record in self._sources.new():
            for row in self._rows.of(record):
                self._pass_on(row)
                if self.over:
                    return
        if last:
            for row in self._rows.end():
                self._pass_on(row)
        if self._sources.diverged and not self.over:
            tokens = max(self._rows.last, 1)
            self._pass_on({"loss": math.nan, "tokens": tokens})

    def _pass_on(self, row: Row) -> None:
        self.diverged = not math.isfinite(row["loss"])
        self.over = self.diverged or row["tokens"] >= self._stop_at
        self.reported += 1
        self._report(row | {"run_end": RunEnd.DIVERGED.value if self.diverged else None})


def _follow(process: Process, run: _Reporter, rows: Rows, command: CommandSpec) -> Exit | None:
    """Pass on what a command writes until it has ended (return how) or the run is over (None).

    Raises:
        TrainingError: If it hangs, after it has reported something.
    """
    began = since = time.monotonic()
    seen = rows.records
    while (ended := process.poll()) is None:
        run.look()
        if run.over:
            return None
        if rows.records > seen:
            seen, since = rows.records, time.monotonic()
        if time.monotonic() - since > command.report_seconds:
            raise TrainingError(
                f"it reported no loss for {command.report_seconds:g} s and was stopped (command.report_seconds)"
            )
        time.sleep(min(POLL_SECONDS, 0.02 + 0.1 * (time.monotonic() - began)))
    return ended


def _wait(process: Process, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS / 10)


def _words(command: CommandSpec, values: Mapping[str, Any], folder: Path) -> tuple[list[str], str | None]:
    """Return the command line of this start, and the name of the checkpoint from which the run continues."""
    values = {**values, "python": sys.executable}
    for name, template in command.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(fill(template.read_text(encoding="utf-8"), values), encoding="utf-8")
    words = [_found(fill(word, values), command.folder) for word in command.run]
    if command.resume is None or command.checkpoint is None:
        return [*words, *(fill(word, values) for word in command.resume or ())], None
    newest = newest_checkpoint(folder, command.checkpoint)
    if newest is None:
        return words, None
    return [*words, *(fill(word, {**values, CHECKPOINT: newest}) for word in command.resume)], newest.name


def _found(word: str, folder: Path) -> str:
    """Return a word that names a file in `folder` as its full path; a bare word needs a file's ending for that."""
    option, sign, name = word.rpartition("=") if word.startswith("-") else ("", "", word)
    looks = "/" in name or Path(name).suffix
    path = folder / name
    return f"{option}{sign}{path}" if looks and not Path(name).is_absolute() and kind_of(path) != "nothing" else word


def newest_checkpoint(folder: Path, pattern: str) -> Path | None:
    """Return the newest checkpoint of a run from which it can be continued; None if there is none.

    A checkpoint with which the command failed at once, such as one that was not written whole, is passed over.
    """
    bad = set()
    for line in _lines(folder / ATTEMPTS):
        if line.get("status") and not line.get("progress"):
            bad.add(line.get(CHECKPOINT))
    there = [path for path in folder.glob(pattern) if path.name not in bad]
    return max(there, key=lambda path: (_count(path.name), path.stat().st_mtime_ns), default=None)


def _count(name: str) -> int:
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else -1


def _note(folder: Path, used: str | None, ended: Exit, *, progress: bool) -> None:
    line = {CHECKPOINT: used, "status": ended.status, "progress": progress}
    with (folder / ATTEMPTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    except (OSError, ValueError):
        return []


def _variables(command: CommandSpec, values: Mapping[str, Any]) -> dict[str, str]:
    values = {**values, "python": sys.executable}
    return environment(command.folder, {name: fill(value, values) for name, value in command.env.items()})


def _why_nothing(command: CommandSpec, sources: Sources, rows: Rows) -> str:
    """Return why a command that ended well gave no loss, as a sentence."""
    read = command.read
    if rows.keys and read.loss in rows.keys:
        return (
            f"it reported {read.loss!r} but not {rows.key!r}, which counts its {rows.kind}; name the right key in "
            f"command.read (tokens, sequences or steps); its keys are {_shown(rows.keys)}"
        )
    if rows.keys and read.format != "regex":
        return f"it reported no {read.loss!r} (command.read.loss); its keys are {_shown(rows.keys)}"
    if sources.others:
        name, count = sources.others.most_common(1)[0]
        return f"none of its {sources.lines} lines has a loss as command.read says; {count} fit the preset {name}"
    if read.format in ("json", "regex") and read.file is None:
        what = "a JSON object" if read.format == "json" else "what command.read.pattern describes"
        return f"none of the {sources.lines} lines that it printed holds {what}"
    return f"it wrote {sources.files} files of the format {read.format} into its folder, and no loss in them"


def _shown(keys: Mapping[str, None]) -> str:
    names = sorted(keys)
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def function_trial(config: dict[str, Any]) -> None:
    """Train one run by a function of the user: Ray Tune's function trainable.

    A run that was stopped finds its last checkpoint by `ray.tune.get_checkpoint`, as it does in Tune. `sys.exit(0)`
    counts as a return.

    Args:
        config: `trainable` (fields of `TrainableSpec`), `dir`, `stop_at`, and `given`, which the function gets.

    Raises:
        TrainingError: If it ends before `stop_at`.
    """
    from ray import tune
    from ray.train._internal.session import get_session

    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "600")
    function = users_function(config["trainable"]["function"], config["trainable"]["folder"])
    folder = Path(config["dir"])
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = reported_checkpoint(folder)
    if checkpoint is not None and tune.get_checkpoint() is None:
        get_session().loaded_checkpoint = tune.Checkpoint.from_directory(str(checkpoint))
    with process_kept(), _reports_noted(get_session()) as last:
        try:
            function(dict(config["given"]))
        except SystemExit as end:
            if end.code not in (None, 0) or ended_by_tune(end):
                raise
    if last and not problem_of(last) and math.isfinite(number(last["loss"])):
        tokens = int(number(last["tokens"]))
        if tokens < config["stop_at"]:  # it is tried again, as after any other failure
            raise TrainingError(f"it ended after {tokens} of {config['stop_at']} tokens")


@contextmanager
def _reports_noted(session: Any) -> Iterator[dict[str, Any]]:
    """Yield what the function reported last in the block; nothing of a function that is called without Tune."""
    last: dict[str, Any] = {}
    if session is None:
        yield last
        return
    report = session.report

    def noted(metrics: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(metrics, Mapping):
            last.clear()
            last.update(metrics)
        return report(metrics, *arguments, **options)

    session.report = noted
    try:
        yield last
    finally:
        session.report = report


def users_function(name: str, folder: str | Path) -> Callable[[dict[str, Any]], Any]:
    """Return the function of a study's `trainable`.

    Raises:
        InputError: If it is not there, or is one whose call runs nothing of it.
    """
    function = load_function("trainable", name, folder)
    kinds = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if any(kind(function) for kind in kinds):
        raise InputError(
            f"trainable: {name} is a generator or an async function, which trains nothing when it is called; give an "
            "ordinary one that calls ray.tune.report"
        )
    return function


def note_checkpoint(folder: Path, checkpoint: str) -> None:
    """Note the newest checkpoint that a function reported to Tune for the run in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / NEWEST, json.dumps({"path": checkpoint}))


def reported_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that a function reported to Tune for the run in `folder`, if it is still there."""
    try:
        path = Path(json.loads((folder / NEWEST).read_text(encoding="utf-8"))["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return path if path.is_dir() else None
