"""Reading Tune's `param_space`: the range of the learning rate, and which keys are searched besides it. Needs Ray."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.search.sample import Domain, Float, Integer, LogUniform, Quantized, Uniform


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


def searched(space: Mapping[str, Any]) -> dict[str, Any]:
    """Flattened keys whose value is still open: domains and grids."""
    return {k: v for k, v in flatten(space).items() if isinstance(v, Domain) or _is_grid(v)}


def lr_domain(space: Mapping[str, Any], lr_key: str) -> LRDomain:
    """The range of `lr_key`. ValueError, saying what is right, for a grid, a constant, or a range that is not
    positive."""
    flat = flatten(space)
    if lr_key not in flat:
        near = difflib.get_close_matches(lr_key, list(flat), n=1)
        hint = f" Did you mean lr_key={near[0]!r}?" if near else f" It has {sorted(flat) or 'no keys'}."
        raise ValueError(f"param_space has no {lr_key!r} for the learning rate.{hint}")
    return domain_of(lr_key, flat[lr_key])


def domain_of(key: str, value: Any) -> LRDomain:
    """`value` of `param_space[key]` as a range."""
    want = f"use tune.loguniform(low, high) with 0 < low < high for {key!r}"
    if _is_grid(value):
        raise ValueError(f"{key!r} is a grid_search, which leaves a searcher nothing to choose: {want}.")
    if not isinstance(value, Domain):
        raise ValueError(f"{key!r} is the constant {value!r}, not a range: {want}.")
    sampler, step = value.get_sampler(), None
    if isinstance(sampler, Quantized):
        sampler, step = sampler.sampler, float(sampler.q)
    if not isinstance(value, (Float, Integer)) or not isinstance(sampler, (Uniform, LogUniform)):
        raise ValueError(
            f"{key!r} is {type(value).__name__} sampled by {type(sampler).__name__}, not a numeric range: {want}."
        )
    low, high = float(value.lower), float(value.upper)
    if isinstance(value, Integer):
        high -= 1.0  # Tune's integer ranges leave out the upper end
    check_range(low, high, key)
    return LRDomain(low, high, step, isinstance(value, Integer))


def check_range(low: float, high: float, key: str) -> None:
    """ValueError unless 0 < low < high < inf."""
    if not (math.isfinite(low) and math.isfinite(high) and 0 < low < high):
        raise ValueError(
            f"the range of {key!r} is [{low:g}, {high:g}]; it must satisfy 0 < low < high: its logarithm is searched."
        )


def _is_grid(value: Any) -> bool:
    return isinstance(value, Mapping) and "grid_search" in value
