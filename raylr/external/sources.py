"""The records of a run that another trainer trains: everything that is new in its folder since the last look."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from raylr.external.read import PRESETS, ReadSpec
from raylr.records import tensorboard, wandb
from raylr.records.tail import Tail, Take, plain, whole_lines
from raylr.records.text import Record, json_record, regex_record

OUTPUT = "output.log"
"""File in the run's folder that takes what the command prints."""
STATES = "**/checkpoint-*/trainer_state.json"
"""Where Hugging Face's Trainer writes its history."""


class Sources:
    """Reads the output and the files of one run.

    Args:
        read: What to read.
        folder: The run's folder.
    """

    def __init__(self, read: ReadSpec, folder: Path) -> None:
        self._read, self._folder = read, folder
        self._pattern = re.compile(read.pattern or "")
        self._diverged = re.compile(read.diverged) if read.diverged else None
        self._tails: dict[Path, Tail] = {}
        self._states: dict[Path, tuple[int, int]] = {}
        self._entries: set[str] = set()
        self.diverged = False
        """Whether a line of the output said so."""
        self.lines = 0
        """Lines of the output so far."""
        self.files = 0
        """Files that were found, for formats that read files."""
        self.others: Counter[str] = Counter()
        """Preset → lines that it would have read, of those that were not."""

    def new(self) -> Iterator[Record]:
        """Yield the records that were completed since the last call, in the order of their files."""
        output = self._folder / OUTPUT
        from_output = self._read.file is None and self._read.format in ("json", "regex")
        for data in self._tail(output, whole_lines).new():
            line = plain(data)
            self.lines += 1
            if self._diverged and self._diverged.search(line):
                self.diverged = True
            if from_output and (record := self._line(line)):
                yield record
        if from_output:
            return
        if self._read.format == "trainer_state":
            yield from self._trainer_states()
            return
        files, take, record_of = self._format()
        for path in sorted(self._folder.glob(files)):
            if path == output:
                continue
            for data in self._tail(path, take).new():
                record = record_of(data)
                if record:
                    yield record
        self.files = len(self._tails) - 1

    def _format(self) -> tuple[str, Take, Callable[[bytes], Record | None]]:
        if self._read.format == "tensorboard":
            return self._read.file or tensorboard.FILES, tensorboard.whole_events, tensorboard.event_record
        if self._read.format == "wandb":
            return self._read.file or wandb.FILES, wandb.whole_records, wandb.history_record
        return str(self._read.file), whole_lines, lambda data: self._line(plain(data))

    def _tail(self, path: Path, take: Take) -> Tail:
        if path not in self._tails:
            self._tails[path] = Tail(path, take)
        return self._tails[path]

    def _line(self, line: str) -> Record | None:
        found = regex_record(self._pattern, line) if self._read.format == "regex" else json_record(line)
        if found is None and self.lines < _LOOK:
            for name, pattern in _patterns().items():
                if pattern.search(line):
                    self.others[name] += 1
        return found

    def _trainer_states(self) -> Iterator[Record]:
        paths = list(self._folder.glob(self._read.file or STATES))
        self.files = max(self.files, len(paths))
        for path in paths:
            try:
                about = path.stat()
                if self._states.get(path) == (about.st_mtime_ns, about.st_size):
                    continue
                history = json.loads(path.read_text(encoding="utf-8"))["log_history"]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # being written; it is read at the next look
            self._states[path] = (about.st_mtime_ns, about.st_size)
            for entry in history:
                key = json.dumps(entry, sort_keys=True)
                if key not in self._entries:
                    self._entries.add(key)
                    yield entry


_LOOK = 10_000
"""Lines in which other presets are looked for."""


def _patterns() -> dict[str, re.Pattern[str]]:
    return {name: re.compile(str(keys["pattern"])) for name, keys in PRESETS.items() if "pattern" in keys}
