"""Finished runs, read from wherever they are, and what they say: optima, laws, what is missing.

RUNS, a file or a study ──load_runs──▶ one row a run ──cells_of──▶ cells ──fit_cells──▶ RunsFit
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raylr.analysis.cells import SAME_BUDGET, Cell, RunsFit, fit_cells
from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.runs import RunEnd, Setting
from raylr.analysis.units import format_count
from raylr.errors import DataError, InputError
from raylr.imports import parquet, study, text, wandb
from raylr.imports.options import ImportOptions
from raylr.imports.run import summary
from raylr.imports.sources import SOURCES, read_runs
from raylr.remote.copies import name_of
from raylr.store.places import opened
from raylr.store.runsfolder import BY, RunsFolder, in_memory, trials_as_table

COLUMNS = ("run", "size", "params", "params_active", "tokens", "batch", "batch_kind", "lr", "loss", "loss_stderr",
           "end", "seed", "optimizer", "schedule", "weight_decay", "beta1", "beta2", "seq_len", "warmup_tokens",
           "name", "source")  # fmt: skip
"""Columns of the table that `load_runs` returns, before those that were named with --by."""
APART = ("optimizer", "schedule")
"""Conditions that put runs into families of their own: no law holds across them."""
USED = (RunEnd.COMPLETED, RunEnd.TRUNCATED, RunEnd.DIVERGED)
"""Ends whose final loss, or divergence, says something about the LR."""


@dataclass(frozen=True, kw_only=True)
class FinishedRuns:
    """Finished runs as they were read."""

    path: Path
    table: pa.Table
    """One row per run."""
    evaluations: pa.Table
    """One row per evaluation of the runs whose curve is known."""
    notes: list[str] = field(default_factory=list)
    """How they were read, and which were left out."""


def is_runs(path: Path | str) -> bool:
    """Return whether a path is a folder of imported runs or another source of finished runs, and no study."""
    if str(path).startswith(wandb.SCHEME):
        return True
    path = Path(path)
    if RunsFolder.at(path):
        return True
    if not path.is_dir():
        return path.suffix != ".json" and any(source.recognises(path) for source in (text, parquet))
    return not study.recognises(path) and any(source.recognises(path) for source in SOURCES.values())


def shared_settings(trials: Sequence[Mapping[str, Any]], given: set[str]) -> tuple[dict[str, Any], str | None]:
    """Return the settings that all runs share and that were not given for another one, and what their batch counts.

    Raises:
        InputError: If the runs have several values of one that was not given, or one that was given is new to them.
    """
    names = ("params", "params_active", "tokens", "batch", "size", "optimizer", "schedule", "weight_decay", "beta1",
             "beta2", "warmup_tokens")  # fmt: skip
    found: dict[str, Any] = {}
    for name in names:
        column = "target_tokens" if name == "tokens" else name
        values = {row.get(column) for row in trials}
        if name in given:
            if values == {None}:
                raise InputError(f"the runs so far have no {name}; a run with one would not belong to them")
        elif len(values) > 1:
            shown = ", ".join(str(value) for value in sorted(values, key=str)[:4])
            raise InputError(f"the runs so far have several values of {name} ({shown}): give --{name}")
        elif (value := values.pop()) is not None:
            found[name] = value
    kinds = {row.get("batch_kind") for row in trials}
    return found, kinds.pop() if len(kinds) == 1 else None


def read_finished(path: Path | str, options: ImportOptions | None = None) -> FinishedRuns:
    """Return the finished runs of a folder of runs, or of any source that `raylr import` reads.

    Args:
        path: Folder or file, also its address, or `wandb:ENTITY/PROJECT`.
        options: How to read a source; not for a folder of runs, which was read when it was made.

    Raises:
        InputError: If there are no runs, or they cannot be read.
    """
    if not str(path).startswith(wandb.SCHEME):
        path = opened(path)
    if RunsFolder.at(Path(path)):
        if options is not None and options != ImportOptions():
            raise InputError(f"{path} holds imported runs: columns and units are given to `raylr import`")
        folder = RunsFolder(Path(path))
        return FinishedRuns(path=Path(path), table=_public(folder.trials()), evaluations=folder.evaluations())
    found = read_runs([path], options)
    trials, evaluations = in_memory(found.runs)
    return FinishedRuns(path=Path(path), table=_public(trials), evaluations=evaluations, notes=summary(found))


def load_runs(path: Path | str) -> pa.Table:
    """Return finished runs as a table, one row per run.

    Args:
        path: A folder of imported runs, a study's folder, or any source that `raylr import` reads without options; of
            the first two and of files also the address.

    Returns:
        The table. `tokens` are those of the whole run, `loss` is the final loss (NaN: diverged; null: not known),
        `end` how it ended. Counts are counts, `batch` is in what `batch_kind` names.

    Raises:
        InputError: If there are no runs, or they cannot be read.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "sweep.csv"
        >>> _ = file.write_text("lr,loss" + chr(10) + "1e-3,3.1" + chr(10) + "3e-3,3.0" + chr(10))
        >>> load_runs(file).select(["lr", "loss"]).to_pylist()
        [{'lr': 0.001, 'loss': 3.1}, {'lr': 0.003, 'loss': 3.0}]
    """
    return read_finished(path).table


def _public(trials: Sequence[Mapping[str, Any]]) -> pa.Table:
    rows = []
    by = list(dict.fromkeys(name for row in trials for name in row if name.startswith(BY)))
    for row in trials:
        end = RunEnd(row["end"])
        rows.append(
            {name: row.get(name) for name in (*COLUMNS, *by)}
            | {
                "run": row["trial"],
                "tokens": row["target_tokens"],
                "loss": math.nan if end is RunEnd.DIVERGED else row["target_loss"],
                "loss_stderr": row["target_loss_stderr"],
            }
        )
    table = trials_as_table(rows)
    return table.select([name for name in (*COLUMNS, *by) if name in table.column_names])


def cells_of(table: pa.Table) -> list[Cell]:
    """Return the cells of a table of finished runs: runs that ended, by family, size, budget and batch.

    Raises:
        DataError: If no run has ended.
    """
    rows = [row for row in table.to_pylist() if RunEnd(row["end"]) in USED]
    if not rows:
        raise DataError("no run has ended with a loss, nor diverged")
    by = [name for name in table.column_names if name.startswith(BY) and not is_twin(name, rows)]
    varying = [name for name in (*APART, *by) if len({row.get(name) for row in rows}) > 1]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        family = tuple(row.get(name) for name in varying)
        groups.setdefault((family, row["size"], row["params"], row["batch"], _conditions_key(row)), []).append(row)
    cells = []
    for (family, size, params, batch, _), members in groups.items():
        words = ", ".join(f"{name.removeprefix(BY)} {value}" for name, value in zip(varying, family, strict=True))
        for budget in _budgets(members):
            cells.append(_cell(budget, size, params, batch, words))
    cells.sort(key=lambda c: (c.family, c.setting.params or 0, c.setting.tokens or 0, c.setting.batch or 0))
    return cells


def is_twin(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a column that was requested by name separates runs in any case."""
    own = name.removeprefix(BY)
    return own in APART and all(row.get(name) == row.get(own) for row in rows)


def _conditions_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("weight_decay", "beta1", "beta2", "seq_len", "warmup_tokens"))


def _budgets(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the rows of each budget: token counts that hardly differ are one."""
    ordered = sorted(rows, key=lambda row: row["tokens"] or 0)
    groups: list[list[dict[str, Any]]] = []
    for row in ordered:
        if groups and (row["tokens"] or 0) <= (1 + SAME_BUDGET) * (groups[-1][0]["tokens"] or 0):
            groups[-1].append(row)
        else:
            groups.append([row]) if not groups or row["tokens"] is not None else groups[-1].append(row)
    return groups


def _cell(rows: list[dict[str, Any]], size: str | None, params: int | None, batch: float | None, family: str) -> Cell:
    counts = [row["tokens"] for row in rows if row["tokens"]]
    tokens = float(np.median(counts)) if counts else None
    name = size or (format_count(params) if params else "model")
    if tokens:
        name += f" at {format_count(tokens)} tokens"
    if batch:
        name += f", batch {format_count(batch)}"
    stderr = np.array([row["loss_stderr"] or 0.0 for row in rows])
    kind = rows[0]["batch_kind"]
    config = {} if kind is None else {"batch_kind": kind}
    return Cell(
        setting=Setting(name=name, params=None if params is None else float(params), tokens=tokens, batch=batch,
                        config=config),
        lr=np.array([row["lr"] for row in rows], float),
        loss=np.array([math.nan if row["loss"] is None else row["loss"] for row in rows], float),
        stderr=stderr if stderr.any() else None,
        family=family,
        conditions=_conditions(rows, batch if kind == "tokens" else None),
    )  # fmt: skip


def _conditions(rows: Sequence[Mapping[str, Any]], batch_tokens: float | None) -> Conditions:
    names = ("optimizer", "schedule", "weight_decay", "beta1", "beta2", "seq_len", "warmup_tokens")
    found = {name: rows[0].get(name) for name in names if rows[0].get(name) is not None}
    schedule = found.get("schedule")
    objective = None
    if isinstance(schedule, str) and schedule.startswith("constant"):
        objective = "stable"
    elif isinstance(schedule, str) and schedule.startswith(("cosine", "linear", "wsd", "warmup_stable_decay")):
        objective = "decayed"
    return Conditions(**found, batch_tokens=batch_tokens, objective=objective)


def fit_runs(runs: FinishedRuns) -> RunsFit:
    """Return the optima and laws of finished runs.

    Raises:
        DataError: If no run has ended.
    """
    try:
        cells = cells_of(runs.table)
    except DataError as error:
        raise DataError(f"{name_of(runs.path)}: {error}") from None
    return fit_cells(cells, source=f"finished runs in {name_of(runs.path)}")
