"""Which rows are evaluations of one run, and which are runs of their own."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from raylr.errors import DataError
from raylr.imports.options import ImportOptions
from raylr.imports.quantities import Parsed
from raylr.imports.rows import Rows

GRID = 8
"""Token counts of one model at one LR up to which a file's rows count as runs of their own: no grid has more budgets,
and curves have more points."""


def group_rows(parsed: list[Parsed], source: Rows, options: ImportOptions) -> tuple[list[list[Parsed]], list[str]]:
    """Return the rows of each run, and how they were found."""
    named = all(one.texts["run"] is not None for one in parsed)
    mode = options.rows or ("evaluations" if source.history else None)
    if mode == "runs":
        return [[one] for one in parsed], []
    by_run = _grouped(parsed, lambda one: (one.texts["run"],)) if named else {}
    if mode is None and (not named or len(by_run) == len(parsed)):
        settings = _grouped(parsed, lambda one: _setting(one, "run", "tokens", "step"))
        most = _median([len({_position(one) for one in group}) for group in settings.values()])
        stepped = any(one.numbers["step"] is not None for one in parsed)
        if stepped and most <= 1:  # the LR of each row may be the schedule's
            loose = _grouped(parsed, lambda one: _setting(one, "run", "tokens", "step", "lr"))
            points = _median([len({_position(one) for one in group}) for group in loose.values()])
            most = points if points > GRID else most
        if most <= 1 or len(by_run) == len(parsed):
            return [[one] for one in parsed], []
        if stepped or most > GRID:
            what = "a step in each row" if stepped else f"{most:g} token counts at each LR"
            raise DataError(
                f"{source.where} has {what} and no column that names the run: say whether a row is a whole run "
                "(--rows runs) or one evaluation of a run (--rows evaluations)"
            )
        return [[one] for one in parsed], [
            f"each row is taken for a run of its own, with up to {most:g} budgets at each LR (--rows evaluations if "
            "the rows of one LR are the curve of one run)"
        ]
    if not named:
        groups = list(_grouped(parsed, lambda one: _setting(one, "run", "tokens", "step")).values())
        if _median([len(group) for group in groups]) < 2:  # the LR of each row may be the schedule's
            groups = list(_grouped(parsed, lambda one: _setting(one, "run", "tokens", "step", "lr")).values())
        return groups, []
    split: list[list[Parsed]] = []
    for group in by_run.values():
        parts = _grouped(group, lambda one: _setting(one, "run", "tokens", "step"))
        if len(parts) == 1 or _scheduled(group):
            split.append(group)
        elif source.history or mode == "evaluations":
            raise DataError(
                f"{group[0].row.where}: the rows of run {group[0].texts['run']!r} differ in more than their tokens; "
                "they are several runs, or the run's name is in another column (--columns run=…)"
            )
        else:
            split.extend(parts.values())
    return split, []


def _grouped(parsed: Iterable[Parsed], key: Any) -> dict[Any, list[Parsed]]:
    groups: dict[Any, list[Parsed]] = {}
    for one in parsed:
        groups.setdefault(key(one), []).append(one)
    return groups


def _setting(one: Parsed, *without: str) -> tuple[Any, ...]:
    names = ("params", "params_active", "batch", "seq_len", "seed", "weight_decay", "beta1", "beta2", "target_tokens",
             "total_steps", "lr", "tokens", "step")  # fmt: skip
    numbers = [one.numbers[name] for name in names if name not in without]
    return (*numbers, *(one.texts[name] for name in one.texts if name not in without), *one.by.values())


def _position(one: Parsed) -> float | None:
    return one.numbers["tokens"] if one.numbers["tokens"] is not None else one.numbers["step"]


def _scheduled(group: list[Parsed]) -> bool:
    """Whether the rows are one run whose `lr` is the schedule's: one row a step, and the LR rises, then falls."""
    if len({_setting(one, "run", "tokens", "step", "lr") for one in group}) > 1:
        return False
    ordered = sorted(group, key=lambda one: _position(one) or 0.0)
    if len({_position(one) for one in ordered}) < len(ordered) or len(ordered) < 3:
        return False
    lrs = [lr for one in ordered if (lr := one.numbers["lr"]) is not None]
    top = max(range(len(lrs)), key=lambda i: lrs[i], default=0)
    rising = all(a <= b for a, b in itertools.pairwise(lrs[: top + 1]))
    return rising and all(a >= b for a, b in itertools.pairwise(lrs[top:]))


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0
