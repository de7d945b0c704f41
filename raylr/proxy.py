"""The search of a transfer study, read from its tables: LR × init std (× weight decay) of the proxy, the best place.

What is fitted is what the policy of the search fits (`raylr.searchers.policies.axes_search`), so that a report says
what the search found, without any training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raylr.analysis.curves.curve import Curve
from raylr.analysis.curves.schedule import Schedule
from raylr.analysis.optimum.basin import Basin, one_basin
from raylr.analysis.optimum.response import ResponseFit, Ridge, fit_response
from raylr.analysis.runs import RunEnd
from raylr.analysis.status import Status
from raylr.errors import InputError
from raylr.searchers.policies.axes_search import LR
from raylr.searchers.policies.cell_search import LEVEL
from raylr.searchers.policies.quadratic import extrapolated
from raylr.spec import StudySpec
from raylr.store.runs import run_end

NOISE = 0.002
"""Standard deviation of a loss between seeds as a share of the loss, by which the losses are judged to have one basin:
0.2 to 0.4 % in small Qwen3-MoE models over three seeds (docs/lab-notebook.md), as in `raylr.plan`."""


@dataclass(frozen=True, kw_only=True)
class ProxyRun:
    """One run of the search."""

    trial: str
    place: Mapping[str, float]
    """`lr`, `init_std` and, where it was searched, `weight_decay`."""
    tokens: Sequence[float]
    """Tokens of its validations."""
    curve: Sequence[float]
    """Losses at them; NaN where it diverged."""
    loss: float
    """Loss at the budget, measured or extrapolated; NaN if it diverged."""
    stderr: float
    """Its standard error; 0 for a measured one."""
    end: RunEnd


@dataclass(frozen=True, kw_only=True)
class ProxySearch:
    """What the search found."""

    size: str
    """Name of the proxy."""
    params: float
    tokens: int
    """Its token budget."""
    batch: int
    runs: Sequence[ProxyRun]
    fit: ResponseFit
    """The response surface and its best place."""
    basin: Basin
    """Whether the losses have one basin."""

    @property
    def known(self) -> bool:
        """Whether there is a place to choose."""
        return bool(self.fit.at)

    @property
    def lr(self) -> float:
        """The LR to choose; NaN without one."""
        return self.fit.at.get(LR, math.nan)

    @property
    def axes(self) -> dict[str, float]:
        """The other hyperparameters to choose."""
        return {name: value for name, value in self.fit.at.items() if name != LR}

    def interval(self, name: str) -> tuple[float, float]:
        """90 % interval of an axis's best value; 0 or inf where it is open."""
        return self.fit.low[name], self.fit.high[name]

    def ridge(self) -> Ridge | None:
        """How the best LR moves with the init std, if the losses tell; None otherwise."""
        if not self.known or "init_std" in self.fit.flat or self.fit.status not in (Status.OK, Status.UNCERTAIN):
            return None
        found = self.fit.ridge(LR, "init_std")
        return found if found.low * found.high > 0 else None

    def cost_of(self, factor: float) -> float:
        """How much an LR off by a factor costs, to the worse side, the other hyperparameters held; NaN if unknown."""
        if not self.known:
            return math.nan
        places = {name: [value] * 3 for name, value in self.fit.at.items()}
        places[LR] = [self.lr, self.lr / factor, self.lr * factor]
        loss, _ = self.fit.predict(places)
        return float(max(loss[1:]) - loss[0])


def read_search(spec: StudySpec, rows: pa.Table, trials: Sequence[Mapping[str, Any]]) -> ProxySearch:
    """Fit the search of a transfer study to its tables.

    Args:
        spec: The study's spec.
        rows: The run table, without the runs that the spec would not train.
        trials: Rows of the table of ended runs.

    Raises:
        InputError: If no run has ended.
    """
    given, budget = spec.transfer, max(spec.token_budgets)
    assert given is not None
    ((size, model),) = spec.models().items()
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        if row["role"] == "search":
            curves.setdefault(row["trial"], []).append(row)
    ends = {row["trial"]: row for row in sorted(trials, key=lambda row: int(row["tokens"])) if row["trial"] in curves}
    runs = [_run(trial, row, curves[trial], spec, budget) for trial, row in ends.items()]
    runs.sort(key=lambda run: (*run.place.values(), run.trial))
    if not runs:
        raise InputError("no run of the search has ended yet; run the study first")
    names = (LR, *given.axes)
    places = {name: [run.place[name] for run in runs] for name in names}
    losses = [run.loss for run in runs]
    fit = fit_response(
        places, losses, stderr=[run.stderr for run in runs],
        ranges={LR: (spec.lr.low, spec.lr.high), **given.axes}, rising=LR, tolerance=spec.search.tolerance, level=LEVEL,
    )  # fmt: skip
    level = min((loss for loss in losses if math.isfinite(loss)), default=0.0)
    basin = one_basin(places, losses, noise=NOISE * abs(level))
    return ProxySearch(
        size=size, params=float(model.params("total")), tokens=budget, batch=spec.train.batch_tokens, runs=runs,
        fit=fit, basin=basin,
    )  # fmt: skip


def _run(
    trial: str, end_row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], spec: StudySpec, budget: int
) -> ProxyRun:
    assert spec.transfer is not None
    ordered = sorted({int(row["tokens"]): row for row in rows}.values(), key=lambda row: int(row["tokens"]))
    end, curve = run_end(end_row), Curve()
    curve.given = Schedule.of(Schedule.named(spec.train.schedule))
    losses = [math.nan if row["loss"] is None else float(row["loss"]) for row in ordered]
    for row, loss in zip(ordered, losses, strict=True):
        curve.add(float(row["tokens"]), loss)
        if row.get("current_lr") is not None:
            curve.note_lr(float(row["tokens"]), float(row["current_lr"]))
    measured = {int(row["tokens"]): loss for row, loss in zip(ordered, losses, strict=True)}
    if end is RunEnd.DIVERGED:
        loss, stderr = math.nan, 0.0
    elif math.isfinite(measured.get(budget, math.nan)):
        loss, stderr = measured[budget], 0.0
    else:
        loss, stderr = extrapolated(curve, float(budget))
    return ProxyRun(
        trial=trial,
        place={LR: float(ordered[0]["lr"])} | {name: float(ordered[0][name]) for name in spec.transfer.axes},
        tokens=[float(row["tokens"]) for row in ordered],
        curve=losses,
        loss=loss,
        stderr=stderr,
        end=end,
    )
