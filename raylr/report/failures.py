"""Runs that failed and have not ended since, with the last lines that they printed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from raylr.analysis.units import format_count, format_lr
from raylr.store.runtable import failures_table, trials_table


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The last failure of a run."""

    sentence: str
    """Which run failed, how often, where and why."""
    output: str
    """The last lines that it printed; "" if they are not known."""


def failures_of(study: Path) -> list[Failure]:
    """Return the runs of a study that failed and have no end, in the order of their first failure."""
    ended = set(trials_table(study).read(columns=["trial"])["trial"].to_pylist())
    by_run: dict[str, list[dict[str, object]]] = {}
    for row in failures_table(study).read().to_pylist():
        if row["trial"] not in ended:
            by_run.setdefault(row["trial"], []).append(row)
    return [_failure(rows) for rows in by_run.values()]


def _failure(rows: list[dict[str, object]]) -> Failure:
    last = rows[-1]
    times = f" {len(rows)} times, the last time" if len(rows) > 1 else ""
    tokens = int(str(last["tokens"]))
    where = f" after {format_count(tokens)} tokens" if tokens else ""
    verb = "reported no loss" if last["end"] == "no_report" else "failed"
    name = f"{last['size']} at LR {format_lr(float(str(last['lr'])))}"
    return Failure(sentence=f"{name} {verb}{times}{where}: {last['message']}", output=str(last["output"] or ""))
