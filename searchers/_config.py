"""Configs, results and ranges as plain values: nested keys, numbers, the range of a learning rate. No Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LRDomain:
    """A positive numeric range, in which the search works with the logarithm."""

    low: float
    """Lowest value."""
    high: float
    """Highest value."""
    step: float | None = None
    """Suggestions are rounded to multiples of it."""
    integer: bool = False
    """Suggestions are whole numbers."""

    def value(self, log_lr: float) -> float | int:
        """The suggestion for ln lr."""
        value = float(f"{math.exp(log_lr):.12g}")
        if self.step:
            value = max(self.step, round(value / self.step) * self.step)
        return max(1, round(value)) if self.integer else value

    @property
    def signature(self) -> tuple[float, float, float | None, bool]:
        """What makes two domains the same."""
        return (self.low, self.high, self.step, self.integer)


def check_range(low: float, high: float, key: str) -> None:
    """ValueError unless 0 < low < high < inf."""
    if not (math.isfinite(low) and math.isfinite(high) and 0 < low < high):
        raise ValueError(
            f"the range of {key!r} is [{low:g}, {high:g}]; it must satisfy 0 < low < high: its logarithm is searched."
        )


def flatten(space: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as `a/b/c` → value; `{"grid_search": [...]}` stays whole."""
    out: dict[str, Any] = {}
    for key, value in space.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and "grid_search" not in value:
            out.update(flatten(value, f"{name}/"))
        else:
            out[name] = value
    return out


def nest(key: str, value: Any) -> dict[str, Any]:
    """`a/b`, v → {"a": {"b": v}}."""
    out: Any = value
    for part in reversed(key.split("/")):
        out = {part: out}
    return dict(out)


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """Value of `a/b` in a nested or flattened dict; None if it is not there."""
    if key in config:
        return config[key]
    out: Any = config
    for part in key.split("/"):
        if not isinstance(out, Mapping) or part not in out:
            return None
        out = out[part]
    return out


def merge(base: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`more` into `base`, nested dicts key by key; returns `base`."""
    for key, value in more.items():
        old = base.get(key)
        base[key] = merge(dict(old), value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return base


def has(result: Mapping[str, Any], key: str) -> bool:
    """Whether `key` is there at all, be it None."""
    return key in result or lookup(result, key) is not None


def real(value: Any) -> bool:
    """Whether it is a number; NaN and infinity are."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def number(value: Any) -> bool:
    """Whether it is a finite number."""
    return real(value) and math.isfinite(value)


def log_lr_of(lr: Any, point: Mapping[str, Any], key: str) -> float:
    """ln of the lr of a point. ValueError if it has none."""
    if not number(lr) or lr <= 0:
        raise ValueError(f"the point {dict(point)} has no positive number at {key!r}")
    return math.log(lr)
