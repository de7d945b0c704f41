"""`one_basin`: whether the losses of a search over several axes have one basin, from the losses alone.

The level sets of a quadratic with a minimum are convex: a run that lies between others (inside their convex hull, in
the logarithms of the axes) has no higher loss than the highest of them. A run that lies between runs which are all
lower, by more than noise, is a hill between two valleys, or the inner side of one valley that bends: a handful of runs
cannot tell these apart, and a quadratic describes neither.
The fit of a surface cannot show this: it has one minimum by construction, and takes what speaks against it for noise.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raylr.analysis._checks import losses_of, positive, same_length
from raylr.analysis._threads import one_thread
from raylr.analysis.optimum._response_runs import SAME
from raylr.errors import InputError

Array = NDArray[np.float64]

SURE = 3.0
"""A run is higher than others if its loss is by more than so many standard deviations of a difference. Noise alone, on
a flat loss as on a quadratic, had that status in none of 300 simulated searches of nine runs."""
INSIDE = 1e-6
"""Tolerance of a place inside a hull, in ln of the axes' values."""


class Basins(StrEnum):
    """What the losses say about the number of basins."""

    ONE = "one"
    """Runs that lie between others are no higher than these."""
    NOT_CONVEX = "not convex"
    """A run lies between others that are all lower: several basins, or one valley that bends."""
    UNKNOWN = "unknown"
    """No run lies between others: the losses cannot show a second basin."""


@dataclass(frozen=True, kw_only=True)
class Basin:
    """Whether there is one basin."""

    basins: Basins
    message: str
    """One sentence, with the numbers."""
    tested: int
    """Runs that lie between others."""
    hill: dict[str, float] | None = None
    """The place of the run that speaks most clearly against one basin."""

    @property
    def one(self) -> bool:
        """Whether nothing speaks against one basin, and something could have."""
        return self.basins is Basins.ONE


@one_thread
def one_basin(points: Mapping[str, ArrayLike], loss: ArrayLike, *, noise: float) -> Basin:
    """Say whether the losses of runs over two to four axes have one basin.

    Args:
        points: Name of each axis → its value in every run (n,), above zero.
        loss: Loss of each run (n,). NaN and infinite losses are diverged runs, which are left out.
        noise: Standard deviation of a loss between seeds, in its unit: known from replicates or from elsewhere, not
            from a fitted surface.

    Returns:
        The answer, with the run that lies highest above all runs around it.

    Raises:
        InputError: Without axes, for arrays of unequal length, values that are not positive, or a noise that is not a
            number from 0 on.

    Example:
        >>> points = {"lr": [1e-3, 2e-3, 4e-3], "init_std": [0.01, 0.02, 0.04]}
        >>> one_basin(points, [3.0, 3.2, 3.1], noise=0.01).basins
        <Basins.NOT_CONVEX: 'not convex'>
        >>> one_basin(points, [3.2, 3.0, 3.1], noise=0.01).basins
        <Basins.ONE: 'one'>
    """
    if not points:
        raise InputError("points must map the names of the axes to their values")
    columns = {name: positive(np.ravel(np.asarray(values)), name) for name, values in points.items()}
    y = losses_of(loss, "loss")
    same_length(**columns, loss=y)
    if not (math.isfinite(noise) and noise >= 0):
        raise InputError(f"noise must be a number from 0 on, got {noise!r}")
    x = np.log(np.array(list(columns.values()))).T
    x, y, count = _means(x[np.isfinite(y)], y[np.isfinite(y)])
    tested, hill, worst = 0, None, 0.0
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        if not _inside(x[i], x[others]):
            continue
        tested += 1
        height = _height(x, y, count, i, noise)
        if height > worst:
            worst, hill = height, i
    if not tested:
        return Basin(
            basins=Basins.UNKNOWN, tested=0,
            message=f"none of the {len(y)} places lies between others: it is unknown whether there is one basin",
        )  # fmt: skip
    if hill is not None and worst > SURE:
        place = {name: float(math.exp(value)) for name, value in zip(columns, x[hill], strict=True)}
        shown = ", ".join(f"{name} {value:.3g}" for name, value in place.items())
        return Basin(
            basins=Basins.NOT_CONVEX, tested=tested, hill=place,
            message=f"the run at {shown} lies between runs that are all lower, by {worst:.1f} standard deviations: "
            "there are several basins, or one valley that bends",
        )  # fmt: skip
    which = "the place that lies between others is not" if tested == 1 else (
        f"none of the {tested} places that lie between others is"
    )  # fmt: skip
    return Basin(
        basins=Basins.ONE, tested=tested, message=f"one basin: {which} higher than these by more than noise"
    )  # fmt: skip


def _means(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Distinct places, their mean losses and the numbers of runs there."""
    places: list[list[int]] = []
    for i in range(len(x)):
        near = next((group for group in places if np.abs(x[i] - x[group[0]]).max() <= SAME), None)
        if near is None:
            places.append([i])
        else:
            near.append(i)
    return (
        np.array([x[group].mean(axis=0) for group in places]).reshape(len(places), x.shape[1]),
        np.array([y[group].mean() for group in places]),
        np.array([len(group) for group in places], dtype=float),
    )


def _height(x: Array, y: Array, count: Array, i: int, noise: float) -> float:
    """How many standard deviations place `i` lies above the highest of the lower places around it, at most."""
    lower = [int(k) for k in np.argsort(y, kind="stable") if y[k] < y[i]]
    if not _inside(x[i], x[lower]):
        return 0.0
    # The fewest of the lowest places whose hull holds it: their highest decides. A hull grows with its places.
    size = bisect_left(range(len(lower)), True, key=lambda last: _inside(x[i], x[lower[: last + 1]])) + 1
    top = lower[min(size, len(lower)) - 1]
    error = noise * math.sqrt(1 / count[i] + 1 / count[top])
    return float((y[i] - y[top]) / error) if error > 0 else math.inf


def _inside(place: Array, others: Array) -> bool:
    """Whether a place lies in the convex hull of others."""
    from scipy.optimize import linprog

    if len(others) < 2:
        return False
    # Weights of at least 0 that sum to 1 and give the place, as nearly as possible: |others'w - place| <= t.
    n, d = others.shape
    cost = np.append(np.zeros(n), 1.0)
    both = np.concatenate([others.T, -others.T])
    bound = np.concatenate([place, -place])
    found = linprog(
        cost, A_ub=np.column_stack([both, -np.ones(2 * d)]), b_ub=bound, A_eq=np.append(np.ones(n), 0.0)[None],
        b_eq=[1.0], bounds=[(0, None)] * (n + 1),
    )  # fmt: skip
    return bool(found.status == 0 and found.fun is not None and found.fun <= INSIDE)
