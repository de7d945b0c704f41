"""Arms of a comparison in runs that were made elsewhere: each value of the columns named with --by, or each LR."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from raylr.analysis.cells import SAME_BUDGET
from raylr.analysis.comparison import Arm, ArmRun, Spent, compare_arms
from raylr.analysis.runs import RunEnd
from raylr.analysis.units import format_count, format_lr
from raylr.comparison import ComparisonResult
from raylr.errors import DataError, InputError
from raylr.finished import APART, USED, FinishedRuns, is_twin
from raylr.spec.external import FLOPS_PER_PARAMETER
from raylr.store.runsfolder import BY

MOST_ARMS = 12
"""More arms than this are a sweep, which `raylr fit` reads."""


def compare_finished(
    runs: FinishedRuns, *, params: float | None = None, tokens: float | None = None, seed_sd: float | None = None,
    searched: bool = False,
) -> ComparisonResult:  # fmt: skip
    """Compare finished runs of one model and budget with each other.

    Runs that differ in the columns named with `--by`, in the optimizer or the schedule, or in the LR are of different
    arms; the runs of an arm are its seeds. What the searches of the arms took is not known.

    Args:
        runs: The runs.
        params: Parameters of the model, where the runs are of several.
        tokens: Training tokens, where they are of several.
        seed_sd: Standard deviation of losses between seeds, nats, if it is known from elsewhere.
        searched: The LR of each kind was searched: its runs at the LR with the lowest mean loss stand for it.

    Raises:
        DataError: If no run has ended.
        InputError: If the runs are of several models or budgets and none is chosen, or of too many arms.
    """
    rows = [row for row in runs.table.to_pylist() if RunEnd(row["end"]) in USED]
    if not rows:
        raise DataError("no run has ended with a loss, nor diverged")
    rows = _one_of(_one_of(rows, "params", params), "tokens", tokens)
    by = [name for name in runs.table.column_names if name.startswith(BY) and not is_twin(name, rows)]
    apart = [name for name in (*by, *APART) if len({row.get(name) for row in rows}) > 1]
    groups: Groups = {}
    for row in rows:
        groups.setdefault((*(row.get(name) for name in apart), row["lr"]), []).append(row)
    notes = [note for note in runs.notes if note]
    notes += [f"all of these runs have the same {name.removeprefix(BY)}" for name in by if name not in apart]
    if searched and apart and len({key[:-1] for key in groups}) > 1:
        groups, tried = _best_of_each_kind(groups)
        notes.append(
            f"each kind at the best of its LRs ({tried}); the runs that chose it count, which makes all look better"
        )
    if len(groups) > MOST_ARMS:
        raise InputError(
            f"the runs have {len(groups)} different settings, which is a sweep: `raylr fit` finds its optimum. To "
            "compare kinds of runs, name the column that tells them apart with --by, and give one LR of each"
        )
    curves = _curves(runs)
    arms = []
    for key in sorted(groups, key=str):
        members = groups[key]
        values, lr = key[:-1], float(key[-1])
        alone = sum(other[:-1] == values for other in groups) == 1
        words = ", ".join(_named(name, value) for name, value in zip(apart, values, strict=True))
        shown = f"LR {format_lr(lr)}"
        name = words if words and alone else f"{words}, {shown}" if words else shown
        found = [_run(row, curves.get(str(row["run"]), [])) for row in members]
        arms.append(Arm(name=name, lr=lr, runs=found, training=_training(members[0])))
    first = rows[0]
    names = {str(row["size"] or "") for members in groups.values() for row in members}
    return ComparisonResult(
        target=names.pop() if len(names) == 1 else "",
        params=float(first["params"] or math.nan),
        tokens=float(first["tokens"] or math.nan),
        batch=first["batch"] if first["batch_kind"] == "tokens" else None,
        comparison=compare_arms(arms, seed_sd=seed_sd),
        notes=notes,
    )


Groups = dict[tuple[Any, ...], list[dict[str, Any]]]
"""Values of the columns that keep runs apart, the LR last -> the runs."""


def _best_of_each_kind(groups: Groups) -> tuple[Groups, str]:
    """Return of each kind the runs at the LR with the lowest mean loss, and how many LRs each kind has.

    A single run may be low by luck: where a kind has LRs with several runs, its best LR is one of these.
    """
    kinds: dict[tuple[Any, ...], list[tuple[int, float, tuple[Any, ...]]]] = {}
    for key, rows in groups.items():
        mean = float(np.mean([math.inf if row["loss"] is None else float(row["loss"]) for row in rows]))
        kinds.setdefault(key[:-1], []).append((-min(len(rows), 2), mean if math.isfinite(mean) else math.inf, key))
    best = {min(each)[2] for each in kinds.values()}
    return {key: groups[key] for key in groups if key in best}, " and ".join(str(len(each)) for each in kinds.values())


def _named(name: str, value: Any) -> str:
    """Return a value of a column as an arm is called: a text says what it is, a number or yes and no does not."""
    text = str(value)
    try:
        float(text)
    except ValueError:
        if value is not None and text.lower() not in ("true", "false", "yes", "no", "on", "off", "none"):
            return text
    return f"{name.removeprefix(BY)} {text.lower() if isinstance(value, bool) else text}"


def _one_of(rows: list[dict[str, Any]], name: str, chosen: float | None) -> list[dict[str, Any]]:
    """Return the rows of one value of a count; InputError if they have several and none is chosen, or lack it."""
    if chosen is not None:
        kept = [row for row in rows if row[name] and abs(row[name] / chosen - 1) <= SAME_BUDGET]
        if not kept:
            raise InputError(f"no run has {format_count(chosen)} {name}")
        return kept
    values = sorted({float(row[name]) for row in rows if row[name]})
    if values and values[-1] > (1 + SAME_BUDGET) * values[0]:
        shown = ", ".join(format_count(value) for value in values[:6])
        raise InputError(f"the runs have several values of {name} ({shown}): choose one with --{name}")
    return rows


def _curves(runs: FinishedRuns) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in runs.evaluations.select(["trial", "tokens", "loss"]).to_pylist():
        loss = math.nan if row["loss"] is None else float(row["loss"])
        found.setdefault(row["trial"], []).append((float(row["tokens"]), loss))
    return {trial: sorted(points) for trial, points in found.items()}


def _run(row: Mapping[str, Any], curve: list[tuple[float, float]]) -> ArmRun:
    tokens, losses = np.array(curve, float).reshape(len(curve), 2).T
    loss = math.nan if row["loss"] is None else float(row["loss"])
    return ArmRun(loss=loss, seed=row["seed"], name=str(row["name"] or row["run"]), tokens=tokens, curve=losses)


def _training(row: Mapping[str, Any]) -> Spent | None:
    if not row["tokens"]:
        return None
    used = row["params_active"] or row["params"]
    flops = FLOPS_PER_PARAMETER * float(used) * float(row["tokens"]) if used else math.nan
    return Spent(tokens=float(row["tokens"]), flops=flops)
