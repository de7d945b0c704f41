"""The verdict: whether an LR may be trusted, in a sentence, from the optima, the law, its prediction and the check.

Studies and finished runs are judged by the same rules. The first rule that applies decides, measurements at the target
before everything that is inferred.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from raylr.analysis.laws.lr_law import EXTRAPOLATION_LIMIT, LRLaw, LRPrediction
from raylr.analysis.status import Status
from raylr.analysis.studyfit import Check
from raylr.analysis.units import format_lr

SETTLED = (Status.OK, Status.PLATEAU)
"""Statuses of optima that need no further run."""
BRACKETED = (*SETTLED, Status.UNCERTAIN)
"""Statuses of losses whose optimum lies between them."""
EDGES = (Status.EDGE_LOW, Status.EDGE_HIGH)
KNOWN_SHARE = 0.5
"""Share of settings with a known optimum from which a law is trusted: the others then only confirm it."""
WIDEST = 3.0
"""A prediction is used without a check if its interval reaches at most this factor to either side: the width that the
three runs of the usual check (1/3, 1 and 3 times the predicted LR) cover."""
SAME_LR = 1.1
"""LRs within this factor count as equal: a law that is fitted again moves its prediction by a little."""


class Advice(StrEnum):
    """What a verdict advises."""

    TRUST = "trust it"
    WIDEN = "widen the range"
    MORE = "more budget"
    UNKNOWN = "cannot tell"


class Verdict(NamedTuple):
    """A verdict and its sentence."""

    advice: Advice
    text: str


class Judged(NamedTuple):
    """The optimum of a setting, as its fit judges it."""

    name: str
    status: Status
    message: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a verdict follows from."""

    optima: Sequence[Judged]
    """One for each setting that has runs."""
    law: LRLaw | None
    """None where the runs do not say their parameters or tokens."""
    why: str = ""
    """Why there is no law."""
    prediction: LRPrediction | None = None
    """At the target; None without one."""
    target: str = "the target"
    """Name of the target."""
    check: Check | None = None
    """Runs at the target."""
    by: str = "law"
    """What predicts: the law, or the transfer."""

    @property
    def settled(self) -> int:
        """Number of optima that are known."""
        return sum(one.status in SETTLED for one in self.optima)

    @property
    def share(self) -> str:
        """How many optima are known, in words."""
        total = len(self.optima)
        if total == 1:
            return f"the one optimum is {'known' if self.settled else 'not determined'}"
        return f"{self.settled} of {total} optima are known"


def verdict(evidence: Evidence) -> Verdict:
    """Return whether the LR can be trusted, and why.

    Args:
        evidence: What was fitted, predicted and checked.

    Returns:
        The advice and a sentence that begins with it.

    Example:
        >>> at_the_end = Judged("S", Status.EDGE_HIGH, "the loss is still falling")
        >>> verdict(Evidence(optima=[at_the_end], law=None)).advice
        <Advice.WIDEN: 'widen the range'>
    """
    found = of_check(evidence)
    if found is not None:
        return found
    if not evidence.optima:
        return Verdict(Advice.UNKNOWN, "Cannot tell: no run has ended with a loss.")
    if len(evidence.optima) == 1 and evidence.prediction is None:
        return _of_one(evidence.optima[0])
    return _of_the_edges(evidence) or _of_the_law(evidence)


def reach(prediction: LRPrediction) -> float:
    """Return the factor by which a prediction's interval reaches to its wider side; NaN without an interval."""
    low, lr, high = prediction.lr_low, prediction.lr, prediction.lr_high
    return max(lr / low, high / lr) if 0 < low <= lr <= high else math.nan


def contradicted(evidence: Evidence) -> bool:
    """Return whether the check contradicts the prediction: the prediction's interval lacks the check's optimum, and the
    check's interval lacks the prediction."""
    prediction, check = evidence.prediction, evidence.check
    if prediction is None or check is None or not prediction.lr > 0:
        return False
    fit, lr = check.fit, prediction.lr
    if fit.status not in (*BRACKETED, *EDGES) or not math.isfinite(fit.lr):
        return False
    low, high = prediction.lr_low, prediction.lr_high
    if math.isfinite(low) and low <= fit.lr <= high:
        return False
    near = max(lr / fit.lr, fit.lr / lr) <= SAME_LR
    return not near and not fit.lr_low <= lr <= fit.lr_high


def of_check(evidence: Evidence) -> Verdict | None:
    """Return the verdict of the runs at the target; None where there are none, or they do not decide."""
    check, prediction, name = evidence.check, evidence.prediction, evidence.target
    if check is None or prediction is None or not (math.isfinite(prediction.lr) and prediction.lr > 0):
        return None
    lost = [run.lr for run in check.runs if run.diverged and run.lr <= prediction.lr * SAME_LR]
    if lost:
        shown = format_lr(max(lost))
        return Verdict(Advice.UNKNOWN, f"Do not trust it: at {name} the run at LR {shown} diverged.")
    fit = check.fit
    if contradicted(evidence):
        found = fit.lr
        if fit.status in EDGES:
            end, last = ("lowest", min) if fit.status is Status.EDGE_LOW else ("highest", max)
            found = last([run.lr for run in check.runs if not run.diverged], default=fit.lr)
            where = f"the loss is lowest at the {end} LR tried, {format_lr(found)}"
        else:
            where = f"training found the optimum at {format_lr(found)}"
        interval = ", outside the prediction's interval" if math.isfinite(reach(prediction)) else ""
        return Verdict(
            Advice.UNKNOWN,
            f"Do not trust the {evidence.by} at {name}: {where}, {_apart(found, prediction.lr)} the predicted LR"
            f"{interval}.",
        )
    if fit.status not in BRACKETED:
        return None
    low, high = prediction.lr_low, prediction.lr_high
    inside = (
        "inside its interval"
        if math.isfinite(reach(prediction)) and low <= fit.lr <= high
        else "and its interval holds the prediction"
        if fit.lr_low <= prediction.lr <= fit.lr_high
        else "too near to matter"
    )
    return Verdict(
        Advice.TRUST,
        f"Trust it at {name}: training there, which no fit has seen, puts the optimum near {format_lr(fit.lr)}, "
        f"{_apart(fit.lr, prediction.lr)} the predicted LR, {inside}.",
    )


def _apart(one: float, other: float) -> str:
    return f"a factor {max(one / other, other / one):.2f} from"


def _of_one(one: Judged) -> Verdict:
    message = one.message.rstrip(".")
    found = {
        Status.OK: (Advice.TRUST, "Trust it: the optimum is bracketed and its interval is narrow enough."),
        Status.PLATEAU: (Advice.TRUST, f"Trust it: {message}."),
        Status.UNCERTAIN: (Advice.MORE, f"More runs: {message}."),
        Status.EDGE_LOW: (
            Advice.WIDEN,
            "Widen the range to lower LRs: the losses still fall towards the lowest LR tried.",
        ),
        Status.EDGE_HIGH: (
            Advice.WIDEN,
            "Widen the range to higher LRs: the losses still fall towards the highest LR tried.",
        ),
        Status.TOO_FEW: (Advice.MORE, f"More runs: {message}."),
        Status.DIVERGED: (Advice.WIDEN, "Widen the range to lower LRs: every run diverged."),
    }.get(one.status, (Advice.UNKNOWN, f"Cannot tell: {message}."))
    return Verdict(*found)


def _of_the_edges(evidence: Evidence) -> Verdict | None:
    total = len(evidence.optima)
    lost = sum(one.status is Status.DIVERGED for one in evidence.optima)
    if lost > total / 2:
        what = "every run diverged" if lost == total else f"at {lost} of {total} settings every run diverged"
        return Verdict(Advice.WIDEN, f"Widen the range to lower LRs: {what}.")
    edges = Counter(one.status for one in evidence.optima if one.status in EDGES)
    if edges.total() <= total / 2:
        return None
    side = edges.most_common(1)[0][0]
    word = "lower" if side is Status.EDGE_LOW else "higher"
    where = f"at {edges.total()} of {total} settings" if total > 1 else f"at {evidence.optima[0].name}"
    return Verdict(
        Advice.WIDEN, f"Widen the range to {word} LRs: {where} the lowest loss is at the end of the LRs tried."
    )


def _of_the_law(evidence: Evidence) -> Verdict:
    law, share, total = evidence.law, evidence.share, len(evidence.optima)
    few = evidence.settled < KNOWN_SHARE * total
    if law is None:
        if few:
            return Verdict(Advice.MORE, f"More runs: {share}. There is no law: {evidence.why}.")
        return Verdict(Advice.TRUST, f"Trust the optima that are ok: {share}. There is no law: {evidence.why}.")
    if not law.usable:
        return Verdict(Advice.UNKNOWN, f"Cannot tell: {share}, and they give no law ({law.message}).")
    if few:
        return Verdict(Advice.MORE, f"More runs: {share}, too few for a law to be relied on.")
    if evidence.prediction is not None:
        return _of_the_prediction(evidence, evidence.prediction)
    if not law.ok:
        where = f"at the sizes and budgets measured ({share})"
        if evidence.settled < total:
            where = f"where the optimum is ok ({share})"
        return Verdict(Advice.MORE, f"Trust it {where}; elsewhere more budget is needed: {law.message}.")
    bend = f" Its line is only an average there: {law.message}." if law.message else ""
    return Verdict(
        Advice.TRUST,
        f"Trust it between the settings measured: {share}, and the law has all its exponents from them.{bend}",
    )


def _of_the_prediction(evidence: Evidence, prediction: LRPrediction) -> Verdict:
    name = evidence.target
    if not (math.isfinite(prediction.lr) and prediction.lr > 0):
        return Verdict(Advice.UNKNOWN, f"Cannot tell: there is no prediction at {name}, because {prediction.message}.")
    far = beyond(prediction)
    if prediction.status is Status.EXTRAPOLATED:
        return Verdict(
            Advice.MORE,
            f"More budget: {name} lies {far}; a law is not used further out than {EXTRAPOLATION_LIMIT:g} times.",
        )
    if not prediction.ok:
        return Verdict(Advice.MORE, f"More budget: the law does not reach {name} ({prediction.message}).")
    width = reach(prediction)
    if not math.isfinite(width):
        return Verdict(Advice.UNKNOWN, f"Cannot tell: the prediction at {name} has no interval; {share_of(evidence)}.")
    if width > WIDEST:
        return Verdict(
            Advice.MORE,
            f"More budget: the interval at {name} reaches a factor {width:.3g} to one side, more than {WIDEST:g}; "
            f"{share_of(evidence)}.",
        )
    place = f"{name} lies {far}" if far else f"{name} lies inside the fitted range"
    checked = "The runs there do not decide" if evidence.check is not None else "No run at the target has tested it"
    return Verdict(
        Advice.TRUST,
        f"Trust it within its interval: {evidence.share}, the interval reaches a factor {width:.3g} to its wider side, "
        f"and {place}. {checked}.",
    )


def share_of(evidence: Evidence) -> str:
    """Return how many optima are known, and which are not."""
    open_ones = [one.name for one in evidence.optima if one.status not in SETTLED]
    shown = ", ".join(open_ones[:3]) + (" and others" if len(open_ones) > 3 else "")
    return f"{evidence.share}{f' (not: {shown})' if shown and len(evidence.optima) > 1 else ''}"


def beyond(prediction: LRPrediction) -> str:
    """Return how far beyond the fitted range a prediction lies, in words; "" inside of it."""
    parts = [
        f"{factor:.3g} times beyond the fitted {what}"
        for factor, what in (
            (prediction.params_beyond, "parameters"),
            (prediction.tokens_beyond, "tokens"),
            (prediction.batch_beyond, "batch"),
        )
        if factor > SAME_LR
    ]
    return " and ".join(parts) if len(parts) < 3 else f"{parts[0]}, {parts[1]} and {parts[2]}"
