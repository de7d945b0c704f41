"""The status of a fit: what the posterior says in one word and one sentence.

The rules are applied in this order; each names what to look at, and the first that holds gives the status.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum._curves import Curves
from raylr.analysis.optimum._losses import CLUSTER, SAME, Losses
from raylr.analysis.optimum._recommend import (
    NEGLIGIBLE,
    best_lr,
    contradicted,
    noise_of,
    noise_unconfirmed,
    smooth,
    tied,
)
from raylr.analysis.optimum.prior import OptimumPrior
from raylr.analysis.status import Status

Array = NDArray[np.float64]

LRS = 4
"""Fewest LRs with a finite loss for `ok`: three always lie on some curve with one minimum, the fourth confirms it."""
LRS_PRIOR = 2
"""The same where a prior knows optimum and curvature."""
BEYOND = 0.5
"""Probability that the best LR lies beyond the LRs tried from which the answer is an edge."""
RIDGE = 0.1
"""Least height of the ridge between two minima, as a share of the median height of all LRs."""
CERTAIN = 4.0
"""Standard errors of a difference that noise does not explain."""
TRIED = 0.15
"""Distance in ln lr within which a run shows the loss at the answer: a curve rises by `NEGLIGIBLE` on the way."""
FALLING = 0.25
"""Probability that the best LR lies beyond four or more LRs with losses that fall from each to the next, from which the
answer is an edge. Exact parabolas whose vertex lies 0.15 in ln lr inside the last LR have at most 0.21 (some 2,000 of
them), and 95 % of those with the vertex 0.08 beyond have above 0.85."""
RISK = 0.1
"""Probability of a jump from which an untried LR is not `ok`."""
FLAT_DOF = 4
"""Fewest degrees of freedom of the replicates from which all losses may be called noise: with fewer their variance
itself is not known within a factor of two or three (chi-square with 4: 90 % lie between 0.18 and 2.4 times it)."""
RELATIVE_REGRET = 0.1
"""Expected regret of an `ok` answer without a given tolerance, as a share of what a factor e of the LR costs at least,
with probability 1 - `COST`."""
COST = 0.25
"""Quantile of the cost of a factor e: its mean is that of the draws whose curve is taken to be as steep as the cliff
beside it."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Answers in units and heights; `fit` turns them into losses."""

    status: Status
    message: str
    lr: float = math.nan
    lr_low: float = 0.0
    lr_high: float = math.inf
    loss: float = math.nan
    loss_stderr: float = math.inf
    regret: float = math.nan
    noise: float = math.nan
    curvature: float = math.nan


def interval(losses: Losses, curves: Curves | None, lr: float, tail: float) -> tuple[float, float]:
    """Return the interval of the best LR.

    Args:
        losses: The losses of the cell.
        curves: Draws of its curve; None if no loss is finite.
        lr: The LR that is recommended, which the interval holds; 0 or below for none.
        tail: Probability that is left out on either side.

    Returns:
        Lower and upper end; 0 and inf where the interval is open because the optimum may lie beyond the LRs tried.
    """
    if curves is None:
        return 0.0, math.exp(losses.diverged[0]) if losses.diverged.size else math.inf
    low, high = np.quantile(curves.optimum, [tail, 1 - tail])
    at = math.log(lr) if lr > 0 else float(np.median(curves.optimum))
    low, high = min(float(low) - CLUSTER, at), max(float(high) + CLUSTER, at)  # no finer than LRs are distinguished
    above = losses.diverged[losses.diverged > losses.x[0]]
    if above.size:
        high = max(min(high, float(above[0])), at)
    ends = curves.x[0] + 0.1, curves.x[-1] - 0.1
    return (math.exp(low) if low > ends[0] else 0.0), (math.exp(high) if high < ends[1] else math.inf)


def judge(
    losses: Losses, curves: Curves | None, low: float, high: float, prior: OptimumPrior, tolerance: float | None,
    lr_factor: float, level: float, searching: bool,
) -> Verdict:  # fmt: skip
    """Return status and answer of a fit, in units and heights.

    Args:
        losses: The losses of the cell.
        curves: Draws of its curve; None if no loss is finite.
        low: Lower end of the range in which the optimum is searched, ln lr.
        high: Upper end of that range, ln lr.
        prior: What is known about the optimum from other cells.
        tolerance: Largest expected regret of an `ok` answer, in the unit of the loss; None derives it from the cost of
            an LR off by a factor e (`RELATIVE_REGRET`).
        lr_factor: Widest interval of an `ok` answer, as a factor to either side.
        level: Probability that the interval is to have.
        searching: Whether further runs can be trained: an untried LR that is expected to be better is then `uncertain`
            until it was tried.
    """
    if curves is None:
        return _without_losses(losses, prior)
    tried = losses.tried
    known = prior.informative
    limit = RELATIVE_REGRET * float(np.quantile(curves.curvature, COST))
    if tolerance is not None:
        limit = tolerance / losses.unit
    at = float(tried[0])
    if tried.size > 1:
        least = max(limit, NEGLIGIBLE) if searching else 0.0
        at = best_lr(losses, curves, float(tried[0]), float(tried[-1]), known=known, least_gain=least)
    if tried.size <= 1 and prior.center is not None:
        at = best_lr(losses, curves, low, high, known=known)
    edge = _edge(losses, curves, prior) if tried.size > 1 else None
    if edge is not None and float(np.mean(_beyond(losses, curves, edge))) > BEYOND:
        at = float(tried[0] if edge is Status.EDGE_LOW else tried[-1])  # the LR tried that is closest to the optimum
    ends = interval(losses, curves, math.exp(at), 0.5 * (1 - level))
    lost = (curves.curves - curves.curves.min(axis=1, keepdims=True)).mean(axis=0)
    regret = float(np.interp(at, curves.x, lost))
    curvature = float(np.mean(curves.curvature))
    status, message = _status(losses, curves, at, ends, edge, regret, curvature, prior, limit, lr_factor, searching)
    other = _second_minimum(losses, curves) if status is Status.TWO_MINIMA else None
    if other is not None:  # the best LR lies around either of the two
        ends = min(ends[0], math.exp(other[1] - CLUSTER)), max(ends[1], math.exp(other[1] + CLUSTER))
    return Verdict(
        status=status, message=message, lr=math.exp(at), lr_low=ends[0], lr_high=ends[1],
        loss=float(np.interp(at, curves.x, curves.mean)),
        loss_stderr=float(np.interp(at, curves.x, curves.curves.std(axis=0))),
        regret=regret, noise=noise_of(curves), curvature=curvature,
    )  # fmt: skip


def _without_losses(losses: Losses, prior: OptimumPrior) -> Verdict:
    if losses.diverged.size:
        lowest = math.exp(losses.diverged[0])
        why = f"no run ended with a finite loss; the lowest LR that diverged is {lowest:.3g}: try lower LRs"
        return Verdict(status=Status.DIVERGED, message=why, lr_high=lowest)
    if prior.center is None:
        return Verdict(status=Status.TOO_FEW, message="no run with a finite loss yet")
    low, high = (math.exp(prior.center + sign * 1.645 * prior.center_sd) for sign in (-1, 1))
    why = "no run with a finite loss yet: this is the prior"
    return Verdict(status=Status.TOO_FEW, message=why, lr=math.exp(prior.center), lr_low=low, lr_high=high)


def _status(
    losses: Losses, curves: Curves, at: float, ends: tuple[float, float], edge: Status | None, regret: float,
    curvature: float, prior: OptimumPrior, limit: float, lr_factor: float, searching: bool,
) -> tuple[Status, str]:  # fmt: skip
    x, h = losses.tried, losses.tried_h
    lr, best = f"{math.exp(at):.3g}", f"{math.exp(losses.x[0]):.3g}"
    if x.size < 2:
        return Status.TOO_FEW, "only one LR has a finite loss"
    if h.max() == 0 or (x.size >= 3 and _all_noise(losses, curves)):
        return Status.FLAT, (
            f"the losses at {x.size} LRs from {math.exp(x[0]):.3g} to {math.exp(x[-1]):.3g} differ by no more than "
            "noise: check that the LR reaches the optimizer and that the metric depends on training"
        )
    if edge is not None:
        word, side = ("lower", "lowest") if edge is Status.EDGE_LOW else ("higher", "highest")
        end = math.exp(x[0] if edge is Status.EDGE_LOW else x[-1])
        return edge, f"the loss is still falling at the {side} LR tried, {end:.3g}: try {word} LRs"
    if x.size < 3 and not prior.informative:
        return Status.TOO_FEW, f"only {x.size} LRs have a finite loss"
    ridge = _second_minimum(losses, curves)
    if ridge is not None:
        first, second, between = (math.exp(v) for v in ridge)
        return Status.TWO_MINIMA, (
            f"the losses have minima at {first:.3g} and {second:.3g} with higher ones between ({between:.3g}): repeat "
            "those runs, or look for what changes between the two"
        )
    if contradicted(losses, curves):
        return Status.CONTRADICTED, (
            f"no curve with one minimum agrees with the loss at {best}, which is lower than those around it: repeat "
            "that run"
        )
    jump = float(np.interp(at, curves.x, curves.jumped))
    untried = not np.any(np.abs(x - at) <= SAME)
    above = losses.diverged[losses.diverged > at]
    last = untried and above.size > 0 and not np.any((x > at) & (x < above[0]))  # nothing measured up to the divergence
    if untried and (jump > RISK or last):
        return Status.UNCERTAIN, (
            f"{lr} lies between the best LR tried, {best}, and one that diverged: try it first ({jump:.0%} risk)"
        )
    if not smooth(losses) and not prior.informative and np.abs(x - at).min() > TRIED:
        return Status.UNCERTAIN, (
            f"{lr} was not tried, and the losses around {best} do not show one smooth minimum but a cliff or scatter: "
            "try it first"
        )
    factor = math.sqrt(ends[1] / ends[0]) if ends[0] > 0 else math.inf
    if factor <= lr_factor and regret <= limit:
        if not prior.informative and noise_unconfirmed(losses, curves):
            return Status.UNCERTAIN, "the losses scatter around the curve: repeat a run to tell noise from its shape"
        lead = -float(np.interp(at, curves.x, curves.mean))
        if searching and not prior.informative and untried and lead > limit:
            return Status.UNCERTAIN, (
                f"{lr} was not tried and is expected to be better than the best LR tried, {best}, by more than the "
                "tolerance: try it first"
            )
        need = LRS_PRIOR if prior.informative else LRS
        if x.size >= need:
            return Status.OK, f"known within tolerance from {x.size} LRs with a finite loss"
        return Status.UNCERTAIN, f"{x.size} LRs with a finite loss fit any curve: one more has to confirm it"
    flat = _plateau(losses, curves, lr_factor)
    if flat is not None and factor > lr_factor and (flat[2] or regret <= limit):
        return Status.PLATEAU, (
            f"the losses from {math.exp(flat[0]):.3g} to {math.exp(flat[1]):.3g} are the same within "
            "noise: any LR between does"
        )
    share, most = (v / curvature if curvature > 0 else math.inf for v in (regret, limit))
    return Status.UNCERTAIN, (
        f"interval within a factor {factor:.2f} to either side (at most {lr_factor:.2f}), expected regret "
        f"{f'{share:.1%} of' if share < 1 else f'{share:.1f} times'} what a factor e of the LR costs "
        f"(tolerance {most:.1%})"
    )


def _plateau(losses: Losses, curves: Curves, lr_factor: float) -> tuple[float, float, bool] | None:
    """ln of the ends of the LRs around the best whose losses are equal, and whether they are so without any noise."""
    x, h = losses.tried, losses.tried_h
    order = np.argsort(h, kind="stable")
    for size in range(x.size - 1, LRS - 1, -1):
        part = np.sort(order[:size])
        if part[-1] - part[0] + 1 == size and h[order[size - 1]] <= NEGLIGIBLE * h[order[size]]:
            if x[part[-1]] - x[part[0]] > 2.0 * math.log(lr_factor):
                return float(x[part[0]]), float(x[part[-1]]), True
            break
    part = np.flatnonzero(tied(losses, curves))
    if (
        part.size >= LRS
        and part[-1] - part[0] + 1 == part.size
        and x[part[-1]] - x[part[0]] > 2.0 * math.log(lr_factor)
    ):
        return float(x[part[0]]), float(x[part[-1]]), False
    return None


def _all_noise(losses: Losses, curves: Curves) -> bool:
    """Whether the noise that replicates or standard errors show explains all differences, over all LRs tried."""
    replicated = losses.scatter_dof >= FLAT_DOF
    if not replicated and not losses.tried_error.any():
        return False
    h, run = losses.tried_h, losses.scatter if replicated else 0.0
    weight = 1.0 / np.maximum(run / losses.tried_count + losses.tried_error**2, 1e-12 * float(h.max()) ** 2)
    chi2 = float(weight @ (h - float(weight @ h) / float(weight.sum())) ** 2)
    dof = h.size - 1
    return chi2 <= dof + 2.0 * math.sqrt(2.0 * dof)


def _edge(losses: Losses, curves: Curves, prior: OptimumPrior) -> Status | None:
    """The end of the LRs tried at or beyond which the optimum lies, if it does.

    Losses that fall from each LR tried to the next are an edge, unless the curve through enough LRs shows that it has
    its minimum between the last two. Others are one if the posterior says so and the measurements do not contradict it:
    the LRs that may be the best are those next to that end, and no others.
    """
    x, h = losses.tried, losses.tried_h
    good = tied(losses, curves)
    count = int(good.sum())
    at_low, at_high = bool(good[:count].all()), bool(good[good.size - count :].all())
    below, above = (float(np.mean(_beyond(losses, curves, s))) for s in (Status.EDGE_LOW, Status.EDGE_HIGH))
    falling, rising = bool(np.all(np.diff(h) < 0)), bool(np.all(np.diff(h) > 0))
    # no other LR may be the best, and no prior says that the optimum lies between two
    alone = count == 1 and not (prior.informative and x.size < LRS)
    least = FALLING if x.size >= LRS else 0.0
    if not np.any(losses.diverged > x[-1]) and ((above > BEYOND and at_high) or (falling and alone and above >= least)):
        return Status.EDGE_HIGH
    if not np.any(losses.diverged < x[0]) and ((below > BEYOND and at_low) or (rising and alone and below >= least)):
        return Status.EDGE_LOW
    return None


def _beyond(losses: Losses, curves: Curves, edge: Status) -> NDArray[np.bool_]:
    """Which draws have their optimum beyond the LRs tried, on the side of `edge`, (S,)."""
    low, high = losses.tried[0], losses.tried[-1]
    return np.asarray(curves.optimum < low if edge is Status.EDGE_LOW else curves.optimum > high)


def _second_minimum(losses: Losses, curves: Curves) -> tuple[float, float, float] | None:
    """ln lr of the best LR, of another minimum and of the ridge between them, if the ridge is higher than noise
    explains."""
    x, h = losses.tried, losses.tried_h
    best = int(np.argmin(h))
    noise = noise_of(curves) * np.sqrt(1.0 / losses.tried_count + 1.0 / losses.tried_count.max())
    floor = RIDGE * float(np.median(h[h > 0])) if (h > 0).any() else math.inf
    for side in (range(best - 1, -1, -1), range(best + 1, x.size)):
        top = best
        for i in side:
            if h[i] > h[top]:
                top = i
            elif h[top] - h[i] > max(floor, CERTAIN * float(max(noise[i], noise[top]))) and h[i] < 0.5 * h[top]:
                return float(x[best]), float(x[i]), float(x[top])
    return None
