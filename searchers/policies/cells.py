"""What a finished cell says about another one: its optimum, curvature and skew as a prior. No Ray, no state.

ln lr of the optimum is taken as linear in the logarithms of what tells the cells apart (Eq. 6 of Zhou et al., 2026:
ln η* = ln C - α·ln N - β·ln D), as a Bayesian regression: with one known cell the exponents are those of the prior,
and wide.

Notation and shapes
    z      covariates of a cell: ln params, ln tokens, ln of other numbers      (F,)
    Z      the same of all known cells                                          (M, F)
    t, v   mean and variance of ln of their best lr                             (M,)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum.posterior import ShapePrior
from raylr.searchers._config import lookup, number

Array = NDArray[np.float64]

EXPONENTS = {"params": (-0.25, 0.25), "tokens": (-0.3, 0.3)}
"""Prior mean and standard deviation of d ln(best lr) / d ln(...). Published laws have -0.22 to -0.71 (params) and
-0.35 to +0.31 (tokens): Zhou et al. 2026, Step Law 2025, Björck et al. 2024."""
OTHER_EXPONENT = (0.0, 0.5)
"""The same for anything else that tells cells apart, such as the batch size."""
SCATTER = 0.2
"""How far the optimum of one cell lies from any smooth law, in ln lr."""
CURVATURE_SCATTER = 0.35
"""How far ln of the curvature of one cell lies from the others'."""
SKEW_SCATTER = 0.25
"""How far the skew of one cell lies from the others'."""


@dataclass(frozen=True)
class Cell:
    """One model size at one token budget: what its trials have in common, and what the law knows it by."""

    name: str
    """Unique among the cells of a search; trials carry it nowhere unless `config` does."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Merged into every suggestion for this cell; positive numbers in it that differ between cells are covariates."""
    params: float | None = None
    """Parameters of the model."""
    tokens: float | None = None
    """Training tokens at which the loss counts (in whatever unit `time_attr` has)."""


@dataclass(frozen=True)
class Known:
    """A finished cell and what it found."""

    cell: Cell
    moments: Mapping[str, tuple[float, float]]
    """Mean and standard deviation of ln of the best lr ("center"), ln of the curvature ("curvature") and the skew
    ("skew")."""


def in_order_of_cost(cells: Sequence[Cell]) -> list[Cell]:
    """Cheapest first, so that the dear cells profit from the cheap ones; cells of unknown cost stay where they are."""
    if any(c.params is None or c.tokens is None for c in cells):
        return list(cells)
    return sorted(cells, key=lambda c: float(c.params or 0) * float(c.tokens or 0))


def cell_of(config: Mapping[str, Any], cells: Sequence[Cell]) -> Cell:
    """The cell that a config belongs to: the one whose own config it holds. ValueError unless there is one."""
    if len(cells) == 1:
        return cells[0]
    fits = [c for c in cells if all(lookup(config, k) == v for k, v in c.config.items())]
    if len(fits) != 1:
        raise ValueError(f"{dict(config)} belongs to {len(fits)} of the cells {[c.name for c in cells]}, not to one")
    return fits[0]


def covariates(cells: Sequence[Cell]) -> dict[str, Array]:
    """What tells the cells apart: name → ln of the value for each cell, (len(cells),), without what does not vary."""
    raw: dict[str, list[Any]] = {"params": [c.params for c in cells], "tokens": [c.tokens for c in cells]}
    for key in sorted({k for c in cells for k in c.config}):
        raw.setdefault(str(key), [c.config.get(key) for c in cells])
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


def prior_from(cell: Cell, known: Sequence[Known], cells: Sequence[Cell], base: ShapePrior) -> ShapePrior:
    """Prior of `cell` from the `known` ones: `base` where nothing is known. `cells` are all cells of the search."""
    if not known:
        return base
    moments = [k.moments for k in known]
    ln_c, ln_c_sd = _pool(
        [m["curvature"] for m in moments], CURVATURE_SCATTER, (math.log(base.curvature), base.curvature_log_sd)
    )
    skew, skew_sd = _pool([m["skew"] for m in moments], SKEW_SCATTER, (base.skew, base.skew_sd))
    prior = replace(base, curvature=math.exp(ln_c), curvature_log_sd=ln_c_sd, skew=skew, skew_sd=skew_sd)
    mean, sd = _law(cell, known, cells, [m["center"] for m in moments])
    if base.center is not None:  # a law given from outside: the two together
        w_own, w_base = 1 / sd**2, 1 / base.center_sd**2
        mean, sd = (w_own * mean + w_base * base.center) / (w_own + w_base), (w_own + w_base) ** -0.5
    return replace(prior, center=mean, center_sd=sd)


def _law(
    cell: Cell, known: Sequence[Known], cells: Sequence[Cell], optima: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Predictive mean and standard deviation of ln of the best lr of `cell`."""
    by_name = covariates(cells)
    index = {c.name: i for i, c in enumerate(cells)}
    rows = [index[k.cell.name] for k in known]
    t = np.array([m for m, _ in optima])
    v = np.array([s**2 for _, s in optima]) + SCATTER**2
    z_all = np.stack(list(by_name.values()), axis=1) if by_name else np.zeros((len(cells), 0))
    center = z_all[rows].mean(axis=0)
    z, z_new = z_all[rows] - center, z_all[index[cell.name]] - center
    priors = [EXPONENTS.get(name, OTHER_EXPONENT) for name in by_name]
    mean = np.array([0.0, *(m for m, _ in priors)])
    precision = np.diag([1e-4, *(1 / s**2 for _, s in priors)])  # the intercept is free
    design = np.column_stack([np.ones(len(rows)), z])
    a = precision + design.T @ (design / v[:, None])
    b = precision @ mean + design.T @ (t / v)
    b[0] += 1e-4 * (t.mean() - mean[0])
    row = np.concatenate([[1.0], z_new])
    return float(row @ np.linalg.solve(a, b)), math.sqrt(float(row @ np.linalg.solve(a, row)) + SCATTER**2)


def _pool(values: Sequence[tuple[float, float]], scatter: float, base: tuple[float, float]) -> tuple[float, float]:
    """Normal prior of one more value given (mean, sd) of the known ones, which scatter; `base` is the prior of their
    mean."""
    w = [1 / (sd**2 + scatter**2) for _, sd in values] + [1 / base[1] ** 2]
    mean = sum(wi * m for wi, (m, _) in zip(w, [*values, base], strict=True)) / sum(w)
    spread = sum(wi * (m - mean) ** 2 for wi, (m, _) in zip(w, values, strict=False)) / sum(w)
    return mean, math.sqrt(max(scatter**2, spread) + 1 / sum(w))


def _positive(value: Any) -> bool:
    return number(value) and value > 0
