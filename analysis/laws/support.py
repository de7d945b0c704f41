"""How far a target lies from the cells that a law was fitted to.

Notation
    p    cells, in logarithms of what the law has in it (m, k)
    x    the target in the same coordinates (k,)

A study often trains its larger sizes on few tokens. A target with the largest size and the most tokens is then inside
the range of either, and still far from every cell. So the distance is that to the convex hull of the cells, min over
weights w >= 0 that sum to 1 of |x - w p|, and not that to the box of their ranges.
"""

import math
from collections.abc import Sequence

import numpy as np

from raylr.analysis._checks import Array
from raylr.errors import InputError

STATED = 0.1
"""Distances below this, 10 %, are not mentioned."""
SUM = 1e3
"""Weight of the equation that makes the weights sum to 1."""


def distance(cells: Sequence[Sequence[float]], target: Sequence[float]) -> float:
    """Return how far a target lies outside the convex hull of the cells.

    Args:
        cells: Points (m, k), at least one.
        target: A point (k,).

    Returns:
        The Euclidean distance, 0 inside.

    Example:
        >>> distance([[0, 0], [0, 1], [1, 0]], [1, 1])  # the diagonal's middle is the nearest point
        0.7071...
    """
    from scipy import optimize

    points = np.array(cells, dtype=np.float64) - np.array(target, dtype=np.float64)
    scale = max(float(np.abs(points).max(initial=0.0)), 1e-300)
    system = np.vstack([points.T / scale, np.full(len(points), SUM)])
    weights, _ = optimize.nnls(system, np.append(np.zeros(points.shape[1]), SUM))
    nearest = weights @ points / weights.sum()
    found = float(np.linalg.norm(nearest))
    return found if found > 1e-6 * scale else 0.0


def distinct(columns: Sequence[Array]) -> tuple[tuple[float, ...], ...]:
    """Return the distinct points of columns (k arrays (m,)), in ascending order."""
    if not columns or not columns[0].size:
        return ()
    points = np.unique(np.round(np.column_stack(columns), 9), axis=0)
    return tuple(map(tuple, points.tolist()))


def check(cells: Sequence[Sequence[float]], spans: Sequence[object]) -> None:
    """Raise InputError unless every cell is a finite number for each of the ranges that are known."""
    size = sum(span is not None for span in spans)
    if any(len(cell) != size or not all(abs(value) < 1e3 for value in cell) for cell in cells):
        raise InputError(f"support must be cells of {size} logarithms, one of each range that the law has")


def away(cells: Sequence[Sequence[float]] | None, target: Sequence[float], beyond: Sequence[float]) -> float:
    """Return how far the target is from the cells in e-folds: from their hull, or where the cells are not known from
    the box that `beyond` (times outside in each direction) tells of."""
    if cells:
        return distance(cells, target)
    return math.hypot(*(math.log(k) for k in beyond))


def note(far: float, beyond: Sequence[float]) -> list[str]:
    """Return what a message must state of a target that is inside every range and still far from the cells."""
    if max(beyond) > 1 + 1e-9 or far <= STATED:
        return []
    return [f"inside every fitted range, but a factor {math.exp(far):.2g} from the nearest mixture of cells"]
