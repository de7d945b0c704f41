"""What every source gives: rows of plain values with their place, and whether several rows may be one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source: a run, or one evaluation of a run.

    Args:
        values: Name of a column or metric -> value.
        where: Where it was read, such as "sweep.csv, line 4".
    """

    values: Mapping[str, Any]
    where: str


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What was read from one place."""

    rows: list[Row]
    columns: list[str]
    """All names in the rows, in the order of the source."""
    where: str
    """What was read, for messages."""
    config: frozenset[str] = frozenset()
    """Columns that a tracker stored as settings of the run."""
    history: bool = False
    """Whether the rows are evaluations of runs that the key `run` tells apart."""
    notes: list[str] = field(default_factory=list)
    """Notes for the reader."""
