"""A run and what it was a run of: the words that trainables, executors, searchers, tables and reports share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class RunEnd(StrEnum):
    """How a run ended. A run that is still going has no end (None)."""

    COMPLETED = "completed"
    """It trained all its tokens."""
    PAUSED = "paused"
    """It stopped at the end of a segment and can be resumed."""
    TRUNCATED = "truncated"
    """It was stopped early because its loss at its last tokens was predicted precisely enough."""
    PRUNED = "pruned"
    """It was stopped early for another reason; its loss at its last tokens is not known."""
    DIVERGED = "diverged"
    """Its loss became NaN, infinite or exploded: its learning rate is too high."""
    FAILED = "failed"
    """It raised an error or its process died; this says nothing about its learning rate."""
    NO_REPORT = "no_report"
    """It ended without reporting the metric; this says nothing about its learning rate."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the runs of one search over the learning rate have in common: a model, its tokens, its batch.

    Args:
        name: Name for people, unique among the settings of a search. It is shown and never parsed.
        params: Parameters of the model.
        tokens: Training tokens at which the loss counts, in the unit of the trainable's reports.
        batch: Tokens of one optimizer step.
        config: Further keys that every run of the setting gets. Positive numbers in it that differ between settings
            are covariates of the law across settings.
    """

    name: str = ""
    params: float | None = None
    tokens: float | None = None
    batch: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
