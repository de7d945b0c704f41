"""The answer of a response surface, and its status: what the draws say in one word and one sentence.

The answer lies among the places tried, where no measured loss speaks against it: the run nearest to it, in the metric
of the curvature, is the best one or one that noise alone sets apart from it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum._recommend import CAUTION, LEAD, REPEAT, SURE, TIED
from raylr.analysis.optimum._response_model import Surfaces, nearest
from raylr.analysis.optimum._response_runs import SAME, SPAN, Runs
from raylr.analysis.optimum._verdict import BEYOND, FLAT_DOF, RELATIVE_REGRET, RISK
from raylr.analysis.status import Status

Array = NDArray[np.float64]

DIFFERENCE = 2.0 * math.sqrt(2.0)
"""An axis makes no difference that can be seen where the loss changes by less than this many standard deviations of a
run over the values tried: two standard deviations of the difference of two runs."""
SMALL = 0.03
"""The same as a share of what the axis that matters most changes, where runs repeat exactly."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Answers in units."""

    status: Status
    message: str
    at: Array | None = None
    """The place to choose, (d,)."""
    low: Array | None = None
    """Lower ends of the intervals, -inf where open, (d,)."""
    high: Array | None = None
    loss: float = math.nan
    loss_stderr: float = math.inf
    regret: float = math.nan
    edges: dict[int, Status] | None = None
    """Axes at whose end the best value lies."""
    flat: tuple[int, ...] = ()
    """Axes that make no difference."""


def sure_noise(runs: Runs, surfaces: Surfaces) -> float:
    """The noise that one run has at least, with probability 1 - `SURE`; 0 where nothing but the misfit shows it."""
    known = runs.scatter_dof > 0 or bool(runs.error.any())
    return float(np.quantile(surfaces.noise, SURE)) if known else 0.0


def tied(runs: Runs, surfaces: Surfaces) -> NDArray[np.bool_]:
    """Which runs may be as good as the best, given the noise, (n,)."""
    variance = sure_noise(runs, surfaces) ** 2 * (1.0 / runs.count + 1.0 / runs.count[0])
    error = np.sqrt(variance + runs.error**2 + runs.error[0] ** 2)
    return np.asarray((runs.h <= TIED * error) | (runs.h == 0.0))


def choose(runs: Runs, surfaces: Surfaces, low: Array, high: Array) -> int:
    """Return the index in the grid of the least expected loss that the measurements allow.

    Args:
        runs: The runs.
        surfaces: Draws of their surface.
        low: Lower ends of the ranges, in units (d,).
        high: Upper ends of the ranges, in units (d,).
    """
    if not surfaces.fits or contradicted(runs, surfaces):
        return 0
    v = surfaces.v
    first, last = np.maximum(low, runs.v.min(axis=0)), np.minimum(high, runs.v.max(axis=0))
    inside = ((v >= first - 1e-9) & (v <= last + 1e-9)).all(axis=1)
    owner = nearest(v, runs.v, surfaces.curvature.mean(axis=0))
    allowed = inside & tied(runs, surfaces)[owner]
    allowed[0] = True
    mean = surfaces.mean
    cost = mean + CAUTION * (surfaces.table - surfaces.table[:, :1]).std(axis=0)
    # A place that is expected to be worse than the best run was measured, by more than noise explains, is not chosen.
    noise = sure_noise(runs, surfaces)
    slack = TIED * noise * math.sqrt(2.0 / runs.count[0]) if noise > 0 else math.inf
    cost = np.where(allowed & (mean <= slack), cost, math.inf)
    return int(np.argmin(cost)) if np.isfinite(cost.min()) else 0


def contradicted(runs: Runs, surfaces: Surfaces) -> bool:
    """Whether the model takes back most of the lead that was measured for the best place over those beside it, with no
    replicate to show that it was luck."""
    if sure_noise(runs, surfaces) > 0 or runs.h.size < 2:
        return False
    distance = ((runs.v - runs.v[0]) ** 2).sum(axis=1)
    beside = np.argsort(distance, kind="stable")[1 : 1 + 2 * runs.v.shape[1]]
    return bool(surfaces.mean[0] > LEAD * float(np.mean(runs.h[beside])))


def effects(runs: Runs, surfaces: Surfaces) -> Array:
    """How much the loss changes over the values tried of each axis with the others at their best, for every draw:
    (S, d)."""
    share = 1.0 / np.maximum(np.diagonal(np.linalg.inv(surfaces.curvature), axis1=1, axis2=2), 1e-300)
    first, last = runs.v.min(axis=0) - surfaces.minimum, runs.v.max(axis=0) - surfaces.minimum
    least = np.where((first < 0) & (last > 0), 0.0, np.minimum(first**2, last**2))
    return surfaces.rise(share * np.maximum(first**2, last**2)) - surfaces.rise(share * least)


def judge(
    runs: Runs, surfaces: Surfaces | None, names: tuple[str, ...], low: Array, high: Array, rising: int | None,
    tolerance: float | None, level: float,
) -> Verdict:  # fmt: skip
    """Return status and answer of a fit over d axes.

    Args:
        runs: The runs.
        surfaces: Draws of their surface; None if no run has a finite loss.
        names: Names of the axes, for the message (d).
        low: Lower ends of the ranges, in units (d,).
        high: Upper ends of the ranges, in units (d,).
        rising: Axis above whose values runs diverge (the LR); None if no axis has this.
        tolerance: Largest expected regret of an `ok` answer, in the unit of the loss; None derives it from the losses.
        level: Probability that the intervals are to have.
    """
    d = len(names)
    if surfaces is None:
        if len(runs.diverged):
            why = f"none of the runs at {len(runs.diverged)} places ended with a finite loss"
            more = f": try a lower {names[rising]}" if rising is not None else ""
            return Verdict(status=Status.DIVERGED, message=why + more)
        return Verdict(status=Status.TOO_FEW, message="no run with a finite loss yet")
    place = choose(runs, surfaces, low, high)
    at = surfaces.v[place]
    left, right = interval(runs, surfaces, at, level)
    lost = float((surfaces.table[:, place] - surfaces.table.min(axis=1)).mean())
    flat = _flat(runs, surfaces)
    edges = {} if len(flat) == d else _edges(runs, surfaces, flat)
    status, message = _status(runs, surfaces, place, lost, names, edges, flat, rising, tolerance)
    if flat and len(flat) < d and status not in (Status.TOO_FEW, Status.FLAT):
        message += f"; {' and '.join(names[k] for k in flat)} {'make' if len(flat) > 1 else 'makes'} no difference "
        message += "larger than the noise over the values tried"
    return Verdict(
        status=status, message=message, at=at, low=left, high=right, loss=float(surfaces.mean[place]),
        loss_stderr=float(surfaces.table[:, place].std()), regret=lost, edges=edges, flat=flat,
    )  # fmt: skip


def interval(runs: Runs, surfaces: Surfaces, at: Array, level: float) -> tuple[Array, Array]:
    """Return the ends of the interval of the best value of every axis, in units, each (d,).

    Args:
        runs: The runs.
        surfaces: Draws of their surface.
        at: The place that is recommended, in units (d,); the interval holds it.
        level: Probability that the interval is to have.

    Returns:
        Lower and upper ends; infinite on a side that is open.
    """
    tail = 0.5 * (1 - level)
    low, high = np.quantile(surfaces.optimum, [tail, 1 - tail], axis=0)
    low, high = low - SAME / runs.width, high + SAME / runs.width  # no finer than places are distinguished
    first, last = surfaces.v.min(axis=0) + 0.1, surfaces.v.max(axis=0) - 0.1
    low = np.where(low > first, np.minimum(low, at), -math.inf)
    return low, np.where(high < last, np.maximum(high, at), math.inf)


def seen(surfaces: Surfaces, most: float) -> float:
    """Least effect of an axis that counts as one, where that of the strongest axis is `most`."""
    return max(DIFFERENCE * float(np.median(surfaces.noise)), SMALL * most)


def _flat(runs: Runs, surfaces: Surfaces) -> tuple[int, ...]:
    """Axes that make no difference, once enough runs could have shown one."""
    d = runs.v.shape[1]
    if runs.h.size < d + 2 or not surfaces.fits:
        return ()
    most = np.quantile(effects(runs, surfaces), 0.95, axis=0)
    limit = seen(surfaces, float(most.max()))
    wide = np.ptp(runs.v, axis=0) >= 0.25 * SPAN
    return tuple(int(k) for k in np.flatnonzero((most <= limit) & wide))


def _edges(runs: Runs, surfaces: Surfaces, flat: tuple[int, ...]) -> dict[int, Status]:
    """Axes whose best value probably lies beyond all values tried."""
    out = {}
    effect = np.median(effects(runs, surfaces), axis=0)
    for k in range(runs.v.shape[1]):
        if k in flat or effect[k] < seen(surfaces, float(effect.max())):
            continue
        best = surfaces.optimum[:, k]
        if float(np.mean(best > runs.v[:, k].max() + 1e-9)) > BEYOND:
            out[k] = Status.EDGE_HIGH
        elif float(np.mean(best < runs.v[:, k].min() - 1e-9)) > BEYOND:
            out[k] = Status.EDGE_LOW
    return out


def _status(
    runs: Runs, surfaces: Surfaces, place: int, lost: float, names: tuple[str, ...], edges: dict[int, Status],
    flat: tuple[int, ...], rising: int | None, tolerance: float | None,
) -> tuple[Status, str]:  # fmt: skip
    n, d = runs.v.shape
    if n < 2:
        return Status.TOO_FEW, "only one place has a finite loss"
    if runs.h.max() == 0 or (n >= d + 2 and _all_noise(runs)):
        return Status.FLAT, (
            f"the losses at {n} places differ by no more than noise: check that {' and '.join(names)} reach the "
            "training and that the metric depends on it"
        )
    if edges:
        first = min(edges, key=lambda k: (k != rising, k))
        ends = []
        for k, status in sorted(edges.items()):
            high = status is Status.EDGE_HIGH
            end = math.exp(float(runs.logs(runs.v.max(axis=0) if high else runs.v.min(axis=0))[k]))
            ends.append(f"at the {'highest' if high else 'lowest'} {names[k]} tried, {end:.3g}")
        return edges[first], f"the loss is still falling {' and '.join(ends)}: try values beyond"
    if n < d + 2:
        return Status.TOO_FEW, f"only {n} places have a finite loss"
    if not surfaces.fits:
        return Status.CONTRADICTED, "no surface with one minimum agrees with the losses: this is the best run"
    if contradicted(runs, surfaces):
        return Status.CONTRADICTED, (
            "the best run is better than a smooth surface through the others allows, and no replicate shows whether "
            "that was luck: this is the best run"
        )
    limit = tolerance / runs.unit if tolerance is not None else RELATIVE_REGRET * cost_of_e(runs, surfaces, rising)
    parameters = 1 + d + d * (d + 1) // 2
    untried = float(((runs.v - surfaces.v[place]) ** 2).sum(axis=1).min()) > 1e-12
    if untried and surfaces.jumped[place] > RISK:
        return Status.UNCERTAIN, "the best place lies near runs that jumped or diverged: try it first"
    if n <= parameters and not len(flat):
        return Status.UNCERTAIN, f"{n} places have a finite loss, and a quadratic has {parameters} parameters"
    if lost <= limit and noise_matters(runs, surfaces, rising) and noise_unconfirmed(runs):
        return Status.UNCERTAIN, "the losses scatter around the surface: repeat a run to tell noise from its shape"
    if lost <= limit:
        return Status.OK, f"expected regret {lost * runs.unit:.2g}, from {n} places"
    return Status.UNCERTAIN, (
        f"expected regret {lost * runs.unit:.2g}, and {limit * runs.unit:.2g} is allowed, from {n} places"
    )


def cost_of_e(runs: Runs, surfaces: Surfaces, rising: int | None) -> float:
    """What a factor e of the rising axis costs, in units of height; of the axis that costs most, without one."""
    cost = surfaces.rise(np.diagonal(surfaces.curvature, axis1=1, axis2=2) / runs.width**2).mean(axis=0)
    return float(cost[rising] if rising is not None else cost.max())


def _all_noise(runs: Runs) -> bool:
    """Whether the noise that replicates or standard errors show explains all differences."""
    replicated = runs.scatter_dof >= FLAT_DOF
    if not replicated and not runs.error.any():
        return False
    one = runs.scatter if replicated else 0.0
    weight = 1.0 / np.maximum(one / runs.count + runs.error**2, 1e-12 * float(runs.h.max()) ** 2)
    chi2 = float(weight @ (runs.h - float(weight @ runs.h) / float(weight.sum())) ** 2)
    dof = runs.h.size - 1
    return chi2 <= dof + 2.0 * math.sqrt(2.0 * dof)


def noise_matters(runs: Runs, surfaces: Surfaces, rising: int | None) -> bool:
    """Whether the noise of a run is as large as what a small change of the rising axis costs."""
    return float(np.median(surfaces.noise)) > REPEAT * cost_of_e(runs, surfaces, rising)


def noise_unconfirmed(runs: Runs) -> bool:
    """Whether more places than a quadratic has parameters may scatter around it by noise, and no replicate has shown it
    yet: a place is then repeated, which tells noise from a rough surface."""
    d = runs.v.shape[1]
    return runs.scatter_dof == 0 and not runs.error.any() and runs.h.size > 1 + d + d * (d + 1) // 2
