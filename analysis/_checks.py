"""Checks of the arrays that every fit takes: one clear ValueError that says what was wrong and what would be right."""

import difflib
from collections.abc import Iterable
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


LOSSES = (1e-60, 1e30)
"""Losses and their errors count as 0 below and as inf from there on: their squares' squares are still numbers."""
COUNTS = (1e-20, 1e30)
"""LRs, tokens and parameters lie between these in any unit; ratios to the power of an exponent are still numbers."""


def vector(values: ArrayLike, name: str) -> Array:
    """`values` as a one-dimensional array of floats, masked entries as NaN; ValueError with `name` for any other shape
    and for what are not numbers."""
    array = floats(values, name)
    if array.ndim != 1:
        raise ValueError(f"{name} must be a flat array, one entry a measurement, got shape {array.shape}; use .ravel()")
    return array


def losses_of(values: ArrayLike, name: str, axes: int = 1) -> Array:
    """Losses as a flat array, or with `axes` 2 as one of rows (a flat one is one row), rounded to `LOSSES`."""
    array = np.atleast_2d(floats(values, name)) if axes == 2 else vector(values, name)
    if array.ndim != axes:
        raise ValueError(f"{name} must have {axes} axes at most, got shape {array.shape}")
    size = np.abs(array)
    if (size >= LOSSES[1]).any():
        array = np.where(size >= LOSSES[1], np.inf, array)
    if (size < LOSSES[0]).any():
        array = np.where(size < LOSSES[0], 0.0, array)
    return array


def floats(values: ArrayLike, name: str) -> Array:
    """`values` as an array of floats of any shape, masked entries as NaN; ValueError for what are not numbers."""
    try:
        array = np.ma.asarray(values, dtype=np.float64) if np.ma.isMaskedArray(values) else np.asarray(values)
        if np.iscomplexobj(array):
            raise TypeError("complex numbers")
        return np.ma.filled(array, np.nan) if np.ma.isMaskedArray(array) else np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers in an array, got {type(values).__name__}: {error}") from error


def positive(values: ArrayLike, name: str) -> Array:
    """`values` as a flat array, all within `COUNTS`."""
    array = vector(values, name)
    bad = ~((array >= COUNTS[0]) & (array <= COUNTS[1]))
    if bad.any():
        at = int(np.argmax(bad))
        what = "finite and above zero" if not 0 < array[at] < np.inf else f"between {COUNTS[0]:g} and {COUNTS[1]:g}"
        raise ValueError(f"{name} must be {what}, got {array[at]} at position {at}")
    return array


def optima_of(values: ArrayLike, name: str) -> Array:
    """Optimal LRs of cells as a flat array: within `COUNTS`, or NaN for a cell without one."""
    array = vector(values, name)
    positive(np.where(np.isnan(array), 1.0, array), name)
    return array


def same_length(**arrays: Array | None) -> None:
    """ValueError unless all given arrays have one length."""
    sizes = {name: array.size for name, array in arrays.items() if array is not None}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            "one entry a measurement is needed in each of " + ", ".join(f"{k} ({v})" for k, v in sizes.items())
        )


def standard_errors(values: ArrayLike | None, size: int, name: str) -> Array | None:
    """Standard errors of losses as a flat array of `size` (a scalar is repeated); None stays None; NaN, inf and zero
    are refused."""
    if values is None:
        return None
    array = vector(np.atleast_1d(floats(values, name)), name)
    bad = ~(np.isfinite(array) & (array > 0))
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"{name} must be finite and above zero, got {array[at]} at position {at}")
    if array.size == 1:
        array = np.full(size, array[0])
    if array.size != size:
        raise ValueError(f"{name} must have one entry a measurement ({size}), got {array.size}")
    return np.clip(array, 1 / LOSSES[1], LOSSES[1])


def level_of(level: float) -> float:
    """A confidence level strictly between 0 and 1."""
    if not isinstance(level, Real) or not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, as 0.9, got {level!r}")
    return float(level)


def one_of(value: str, choices: Iterable[str], name: str) -> str:
    """`value` if it is among `choices`, else a ValueError that names the nearest."""
    choices = sorted(choices)
    if value in choices:
        return value
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {name} {value!r}{hint} (known: {', '.join(choices)})")
