"""A study that grows: which of the runs measured so far are runs of a changed spec too.

A run is identified by everything that is measured, so nothing has to be known of what was changed in the spec: each
run of the tables is made again from the new spec, with its own LR and seed, and is the same run if its identity is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylr.analysis.curves.curve import Curve
from raylr.analysis.runs import Run, RunEnd
from raylr.analysis.units import format_count
from raylr.searchers.policies.policy import Point
from raylr.spec import StudySpec
from raylr.spec.runs import axes_of
from raylr.store.runs import KnownEnd, RunStore
from raylr.trainables.training.identity import differences

Row = Mapping[str, Any]
RunOf = Callable[[Row, Mapping[str, Any]], Run | None]
"""Makes the run of a row of the table of trials and what it measured from the new spec; None if the spec has no such
size."""

FIRST = 3
"""Reasons that are named in a sentence."""
EXTRAPOLATED = 0.05
"""An earlier run enters the search of a larger budget if the standard error of its extrapolated loss is below this
share of the loss, which is what a run that was truncated without a usable curve is given
(`raylr.searchers.policies.quadratic`)."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What becomes of the runs measured so far under a changed spec."""

    changes: Sequence[str]
    """Keys of the spec in which the two differ."""
    reused: Sequence[str]
    """Names of the runs that are runs of the new spec."""
    left_out: Sequence[str]
    """Names of those that are not."""
    tokens: int
    """Tokens that the latter took."""
    reasons: Sequence[str]
    """In which values the latter differ from the new spec's runs, the most common first."""

    def sentence(self) -> str:
        """Return what happens now, for the user."""
        changed = f"The spec was changed ({'; '.join(self.changes[:FIRST])}{' …' * (len(self.changes) > FIRST)})"
        runs = len(self.reused) + len(self.left_out)
        if not self.left_out:
            return f"{changed}: all {runs} runs measured so far are used again."
        why = f" ({'; '.join(self.reasons[:FIRST])})" if self.reasons else ""
        return (
            f"{changed}: {len(self.reused)} of the {runs} runs measured so far are used again; {len(self.left_out)}, "
            f"which took {format_count(self.tokens)} tokens, are not{why}. They stay in the tables."
        )


def growth(rows: Sequence[Row], run_of: RunOf, changes: Sequence[str]) -> Growth:
    """Return what a changed spec makes of the runs measured so far.

    Args:
        rows: The table of trials, one row per ended segment.
        run_of: Makes a row's run from the new spec.
        changes: Keys in which the specs differ.

    Returns:
        The runs that are used again, and those that are not with the reason.
    """
    last = {row["trial"]: row for row in sorted(rows, key=lambda row: int(row["tokens"]))}
    reused, left_out, tokens = [], [], 0
    reasons: dict[str, int] = {}
    for name, row in last.items():
        there = json.loads(row["config"])
        run = run_of(row, there)
        if run is not None and run.identity == name.split("-")[0]:
            reused.append(name)
            continue
        left_out.append(name)
        tokens += int(row["tokens"])
        why = [f"there is no size {row['size']}"] if run is None else differences(there, json.loads(run.config))
        for reason in why:
            reasons[reason] = reasons.get(reason, 0) + 1
    common = sorted(reasons, key=lambda reason: -reasons[reason])
    return Growth(changes=changes, reused=reused, left_out=left_out, tokens=tokens, reasons=common)


def goes_on(old: StudySpec, new: StudySpec) -> bool:
    """Return whether the searches of the sizes that both specs have go the same way under both, one maybe further.

    They then find what they measured in the tables, run by run. Otherwise they begin anew and receive the results of
    the earlier runs as points (`earlier_points`).
    """
    same = all(_searched(old)[key] == value for key, value in _searched(new).items())
    return same and old.search.method == new.search.method and max(old.token_budgets) == max(new.token_budgets)


def _searched(spec: StudySpec) -> dict[str, Any]:
    """What the way of a search depends on."""
    axes = None if spec.transfer is None else spec.transfer.axes  # `modules` begin where the global search has ended
    return {
        "low": spec.lr.low,
        "high": spec.lr.high,
        "seed": spec.seed,
        "seeds": spec.seeds,
        "batches": spec.batches,
        "axes": axes,
    }


def earlier_points(
    store: RunStore, runs: Sequence[str], budget: int, settings: Mapping[tuple[str, int], str], *, spec: StudySpec,
    curves: bool,
) -> list[Point]:  # fmt: skip
    """Return what earlier runs say to a search at `budget` tokens.

    Args:
        store: The study's tables.
        runs: Names of the runs.
        budget: Token count at which the search compares losses.
        settings: (size, batch) -> name of its setting in the search.
        spec: The new spec.
        curves: Whether the search takes curves and not final losses: it is then to try these LRs first, which costs
            nothing as far as they were measured.

    Returns:
        One point for each run that says something: with its loss where it was measured at `budget` or can be
        extrapolated to it, NaN where the run diverged.
    """
    points = []
    for name in runs:
        ends = [end for end in store.ends(name) if end.row["role"] == "search"]
        if not ends:
            continue
        last = ends[-1]
        measured = json.loads(last.row["config"])
        setting = settings.get((str(last.row["size"]), int(measured["train"]["batch_tokens"])))
        lr, axes = float(last.row["lr"]), axes_of(spec, str(last.row["size"]), measured)
        if setting is None or axes is None:
            continue
        if curves:
            points.append(Point(lr=lr, setting=setting))
            continue
        loss, stderr = _loss_at(last, budget)
        if last.end is RunEnd.DIVERGED or math.isfinite(loss):
            points.append(Point(lr=lr, setting=setting, loss=loss, stderr=stderr, config=axes))
    return sorted(points, key=lambda point: (str(point.setting), point.lr, *point.config.values(), point.stderr))


def points_of(spec: StudySpec, store: RunStore, runs: Sequence[str]) -> list[dict[str, Any]]:
    """Return what earlier runs say to a spec's search, as values that JSON can hold.

    Args:
        spec: The spec.
        store: The study's tables.
        runs: Names of the runs.
    """
    names = {(one.size, one.train.batch_tokens): one.name for one in spec.settings()}
    curves, budget = spec.search.method == "surface", max(spec.token_budgets)
    return to_plain(earlier_points(store, runs, budget, names, spec=spec, curves=curves))


DIVERGED = "diverged"


def to_plain(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return points as values that JSON can hold; `from_plain` reads them."""
    return [
        {
            "setting": point.setting,
            "lr": point.lr,
            "loss": DIVERGED if point.loss is not None and math.isnan(point.loss) else point.loss,
            "stderr": point.stderr,
            **({"config": dict(point.config)} if point.config else {}),
        }
        for point in points
    ]


def from_plain(values: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Return the points that `to_plain` wrote."""
    return [
        Point(
            lr=float(value["lr"]),
            setting=value["setting"],
            loss=math.nan if value["loss"] == DIVERGED else value["loss"],
            stderr=float(value["stderr"]),
            config=value.get("config", {}),
        )
        for value in values
    ]


def _loss_at(end: KnownEnd, budget: int) -> tuple[float, float]:
    """The loss of an ended run at a token count and its standard error; NaN if it is not known."""
    if end.end is RunEnd.DIVERGED:
        return math.nan, 0.0
    curve = Curve()
    for row in end.curve:
        if row["tokens"] == budget:
            return float(row["loss"]), 0.0
        curve.add(float(row["tokens"]), float(row["loss"]))
    if end.row["tokens"] >= budget or not curve.tokens:
        return math.nan, 0.0
    loss, stderr = (float(value) for value in curve.extrapolate(float(budget)))
    return (loss, stderr) if stderr <= EXTRAPOLATED * abs(loss) else (math.nan, 0.0)
