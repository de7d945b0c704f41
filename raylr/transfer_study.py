"""A Transfer study: search one proxy, carry what was found to targets by rule, check it there.

search: LR × init std ──▶ best place, one basin? ──▶ × the rule's factors ──▶ check runs around it, recipe
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylr.analysis.cost import Cost, cost_of
from raylr.analysis.laws.lr_law import LRPrediction
from raylr.analysis.status import Status
from raylr.analysis.studyfit import LEVEL, Check, check_prediction
from raylr.errors import StudyError
from raylr.proxy import ProxySearch, read_search
from raylr.spec import StudySpec
from raylr.spec.transfer import TransferTarget, networks_of, target_ratios
from raylr.stages import Stages
from raylr.store.files import write_atomic
from raylr.study import Study
from raylr.trainables.models.parametrization import SYMBOLS, Axis
from raylr.trainables.models.settings import RoleSettings, settings_of
from raylr.trainables.models.transfer import Difference, Transfer, differences, transfer
from raylr.trainables.models.transfer_cost import Spread, spreads, total, widened

ANSWER_FILE = "transfer.json"
"""File of a transfer study's folder with the hyperparameters of its targets."""


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """What the proxy's hyperparameters become at one target."""

    target: TransferTarget
    prediction: LRPrediction
    """The proxy's LR, which the rule's factors multiply at the target, with the interval in which it lies for that."""
    ratios: Mapping[Axis, float]
    """target / proxy along each axis."""
    spreads: tuple[Spread, ...]
    """What widens the proxy's own interval of the LR."""
    axes: Mapping[str, tuple[float, float, float]]
    """The proxy's other hyperparameters, which the factors multiply: value, and the ends of its 90 % interval."""
    settings: tuple[RoleSettings, ...]
    """Init std, LR, weight decay and ε of the target's tensors; empty for another trainer, which applies the rule."""
    differences: tuple[Difference, ...]
    """What changes from the proxy to the target and that no rule covers."""
    check: Check | None
    """None if no check was run (yet)."""


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """What a transfer study has found."""

    spec: StudySpec
    """The study's spec."""
    directory: Path
    """The study's folder."""
    search: ProxySearch
    """The proxy's search."""
    targets: tuple[Transferred, ...]
    """One for each target, in the order of the spec."""
    cost: Cost
    """Tokens and FLOPs that were spent, and those of the full grid at the proxy."""


class TransferStudy(Study):
    """The Transfer paradigm as one resumable job (Zhou et al. 2026, Section 3.2). Arguments are those of `Study`.

    The spec has the section `transfer`. `study.run()` searches LR and init std at the proxy, multiplies them by the
    rule's factors, and trains each target at the multiples of the LR that its `check` names.

    Example:
        >>> from raylr.quickstart import example_spec
        >>> study = TransferStudy(example_spec("transfer"), "runs/transfer")
        >>> study.ending() is None
        True
    """

    ANSWER_FILE = ANSWER_FILE

    def run(self) -> TransferResult:
        """Search, transfer and check, as `Study.run`."""
        result: TransferResult = super().run()
        return result

    def result(self, answer: ProxySearch | None = None) -> TransferResult:
        """Put together what the study has found so far, from a search that was read or a new one; writes nothing."""
        search, table = answer or self.search(), self.folder.rows()
        assert self.spec.transfer is not None
        targets = []
        for target in self.spec.transfer.targets:
            tokens = self.spec.tokens_of(target)
            check = check_prediction(table, search.lr, tokens, target.name) if search.known else None
            targets.append(carried(self.spec, search, target, check))
        return TransferResult(
            spec=self.spec,
            directory=self.directory,
            search=search,
            targets=tuple(targets),
            cost=cost_of(self.evaluations.read(), sizes=[search.size], grid=self.spec.transfer.grid,
                         budget=search.tokens),
        )  # fmt: skip

    def search(self) -> ProxySearch:
        """Fit the search of the proxy to the tables as they are.

        Raises:
            InputError: If no run has ended.
            DamagedError: If a file of the tables is damaged.
        """
        return read_search(self.spec, self.folder.rows(), self.trials.read().to_pylist())

    # -- inside --

    def _require_kind(self, spec: StudySpec) -> None:
        if spec.transfer is None:
            raise StudyError("the spec has no section transfer: it belongs to raylr.FittingStudy")

    def _answer(self, stages: Stages) -> ProxySearch:
        self.progress.stage("Carrying the proxy's hyperparameters to the targets")
        search = self.search()
        self.progress.message(f"{search.basin.message[0].upper()}{search.basin.message[1:]}.")
        write_atomic(self.directory / ANSWER_FILE, json.dumps(record(self.result(search)), indent=1) + "\n")
        if search.known:
            for target in self.spec.targets:
                stages.check(target, search.lr, search.axes)
        return search


def carried(spec: StudySpec, search: ProxySearch, target: TransferTarget, check: Check | None = None) -> Transferred:
    """Carry what a search found to a target.

    Args:
        spec: The study's spec.
        search: The proxy's search.
        target: One of the spec's targets.
        check: Runs at the target.
    """
    assert spec.transfer is not None
    rule, pair = spec.transfer.table(), networks_of(spec, target)
    found: Transfer | None = transfer(*pair, rule) if pair else None
    names: tuple[Axis, ...] = ("width", "depth", "tokens", "batch")
    ratios = dict(zip(names, target_ratios(spec, target).values(), strict=True))
    ratios = dict(found.ratios) if found else ratios
    reasons = spreads(rule, ratios)
    axes = {name: (value, *search.interval(name)) for name, value in search.axes.items()}
    train = spec.target_train(target)
    settings: tuple[RoleSettings, ...] = ()
    if found is not None and search.known:
        decay = search.axes.get("weight_decay", train.weight_decay or 0.0)
        eps = getattr(train, "eps", 1e-8)
        settings = settings_of(found, lr=search.lr, init_std=search.axes["init_std"], weight_decay=decay, eps=eps)
    return Transferred(
        target=target,
        prediction=_prediction(spec, search, target, reasons, ratios),
        ratios=ratios,
        spreads=reasons,
        axes=axes,
        settings=settings,
        differences=tuple(differences(*pair, rule)) if pair else (),
        check=check,
    )


def _prediction(
    spec: StudySpec, search: ProxySearch, target: TransferTarget, reasons: tuple[Spread, ...],
    ratios: Mapping[Axis, float],
) -> LRPrediction:  # fmt: skip
    low, high = math.nan, math.nan
    if search.known:
        low, high = widened(search.lr, *search.interval("lr"), total(reasons), LEVEL)
    shown = ", ".join(f"{SYMBOLS[axis]} = {ratio:g}" for axis, ratio in ratios.items() if ratio != 1)
    message = "; ".join([search.fit.message, *(one.what for one in reasons)])
    return LRPrediction(
        lr=search.lr, lr_low=low, lr_high=high, level=LEVEL, params=float(spec.target_model(target).params("total")),
        tokens=float(spec.tokens_of(target)), batch=float(spec.target_train(target).batch_tokens), params_beyond=1.0,
        tokens_beyond=1.0, status=search.fit.status if search.known else Status.TOO_FEW,
        message=f"{shown}; {message}" if shown else message,
    )  # fmt: skip


def record(result: TransferResult) -> dict[str, Any]:
    """Return what was carried over as JSON's types: the proxy's values with intervals, ratios, and every tensor."""
    search, given = result.search, result.spec.transfer
    assert given is not None
    return {
        "schema": 1,
        "rule": given.rule if isinstance(given.rule, str) else given.table().name,
        "choices": dict(given.table().choices),
        "proxy": {
            "size": search.size, "params": search.params, "tokens": search.tokens, "batch_tokens": search.batch,
            "status": search.fit.status.value, "message": search.fit.message, "one_basin": search.basin.basins.value,
            "at": {name: _entry(search, name) for name in search.fit.at},
        },
        "targets": [
            {
                "name": one.target.name, "params": one.prediction.params, "tokens": one.prediction.tokens,
                "batch_tokens": one.prediction.batch, "ratios": dict(one.ratios),
                "lr": {"value": _finite(one.prediction.lr), "low": _finite(one.prediction.lr_low),
                       "high": _finite(one.prediction.lr_high)},
                "spreads": [{"what": spread.what, "sd": spread.sd} for spread in one.spreads],
                "settings": [setting.record() for setting in one.settings],
                "not_covered": [{"what": d.what, "proxy": d.base, "target": d.target, "note": d.note}
                                for d in one.differences],
            }
            for one in result.targets
        ],
    }  # fmt: skip


def _entry(search: ProxySearch, name: str) -> dict[str, float | None]:
    low, high = search.interval(name)
    return {"value": search.fit.at[name], "low": _finite(low), "high": _finite(high)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
