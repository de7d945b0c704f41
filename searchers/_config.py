"""Configs, results and ranges as plain values: nested keys, numbers, the range of a learning rate. No Ray.

A key is a path: `a/b` is `config["a"]["b"]`, and `groups/0/lr` is `config["groups"][0]["lr"]`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from raylr.errors import InputError


@dataclass(frozen=True)
class LRDomain:
    """A positive numeric range, in which the search works with the logarithm.

    Args:
        low: Lowest value.
        high: Highest value.
        step: Values are `origin` plus multiples of it; None: any value.
        origin: See `step`.
        integer: Values are whole numbers.
    """

    low: float
    high: float
    step: float | None = None
    origin: float = 0.0
    integer: bool = False

    @property
    def quantised(self) -> bool:
        """Whether only some values of the range are allowed."""
        return self.spacing is not None

    @property
    def spacing(self) -> float | None:
        """Distance of neighbouring values; None: any value is allowed."""
        return self.step or (1.0 if self.integer else None)

    def value(self, log_lr: float) -> float | int:
        """Return the allowed value nearest to exp(log_lr)."""
        value, spacing = float(f"{math.exp(log_lr):.12g}"), self.spacing
        if spacing is None:
            return value
        value = self.origin + round((value - self.origin) / spacing) * spacing
        while value <= 0:  # its logarithm is searched
            value += spacing
        return round(value) if self.integer else float(f"{value:.12g}")

    def within(self, log_lr: float) -> float | int:
        """Return the allowed value of the range nearest to exp(log_lr)."""
        value, spacing = min(max(math.exp(log_lr), self.low), self.high), self.spacing
        if spacing is None:
            return float(min(max(self.value(math.log(value)), self.low), self.high))
        first = math.ceil((self.low - self.origin) / spacing - 1e-9)
        last = math.floor((self.high - self.origin) / spacing + 1e-9)
        value = self.origin + min(max(round((value - self.origin) / spacing), first), last) * spacing
        if value <= 0:  # the range is narrower than a step and holds no allowed value
            return self.high
        return round(value) if self.integer else float(f"{value:.12g}")

    def neighbours(self, log_lr: float, distance: int = 1) -> list[float]:
        """Return the allowed values of the range `distance` steps from the one at `log_lr`; none without steps."""
        spacing = self.spacing
        if spacing is None:
            return []
        value = float(self.value(log_lr))
        beside = [float(f"{value + d * spacing:.12g}") for d in (-distance, distance)]
        return [v for v in beside if v > 0 and self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9)]


def check_range(low: float, high: float, key: str) -> None:
    """InputError unless 0 < low < high < inf."""
    if not (math.isfinite(low) and math.isfinite(high) and 0 < low < high):
        raise InputError(
            f"the range of {key!r} is [{low:g}, {high:g}]; it must satisfy 0 < low < high: its logarithm is searched."
        )


def flatten(space: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists as `a/0/c` → value; `{"grid_search": [...]}` and lists of plain values stay whole."""
    out: dict[str, Any] = {}
    for key, value in space.items() if isinstance(space, Mapping) else enumerate(space):
        name = f"{prefix}{key}"
        if (isinstance(value, Mapping) and "grid_search" not in value) or (
            isinstance(value, list | tuple) and not all(_plain(v) for v in value)
        ):
            out.update(flatten(value, f"{name}/"))
        else:
            out[name] = value
    return out


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | bytes)


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flattened keys as nested dicts; `a/0/b` becomes {"a": {"0": {"b": ...}}}."""
    out: dict[str, Any] = {}
    for path, value in values.items():
        place(out, path, value)
    return out


def copied(value: Any) -> Any:
    """A copy of nested dicts and lists that shares all other values that they hold."""
    if isinstance(value, Mapping):
        return {k: copied(v) for k, v in value.items()}
    return [copied(v) for v in value] if isinstance(value, list | tuple) else value


def place(config: dict[str, Any], path: str, value: Any, template: Any = None) -> None:
    """Put a value into a nested config, in place.

    Args:
        config: The config; what is missing on the way is made.
        path: Where, `a/b` or `groups/0/lr`.
        value: What.
        template: The space that the path leads into: a list on the way is copied from it whole, since Tune cannot
            merge part of a list into another.
    """
    out: Any = config
    *above, last = path.split("/")
    for part in above:
        template = _below(template, part)
        known = _below(out, part)
        if not isinstance(known, dict | list):
            known = copied(template) if isinstance(template, list | tuple) else {}
        out[int(part) if isinstance(out, list) else part] = known
        out = known
    out[int(last) if isinstance(out, list) else last] = value


def _below(container: Any, part: str) -> Any:
    if isinstance(container, Mapping):
        return container.get(part)
    if isinstance(container, list | tuple) and part.isdigit() and int(part) < len(container):
        return container[int(part)]
    return None


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """Value of `a/b` (or `a/0/b`) in a nested or flattened dict; None if it is not there."""
    if key in config:
        return config[key]
    out: Any = config
    for part in key.split("/"):
        out = _below(out, part)
        if out is None:
            return None
    return out


def merge(base: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`more` into `base`, nested dicts key by key; returns `base`."""
    for key, value in more.items():
        old = base.get(key)
        base[key] = merge(dict(old), value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return base


def has(result: Mapping[str, Any], key: str) -> bool:
    """Whether `key` is there, even with the value None."""
    return key in result or lookup(result, key) is not None


def as_float(value: Any) -> float | None:
    """Return a number of any kind as a float, and None for anything else.

    Accepted are Python's numbers (Decimal and Fraction too), NumPy's and PyTorch's scalars, and arrays of one element
    without dimensions. NaN and infinity are numbers; a bool is none.
    """
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int | float | np.number | Decimal | Fraction):
        try:
            return None if isinstance(value, np.complexfloating) else float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
        except ValueError:  # a signalling NaN of Decimal
            return math.nan
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return as_float(value.item())
    return None


def number(value: Any) -> bool:
    """Whether it is a finite number."""
    found = as_float(value)
    return found is not None and math.isfinite(found)
