"""From the records of another trainer to the rows that a study takes: loss and tokens, each point once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from raylr.external.read import ReadSpec
from raylr.records.text import Record

Row = dict[str, Any]
NEAR = 0.005
"""A trainer's own count of tokens may differ by this fraction (padding, sequences that are dropped): a last measurement
so close to the end of the run counts as its end."""
MOST_TOKENS = 2.0**62
"""Larger counts fit into no column of the run table, and were not read as what they are."""
_OWN = frozenset(
    ("loss", "tokens", "step", "trial", "role", "size", "params", "params_active", "lr", "current_lr", "train_loss",
     "aux_loss", "grad_norm", "tokens_per_second", "flops", "diverged", "seed", "run_end")
)  # fmt: skip
"""Columns of the run table that have a type or a meaning already."""


class Rows:
    """Makes rows of records.

    Args:
        read: Which keys hold what.
        batch: Tokens of one optimizer step.
        seq_len: Tokens of one sequence, if known.
        eval_at: Token counts at which the loss is wanted, rising; the last ends the run.
    """

    def __init__(self, read: ReadSpec, *, batch: int, seq_len: int | None, eval_at: Sequence[int]) -> None:
        self._read, self._eval_at = read, list(eval_at)
        self.kind, self.key = read.position
        self._unit = {"tokens": 1, "steps": batch, "sequences": seq_len or math.nan}[self.kind]
        self._batch, self._end = batch, self._eval_at[-1]
        self._by_step: dict[Any, Record] = {}
        self._held: Row | None = None
        self._losses: list[float] = []
        self._latest: Row = {}
        self.last = 0
        """Tokens of the last record that counted."""
        self.records = 0
        """Records that had a loss, repeated ones too."""
        self.keys: dict[str, None] = {}
        """Keys that were seen."""

    def of(self, record: Record) -> Iterator[Row]:
        """Yield the rows that a record completes.

        A record at tokens that were seen before is that of a run that went back to a checkpoint: it yields nothing.
        """
        if len(self.keys) < 200:
            self.keys.update(dict.fromkeys(record))
        if self._read.format == "tensorboard":  # one event a scalar
            record = self._by_step.setdefault(record.get("step"), {}) | record
            self._by_step[record.get("step")] = record
        loss, place = _number(record.get(self._read.loss)), _number(record.get(self.key))
        if loss is None or place is None or not abs(place * self._unit) < MOST_TOKENS:
            return
        self.records += 1
        tokens = round(place * self._unit)
        if tokens <= self.last or tokens <= 0:
            return
        self.last = tokens
        if abs(tokens - self._end) < self._batch:
            tokens = self._end
        row = {"loss": loss, "tokens": tokens, **self._columns(record, place)}
        yield from self._due(self._averaged(row) if self._read.average else row)

    def end(self) -> Iterator[Row]:
        """Yield what is left when the trainer has ended."""
        if self._held is not None:
            yield self._held | {"tokens": self._end}
            self._held = None
        elif self._losses and self._latest["tokens"] >= (1 - NEAR) * self._end:
            yield self._latest | {"tokens": self._end, "loss": math.fsum(self._losses) / len(self._losses)}
            self._losses = []

    def _due(self, row: Row | None) -> Iterator[Row]:
        if row is None:
            return
        if self._held is not None and row["tokens"] <= self._end:
            yield self._held
        self._held = None
        if abs(row["tokens"] - self._end) > NEAR * self._end or not math.isfinite(row["loss"]):
            yield row
        elif row["tokens"] >= self._end:
            yield row | {"tokens": self._end}
        else:
            self._held = row

    def _averaged(self, row: Row) -> Row | None:
        """Return the mean of the losses since the last point at which one was wanted, if this row reaches the next."""
        if not math.isfinite(row["loss"]):
            return row
        self._losses.append(row["loss"])
        self._latest = row
        near = NEAR * self._end if len(self._eval_at) > 1 else 0.0
        if row["tokens"] < self._eval_at[0] - near:
            return None
        while len(self._eval_at) > 1 and self._eval_at[0] <= row["tokens"] + near:
            self._eval_at.pop(0)
        mean, self._losses = math.fsum(self._losses) / len(self._losses), []
        return row | {"loss": mean}

    def _columns(self, record: Record, place: float) -> Row:
        found: Row = {"step": round(place)} if self.kind == "steps" else {}
        lr = _number(record.get(self._read.lr or ("lr" if self._read.format == "regex" else "")))
        if lr is not None:
            found["current_lr"] = lr
        if self._read.format in ("regex", "json"):
            taken = {*_OWN, self._read.loss, self.key}
            others = {key: _number(value) for key, value in record.items() if key not in taken}
            found |= {key: value for key, value in others.items() if value is not None}
        return found


def _number(value: Any) -> float | None:
    """Return a number, given as such or as text; None for anything else. Some writers put null in place of a missing
    value."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value.replace(",", "") if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        return None
