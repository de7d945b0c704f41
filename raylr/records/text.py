"""Records in lines of text: JSON objects, and what a regular expression finds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""ANSI escape sequences: colours and movements of the cursor."""

Record = dict[str, Any]
"""What a trainer wrote about one step: flat, nested keys as `outer/inner`."""


def json_record(line: str) -> Record | None:
    """Return the JSON object that a line holds, flat; None if it holds none. Text before the object is passed over.

    Example:
        >>> json_record('INFO {"step": 3, "eval": {"loss": 2.5}}')
        {'step': 3, 'eval/loss': 2.5}
    """
    start = line.find("{")
    if start < 0:
        return None
    try:
        found = json.loads(line[start:])
    except (ValueError, RecursionError):
        return None
    return flat(found) if isinstance(found, dict) else None


def regex_record(pattern: re.Pattern[str], line: str) -> Record | None:
    """Return the named groups of the first match in a line that took part in it; None without a match."""
    found = pattern.search(line)
    return None if found is None else {name: value for name, value in found.groupdict().items() if value is not None}


def flat(values: Mapping[str, Any]) -> Record:
    """Return a nested mapping as one level, its keys joined by `/`."""
    out: Record = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= {f"{key}/{inner}": item for inner, item in flat(value).items()}
        else:
            out[str(key)] = value
    return out
