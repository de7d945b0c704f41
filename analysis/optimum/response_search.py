"""Where the next runs of a search over several axes go: a few places to begin with, then those that tell most.

The value of a run is the knowledge gradient, as in `acquisition`: by how much its result is expected to lower the least
expected loss among the places that could be chosen, over the drawn surfaces.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum._response_model import Surfaces
from raylr.analysis.optimum._response_runs import SPAN
from raylr.analysis.optimum._response_verdict import noise_matters, noise_unconfirmed
from raylr.analysis.optimum.acquisition import GROUPS, LIKELY
from raylr.analysis.optimum.response import ResponseFit
from raylr.analysis.status import Status

Array = NDArray[np.float64]

RADIUS = SPAN / math.sqrt(12.0)
"""Distance of the first places from the centre, in units: the standard deviation of a uniform distribution over a
range."""
APART = 0.08
"""Two places are closer than this, in units, only if one repeats the other: 2 % of the range."""
SETTLED = 1e-6
"""Gain, in units of height, that counts as none."""
ROTATIONS = 2000
"""Rotations among which the start design is chosen."""


@lru_cache(maxsize=16)
def start_places(d: int, seed: int = 0) -> Array:
    """First places of a search over `d` axes, in units of the ranges: the centre, then the corners of a simplex around
    it, turned so that every axis takes d + 2 values that lie well apart, (d + 2, d). The corner of the lowest first
    axis comes first."""
    basis = np.linalg.qr(np.eye(d + 1) - 1.0 / (d + 1))[0][:, :d]
    corners = (np.eye(d + 1) - 1.0 / (d + 1)) @ basis
    corners = RADIUS * corners / np.linalg.norm(corners[0])
    rng = np.random.default_rng([d, seed])
    best, widest = corners, -1.0
    for _ in range(ROTATIONS):
        turned = corners @ np.linalg.qr(rng.standard_normal((d, d)))[0]
        gaps = np.diff(np.sort(np.concatenate([np.zeros((1, d)), turned]), axis=0), axis=0)
        if gaps.min() > widest:
            best, widest = turned, float(gaps.min())
    return np.concatenate([np.zeros((1, d)), best[np.argsort(best[:, 0])]])


def start_points(ranges: Mapping[str, tuple[float, float]], seed: int = 0) -> list[dict[str, float]]:
    """First places of a search: the centre of the ranges, and the corners of a simplex around it.

    Args:
        ranges: Lowest and highest value of each axis; the first one is the LR.
        seed: Another number takes another rotation of the simplex.

    Example:
        >>> [round(point["batch"]) for point in start_points({"lr": (1e-4, 1e-1), "batch": (16, 256)})]
        [64, 52, 139, 36]
    """
    ends = np.log(np.array(list(ranges.values())))
    x = ends.mean(axis=1) + start_places(len(ranges), seed) * np.diff(ends)[:, 0] / SPAN
    return [dict(zip(ranges, map(float, row), strict=True)) for row in np.exp(x)]


def next_point(fit: ResponseFit, *, ranges: Mapping[str, tuple[float, float]] | None = None) -> dict[str, float] | None:
    """Place of the next run.

    Args:
        fit: Fit of all runs so far; at least one has a finite loss.
        ranges: Lowest and highest value of each axis that may be tried; the fit's by default.

    Returns:
        Axis → value, which may be those of an earlier run where its noise matters most; None if the best place is known
        or nothing is left to try.

    Example:
        >>> from raylr.analysis.optimum import fit_response
        >>> points = {"lr": [1e-3, 3e-3, 1e-3, 4e-3], "wd": [0.1, 0.1, 0.3, 0.05]}
        >>> fit = fit_response(points, [3.3, 3.2, 3.25, 3.22], ranges={"lr": (1e-4, 1e-1), "wd": (0.01, 1)})
        >>> sorted(next_point(fit))
        ['lr', 'wd']
    """
    return None if fit.status is Status.OK else next(iter(next_points(fit, 1, ranges=ranges)), None)


def next_points(
    fit: ResponseFit, count: int, *, pending: Sequence[Mapping[str, float]] = (),
    ranges: Mapping[str, tuple[float, float]] | None = None, repeats: bool = True,
) -> list[dict[str, float]]:  # fmt: skip
    """Return the places of the next runs, which are to run at once.

    Each is chosen as if the runs before it had ended with the loss that the fit expects; fewer are returned if nothing
    is left to try.

    Args:
        fit: The fit of the runs so far.
        count: Number of places.
        pending: Axis → value of runs that have not ended.
        ranges: Axis → lowest and highest value; None: those of the fit.
        repeats: Whether a place may be returned twice.
    """
    out: list[dict[str, float]] = []
    for _ in range(count):
        waiting = [*pending, *out]
        now = imagined(fit, waiting)
        found = _propose(now, waiting, ranges or fit.ranges, repeats)
        if found is None:
            break
        out.append(found)
    return out


def imagined(fit: ResponseFit, places: Sequence[Mapping[str, float]]) -> ResponseFit:
    """The fit as if runs at `places` had ended with the loss that it expects of them."""
    if not places or fit.surfaces is None:
        return fit
    columns = {name: np.array([place[name] for place in places]) for name in fit.names}
    x = np.log(np.array([columns[name] for name in fit.names])).T
    return fit.extended(x, fit.predict(columns)[0])


def _propose(
    fit: ResponseFit, taken: Sequence[Mapping[str, float]], ranges: Mapping[str, tuple[float, float]], repeats: bool
) -> dict[str, float] | None:
    surfaces, runs = fit.surfaces, fit.runs
    if surfaces is None:
        return None
    ends = runs.units(np.log(np.array([ranges[name] for name in fit.names])).T)
    inside = ((surfaces.v >= ends[0] - 1e-9) & (surfaces.v <= ends[1] + 1e-9)).all(axis=1)
    busy = runs.units(np.log(np.array([[p[name] for name in fit.names] for p in taken])).reshape(-1, len(fit.names)))
    known = np.concatenate([runs.v, runs.diverged, busy])
    candidate = inside & (np.abs(surfaces.v[:, None] - known).max(axis=-1).min(axis=1) > APART)
    rising = None if fit.rising is None else fit.names.index(fit.rising)
    if repeats and noise_matters(runs, surfaces, rising):
        again = inside & (np.arange(len(surfaces.v)) < runs.h.size)
        if len(busy):
            again &= np.abs(surfaces.v[:, None] - busy).max(axis=-1).min(axis=1) > APART
        candidate = again if noise_unconfirmed(runs) and again.any() else candidate | again
    if np.any(candidate & (surfaces.jumped <= LIKELY)):
        candidate &= surfaces.jumped <= LIKELY
    if not candidate.any():
        return None
    where = np.flatnonzero(candidate)
    gains = gain(surfaces, where, np.flatnonzero(inside))
    at = where[int(np.argmax(gains))]
    if gains.max() <= SETTLED:  # nothing is left to learn: confirm the answer
        answer = runs.units(np.log(np.array([fit.at[name] for name in fit.names])))
        at = where[int(np.argmin(((surfaces.v[where] - answer) ** 2).sum(axis=1)))]
    return {name: float(np.exp(runs.logs(surfaces.v[at])[k])) for k, name in enumerate(fit.names)}


def gain(surfaces: Surfaces, candidates: NDArray[np.intp], choices: NDArray[np.intp]) -> Array:
    """Expected drop of the least expected loss by a run at each of the `candidates` (C,), in units, over the places of
    the grid that can be chosen."""
    table = surfaces.table[:, choices].astype(np.float32)  # half the time, and its rounding is far below a draw's error
    draws = len(table)
    error = np.random.default_rng(1).standard_normal(draws)
    result = surfaces.table[:, candidates] + (surfaces.noise * error)[:, None]
    order = np.argsort(result.T, axis=1)
    later = np.zeros(candidates.size)
    member = np.zeros(order.shape, dtype=np.float32)
    row = np.arange(candidates.size)[:, None]
    for part in np.array_split(order, GROUPS, axis=1):
        member[:] = 0.0
        member[row, part] = 1.0
        later += (member @ table).min(axis=1)
    return np.asarray(float(table.mean(axis=0).min()) - later / draws)
