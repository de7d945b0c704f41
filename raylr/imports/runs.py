"""From rows of a source to finished runs: what each was, how it ended, its final loss and its curve.

    rows ──match_columns──▶ quantities ──group──▶ runs ──check units──▶ ImportedRuns

What a row does not say is not filled in: a run that lacks what the others have is left out and listed, and what could
be two things is refused with the option that decides it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from raylr.analysis.runs import RunEnd
from raylr.analysis.units import format_count
from raylr.errors import DataError, nearest
from raylr.imports.distinct import REACHED, complete, cut_short, unique
from raylr.imports.grouping import group_rows
from raylr.imports.names import CONDITIONS, FIELDS, IN_SEQUENCES, IN_TOKENS, Match, match_columns
from raylr.imports.options import ImportOptions
from raylr.imports.quantities import Parsed, Reader
from raylr.imports.rows import Rows
from raylr.imports.run import ImportedRun, ImportedRuns, Point, places
from raylr.imports.units import check_units, lr_notes

TAIL = 0.02
"""Share of a training-loss curve whose mean is its final loss: one step's training loss is mostly noise."""
TAIL_ROWS = 100
"""Rows of a curve from which that share holds more than one or two of them."""


def runs_from(source: Rows, options: ImportOptions) -> ImportedRuns:
    """Return the runs of a source.

    Raises:
        DataError: If a quantity cannot be read, is missing or ambiguous; the message names the place and the option.
    """
    if not source.rows:
        raise DataError(f"{source.where} holds no runs")
    matches = match_columns(source.columns, options.columns, source.where, source.config)
    _require(matches, source, options)
    for name in options.by:
        if name not in source.columns:
            raise DataError(f"--by: {source.where} has no column {name!r}{nearest(name, source.columns)}")
    notes = [*source.notes, *_match_notes(matches, options)]
    reader = Reader(matches, options)
    parsed = [reader.parse(row) for row in source.rows]
    groups, how = group_rows(parsed, source, options)
    notes += how
    left_out: dict[str, list[str]] = {}
    training = "loss" in matches and _rank("loss", matches["loss"].column) == 2
    runs = [run for group in groups if (run := _run(group, matches, options, left_out, training=training)) is not None]
    names = Counter(run.run for run in runs)
    if any(name is not None and n > 1 for name, n in names.items()):  # names of groups, not of runs
        runs = [replace(run, run=None) for run in runs]
    runs = complete(runs, left_out)
    runs = [replace(run, end=RunEnd.PAUSED) if short else run for run, short in zip(runs, cut_short(runs), strict=True)]
    runs, found = unique(runs, source, matches, options)
    notes += found
    if not runs:
        reasons = "; ".join(f"{reason}: {places(where)}" for reason, where in left_out.items())
        raise DataError(f"{source.where} holds no run that can be used ({reasons})")
    if all(run.params is None and run.size is None for run in runs):
        notes.append("no column says the size of the model: all runs count as runs of one model")
    check_units(runs, source.where)
    notes += lr_notes(runs)
    if len({run.batch for run in runs}) > 1 and any(run.batch_kind is None for run in runs):
        raise DataError(
            f"{source.where}: the batch differs between runs, and {matches['batch'].column!r} may count tokens or "
            "sequences; say which with --unit batch=tokens or --unit batch=sequences"
        )
    return ImportedRuns(runs=runs, notes=notes, left_out=left_out)


def _require(matches: Mapping[str, Match], source: Rows, options: ImportOptions) -> None:
    for name in ("lr", "loss"):
        if name not in matches and name not in options.fixed:
            shown = ", ".join(source.columns[:12]) + (", …" if len(source.columns) > 12 else "")
            raise DataError(
                f"{source.where} has no column that is known to be the {name}; say which of its columns ({shown}) "
                f"is, with --columns {name}=…"
            )


def _match_notes(matches: Mapping[str, Match], options: ImportOptions) -> list[str]:
    named = [
        f"{name} from {match.column!r}" + ("" if match.scale == 1 else f" in units of {format_count(match.scale)}")
        for name, match in matches.items()
        if match.column != name and name not in options.columns
    ]
    notes = [f"read {', '.join(named)}"] if named else []
    if "loss" in matches and _rank("loss", matches["loss"].column) == 2:
        notes.append(f"the loss is the training loss ({matches['loss'].column!r}); no validation loss was found")
    return notes


def _rank(field: str, column: str) -> int:
    from raylr.imports.names import plain

    name = plain(column)
    return next((rank for rank, names in enumerate(FIELDS[field]) if name in names.split()), -1)


def _run(
    group: list[Parsed], matches: Mapping[str, Match], options: ImportOptions, left_out: dict[str, list[str]],
    *, training: bool,
) -> ImportedRun | None:  # fmt: skip
    """Return the run of these rows; None if it lacks what every run needs, which is noted."""
    first = group[0]
    name = first.texts["run"]
    where = first.row.where if len(group) == 1 or name is None else f"{first.row.where} (run {name})"
    lrs = [lr for one in group if (lr := one.numbers["lr"]) is not None]
    if not lrs:
        left_out.setdefault("no LR", []).append(where)
        return None
    batch, kind = _batch(first, matches, options)
    curve = _curve(group, batch if kind == IN_TOKENS else None, scheduled=len(set(lrs)) > 1)
    states = [one.end for one in group if one.end is not None]
    end = states[-1] if states else None
    planned = first.numbers["target_tokens"]
    if planned is None and first.numbers["total_steps"] and batch is not None and kind == IN_TOKENS:
        planned = first.numbers["total_steps"] * batch
    reached = max((point.tokens for point in curve if point.tokens > 0), default=None)
    if reached is None and len(group) == 1:
        reached = planned  # a table of final losses says what was planned alone
    loss = curve[-1].loss if curve else math.nan
    if training and len(curve) >= TAIL_ROWS:
        tail = [point.loss for point in curve[-max(2, int(TAIL * len(curve))) :]]
        loss = sum(tail) / len(tail)
    if any(one.diverged for one in group) or (curve and not math.isfinite(curve[-1].loss)):
        end, loss = RunEnd.DIVERGED, math.nan
    elif not curve:
        if end is None and options.missing_loss == "diverged":
            end = RunEnd.DIVERGED
        elif end not in (RunEnd.DIVERGED, RunEnd.FAILED, RunEnd.PAUSED):
            left_out.setdefault(
                "no loss (--missing-loss diverged if these runs diverged)", []).append(where)  # fmt: skip
            return None
    elif planned is not None and reached is not None and reached < REACHED * planned:
        end = end if end not in (None, RunEnd.COMPLETED) else RunEnd.PAUSED
    seed = next((one.numbers["seed"] for one in group if one.numbers["seed"] is not None), None)
    conditions = {name: found for name in CONDITIONS if (found := _condition(first, name)) is not None}
    return ImportedRun(
        where=where,
        lr=max(lrs),
        loss=loss,
        end=end or RunEnd.COMPLETED,
        params=first.numbers["params"],
        params_active=first.numbers["params_active"],
        tokens=reached,
        target_tokens=planned if planned is not None else reached,
        batch=batch,
        batch_kind=kind,
        seed=None if seed is None else int(seed),
        loss_stderr=group[-1].numbers["loss_stderr"],
        run=name,
        size=first.texts["size"],
        conditions=conditions,
        by=first.by,
        curve=curve if len(curve) > 1 else (),
    )


def _condition(one: Parsed, name: str) -> float | str | None:
    text = one.texts.get(name)
    return text.lower() if text else one.numbers.get(name)


def _batch(one: Parsed, matches: Mapping[str, Match], options: ImportOptions) -> tuple[float | None, str | None]:
    """Return the batch and what it counts; in tokens where that can be known."""
    batch, length = one.numbers["batch"], one.numbers["seq_len"]
    kind = options.batch_kind or (matches["batch"].batch_kind if "batch" in matches else None)
    if "batch" in options.units and options.batch_kind is None:
        kind = IN_TOKENS  # the unit is the tokens of a sequence
    if batch is None or kind == IN_TOKENS:
        return batch, None if batch is None else IN_TOKENS
    if length is not None and kind == IN_SEQUENCES:
        return batch * length, IN_TOKENS
    if kind is None and length is not None and "batch" in matches:
        raise DataError(
            f"{one.row.where}: {matches['batch'].column!r} may count tokens or sequences; say which with --unit "
            "batch=tokens or --unit batch=sequences"
        )
    return batch, kind


def _curve(group: list[Parsed], batch_tokens: float | None, *, scheduled: bool) -> list[Point]:
    """Return the evaluations by tokens; of several at one token count the last counts: the run was resumed there."""
    points: dict[float, Point] = {}
    known = sorted(
        {(step, tokens) for one in group
         if (step := one.numbers["step"]) is not None and (tokens := one.numbers["tokens"]) is not None}
    )  # fmt: skip
    for one in group:
        loss, step = one.numbers["loss"], one.numbers["step"]
        if loss is None:
            continue
        tokens = one.numbers["tokens"]
        if tokens is None and step is not None and known:  # reported at other steps than the loss
            steps, counts = np.array(known).T
            tokens = float(np.interp(step, steps, counts))
        if tokens is None and step is not None and batch_tokens is not None:
            tokens = step * batch_tokens
        at = tokens if tokens is not None else (step or 0.0)
        points[at] = Point(
            tokens=tokens if tokens is not None else 0.0,
            loss=loss,
            step=step,
            current_lr=one.numbers["lr"] if scheduled else one.numbers["current_lr"],
        )
    return [points[at] for at in sorted(points)]
