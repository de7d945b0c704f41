"""The two paradigms side by side at one target: which hyperparameters train it better, and what finding them took.

fitting study ──law──▶ fitted LR ───────────────┐
                                                ├─▶ parametrized: the rule at the fitted LR
transfer study ──rule──▶ transferred settings ──┘

Every arm is trained with several seeds (`raylr.arms`); `analysis.comparison` compares them. The third arm differs from
the fitted one in the parametrization and from the transferred one in the LR, so that the two are not confused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raylr.analysis.comparison import Arm, ArmKind, ArmRun, ArmScore, Comparison, Spent, compare_arms
from raylr.analysis.scores.scores import Scores, summarise_all
from raylr.analysis.scores.table import calibrated
from raylr.analysis.units import format_count, format_lr, format_name
from raylr.arms import SAME_LR, ArmPlace, ArmStages, swept_lr
from raylr.errors import InputError
from raylr.evaluation.tables import EVALS, QuestionTable
from raylr.execution.kept import ray_kept
from raylr.spec.external import ExternalModel
from raylr.spec.sections import TargetSpec
from raylr.spec.transfer import TransferTarget, networks_of
from raylr.study import FittingStudy, Study, StudyResult
from raylr.trainables.models.transfer import transfer
from raylr.trainables.training.identity import identity_fields
from raylr.trainables.training.spec import TrainSpec
from raylr.transfer_study import TransferResult, TransferStudy

SEEDS = 3
"""Runs of an arm: with three seeds in each of three arms, a difference of four standard deviations between seeds is
decided in 9 of 10 cases."""
_OTHERS = ("parametrization", "weight_decay", "seed", "data_seed")
"""Training settings in which arms may differ."""


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """What a comparison has found."""

    target: str
    """Name of the target; "" where the arms are models of different names."""
    params: float
    """Parameters of its model; NaN where they are not known."""
    tokens: float
    """Its training tokens; NaN where they are not known."""
    batch: float | None
    """Tokens of one optimizer step, where they are known."""
    comparison: Comparison
    """The arms and their pairs."""
    notes: Sequence[str] = ()
    """Which arms are missing, and what is to be known of the others."""
    scores: Sequence[Scores] = ()
    """Scores of the arms' runs along training."""
    labels: Mapping[str, str] | None = None
    """Run → what figures call it."""


@ray_kept()
def compare(
    fitting: FittingStudy | Path | str,
    transferring: TransferStudy | Path | str,
    *,
    target: str | None = None,
    seeds: int = SEEDS,
    sweep: int = 0,
    train: bool = False,
    seed_sd: float | None = None,
) -> ComparisonResult:
    """Compare the fitted LR, the transferred hyperparameters, and the rule at the fitted LR, at one target.

    Args:
        fitting: A study that fits a law, or its folder.
        transferring: A study that transfers, or its folder.
        target: Name of the transfer study's target. Default: the one that is the fitting study's target.
        seeds: Runs of each arm.
        sweep: Most runs of a sweep of the target's own LR, whose best LR is then a fourth arm; 0: none.
        train: Whether studies are run and arms trained as far as they are not there yet; otherwise nothing is written.
            An interrupted comparison goes on where it was.
        seed_sd: Standard deviation of losses between seeds, nats, if it is known from elsewhere.

    Returns:
        Arms, pairs, costs and scores. Arms without a run are left out, with a note that says why.

    Raises:
        InputError: The two studies do not have a target in common, or a number is out of range.
        StudyError: A folder holds no such study.

    Example:
        `best` is "fitted", "transferred" or "parametrized", and None where the runs do not decide.

        >>> compare("runs/fitting", "runs/transfer", train=True).comparison.best  # doctest: +SKIP
        'transferred'
    """
    if seeds < 1 or sweep < 0:
        raise InputError(f"seeds is at least 1 and sweep at least 0, got {seeds} and {sweep}")
    one = fitting if isinstance(fitting, FittingStudy) else FittingStudy.open(fitting)
    other = transferring if isinstance(transferring, TransferStudy) else TransferStudy.open(transferring)
    own, theirs = targets_of(one, other, target)
    fitted = one.run() if train else one.result()
    carried = other.run() if train else other.result()
    places, notes = _places(one, other, own, theirs, fitted, carried)
    if train:
        one.progress.message(
            f"The comparison has {len(places)} arms of {seeds} runs at {format_name(theirs.name)}, each of "
            f"{format_count(one.spec.tokens_of(own))} tokens; runs of the checks at the same LR count."
        )
        for place in places.values():
            place.train(seeds)
        if sweep and ArmKind.FITTED in places:
            with one.folder.locked():
                ArmStages(one.folder, one.progress, one.executor).sweep(own, places[ArmKind.FITTED].lr, sweep)
    spent: dict[ArmKind, Spent | None] = {
        ArmKind.FITTED: Spent(tokens=fitted.cost.search_tokens, flops=fitted.cost.search_flops),
        ArmKind.TRANSFERRED: Spent(tokens=carried.cost.search_tokens, flops=carried.cost.search_flops),
    }
    spent[ArmKind.PARAMETRIZED] = Spent(
        tokens=fitted.cost.search_tokens + carried.cost.search_tokens,
        flops=fitted.cost.search_flops + carried.cost.search_flops,
    )
    if (swept := swept_lr(one, own)) is not None:
        lr, spent[ArmKind.SWEPT] = swept
        if ArmKind.FITTED in places and same_lr(lr, places[ArmKind.FITTED].lr):
            notes.append(f"The target's own sweep finds LR {format_lr(lr)}, which is the fitted one.")
        else:
            places[ArmKind.SWEPT] = ArmPlace(study=one, target=own, lr=lr)
            if train:
                places[ArmKind.SWEPT].train(seeds)
    arms, labels, scores = [], dict[str, str](), list[Scores]()
    for kind, place in places.items():
        runs, training = place.runs()
        found = _scored(place.study, runs, labels, kind.value, scores)
        if not runs:
            notes.append(f"{kind} has no run yet; --train trains it.")
        arms.append(
            Arm(name=kind.value, kind=kind, lr=place.lr, about=_about(kind, place), runs=found, search=spent.get(kind),
                training=training)
        )  # fmt: skip
    return ComparisonResult(
        target=theirs.name,
        params=float(one.spec.target_model(own).params("total")),
        tokens=float(one.spec.tokens_of(own)),
        batch=float(one.spec.target_train(own).batch_tokens),
        comparison=compare_arms(arms, seed_sd=seed_sd),
        notes=notes,
        scores=scores,
        labels=labels,
    )


def targets_of(one: FittingStudy, other: TransferStudy, name: str | None) -> tuple[TargetSpec, TransferTarget]:
    """Return the target that two studies have in common, as each of them has it.

    Args:
        one: The study that fits.
        other: The study that transfers.
        name: Name of the transfer study's target; None: the one that is the fitting study's.

    Raises:
        InputError: If there is no such arm; the message says in what the nearest differs.
    """
    own = one.spec.target
    if own is None:
        raise InputError(f"the study in {one.directory} names no target; add target: {{model: {{…}}, tokens: …}}")
    assert other.spec.transfer is not None
    candidates = [target for target in other.spec.transfer.targets if name in (None, target.name)]
    if not candidates:
        known = ", ".join(target.name for target in other.spec.transfer.targets)
        raise InputError(f"the study in {other.directory} has no target {name!r}; it has {known}")
    apart = [(_unlike(one, other, own, target), target) for target in candidates]
    differing, nearest = min(apart, key=lambda pair: len(pair[0]))
    if differing:
        raise InputError(
            f"the two studies do not train the same target: {own.name} in {one.directory} and {nearest.name} in "
            f"{other.directory} differ in {'; '.join(differing[:4])}"
        )
    return own, nearest


def _unlike(one: Study, other: Study, own: TargetSpec, target: TargetSpec) -> list[str]:
    """Return in what the two targets differ beside what arms may differ in, as `key: here, not there`."""
    sides = [_measured(one, own), _measured(other, target)]
    out = [
        f"{key}: {sides[0].get(key)!r}, not {sides[1].get(key)!r}"
        for key in sorted({*sides[0], *sides[1]})
        if sides[0].get(key) != sides[1].get(key)
    ]
    corpora: list[Any] = [study.folder.corpus for study in (one, other)]
    if None in corpora:
        corpora = [study.spec.corpus for study in (one, other)]
    return [*out, "the corpus"] if corpora[0] != corpora[1] else out


def _measured(study: Study, target: TargetSpec) -> dict[str, Any]:
    """Return what the target's runs measure, as a flat mapping without what arms may differ in."""
    spec, model, train = study.spec, study.spec.target_model(target), study.spec.target_train(target)
    if isinstance(model, ExternalModel) or not isinstance(train, TrainSpec):
        shape: dict[str, Any] = {"params": model.params("total"), "trainer": spec.trainer}
        settings = train.model_dump(mode="json")
    else:
        fields = identity_fields(model=model, train=train, lr=1.0, tokens=1, corpus="")
        shape, settings = dict(fields["model"].get("hf", fields["model"])), fields["train"]
    for name in ("init_std", "initializer_range"):
        shape.pop(name, None)
    settings = {f"train.{name}": value for name, value in settings.items() if name not in _OTHERS}
    return shape | settings | {"tokens": spec.tokens_of(target)}


def _places(
    one: FittingStudy, other: TransferStudy, own: TargetSpec, theirs: TransferTarget, fitted: StudyResult,
    carried: TransferResult,
) -> tuple[dict[ArmKind, ArmPlace], list[str]]:  # fmt: skip
    """Return where each arm's runs are, and a note for each that there cannot be."""
    places: dict[ArmKind, ArmPlace] = {}
    notes: list[str] = []
    prediction, search = fitted.prediction, carried.search
    fits = prediction is not None and math.isfinite(prediction.lr) and prediction.lr > 0
    if prediction is not None and fits:
        if not prediction.ok:
            notes.append(f"The law does not support its prediction ({prediction.message}); it is trained all the same.")
        places[ArmKind.FITTED] = ArmPlace(study=one, target=own, lr=float(f"{prediction.lr:.6e}"))
    else:
        why = fitted.fit.law.message if prediction is None else prediction.message
        notes.append(f"fitted is missing: the law gives no LR at {format_name(own.name)} ({why}).")
    if not search.known:
        notes.append(f"transferred is missing: the search of the proxy gives no LR ({search.fit.message}).")
        return places, notes
    lr, axes = float(f"{search.lr:.6e}"), search.axes
    places[ArmKind.TRANSFERRED] = ArmPlace(study=other, target=theirs, lr=lr, axes=axes)
    if not fits:
        return places, notes
    factor = lr_factor(other, theirs)
    if factor is None:
        notes.append(
            "parametrized is missing: another trainer's models do not say by what the rule multiplies their LR."
        )
        return places, notes
    at_fitted = float(f"{places[ArmKind.FITTED].lr / factor:.6e}")
    if same_lr(at_fitted, lr):
        notes.append(
            "parametrized is left out: the rule trains most of the weights at the fitted LR already, "
            f"{format_lr(lr * factor)}."
        )
        return places, notes
    places[ArmKind.PARAMETRIZED] = ArmPlace(study=other, target=theirs, lr=at_fitted, axes=axes)
    return places, notes


def lr_factor(study: TransferStudy, target: TransferTarget) -> float | None:
    """Return by what the rule multiplies the LR of most of a target's weights; None for another trainer's model.

    The third arm has these weights train at the fitted LR, the others at the LRs that the rule gives beside it.
    """
    assert study.spec.transfer is not None
    pair = networks_of(study.spec, target)
    if pair is None:
        return None
    weights: dict[float, int] = {}
    for one in transfer(*pair, study.spec.transfer.table()).tensors:
        factor = float(f"{one.factors['lr']:.9g}")
        weights[factor] = weights.get(factor, 0) + int(np.prod(one.shape))
    return max(weights, key=lambda factor: (weights[factor], factor))


def same_lr(one: float, other: float) -> bool:
    """Return whether two LRs count as one."""
    return max(one / other, other / one) <= SAME_LR


def _about(kind: ArmKind, place: ArmPlace) -> str:
    lr = format_lr(place.lr)
    if kind is ArmKind.FITTED:
        return f"standard parametrization, LR {lr} from the law"
    if kind is ArmKind.SWEPT:
        return f"standard parametrization, LR {lr} from a sweep at the target"
    assert isinstance(place.study, TransferStudy)
    assert isinstance(place.target, TransferTarget)
    assert place.study.spec.transfer is not None
    rule, factor = place.study.spec.transfer.table().name, lr_factor(place.study, place.target)
    shown = "" if factor is None else f" (most weights: {format_lr(place.lr * factor)})"
    others = "".join(f", {name} {value:.3g}" for name, value in (place.axes or {}).items())
    if kind is ArmKind.TRANSFERRED:
        return f"{rule}, the proxy's LR {lr}{shown}{others}"
    return f"{rule} at the fitted LR: the proxy's would be {lr}{shown}{others}"


def _scored(
    study: Study, runs: Sequence[ArmRun], labels: dict[str, str], name: str, scores: list[Scores]
) -> list[ArmRun]:
    """Return the runs with their last scores; add their labels, and their scores along training, to those so far."""
    labels |= {run.name: f"{name}, seed {run.seed}" for run in runs}
    if not (study.directory / EVALS).is_dir():
        return list(runs)
    questions: pa.Table = calibrated(QuestionTable(study.directory).read())
    found = [one for one in summarise_all(questions) if one.tokens is not None] if questions.num_rows else []
    out = []
    for run in runs:
        own = sorted((one for one in found if one.run == run.name), key=lambda one: one.tokens or 0)
        scores += own
        last = {suite: value for one in own for suite, value in _suites(one).items()}
        out.append(ArmRun(loss=run.loss, seed=run.seed, name=run.name, tokens=run.tokens, curve=run.curve, scores=last))
    return out


def _suites(one: Scores) -> dict[str, ArmScore]:
    rows = [row for row in one.rows if row.level == "suite" and row.average == "naive"]
    return {
        row.suite: ArmScore(
            accuracy=row.accuracy, stderr=row.accuracy_stderr, tokens=float(one.tokens or 0),
            at_chance=not row.differs_from_chance(),
        )
        for row in rows
    }  # fmt: skip


def record(result: ComparisonResult) -> dict[str, Any]:
    """Return a comparison as values that JSON can hold; what is not finite is null."""
    found = result.comparison
    plain: dict[str, Any] = _plain(
        {
            "target": result.target,
            "params": result.params,
            "tokens": result.tokens,
            "batch_tokens": result.batch,
            "status": found.status.value,
            "message": found.message,
            "best": found.best,
            "probability": found.probability,
            "decided_from": found.decided,
            "arms": [
                {
                    "name": arm.name, "kind": arm.kind.value, "lr": arm.lr, "about": arm.about, "mean_loss": arm.mean,
                    "seed_sd": arm.sd, "diverged": arm.diverged, "search": _spent(arm.search),
                    "training": _spent(arm.training),
                    "runs": [
                        {"run": run.name, "seed": run.seed, "loss": run.loss, "tokens": run.tokens.tolist(),
                         "curve": run.curve.tolist(), "scores": {name: vars(one) for name, one in run.scores.items()}}
                        for run in arm.runs
                    ],
                }
                for arm in found.arms
            ],
            "pairs": [
                {
                    "a": one.a, "b": one.b, "better": one.better, "probability_a_better": one.result.probability,
                    "difference": one.result.difference, "low": one.result.low, "high": one.result.high,
                    "level": one.result.level, "seed_sd": one.result.seed_sd,
                    "seed_correlation": one.result.correlation, "status": one.result.status.value,
                }
                for one in found.pairs
            ],
            "notes": list(result.notes),
        }
    )  # fmt: skip
    return plain


def _spent(spent: Spent | None) -> dict[str, float] | None:
    return None if spent is None else {"tokens": spent.tokens, "flops": spent.flops}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(result: ComparisonResult) -> str:
    """Return `record` as text."""
    return json.dumps(record(result), indent=1)
