"""The regression behind all laws: from the optima of cells to a law. `lr_fit` has the public functions.

Notation
    N, D, B  size, tokens and batch of a cell in the law's units                                           (n,)
    z        ln of the optimum in the law's unit                                                           (n,)
    full     columns 1, -ln N, -ln D[, ln B] of all cells (n, k); `columns` are those that are fitted
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, floats, losses_of, optima_of, positive, same_length, vector
from raylr.analysis._threads import one_thread
from raylr.analysis.laws._regression import CoefficientPrior, Regression, ScatterPrior, regress
from raylr.analysis.laws.bend import Bend, bends_of
from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.laws.scaling import ScalingLaw
from raylr.analysis.laws.support import distinct
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
"""Without a prior: standard deviation of an exponent that the design does not determine; published ones lie between
-0.4 and 0.7."""
UNITS_GAP = 1e6
"""Neighbouring sizes (or budgets) further apart than this factor are taken for counts in two units: no study leaps from
one size to a million times it, and 1e6 and 1e9 are the units people write."""

Law = TypeVar("Law", bound=ScalingLaw)
Prior = tuple[float, float]


@one_thread
def fit_law(
    blank: Law,
    params: ArrayLike | None,
    tokens: ArrayLike,
    value: ArrayLike,
    *,
    batch: ArrayLike | None = None,
    batch_exponent: float | str | None = None,
    priors: Mapping[str, Prior],
    stderr: ArrayLike | None = None,
    draws: ArrayLike | None = None,
    conditions: Conditions | Sequence[Conditions] | None = None,
    names: tuple[str, str],
) -> Law:
    """Check the optima of n cells and fit a law to them.

    Args:
        blank: The law with its units and its kind; everything that is measured is filled in.
        params: Parameters of each cell (n,); None for a law without a size.
        tokens: Tokens of each cell (n,).
        value: Optimum of each cell (n,). NaN and inf: the cell has none and is left out.
        batch: Tokens of an optimizer step, one number or (n,); None for a law without a batch.
        batch_exponent: Exponent of the batch: a number keeps it at that, "fit" takes it from the cells alone, "prior"
            and None from the cells and its prior.
        priors: Name of an exponent → mean and standard deviation of its normal prior.
        stderr: Standard error of ln of the optima, one number or (n,); inf for a cell that measures nothing.
        draws: Draws of ln of the optima (s, n). Each draw gives a law; intervals are the wider of their spread and that
            of the fit.
        conditions: What the optima were measured under, for all cells or one for each.
        names: Names of size and value, for messages.

    Returns:
        `blank` with what was found, or with the status that says why no law could be fitted.

    Raises:
        InputError: If an array has the wrong shape or impossible values.
    """
    d, z = positive(tokens, "tokens"), optima_of(value, names[1])
    n = np.full(z.size, blank.params_unit) if params is None else positive(params, names[0])
    b = None if batch is None else positive(np.atleast_1d(floats(batch, "batch")), "batch")
    b = np.full(z.size, b[0]) if b is not None and b.size == 1 else b
    same_length(**{names[0]: n, "tokens": d, names[1]: z, "batch": b})
    for name, counts in ((names[0], n), ("tokens", d)) if params is not None else (("tokens", d),):
        _one_unit(name, counts)
    common = _common(conditions, z.size, b)
    s = None if stderr is None else vector(np.atleast_1d(floats(stderr, "stderr")), "stderr")
    if s is not None:
        s = np.full(z.size, s[0]) if s.size == 1 else s
        same_length(lr_opt=z, stderr=s)
        if np.isnan(s).any() or (s <= 0).any():
            raise InputError("stderr must be above zero (inf for a cell that measures nothing)")
    keep = np.isfinite(z) & (True if s is None else np.isfinite(s))
    samples = None
    if draws is not None:
        samples = losses_of(draws, "draws", axes=2)
        if samples.shape[1] != z.size:
            raise InputError(f"draws must have shape (draws, {z.size}), got {samples.shape}")
        samples = samples[:, keep] - math.log(blank.unit)
        if not np.isfinite(samples).all():
            raise InputError("draws must be finite for every cell that has an optimum")
    exponent = _exponent(batch_exponent, b)
    if b is not None:
        b = b[keep]
        blank = replace(blank, batch_unit=math.exp(np.log(b).mean()) if b.size else 1.0, batch_range=_range(b))
    known = [one for one in (None if params is None else n[keep], d[keep], b) if one is not None]
    blank = replace(
        blank, params_range=None if params is None else _range(n[keep]), tokens_range=_range(d[keep]),
        support=distinct([np.log(one) for one in known]), conditions=common,
    )  # fmt: skip
    cells = _Cells(
        n=n[keep] / blank.params_unit, d=d[keep] / blank.tokens_unit,
        b=None if b is None else b / (blank.batch_unit or 1.0),
        z=np.log(z[keep] / blank.unit), error=np.zeros(int(keep.sum())) if s is None else np.minimum(s[keep], 1e30),
    )  # fmt: skip
    return _fit(blank, cells, samples, exponent, priors, sized=params is not None)


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """Cells with an optimum, in the law's units, each (n,)."""

    n: Array
    d: Array
    b: Array | None
    z: Array
    error: Array


def _exponent(value: float | str | None, batch: Array | None) -> float | str:
    """Return what `batch_exponent` means: a number, "fit" or "prior"."""
    if value is not None and batch is None:
        raise InputError("batch_exponent needs the batch of the cells: give batch, in tokens of one optimizer step")
    if value is None or (isinstance(value, str) and value in ("fit", "prior")):
        return value or "prior"
    if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) <= STEEP:
        raise InputError(f'batch_exponent must be a number, "fit" or "prior", got {value!r}')
    return float(value)


def _common(conditions: Conditions | Sequence[Conditions] | None, size: int, batch: Array | None) -> Conditions:
    """Return the conditions of all cells; InputError if they have several batches that the law does not know of."""
    if conditions is None:
        each: list[Conditions] = []
    elif isinstance(conditions, Conditions):
        each = [conditions]
    else:
        each = list(conditions)
        if len(each) != size:
            raise InputError(f"conditions must be one object or one a cell ({size}), got {len(each)}")
    batches = sorted({one.batch_tokens for one in each if one.batch_tokens is not None})
    if batch is None and len(batches) > 1 and batches[-1] > 1.01 * batches[0]:
        raise InputError(
            f"the cells were trained with batches from {batches[0]:g} to {batches[-1]:g} tokens: give batch=…, or the "
            "law takes their effect for one of size or tokens"
        )
    common = Conditions.common(each)
    if batch is not None:
        one = batch.size and np.ptp(np.log(batch)) < 0.01
        common = replace(common, batch_tokens=float(batch[0]) if one else None)
    return common


def _one_unit(name: str, counts: Array) -> None:
    """Raise InputError if neighbouring counts are so far apart that they must be in two units."""
    order = np.argsort(counts)
    gaps = np.diff(np.log(counts[order]))
    if gaps.size and gaps.max() > math.log(UNITS_GAP):
        at = int(np.argmax(gaps))
        low, high = int(order[at]), int(order[at + 1])
        raise InputError(
            f"{name} are in two units: {counts[low]:g} at position {low} and {counts[high]:g} at position {high} are a "
            f"factor {counts[high] / counts[low]:.2g} apart; give all as counts, such as 1e9 for one billion"
        )


def _range(values: Array) -> tuple[float, float] | None:
    return (float(values.min()), float(values.max())) if values.size else None


def _fit(
    blank: Law, cells: _Cells, samples: Array | None, exponent: float | str, priors: Mapping[str, Prior], *, sized: bool
) -> Law:
    nan = math.nan
    if cells.z.size == 0:
        return replace(blank, c=nan, alpha=nan, beta=nan, status=Status.TOO_FEW, message="no cell has an optimum")
    full = [np.ones_like(cells.z), -np.log(cells.n), -np.log(cells.d)]
    z = cells.z
    if cells.b is not None:
        full.append(np.log(cells.b))
        if not isinstance(exponent, str):
            z = z - exponent * full[3]
    columns, status, message = _design(np.stack(full[:3], 1), priors, sized=sized)
    if priors and sized:  # with a prior nothing has to be left out
        columns = [0, 1, 2]
    if cells.b is not None and isinstance(exponent, str):
        if exponent == "fit" and np.ptp(full[3]) < SAME:
            raise InputError('all cells have one batch: its exponent cannot be fitted; use batch_exponent="prior"')
        columns.append(3)
    prior = _prior_of(columns, priors, exponent)
    x = np.stack(full, 1)[:, columns]
    scatter = ScatterPrior(scatter=SCATTER, dof=SCATTER_DOF)
    if (
        exponent == "fit"
        and 3 in columns
        and np.linalg.matrix_rank(np.vstack([x, prior.rows]), tol=1e-8) < len(columns)
    ):
        return replace(
            blank, c=nan, alpha=nan, beta=nan, delta=nan, status=Status.NO_LAW, cells=z.size,
            message='the batch grows in a fixed ratio to size and tokens: its exponent cannot be fitted; use "prior"',
        )  # fmt: skip
    fit = regress(x, z, cells.error, prior, scatter)
    if np.abs(fit.theta[1:]).max(initial=0.0) > STEEP:
        message = f"exponents of {', '.join(f'{v:.3g}' for v in fit.theta[1:])}: these optima follow no law"
        return replace(
            blank, c=nan, alpha=nan, beta=nan, delta=nan, status=Status.NO_LAW, message=message, cells=z.size
        )
    axes = {"params": np.log(cells.n * blank.params_unit)} if sized else {}
    axes["tokens"] = np.log(cells.d * blank.tokens_unit)
    if cells.b is not None and 3 in columns and blank.batch_unit is not None:
        axes["batch"] = np.log(cells.b * blank.batch_unit)
    bends = bends_of(x, z, cells.error, axes, prior, scatter) if status is Status.OK else ()
    rests = exponent == "prior" and 3 in columns
    found = replace(blank, status=status, message=message, bends=(), delta_prior=priors.get("delta") if rests else None)
    return _filled(found, fit, prior, x, z, columns, np.stack(full, 1), samples, exponent, bends)


def _filled(
    blank: Law, fit: Regression, prior: CoefficientPrior, x: Array, z: Array, columns: list[int], full: Array,
    samples: Array | None, exponent: float | str, bends: tuple[Bend, ...],
) -> Law:  # fmt: skip
    """Return the law with the numbers of its regression."""
    k = full.shape[1]
    covariance = np.zeros((k, k))
    covariance[np.ix_(columns, columns)] = fit.covariance
    if blank.status is Status.COLLINEAR and not prior.values.size:
        covariance[:3, :3] += _unknown(full[:, :3])
    w, residual = fit.weights, fit.residual
    total = float(w @ (z - w @ z / w.sum()) ** 2)
    values = np.zeros(k)
    values[columns] = fit.theta
    each = None
    if samples is not None:
        moved = samples if isinstance(exponent, str) or k < 4 else samples - exponent * full[:, 3]
        root, table = np.sqrt(w)[:, None], np.zeros((samples.shape[0], k))
        right = np.vstack([moved.T * root, np.repeat(prior.values[:, None], samples.shape[0], axis=1)])
        table[:, columns] = np.linalg.lstsq(np.vstack([x * root, prior.rows]), right, rcond=None)[0].T
        each = tuple(map(tuple, np.cov(table, rowvar=False, bias=True).tolist()))
    if bends := tuple(replace(bend, projection=_spread_out(bend.projection, columns, k)) for bend in bends):
        seen = [bend.message for bend in bends if bend.seen]
        blank = replace(blank, message="; ".join([blank.message, *seen] if blank.message else seen))
    delta = float(values[3]) if k > 3 else 0.0
    return replace(
        blank, c=math.exp(values[0]), alpha=float(values[1]), beta=float(values[2]),
        delta=delta if isinstance(exponent, str) or k < 4 else exponent,
        r2=1 - float(w @ residual**2) / total if total > 0 else math.nan, rmse=float(np.sqrt(np.mean(residual**2))),
        scatter=fit.scatter, drift=DRIFT, cells=z.size, dof=fit.dof, bends=bends, draws_covariance=each,
        covariance=tuple(map(tuple, covariance.tolist())),
    )  # fmt: skip


def _spread_out(values: Sequence[float], columns: list[int], size: int) -> tuple[float, ...]:
    out = np.zeros(size)
    out[columns] = values
    return tuple(out.tolist())


def _prior_of(columns: list[int], priors: Mapping[str, Prior], exponent: float | str) -> CoefficientPrior:
    """Return the priors of the fitted columns' coefficients."""
    names = ("c", "alpha", "beta", "delta")
    given = {name: prior for name, prior in priors.items() if name != "delta" or exponent == "prior"}
    pairs = [given.get(names[i], (0.0, math.inf)) for i in columns]
    return CoefficientPrior.of([mean for mean, _ in pairs], [sd for _, sd in pairs])


def _unknown(full: Array) -> Array:
    """Return the covariance of the exponents in the direction that a collinear design does not determine."""
    centre = full[:, 1:].mean(0)
    across = np.linalg.svd(full[:, 1:] - centre)[2][-1]
    row = np.concatenate([[-float(across @ centre)], across])
    return np.asarray(EXPONENT_SD**2 * np.outer(row, row))


def _design(full: Array, priors: Mapping[str, Prior], *, sized: bool) -> tuple[list[int], Status, str]:
    """Return the columns of the design that the cells determine, the status and why."""
    one_size, one_budget = np.ptp(full[:, 1:], axis=0) < SAME
    if not sized:
        if one_budget:
            return [0, 2], Status.ONE_BUDGET, "one token budget: the exponent of the tokens is that of the prior"
        return [0, 2], Status.OK, ""
    if one_size and one_budget:
        why = "both exponents are those of the prior" if priors else "neither exponent is determined"
        return [0], Status.ONE_CELL, f"one model size at one token budget: {why}"
    if one_size:
        why = "is that of the prior" if priors else "is not determined"
        return [0, 2], Status.ONE_SIZE, f"one model size: the exponent of the size {why}"
    if one_budget:
        why = "is that of the prior" if priors else "is not determined"
        return [0, 1], Status.ONE_BUDGET, f"one token budget: the exponent of the tokens {why}"
    centred = full[:, 1:] - full[:, 1:].mean(0)
    if np.linalg.svd(centred, compute_uv=False)[-1] < 1e-3:
        why = "rest on their prior" if priors else "are not determined separately"
        return [0, 2], Status.COLLINEAR, f"tokens grow in a fixed ratio to parameters: the two exponents {why}"
    return [0, 1, 2], Status.OK, ""
