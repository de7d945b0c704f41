"""A run and what it was a run of: the words that trainables, executors, searchers, tables and reports share."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from os import PathLike
from typing import Any

from raylr.analysis.units import format_count
from raylr.errors import InputError


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
    """It raised an error or its process died; this does not count against its learning rate."""
    NO_REPORT = "no_report"
    """It ended without reporting the metric; this does not count against its learning rate."""


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


def setting_names(settings: Iterable[tuple[str, float | None]]) -> dict[tuple[str, float | None], str]:
    """Return names for people of the settings of a study: the size, with its batch where the size has several.

    Args:
        settings: (size, tokens of one optimizer step); None where the batch is not known.

    Returns:
        Setting → its name. The names are never parsed.

    Example:
        >>> list(setting_names([("S", 2048), ("S", 8192), ("M", 2048)]).values())
        ['S B=2.05k', 'S B=8.19k', 'M']
    """
    pairs = list(dict.fromkeys(settings))
    sizes = Counter(size for size, _ in pairs)
    short = {pair: pair[0] if pair[1] is None else f"{pair[0]} B={format_count(pair[1])}" for pair in pairs}
    alike = Counter(short.values())
    return {
        (size, batch): size
        if sizes[size] == 1
        else short[size, batch]
        if batch is None or alike[short[size, batch]] == 1
        else f"{size} B={batch:.0f}"
        for size, batch in pairs
    }


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a run that was trained in one go.

    Args:
        tokens: Tokens of the whole run that were reached at its end.
        end: How it ended; `PAUSED` where the run can be resumed.
    """

    tokens: int
    end: RunEnd


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run: what is measured, what people call it, and how far it came.

    Two runs are the same run if, and only if, the same things are measured: `identity` is a hash of `measured` and of
    nothing else. Names are for people and are never parsed.

    Args:
        measured: Everything that the losses depend on: trainable, model, training settings with seeds, corpus
            fingerprint, peak LR, multipliers, purpose; the horizon `tokens` only where the schedule depends on it. A
            key whose value is None counts as not there.
        label: What the run is called in folder names and figures, such as its size and LR.
        segments: The parts that it was trained in so far, in their order.

    Raises:
        InputError: If `measured` holds NaN, infinity, or an object that has no plain form.

    Example:
        >>> run = Run(measured={"lr": 1e-3, "model": {"layers": 2}, "seed": 0}, label="S lr 1e-3")
        >>> run.identity == Run(measured={"seed": 0, "model": {"layers": 2.0}, "lr": 0.001}).identity
        True
        >>> run.identity == Run(measured={"lr": 1e-3, "model": {"layers": 2}, "seed": 1}).identity
        False
    """

    measured: Mapping[str, Any]
    label: str = ""
    segments: tuple[Segment, ...] = ()

    @cached_property
    def config(self) -> str:
        """The measured things as canonical JSON."""
        return canonical(self.measured)

    @cached_property
    def identity(self) -> str:
        """Hash of the canonical JSON, 16 hexadecimal digits."""
        return identity_of(self.measured)

    @property
    def name(self) -> str:
        """Identity and label: the key of the run's rows and the name of its folder, safe on every file system."""
        readable = re.sub(r"[^A-Za-z0-9.+-]+", "_", self.label)[:_LABEL]
        return f"{self.identity}-{readable}".rstrip("-_.")

    @property
    def end(self) -> RunEnd | None:
        """How the run ended; None while it has not."""
        return self.segments[-1].end if self.segments else None

    @property
    def tokens(self) -> int:
        """Tokens reached."""
        return self.segments[-1].tokens if self.segments else 0


_LABEL = 40
"""Characters of a label in a folder's name: with the identity well below the 255 bytes of common file systems."""


def identity_of(measured: Any) -> str:
    """Return the hash of the canonical JSON of plain data, 16 hexadecimal digits (64 bits: no collision in practice).

    Args:
        measured: As for `canonical`.

    Raises:
        InputError: As `canonical`.
    """
    return hashlib.blake2b(canonical(measured).encode(), digest_size=8).hexdigest()


def canonical(value: Any) -> str:
    """Return plain data as JSON that is the same for equal data.

    Keys are sorted, a tuple is the same as a list, a whole float the same as an integer, and keys whose value is None
    are left out, so that an option that is added later and not used changes nothing.

    Args:
        value: Mappings, sequences, numbers, strings, paths, None.

    Raises:
        InputError: For NaN, infinity, and objects without a plain form.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if hasattr(value, "item") and callable(value.item):  # numpy's scalars
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"a run cannot be identified by {value}: give a finite number")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, PathLike):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    raise InputError(f"a run cannot be identified by {value!r} ({type(value).__name__}): give plain values")
