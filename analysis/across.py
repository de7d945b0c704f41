"""What a finished setting says about another one: its optimum, curvature and skew as a prior.

A search begins its settings in groups, each with the prior from the groups before it, and a study's table of optima
gives each size the prior that its search had.

ln lr of the optimum is taken as linear in the logarithms of what tells the settings apart (Eq. 6 of Zhou et al., 2026:
ln η* = ln C - α·ln N - β·ln D), as a Bayesian regression: with one known setting the exponents are those of the prior,
and wide.

Notation and shapes
    z      covariates of a setting: ln params, ln tokens, ln batch, ln of other numbers   (F,)
    Z      the same of all known settings                                                 (M, F)
    t, v   mean and variance of ln of their best lr                                       (M,)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum import OptimumFit, OptimumPrior
from raylr.analysis.runs import Setting

Array = NDArray[np.float64]

EXPONENTS = {"params": (-0.25, 0.25), "tokens": (-0.3, 0.3)}
"""Prior mean and standard deviation of d ln(best lr) / d ln(...). Published laws have -0.22 to -0.71 (params) and
-0.35 to +0.31 (tokens): Zhou et al. 2026, Step Law 2025, Björck et al. 2024."""
OTHER_EXPONENT = (0.0, 0.5)
"""The same for anything else that tells settings apart, such as the batch size."""
SCATTER = 0.2
"""How far the optimum of one setting lies from any smooth law, in ln lr."""
CURVATURE_SCATTER = 0.35
"""How far ln of the curvature of one setting lies from the others'."""
AT_ONCE = 3
"""Settings of a group, by default."""
LEAST_RUNS = 2
"""Runs with a finite loss from which a setting says something about others."""
SKEW_SCATTER = 0.25
"""How far the skew of one setting lies from the others'."""


@dataclass(frozen=True)
class Known:
    """A finished setting and what was found in it."""

    setting: Setting
    moments: Mapping[str, tuple[float, float]]
    """Mean and standard deviation of ln of the best lr ("center"), ln of the curvature ("curvature") and the skew
    ("skew")."""


def in_order_of_cost(settings: Sequence[Setting]) -> list[Setting]:
    """Cheapest first, so that expensive settings profit from cheap ones; settings of unknown cost keep their order."""
    if any(s.params is None or s.tokens is None for s in settings):
        return list(settings)
    return sorted(settings, key=lambda s: float(s.params or 0) * float(s.tokens or 0))


def covariates(settings: Sequence[Setting]) -> dict[str, Array]:
    """What tells the settings apart: name → ln of the value for each, (len(settings),), without what does not vary."""
    raw: dict[str, list[Any]] = {name: [getattr(s, name) for s in settings] for name in ("params", "tokens", "batch")}
    for key in sorted({k for s in settings for k in s.config}):
        if key not in raw or not all(_positive(v) for v in raw[key]):  # a setting's own field goes before its config
            raw[key] = [s.config.get(key) for s in settings]
    out: dict[str, Array] = {}
    for name, values in raw.items():
        if not all(_positive(v) for v in values):
            continue
        logs = np.log(np.array(values, dtype=float))
        spread = logs - logs.mean()
        if np.ptp(logs) < 1e-9:
            continue
        if any(
            abs(spread @ (o - o.mean())) > 0.999 * np.linalg.norm(spread) * np.linalg.norm(o - o.mean())
            for o in out.values()
        ):
            continue  # the same thing under another name
        out[name] = logs
    return out


class Across:
    """What finished settings of a search say of its others.

    Args:
        settings: All settings of the search.

    Example:
        >>> S, L = (Setting(name=name, params=n, tokens=1e9) for name, n in (("S", 1e6), ("L", 4e6)))
        >>> moments = {"center": (-6.0, 0.1), "curvature": (-3.0, 0.3), "skew": (0.0, 0.2)}
        >>> prior = Across([S, L]).priors([L], [Known(S, moments)], [OptimumPrior()])[0]
        >>> round(prior.center, 2)  # a model of four times the size has a lower LR
        -6.35
    """

    def __init__(self, settings: Sequence[Setting]) -> None:
        self._index = {s.name: i for i, s in enumerate(settings)}
        by_name = covariates(settings)
        self._z = np.stack(list(by_name.values()), axis=1) if by_name else np.zeros((len(settings), 0))
        self._exponents = [EXPONENTS.get(name, OTHER_EXPONENT) for name in by_name]

    def priors(
        self, wanted: Sequence[Setting], known: Sequence[Known], bases: Sequence[OptimumPrior]
    ) -> list[OptimumPrior]:
        """Return the priors of the optima of several settings from those that are known.

        Args:
            wanted: The settings whose optima are wanted.
            known: Settings whose optima are known.
            bases: For each of `wanted` the prior where nothing is known; a law in it is combined with what is known.
        """
        if not known:
            return list(bases)
        moments = {name: np.array([k.moments[name] for k in known]) for name in ("center", "curvature", "skew")}
        laws = self._law(wanted, known, moments["center"])
        return [_with_law(base, moments, *law) for base, law in zip(bases, laws, strict=True)]

    def _law(self, wanted: Sequence[Setting], known: Sequence[Known], optima: Array) -> list[tuple[float, float]]:
        """Predictive mean and standard deviation of ln of the best lr of each of `wanted`."""
        rows = [self._index[k.setting.name] for k in known]
        t, v = optima[:, 0], optima[:, 1] ** 2 + SCATTER**2
        center = self._z[rows].mean(axis=0)
        mean = np.array([0.0, *(m for m, _ in self._exponents)])
        precision = np.diag([1e-4, *(1 / s**2 for _, s in self._exponents)])  # the intercept is free
        design = np.column_stack([np.ones(len(rows)), self._z[rows] - center])
        a = precision + design.T @ (design / v[:, None])
        b = precision @ mean + design.T @ (t / v)
        b[0] += 1e-4 * (t.mean() - mean[0])
        found = []
        for setting in wanted:
            row = np.concatenate([[1.0], self._z[self._index[setting.name]] - center])
            variance = float(row @ np.linalg.solve(a, row)) + SCATTER**2
            found.append((float(row @ np.linalg.solve(a, b)), math.sqrt(variance)))
        return found


def _with_law(base: OptimumPrior, moments: Mapping[str, Array], mean: float, sd: float) -> OptimumPrior:
    """Return `base` with what the known settings say; `mean` and `sd` of ln of the best lr are their law's."""
    own = None if base.curvature is None else (math.log(base.curvature), base.curvature_log_sd)
    ln_c, ln_c_sd = _pool(moments["curvature"], CURVATURE_SCATTER, own)
    skew, skew_sd = _pool(moments["skew"], SKEW_SCATTER, (base.skew, base.skew_sd))
    if base.center is not None:  # a law given from outside: the two together
        w_own, w_base = 1 / sd**2, 1 / base.center_sd**2
        mean, sd = (w_own * mean + w_base * base.center) / (w_own + w_base), (w_own + w_base) ** -0.5
    return replace(
        base, curvature=math.exp(ln_c), curvature_log_sd=ln_c_sd, skew=skew, skew_sd=skew_sd, center=mean, center_sd=sd
    )


def earlier(index: int, at_once: int = AT_ONCE) -> range:
    """Which settings are finished when the one at `index`, in the order of their cost, begins."""
    return range(index - index % at_once)


def in_turn(
    settings: Sequence[Setting], fit: Callable[[Setting, OptimumPrior | None], OptimumFit]
) -> dict[str, OptimumFit]:
    """Fit all settings in the order of a search, each with the prior from the groups before it.

    Args:
        settings: The settings, with a name each.
        fit: Returns the fit of a setting with a prior, None for no prior.

    Returns:
        Name of a setting → its fit.
    """
    ordered, out = in_order_of_cost(settings), dict[str, OptimumFit]()
    across = Across(ordered)
    for index, setting in enumerate(ordered):
        done = [(ordered[i], out[ordered[i].name]) for i in earlier(index)]
        known = [Known(one, found.moments()) for one, found in done if found.losses.tried_count.sum() >= LEAST_RUNS]
        prior = across.priors([setting], known, [OptimumPrior()])[0] if known else None
        out[setting.name] = fit(setting, prior)
    return out


def _pool(values: Array, scatter: float, base: tuple[float, float] | None) -> tuple[float, float]:
    """Normal prior of one more value given mean and sd of the known ones, (M, 2), which scatter; `base` is the prior of
    their mean, None if nothing is known of it."""
    means, w = values[:, 0], 1 / (values[:, 1] ** 2 + scatter**2)
    known, of_base = float(w.sum()), 0.0 if base is None else 1 / base[1] ** 2
    whole = known + of_base
    mean = (float(w @ means) + (0.0 if base is None else of_base * base[0])) / whole
    spread = float(w @ (means - mean) ** 2) / whole
    return mean, math.sqrt(max(scatter**2, spread) + 1 / whole)


def _positive(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and float(value) > 0
