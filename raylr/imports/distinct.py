"""Which runs are complete, which ended early, which are there twice, and which must not be mixed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from raylr.analysis.runs import RunEnd
from raylr.errors import DataError
from raylr.imports import values as value_of
from raylr.imports.names import Match
from raylr.imports.options import ImportOptions
from raylr.imports.rows import Rows
from raylr.imports.run import ImportedRun

REACHED = 0.98
"""Share of its planned tokens from which a run counts as finished: trainers round to whole steps and files."""
MOST_VALUES = 30
"""Values of a column that sorts runs, such as an optimizer or a width; a measured quantity has more."""


def complete(runs: list[ImportedRun], left_out: dict[str, list[str]]) -> list[ImportedRun]:
    """Return the runs that have what most have; the others are noted."""
    for name, words in (("params", "parameters"), ("tokens", "tokens"), ("batch", "batch"), ("size", "size")):
        has = [getattr(run, name) is not None for run in runs]
        if any(has) and not all(has):
            for run, known in zip(runs, has, strict=True):
                if not known and not (name == "tokens" and run.end in (RunEnd.FAILED, RunEnd.PAUSED)):
                    left_out.setdefault(f"no {words}, which other runs have", []).append(run.where)
            runs = [
                run for run, known in zip(runs, has, strict=True)
                if known or (name == "tokens" and run.end in (RunEnd.FAILED, RunEnd.PAUSED))
            ]  # fmt: skip
    return runs


def cut_short(runs: list[ImportedRun]) -> list[bool]:
    """Return which runs ended alone at a token count below one that others of their model share.

    Only runs whose curve is known and whose plan is not are judged so.
    """
    groups: dict[Any, list[float]] = {}
    for run in runs:
        if run.target_tokens and run.end is RunEnd.COMPLETED:
            groups.setdefault(_model(run), []).append(run.target_tokens)
    out = []
    for run in runs:
        others = groups.get(_model(run), [])
        own = run.target_tokens or 0.0
        alone = sum(abs(tokens - own) <= (1 - REACHED) * own for tokens in others) == 1
        shared = any(
            tokens > own * (2 - REACHED) and sum(abs(one - tokens) <= (1 - REACHED) * tokens for one in others) > 1
            for tokens in others
        )
        out.append(bool(run.curve) and run.end is RunEnd.COMPLETED and own > 0 and alone and shared)
    return out


def _model(run: ImportedRun) -> tuple[Any, ...]:
    return (run.size, run.params, run.batch, tuple(run.conditions.items()), tuple(run.by.items()))


def unique(
    runs: list[ImportedRun], source: Rows, matches: Mapping[str, Match], options: ImportOptions
) -> tuple[list[ImportedRun], list[str]]:
    """Return the runs without rows that are in the source twice; refuse runs that an unknown column tells apart.

    Args:
        runs: What was read.
        source: The rows that it was read from.
        matches: Field → the column that it was read from.
        options: Columns that are known to tell runs apart (`by`).

    Returns:
        The runs, and notes about what was left out.
    """
    groups: dict[Any, list[ImportedRun]] = {}
    for run in runs:
        key = (run.params, run.size, run.target_tokens, run.batch, run.lr, run.seed, tuple(run.conditions.items()),
               tuple(run.by.items()))  # fmt: skip
        groups.setdefault(key, []).append(run)
    kept, twice, repeats = [], 0, 0
    at = {row.where: row.values for row in source.rows}
    used = {match.column for match in matches.values()} | set(options.by)
    for same in groups.values():
        distinct: list[ImportedRun] = []
        for run in same:
            again = [one for one in distinct if one.run == run.run and _equal(one.loss, run.loss)]
            twice += bool(again)
            distinct += [] if again else [run]
        if len(distinct) > 1 and any(run.seed is not None for run in distinct) and all(r.run is None for r in distinct):
            first, second = distinct[0], distinct[1]
            raise DataError(
                f"{first.where} and {second.where} have the same settings, LR and seed and the losses "
                f"{first.loss:.6g} and {second.loss:.6g}: remove one, or name the column that tells them apart with "
                f"--by (columns not used: {_unused(source, used)})"
            )
        repeats += len(distinct) - 1
        kept += distinct
    if repeats and (apart := _tells_apart(list(groups.values()), at, source.columns, used)):
        raise DataError(
            f"{source.where}: runs of the same size, tokens, batch and LR differ in {apart!r}; name it with --by "
            f"{apart} to get an optimum for each of its values, or with --columns seed={apart} if it counts repetitions"
        )
    notes = []
    if twice:
        notes.append(f"{twice} rows are in the source twice and count once")
    if repeats:
        notes.append(f"{repeats} runs repeat the setting and LR of another: they count as further seeds")
    return kept, notes


def _equal(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _unused(source: Rows, used: set[str]) -> str:
    return ", ".join([name for name in source.columns if name not in used][:8]) or "none"


def _tells_apart(
    groups: list[list[ImportedRun]], at: Mapping[str, Mapping[str, Any]], columns: Sequence[str], used: set[str]
) -> str | None:
    """Return a column, not used so far, with few values that differ between runs of one setting and LR."""
    total = sum(len(group) for group in groups)
    for name in columns:
        if name in used:
            continue
        cells = [[at.get(run.where.partition(" (run ")[0], {}).get(name) for run in group] for group in groups]
        texts = [[value_of.text(cell) for cell in row if not value_of.missing(cell)] for row in cells]
        differs = any(len(set(row)) > 1 for row in texts)
        values = {cell for row in texts for cell in row}
        if differs and len(values) <= max(2, min(MOST_VALUES, total // 4)):
            return name
    return None
