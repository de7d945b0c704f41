"""Another study of raylr, and run tables that were imported before."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from raylr.analysis.runs import RunEnd
from raylr.errors import DataError
from raylr.imports.names import CONDITIONS
from raylr.imports.run import ImportedRun, ImportedRuns, Point
from raylr.spec.batches import conditions_of
from raylr.spec.external import ExternalModel

BATCH, LENGTH = "batch_tokens", "seq_len"


def recognises(path: Path) -> bool:
    """Return whether the folder is a study's."""
    from raylr.store.folder import SPEC_FILE

    return (path / SPEC_FILE).is_file()


def read_study(path: Path, by: Sequence[str] = ()) -> ImportedRuns:
    """Return the runs of a study's search. A run at a constant LR counts at every budget that it reached.

    Args:
        path: The study's folder.
        by: Keys of `model` that keep runs apart, such as `qk_norm`: those of each run's size.

    Raises:
        DataError: If no run has ended, the study transfers, or its models lack a key of `by`.
        StudyError, DamagedError: As for opening the study.
    """
    from raylr.store.folder import open_folder
    from raylr.store.runs import run_end

    folder = open_folder(path)
    spec = folder.spec
    if spec.transfer is not None:
        axes = " and ".join(name.replace("_", " ") for name in spec.transfer.axes)
        raise DataError(
            f"{path} is a transfer study: its runs differ in {axes} too, and a law of the LR cannot be fitted to them; "
            f"`raylr fit {path}` shows what it found"
        )
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in folder.evaluations.read().to_pylist():
        curves.setdefault(row["trial"], []).append(row)
    last: dict[str, dict[str, Any]] = {}
    for row in sorted(folder.trials.read().to_pylist(), key=lambda row: int(row["tokens"])):
        if row["role"] == "search":
            last[row["trial"]] = row
    if not last:
        raise DataError(f"the study in {path} has no run that has ended")
    apart = {size: _kept_apart(model, by, path) for size, model in spec.models().items()} if by else {}
    schedule, known = str(spec.train.schedule), asdict(conditions_of(spec.train, spec.objective))
    conditions = {name: known[name] for name in CONDITIONS if known.get(name) is not None}
    runs: list[ImportedRun] = []
    for trial, row in last.items():
        rows = sorted(curves.get(trial, []), key=lambda one: int(one["tokens"]))
        if not rows:
            continue
        points = [Point(tokens=one["tokens"], loss=_loss(one), step=one["step"]) for one in rows]
        batch = rows[-1].get("batch") or spec.train.batch_tokens
        shared: dict[str, Any] = {
            "where": f"{path}, run {trial}", "lr": row["lr"], "params": float(rows[-1]["params"]),
            "params_active": rows[-1]["params_active"], "batch": float(batch), "batch_kind": "tokens",
            "seed": rows[-1]["seed"], "size": row["size"], "conditions": conditions,
            "by": apart.get(row["size"], {}),
        }  # fmt: skip
        end = run_end(row)
        target = float(row["target_tokens"])
        if end is RunEnd.DIVERGED:
            runs.append(ImportedRun(**shared, run=trial, loss=math.nan, end=end, tokens=row["tokens"],
                                    target_tokens=target, curve=points))  # fmt: skip
            continue
        known = row["target_loss"]
        runs.append(ImportedRun(
            **shared, run=trial, loss=math.nan if known is None else known, end=end, tokens=row["tokens"],
            target_tokens=target, loss_stderr=row["target_loss_stderr"], curve=points,
        ))  # fmt: skip
        if schedule not in ("constant", "wsd"):
            continue
        for budget in spec.token_budgets:
            at = next((point for point in points if abs(point.tokens - budget) < 0.5), None)
            if budget < target and at is not None:
                runs.append(ImportedRun(
                    **shared, run=f"{trial}@{budget}", loss=at.loss, end=RunEnd.COMPLETED, tokens=budget,
                    target_tokens=float(budget),
                ))  # fmt: skip
    note = f"{len(last)} runs of the study in {path}"
    return ImportedRuns(runs=runs, notes=[note], left_out={})


def _kept_apart(model: BaseModel | ExternalModel, by: Sequence[str], path: Path) -> dict[str, str]:
    """Return the values of the keys `by` of a model (`args` of another trainer's), written as a spec has them."""
    values = model.model_dump(mode="json") if isinstance(model, BaseModel) else dict(model.args)
    for name in by:
        if name not in values:
            keys = ", ".join(sorted(values))
            raise DataError(f"--by {name}: the models of the study in {path} have no such key; they have {keys}")
    return {name: json.dumps(values[name]).strip('"') for name in by}


def _loss(row: dict[str, Any]) -> float:
    return math.nan if row["loss"] is None else float(row["loss"])
