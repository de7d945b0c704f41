"""A finished run as a source describes it, and what was made of a whole source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raylr.analysis.runs import RunEnd

SHOWN = 3
"""Places that a message lists."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One evaluation of a run."""

    tokens: float
    loss: float
    step: float | None = None
    current_lr: float | None = None


@dataclass(frozen=True, kw_only=True)
class ImportedRun:
    """A run as a source describes it; None is what the source does not say."""

    where: str
    lr: float
    loss: float
    """Final loss; NaN if the run diverged or ended without one."""
    end: RunEnd
    params: float | None = None
    params_active: float | None = None
    tokens: float | None = None
    """Tokens reached."""
    target_tokens: float | None = None
    """Tokens planned."""
    batch: float | None = None
    batch_kind: str | None = None
    """What the batch counts: "tokens" or "sequences"; None if the source does not say."""
    seed: int | None = None
    loss_stderr: float | None = None
    run: str | None = None
    """The source's own name of the run."""
    size: str | None = None
    conditions: Mapping[str, float | str] = field(default_factory=dict)
    by: Mapping[str, str] = field(default_factory=dict)
    curve: Sequence[Point] = ()


@dataclass(frozen=True, kw_only=True)
class ImportedRuns:
    """What was made of a source."""

    runs: list[ImportedRun]
    notes: list[str]
    """How the source was read, where it could have been read otherwise."""
    left_out: dict[str, list[str]]
    """Reason -> places of the runs that were left out for it."""


def places(where: Sequence[str]) -> str:
    """Return the first places of a list and how many more there are."""
    more = f" and {len(where) - SHOWN} more" if len(where) > SHOWN else ""
    return ", ".join(where[:SHOWN]) + more


def summary(found: ImportedRuns) -> list[str]:
    """Return what was read and left out, a sentence each."""
    lines = list(found.notes)
    for reason, where in found.left_out.items():
        lines.append(f"left out, {reason}: {len(where)} ({places(where)})")
    ends = Counter(run.end for run in found.runs)
    for end, words in (
        (RunEnd.DIVERGED, "diverged: they bound the LR from above"),
        (RunEnd.PAUSED, "unfinished: kept, not used for the optima"),
        (RunEnd.FAILED, "crashed: kept, not used for the optima"),
    ):
        if ends[end]:
            shown = places([run.where for run in found.runs if run.end is end])
            lines.append(f"{ends[end]} {words} ({shown})")
    return lines
