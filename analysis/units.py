"""Counts as people write them: `12e9`, `12B`, `500_000`, `1.5M`; and as people read them."""

from __future__ import annotations

import math
import re

from raylr.errors import InputError

_WORDS = re.compile(r"[a-z]+([ _-][a-z]+)*")
"""Names that a reader takes for words of the sentence around them."""
_SUFFIX = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


def parse_count(value: object) -> float:
    """Read a positive count of parameters or tokens: a number, or a string such as `12e9`, `12B`, `1.5M`, `500_000`.

    Returns:
        The count as a float, finite and above zero.

    Raises:
        InputError: `value` is anything else, zero, negative, NaN or infinite.

    Example:
        >>> parse_count("12B")
        12000000000.0
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InputError(f"{value!r} is not a count; write a number such as 12e9 or 12B")
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9._]+(?:e[+-]?[0-9]+)?)\s*([kmbgt]?)", value.strip().lower())
        try:
            number = float(match[1]) * _SUFFIX[match[2]] if match else math.nan
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise InputError(f"{value!r} is not a count; write a number such as 12e9 or 12B")
    else:
        number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{value!r} is not a positive, finite count")
    return number


def format_count(value: float) -> str:
    """Write a count with three digits and a suffix: 120000000000 → `120B`."""
    if not math.isfinite(value):
        return str(value)
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def format_lr(value: float) -> str:
    """Write a learning rate with three significant digits: `5.55e-4`."""
    if not math.isfinite(value) or value == 0:
        return str(value)
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def format_name(name: str) -> str:
    """Write the name of a size or of a target in a sentence: in quotes if it reads as words of the sentence.

    Example:
        >>> print(f"at {format_name('without')} and at {format_name('XL')}")
        at "without" and at XL
    """
    return f'"{name}"' if _WORDS.fullmatch(name) else name


def format_factor(value: float) -> str:
    """Return a number with four digits as people write it in a formula.

    Example:
        >>> format_factor(3.8e-6), format_factor(0.52), format_factor(1e9)
        ('3.8e-6', '0.52', '1e9')
    """
    if 1e-2 <= abs(value) < 1e5 or value == 0:
        return f"{value:.4g}"
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def format_duration(seconds: float) -> str:
    """Write a time as a person says it: `40 s`, `12 min`, `3.5 h`, `2.1 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
