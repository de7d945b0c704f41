"""Rows with their quantities: numbers, texts, how the run ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raylr.analysis.runs import RunEnd
from raylr.errors import DataError
from raylr.imports import values as value_of
from raylr.imports.names import Match
from raylr.imports.options import ImportOptions
from raylr.imports.rows import Row

TEXTS = ("run", "size", "optimizer", "schedule")
PLAIN = (
    "lr",
    "loss",
    "loss_stderr",
    "seed",
    "step",
    "total_steps",
    "beta1",
    "beta2",
    "weight_decay",
    "current_lr",
    "warmup_tokens",
)
COUNTS = ("params", "params_active", "tokens", "target_tokens", "batch", "seq_len")


@dataclass
class Parsed:
    """A row with its quantities."""

    row: Row
    numbers: dict[str, float | None]
    texts: dict[str, str | None]
    by: dict[str, str]
    end: RunEnd | None
    diverged: bool


class Reader:
    """Turns rows into quantities; a value that was read before is not read again."""

    def __init__(self, matches: Mapping[str, Match], options: ImportOptions) -> None:
        self._matches, self._options = matches, options
        self._seen: dict[tuple[str, type, Any], Any] = {}

    def parse(self, row: Row) -> Parsed:
        """Return the quantities of a row."""
        numbers = {name: self._read(name, row, self._count) for name in COUNTS}
        numbers |= {name: self._read(name, row, self._plain) for name in PLAIN}
        texts = {name: self._read(name, row, self._text) for name in TEXTS}
        return Parsed(
            row=row,
            numbers=numbers,
            texts=texts,
            by={name: value_of.text(row.values.get(name, "")) for name in self._options.by},
            end=self._read("state", row, lambda name, value, where: value_of.end_of(value, where)),
            diverged=bool(self._read("diverged", row, value_of.flag)),
        )

    def _read(self, name: str, row: Row, read: Callable[[str, Any, str], Any]) -> Any:
        match = self._matches.get(name)
        value = self._options.fixed.get(name) if match is None else row.values.get(match.column)
        if value is None:
            return None
        key = (name, type(value), value)
        try:
            return self._seen[key]
        except (KeyError, TypeError):  # new, or a list
            found = read(name, value, row.where) if read is not value_of.flag else read(value, name, row.where)
            if isinstance(value, str | int | float):
                self._seen[key] = found
            return found

    def _count(self, name: str, value: Any, where: str) -> float | None:
        if name in ("tokens", "target_tokens") and _zero(value):  # an evaluation before the first step
            return 0.0 if name == "tokens" else None
        match = self._matches.get(name)
        return value_of.count(value, name, where, self._options.units.get(name, match.scale if match else 1.0))

    def _plain(self, name: str, value: Any, where: str) -> float | None:
        if name in ("lr", "seed"):
            return value_of.positive(value, name, where) if name == "lr" else value_of.whole(value, name, where)
        found = value_of.number(value, name, where)
        if name not in ("loss", "current_lr") and found is not None and not 0 <= found < math.inf:
            raise DataError(f"{where}: {name} is {found}, and must be a finite number from 0 on")
        if name in ("step", "total_steps") and found is not None and found >= value_of.MOST:
            raise DataError(f"{where}: {name} is {found:g}, which is not a count")
        return found

    def _text(self, name: str, value: Any, where: str) -> str | None:
        return None if value_of.missing(value) else value_of.text(value)


def _zero(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and float(value) == 0
    except (TypeError, ValueError, OverflowError):
        return False
