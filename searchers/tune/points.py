"""The arguments of Tune's searchers as a policy takes them: points, the key of the lr, its range. No Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from raylr.analysis.runs import Setting
from raylr.errors import InputError
from raylr.searchers._config import LRDomain, as_float, lookup
from raylr.searchers.policies.policy import Point


def points_of(
    points: Sequence[Mapping[str, Any]] | None,
    rewards: Sequence[float] | None,
    *,
    lr_key: str,
    settings: Sequence[Setting],
    mode: str | None,
) -> list[Point]:
    """Return Tune's `points_to_evaluate` and `evaluated_rewards` as points of a policy.

    Args:
        points: Configs with an lr at `lr_key`.
        rewards: Their metrics, where they are known.
        lr_key: Key of the lr.
        settings: The settings that are searched.
        mode: "max" where the rewards are to be maximised.

    Raises:
        InputError: For points without an lr, of no setting or several, and for another number of rewards.
    """
    found = [point_of(point, path_of(lr_key), settings) for point in points or ()]
    if rewards is None:
        return found
    if len(rewards) != len(found):
        raise InputError(f"{len(found)} points_to_evaluate but {len(rewards)} evaluated_rewards")
    values = [as_float(reward) for reward in rewards]
    sign = -1.0 if mode == "max" else 1.0
    return [
        Point(lr=p.lr, setting=p.setting, config=p.config, loss=math.nan if v is None else sign * v)
        for p, v in zip(found, values, strict=True)
    ]


def point_of(config: Mapping[str, Any], lr_key: str, settings: Sequence[Setting]) -> Point:
    """Return a config as a point: its lr, the setting whose own config it holds, and all of its keys."""
    lr = as_float(lookup(config, lr_key))
    if lr is None or not math.isfinite(lr) or lr <= 0:
        raise InputError(f"the point {dict(config)} has no positive number at {lr_key!r}")
    fits = [s for s in settings if all(lookup(config, k) == v for k, v in s.config.items())]
    if len(settings) == 1:
        fits = list(settings)
    if len(fits) != 1:
        names = [s.name for s in settings]
        raise InputError(f"{dict(config)} belongs to {len(fits)} of the settings {names}, not to one")
    return Point(lr=lr, setting=fits[0].name, config=dict(config))


def domain_of(lr_range: tuple[float, float] | None) -> LRDomain | None:
    """Return the `lr_range` argument of a searcher as a domain."""
    return None if lr_range is None else LRDomain(float(lr_range[0]), float(lr_range[1]))


def paths_of(axes: Sequence[str] | Mapping[str, tuple[float, float]]) -> list[str] | dict[str, tuple[float, float]]:
    """Return the `axes` argument of a searcher with its keys as paths."""
    if isinstance(axes, str):
        raise InputError(f"axes must be a list of keys, as [{axes!r}], not the text {axes!r}")
    return {path_of(k): v for k, v in axes.items()} if isinstance(axes, Mapping) else [path_of(k) for k in axes]


def path_of(key: str) -> str:
    """Return a key whose parts are divided by `.` or `/` as a path."""
    return key.replace(".", "/")
