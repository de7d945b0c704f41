"""What a trainable reported: its numbers, and a sentence about each value that is not a number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from raylr.analysis.curves.schedule import LR_KEYS
from raylr.spec.fields import shorten

MOST_TOKENS = 2**63
"""Tokens from which a table cannot hold them; a report with so many is rejected."""


def problem_of(values: Mapping[str, Any]) -> str:
    """Return a sentence about a report that lacks `loss` or `tokens`, or has something else there; "" for a good one.

    A loss that diverged is NaN or infinite, or null, as JSON has it.
    """
    missing = " and ".join(f"`{name}`" for name in ("loss", "tokens") if name not in values)
    if missing:
        return f"it reported no {missing}, but {', '.join(sorted(values)) or 'nothing'}; report both under these names"
    if values["loss"] is not None and not _is_number(values["loss"]):
        return f"it reported {shorten(values['loss'])} as `loss`; that must be a number, NaN if it diverged"
    if not 0 <= number(values["tokens"]) < MOST_TOKENS:
        return f"it reported {shorten(values['tokens'])} as `tokens`; that must be the number trained on so far"
    return ""


def current_lr(values: Mapping[str, Any]) -> float | None:
    """Return the LR of the schedule in a report, under the first of `LR_KEYS` that has one."""
    found = (number(values[name]) for name in LR_KEYS if name in values)
    return next((value for value in found if math.isfinite(value) and value >= 0), None)


def number(value: Any) -> float:
    """Return a value as a number; NaN for anything else."""
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except OverflowError:  # an integer as good as infinite
        return True
    except (TypeError, ValueError):
        return False
    return True
