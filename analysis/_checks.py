"""Checks of the arguments that all fits take; each raises `InputError` with one sentence that states what is wrong."""

import difflib
from collections.abc import Iterable
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raylr.errors import InputError

Array = NDArray[np.float64]


LOSSES = (1e-60, 1e30)
"""Losses and their errors below the first count as 0 and from the second on as inf, so that their fourth powers stay
finite."""
COUNTS = (1e-20, 1e30)
"""Learning rates, tokens and parameters lie between these in any unit, so that powers of their ratios stay finite."""


def vector(values: ArrayLike, name: str) -> Array:
    """Return `values` as a one-dimensional array of floats, masked entries as NaN.

    Raises:
        InputError: `values` has another shape or does not hold numbers; the message calls it `name`.
    """
    array = floats(values, name)
    if array.ndim != 1:
        raise InputError(f"{name} must be a flat array, one entry a measurement, got shape {array.shape}; use .ravel()")
    return array


def losses_of(values: ArrayLike, name: str, axes: int = 1) -> Array:
    """Return losses as a flat array, or with `axes` 2 as rows (a flat array is one row), rounded to `LOSSES`."""
    array = np.atleast_2d(floats(values, name)) if axes == 2 else vector(values, name)
    if array.ndim != axes:
        raise InputError(f"{name} must have {axes} axes at most, got shape {array.shape}")
    size = np.abs(array)
    if (size >= LOSSES[1]).any():
        array = np.where(size >= LOSSES[1], np.inf, array)
    if (size < LOSSES[0]).any():
        array = np.where(size < LOSSES[0], 0.0, array)
    return array


def floats(values: ArrayLike, name: str) -> Array:
    """Return `values` as an array of floats of any shape, masked entries as NaN; InputError if they are not numbers."""
    try:
        array = np.ma.asarray(values, dtype=np.float64) if np.ma.isMaskedArray(values) else np.asarray(values)
        if np.iscomplexobj(array):
            raise TypeError("complex numbers")
        return np.ma.filled(array, np.nan) if np.ma.isMaskedArray(array) else np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} must be numbers in an array, got {type(values).__name__}: {error}") from error


def positive(values: ArrayLike, name: str) -> Array:
    """Return `values` as a flat array; InputError unless all of them lie within `COUNTS`."""
    array = vector(values, name)
    bad = ~((array >= COUNTS[0]) & (array <= COUNTS[1]))
    if bad.any():
        at = int(np.argmax(bad))
        what = "finite and above zero" if not 0 < array[at] < np.inf else f"between {COUNTS[0]:g} and {COUNTS[1]:g}"
        raise InputError(f"{name} must be {what}, got {array[at]} at position {at}")
    return array


def positive_number(value: float, name: str) -> float:
    """Return `value` as a float; InputError unless it is one number within `COUNTS`."""
    if isinstance(value, bool) or not isinstance(value, Real | np.ndarray) or np.ndim(value) != 0:
        raise InputError(f"{name} must be one number above zero, got {value!r}")
    return float(positive([value], name)[0])


def optima_of(values: ArrayLike, name: str) -> Array:
    """Return optimal learning rates as a flat array: within `COUNTS`, or NaN for a setting without an optimum."""
    array = vector(values, name)
    positive(np.where(np.isnan(array), 1.0, array), name)
    return array


def same_length(**arrays: Array | None) -> None:
    """Raise InputError unless all given arrays have one length."""
    sizes = {name: array.size for name, array in arrays.items() if array is not None}
    if len(set(sizes.values())) > 1:
        raise InputError(
            "one entry a measurement is needed in each of " + ", ".join(f"{k} ({v})" for k, v in sizes.items())
        )


def standard_errors(values: ArrayLike | None, size: int, name: str) -> Array | None:
    """Return standard errors of losses as a flat array of `size` (a scalar is repeated); None stays None.

    Raises:
        InputError: a value is NaN, infinite or not above zero, or there is another number of them.
    """
    if values is None:
        return None
    array = vector(np.atleast_1d(floats(values, name)), name)
    bad = ~(np.isfinite(array) & (array > 0))
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(f"{name} must be finite and above zero, got {array[at]} at position {at}")
    if array.size == 1:
        array = np.full(size, array[0])
    if array.size != size:
        raise InputError(f"{name} must have one entry a measurement ({size}), got {array.size}")
    return np.clip(array, 1 / LOSSES[1], LOSSES[1])


def level_of(level: float) -> float:
    """Return a confidence level; InputError unless it lies strictly between 0 and 1."""
    if not isinstance(level, Real) or not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, as 0.9, got {level!r}")
    return float(level)


def one_of(value: str, choices: Iterable[str], name: str) -> str:
    """Return `value` if it is among `choices`; otherwise raise an InputError that names the nearest choice."""
    choices = sorted(choices)
    if value in choices:
        return value
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"unknown {name} {value!r}{hint} (known: {', '.join(choices)})")
