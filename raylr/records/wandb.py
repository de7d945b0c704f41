"""W&B's offline files (`run-*.wandb`): what was logged, and settings.

A record of the file (`wire.level_records`) is a protocol buffer `Record` of wandb (wandb_internal.proto): 2 history, 5
config, 17 the run with its first config (4), 18 its exit. History and config are lists of items: key 1 or nested key 2,
and the value as JSON, 16.
"""

from __future__ import annotations

import json
from typing import Any

from raylr.records import wire
from raylr.records.text import Record, flat

FILES = "**/*.wandb"
"""Pattern of the names of W&B's files."""
HISTORY, CONFIG, RUN, EXIT = 2, 5, 17, 18
"""Kinds of records."""
whole_records = wire.taking(wire.level_records)
"""Splits the bytes of a growing file into records."""


def items(message: bytes, *, joint: str = "/") -> dict[str, Any]:
    """Return the items of a history or a config; a value that is no JSON is taken as text.

    Args:
        message: The record of history or config.
        joint: What joins the parts of a nested key.

    Raises:
        TornError: If it is damaged.
    """
    found: dict[str, Any] = {}
    for item in wire.parts(message, 1):
        key, nested, content = "", [], None
        for part, one in wire.fields(item):
            if part == 1:
                key = wire.text(one)
            elif part == 2:
                nested.append(wire.text(one))
            elif part == 16:
                content = _json(wire.text(one))
        found[joint.join(nested) or key] = content
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def history_record(record: bytes) -> Record | None:
    """Return what one call of `wandb.log` logged, with the step as `_step`; None for a record of another kind."""
    found: Record = {}
    try:
        for history in wire.parts(record, HISTORY):
            found |= flat(items(history))
    except wire.TornError:
        return None
    return found or None
