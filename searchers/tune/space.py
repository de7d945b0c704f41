"""Reading Tune's `param_space`: the range of the learning rate, and which keys are searched besides it. Needs Ray."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ray.tune.search.sample import Categorical, Domain, Float, Integer, LogUniform, Quantized, Uniform

from raylr.errors import InputError
from raylr.searchers._config import LRDomain, check_range, flatten


def other_domains(space: Mapping[str, Any], *searched: str) -> dict[str, Any]:
    """What is sampled besides the keys that are `searched`: flattened keys and their domains. InputError for a grid,
    which no searcher resolves."""
    out = {}
    for key, value in flatten(space).items():
        if key not in searched and _is_grid(value):
            raise InputError(f"{key!r} is a grid_search, which a searcher cannot resolve: use tune.choice for {key!r}.")
        if key not in searched and isinstance(value, Domain):
            out[key] = value
    return out


def lr_domain(space: Mapping[str, Any], lr_key: str) -> LRDomain:
    """The range of `lr_key`. InputError, saying what is right, for a grid, a constant, or a range that is not
    positive."""
    return domain_at(space, lr_key, "for the learning rate.{hint}", "lr_key={near!r}")


def axis_domains(space: Mapping[str, Any], keys: Iterable[str]) -> dict[str, LRDomain]:
    """The ranges of further axes, as `lr_domain`."""
    return {key: domain_at(space, key, "for the axis.{hint}", "{near!r}") for key in keys}


def domain_at(space: Mapping[str, Any], key: str, purpose: str, right: str) -> LRDomain:
    """Return the range of a key of the space.

    Args:
        space: Tune's `param_space`.
        key: The key, `a/b` for a nested one.
        purpose: What the range is needed for, for the message.
        right: What the key should look like there, with `{near}` for the nearest key.
    """
    flat = flatten(space)
    if key not in flat:
        near = difflib.get_close_matches(key, list(flat), n=1)
        hint = f" Did you mean {right.format(near=near[0])}?" if near else f" It has {sorted(flat) or 'no keys'}."
        raise InputError(f"param_space has no {key!r} {purpose.format(hint=hint)}")
    return domain_of(key, flat[key])


def domain_of(key: str, value: Any) -> LRDomain:
    """`value` of `param_space[key]` as a range."""
    want = f"use tune.loguniform(low, high) with 0 < low < high for {key!r}"
    if _is_grid(value):
        raise InputError(f"{key!r} is a grid_search, which leaves a searcher nothing to choose: {want}.")
    if not isinstance(value, Domain):
        raise InputError(f"{key!r} is the constant {value!r}, not a range: {want}.")
    sampler, step = value.get_sampler(), None
    if isinstance(sampler, Quantized):
        sampler, step = sampler.sampler, float(sampler.q)
    if isinstance(value, Categorical):
        raise InputError(f"{key!r} is a tune.choice, not a numeric range: {want}.")
    if not isinstance(value, (Float, Integer)) or not isinstance(sampler, (Uniform, LogUniform)):
        raise InputError(
            f"{key!r} is {type(value).__name__} sampled by {type(sampler).__name__}, not a numeric range: {want}."
        )
    low, high = float(value.lower), float(value.upper)
    if isinstance(value, Integer):
        high -= 1.0  # Tune's integer ranges leave out the upper end
    check_range(low, high, key)
    return LRDomain(low, high, step=step, integer=isinstance(value, Integer))


def _is_grid(value: Any) -> bool:
    return isinstance(value, Mapping) and "grid_search" in value
