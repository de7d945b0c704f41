"""The fit of the LR law (Eq. 8 of Zhou et al. 2026) to the optima of settings.

Notation
    N, D     parameters and tokens of a cell (one model size at one token budget), in the law's units       (n,)
    z        ln lr_opt in the law's unit (`lr_unit`), weights 1 / stderr(z)^2                               (n,)
    theta    (ln c, alpha, beta): z = ln c - alpha ln N - beta ln D                                        (3,)

Least squares in log space is linear in theta: no start values, no local optimum. Cells scatter around the law by more
than their own errors say (`scatter`), so weights are 1 / (stderr^2 + scatter^2); the scatter solves the equation of
Paule and Mandel 1982, with a prior worth `SCATTER_DOF` cells, and is what Student's t is scaled by. What the design
does not determine (one size: alpha; one budget: beta) is set to 0 and listed as not fitted; a prediction that needs it
has an open interval. Tokens in a fixed ratio to parameters determine what happens along that line, and little off it.
Beyond the fitted range the exponents themselves are taken to change (`drift`).
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, floats, losses_of, optima_of, positive, same_length, vector
from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.laws.lr_law import PARAMETERS, LRLaw
from raylr.analysis.status import Status
from raylr.errors import InputError

SAME = 0.05
"""Sizes or budgets whose logarithms span less than this count as one value; no exponent is fitted."""
SCATTER = 0.2
"""Scatter of ln lr_opt before any cell is seen: what the optimum of one size and budget differs by between seeds."""
SCATTER_DOF = 2.0
"""Number of cells that this prior is worth."""
DRIFT = 0.2
"""Standard deviation by which an exponent beyond the fitted range differs from that inside: on public tables of LRs the
exponents between neighbouring sizes and budgets differ by that much."""
STEEP = 5.0
"""Fits with an exponent larger than this in absolute value are rejected (status `no_law`): they come from cells that
hardly differ in size and have optima far apart."""
EXPONENT_SD = 1.0
"""Standard deviation of an exponent that the design does not determine; published ones lie between -0.4 and 0.7."""


def fit_lr_law(
    params: ArrayLike,
    tokens: ArrayLike,
    lr_opt: ArrayLike,
    *,
    stderr: ArrayLike | None = None,
    draws: ArrayLike | None = None,
    params_unit: float = 1e9,
    tokens_unit: float = 1e9,
    lr_unit: float = 1e-4,
    conditions: Conditions | None = None,
    source: str = "",
) -> LRLaw:
    """Fit Eq. 8 to the optima of cells.

    Args:
        params: Parameters of each cell (n,): counts, whatever the units below.
        tokens: Training tokens of each cell (n,).
        lr_opt: Optimal LR of each cell (n,); NaN leaves the cell out.
        stderr: Standard error of ln lr_opt, scalar or (n,); inf leaves a cell out. Without it, all deviations count as
            scatter of the cells.
        draws: ln lr_opt from a bootstrap over trials or from a posterior (draws, n). Each draw gives a law; intervals
            are the wider of their spread and that of the fit.
        params_unit: Parameters that count as 1 in the law's formula.
        tokens_unit: Tokens that count as 1.
        lr_unit: LR that counts as 1.
        conditions: What the runs behind the optima had in common.
        source: Where the optima come from.

    Returns:
        The law; `status` says which exponents the cells determined.

    Raises:
        InputError: sizes, tokens, LRs or standard errors are not above zero, or lengths differ.

    Example:
        >>> law = fit_lr_law([1e8, 1e8, 2e8, 2e8], [1e9, 2e9, 1e9, 2e9], [1e-3, 8e-4, 9e-4, 7.2e-4])
        >>> round(law.beta, 3)
        0.322

    References:
        Zhou et al. 2026, arXiv 2601.05049, Eq. 8. Paule and Mandel 1982, J. Res. Natl. Bur. Stand. 87, 377.
    """
    n, d = positive(params, "params"), positive(tokens, "tokens")
    for name, unit in (("params_unit", params_unit), ("tokens_unit", tokens_unit), ("lr_unit", lr_unit)):
        positive([unit], name)
    z = optima_of(lr_opt, "lr_opt")
    same_length(params=n, tokens=d, lr_opt=z)
    s = None if stderr is None else vector(np.atleast_1d(floats(stderr, "stderr")), "stderr")
    if s is not None:
        s = np.full(z.size, s[0]) if s.size == 1 else s
        same_length(lr_opt=z, stderr=s)
        if np.isnan(s).any() or (s <= 0).any():
            raise InputError("stderr must be above zero (inf for a cell that tells nothing)")
    keep = np.isfinite(z) & (True if s is None else np.isfinite(s))
    samples = None
    if draws is not None:
        samples = losses_of(draws, "draws", axes=2)
        if samples.shape[1] != z.size:
            raise InputError(f"draws must have shape (draws, {z.size}), got {samples.shape}")
        samples = samples[:, keep] - math.log(lr_unit)
        if not np.isfinite(samples).all():
            raise InputError("draws must be finite for every cell that has an optimum")
    law = _fit(
        n[keep] / params_unit, d[keep] / tokens_unit, np.log(z[keep] / lr_unit), None if s is None else s[keep], samples
    )
    return replace(
        law, params_unit=params_unit, tokens_unit=tokens_unit, lr_unit=lr_unit, conditions=conditions or Conditions(),
        source=source, params_range=_range(n[keep]), tokens_range=_range(d[keep]),
    )  # fmt: skip


def _range(values: Array) -> tuple[float, float] | None:
    return (float(values.min()), float(values.max())) if values.size else None


def _fit(n: Array, d: Array, z: Array, s: Array | None, samples: Array | None) -> LRLaw:
    if z.size == 0:
        return LRLaw(
            c=math.nan,
            alpha=math.nan,
            beta=math.nan,
            status=Status.TOO_FEW,
            message="no cell has an optimum",
            fitted=(),
        )
    full = np.stack([np.ones_like(z), -np.log(n), -np.log(d)], 1)
    columns, status, message = _design(full)
    x, error = full[:, columns], np.zeros_like(z) if s is None else np.minimum(s, 1e30)
    scatter = _scatter(x, z, error)
    theta, unit, w = _solve(x, z, error, scatter)
    if np.abs(theta[1:]).max(initial=0.0) > STEEP:
        nan, message = math.nan, f"exponents of {', '.join(f'{v:.3g}' for v in theta[1:])}: these optima follow no law"
        return LRLaw(c=nan, alpha=nan, beta=nan, status=Status.NO_LAW, message=message, fitted=(), cells=z.size)
    residual = z - x @ theta
    covariance = np.zeros((3, 3))
    covariance[np.ix_(columns, columns)] = unit
    if status is Status.COLLINEAR:
        covariance += _unknown(full)
    total = float(w @ (z - w @ z / w.sum()) ** 2)
    each = None
    if samples is not None:
        root, table = np.sqrt(w)[:, None], np.zeros((samples.shape[0], 3))
        table[:, columns] = np.linalg.lstsq(x * root, samples.T * root, rcond=None)[0].T
        each = tuple(map(tuple, np.cov(table, rowvar=False, bias=True).tolist()))
    values = np.zeros(3)
    values[columns] = theta
    return LRLaw(
        c=math.exp(values[0]), alpha=float(values[1]), beta=float(values[2]), status=status, message=message,
        fitted=tuple(PARAMETERS[i] for i in columns), r2=1 - float(w @ residual**2) / total if total > 0 else math.nan,
        rmse=float(np.sqrt(np.mean(residual**2))), scatter=scatter, drift=DRIFT, cells=z.size,
        dof=z.size - len(columns) + SCATTER_DOF, covariance=tuple(map(tuple, covariance.tolist())),
        draws_covariance=each,
    )  # fmt: skip


def _solve(x: Array, z: Array, error: Array, scatter: float) -> tuple[Array, Array, Array]:
    """Least squares with weights 1 / (error^2 + scatter^2): theta, its covariance and the weights."""
    w = 1 / (error**2 + scatter**2)
    root = np.sqrt(w)[:, None]
    q, triangle = np.linalg.qr(x * root)
    half = np.linalg.inv(triangle)
    return half @ (q.T @ (root[:, 0] * z)), half @ half.T, w


def _scatter(x: Array, z: Array, error: Array) -> float:
    """The standard deviation, beside `error`, that makes the weighted residuals as large as they should be."""
    from scipy import optimize

    dof = z.size - x.shape[1] + SCATTER_DOF

    def excess(log_scatter: float) -> float:
        scatter = math.exp(log_scatter)
        theta, _, w = _solve(x, z, error, scatter)
        return float(SCATTER_DOF * (SCATTER / scatter) ** 2 + w @ (z - x @ theta) ** 2 - dof)

    plain = z - x @ np.linalg.lstsq(x, z, rcond=None)[0]
    low, high = SCATTER_DOF * SCATTER**2, SCATTER_DOF * SCATTER**2 + float(plain @ plain)
    log_low, log_high = 0.5 * math.log(low / dof) - 1e-6, 0.5 * math.log(high / dof) + 1e-6
    while excess(log_high) > 0:  # rounding
        log_high += 0.5
    return math.exp(float(optimize.brentq(excess, log_low, log_high, xtol=1e-10)))


def _unknown(full: Array) -> Array:
    """Covariance of the exponents in the direction that a collinear design does not tell; 0 along the cells."""
    centre = full[:, 1:].mean(0)
    across = np.linalg.svd(full[:, 1:] - centre)[2][-1]
    row = np.concatenate([[-float(across @ centre)], across])
    return np.asarray(EXPONENT_SD**2 * np.outer(row, row))


def _design(full: Array) -> tuple[list[int], Status, str]:
    """Columns of the design that the cells determine, the status and why."""
    one_size, one_budget = np.ptp(full[:, 1:], axis=0) < SAME
    if one_size and one_budget:
        return [0], Status.ONE_CELL, "one model size at one token budget: neither exponent is determined"
    if one_size:
        return [0, 2], Status.ONE_SIZE, "one model size: the exponent of the parameters is not determined"
    if one_budget:
        return [0, 1], Status.ONE_BUDGET, "one token budget: the exponent of the tokens is not determined"
    centred = full[:, 1:] - full[:, 1:].mean(0)
    if np.linalg.svd(centred, compute_uv=False)[-1] < 1e-3:
        return (
            [0, 2],
            Status.COLLINEAR,
            "tokens grow in a fixed ratio to parameters: the two exponents cannot be told apart",
        )
    return [0, 1, 2], Status.OK, ""
