"""Single values of a source: numbers, counts and words, each refused with its place if it cannot be read."""

from __future__ import annotations

import math
from typing import Any

from raylr.analysis._checks import COUNTS
from raylr.analysis.runs import RunEnd
from raylr.analysis.units import parse_count
from raylr.errors import DataError, InputError

MISSING = ("", "-", "–", "na", "n/a", "null", "none", "<na>", "#n/a", "missing")
MOST = 2.0**63
"""No count is so large: the tables of runs hold integers of 64 bits."""
DIVERGED = ("nan", "inf", "-inf", "+inf", "infinity", "-infinity", "diverged", "-nan")
STATES = {
    "finished": RunEnd.COMPLETED,
    "completed": RunEnd.COMPLETED,
    "complete": RunEnd.COMPLETED,
    "done": RunEnd.COMPLETED,
    "success": RunEnd.COMPLETED,
    "succeeded": RunEnd.COMPLETED,
    "terminated": RunEnd.COMPLETED,  # Ray Tune's word for a trial that has ended
    "ok": RunEnd.COMPLETED,
    "running": RunEnd.PAUSED,
    "pending": RunEnd.PAUSED,
    "scheduled": RunEnd.PAUSED,
    "queued": RunEnd.PAUSED,
    "paused": RunEnd.PAUSED,
    "unfinished": RunEnd.PAUSED,
    "preempted": RunEnd.PAUSED,
    "preempting": RunEnd.PAUSED,
    "crashed": RunEnd.FAILED,
    "failed": RunEnd.FAILED,
    "error": RunEnd.FAILED,
    "killed": RunEnd.FAILED,
    "stopped": RunEnd.FAILED,
    "cancelled": RunEnd.FAILED,
    "canceled": RunEnd.FAILED,
    "timeout": RunEnd.FAILED,
    "oom": RunEnd.FAILED,
    "diverged": RunEnd.DIVERGED,
    "nan": RunEnd.DIVERGED,
    "exploded": RunEnd.DIVERGED,
    "pruned": RunEnd.PRUNED,
    "truncated": RunEnd.TRUNCATED,
    "no_report": RunEnd.NO_REPORT,
}
"""Words of trackers and schedulers for how a run ended."""
YES, NO = ("true", "yes", "1", "1.0", "t", "y"), ("false", "no", "0", "0.0", "f", "n")


def missing(value: Any) -> bool:
    """Return whether a cell holds nothing. NaN in a number's place is a value: of a run that diverged."""
    return value is None or (isinstance(value, str) and value.strip().lower() in MISSING)


def number(value: Any, field: str, where: str) -> float | None:
    """Return a number, None if the cell is empty. Raises DataError if it is something else."""
    if missing(value):
        return None
    if isinstance(value, bool):
        raise DataError(f"{where}: {field} is {value}, not a number")
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in DIVERGED:
            return math.inf if text.lower() in ("inf", "+inf", "infinity") else math.nan
        try:
            return float(text) if "_" not in text else float(text.replace("_", ""))
        except ValueError:
            hint = "; write a decimal point" if text.count(",") == 1 and text.replace(",", "").isdigit() else ""
            raise DataError(f"{where}: {field} is {text[:40]!r}, not a number{hint}") from None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{where}: {field} is {str(value)[:40]!r}, not a number") from None


def positive(value: Any, field: str, where: str) -> float | None:
    """Return a finite number above zero that fits can take, None if the cell is empty. Raises DataError for anything
    else."""
    found = number(value, field, where)
    if found is not None and not 0 < found < math.inf:
        raise DataError(f"{where}: {field} is {str(value)[:40]}, and must be a finite number above zero")
    if found is not None and not COUNTS[0] <= found <= COUNTS[1]:
        raise DataError(f"{where}: {field} is {str(value)[:40]}, and must lie between {COUNTS[0]:g} and {COUNTS[1]:g}")
    return found


def count(value: Any, field: str, where: str, scale: float = 1.0) -> float | None:
    """Return a positive count; suffixes as in 124M are read, thousands may be set apart as in 1_000 or 1,000.

    Args:
        value: A number or a text; empty texts and NaN are missing.
        field: Name of the quantity, for the message.
        where: File and row, for the message.
        scale: What the column's unit is worth, such as 1e6; a suffix of the value's own goes before it.

    Returns:
        The count, or None where it is missing.
    """
    if missing(value):
        return None
    if isinstance(value, str):
        text = value.strip()
        groups = text.split(",")
        if len(groups) > 1 and all(len(part) == 3 and part.isdigit() for part in groups[1:]) and groups[0].isdigit():
            text = text.replace(",", "")
        try:
            found = parse_count(text)
        except InputError:
            raise DataError(
                f"{where}: {field} is {text[:40]!r}, not a count above zero such as 124e6 or 124M"
            ) from None
        value = found if scale == 1.0 or text[-1:].isdigit() or text[-1:] == "." else found / scale
    number_of = positive(value, field, where)
    if number_of is not None and not number_of * scale < MOST:
        raise DataError(f"{where}: {field} is {value}, which is not a count")
    return None if number_of is None else number_of * scale


def whole(value: Any, field: str, where: str) -> int | None:
    """Return an integer such as a seed, None if the cell is empty."""
    found = number(value, field, where)
    if found is None:
        return None
    if not math.isfinite(found) or found != int(found) or abs(found) >= 2**63:
        raise DataError(f"{where}: {field} is {str(value)[:40]!r}, not a whole number")
    return int(found)


def flag(value: Any, field: str, where: str) -> bool:
    """Return whether a cell says yes; an empty one says no."""
    if missing(value) or value is False:
        return False
    text = str(value).strip().lower()
    if text in YES or value is True:
        return True
    if text in NO:
        return False
    raise DataError(f"{where}: {field} is {text[:40]!r}, neither yes nor no")


def end_of(value: Any, where: str) -> RunEnd | None:
    """Return how a run ended by its tracker's word, None if the cell is empty."""
    if missing(value):
        return None
    word = str(value).strip().lower().removeprefix("runstatus.")
    if word not in STATES:
        known = "finished, running, crashed, failed, diverged"
        raise DataError(
            f"{where}: the state {str(value)[:40]!r} is unknown ({known}); if the column is something else, "
            "give it another name"
        )
    return STATES[word]


def text(value: Any) -> str:
    """Return a cell as text, whole numbers without a decimal point. What no file can hold (half of a pair of UTF-16,
    which JSON can name) becomes a question mark."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return str(value).encode("utf-8", "replace").decode().strip()
