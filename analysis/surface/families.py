"""Other forms of Eq. 5 (which laws may the optimum follow?), compared by the error on cells that were left out.

All families are linear in ln lr_opt: a row of features a cell, least squares, and leave-one-group-out cross-validation.
The groups matter: leaving out single cells tests interpolation, leaving out the largest model tests extrapolation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, one_of, optima_of, positive, same_length, vector
from raylr.analysis.laws._fitting import SAME
from raylr.analysis.status import Status
from raylr.errors import InputError

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "constant": (),
    "params": ("params",),
    "tokens": ("tokens",),
    "params_tokens": ("params", "tokens"),
    "active_tokens": ("active", "tokens"),
    "compute": ("compute",),
    "params_tokens_batch": ("params", "tokens", "batch"),
    "active_tokens_batch": ("active", "tokens", "batch"),
    "batch": ("batch",),
}
"""Features, all as natural logarithms: `params_tokens` is Eq. 8 (and Step Law's form), `compute` DeepSeek LLM's, with
`batch` the tokens a step; `compute` is params * tokens."""


@dataclass(frozen=True, kw_only=True)
class FamilyScore:
    """How one family predicts the optima of cells that it has not seen."""

    family: str
    """A name from FAMILIES."""
    exponents: dict[str, float]
    """Fitted on all cells: lr_opt is proportional to the product of feature^exponent."""
    rmse: float
    """Root mean square residual of ln lr on all cells."""
    cv_rmse: float
    """Root mean square error of ln lr on cells left out; NaN where some group cannot be predicted from the rest."""
    status: Status
    """`ok`, `uncertain` (without some group the others do not determine the exponents: there is a fit but no
    cross-validated error) or `not_determined`."""
    message: str
    """One sentence: why this status."""

    @property
    def ok(self) -> bool:
        """Whether the family was fitted and cross-validated."""
        return self.status.ok


def compare_families(
    lr_opt: ArrayLike,
    *,
    params: ArrayLike,
    tokens: ArrayLike,
    active: ArrayLike | None = None,
    batch: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    stderr: ArrayLike | None = None,
    families: tuple[str, ...] | None = None,
) -> list[FamilyScore]:
    """Score the families whose features are given by their error on cells that were left out.

    Args:
        lr_opt: Optimal LRs (n,), one entry a cell; NaN leaves a cell out. So for all arrays.
        params: Parameters (n,).
        tokens: Training tokens (n,).
        active: Active parameters of a sparse model (n,).
        batch: Tokens of one optimizer step (n,).
        groups: Labels (n,); cells with one label are left out together. None: each cell is left out alone.
        stderr: Standard error of ln lr_opt (n,), for the weights; inf leaves a cell out.
        families: Names from `FAMILIES`; all without.

    Returns:
        One score a family whose features are given, best first.

    Raises:
        InputError: unknown families, unequal lengths, or values that are not above zero.

    Example:
        >>> scores = compare_families(
        ...     [1e-3, 8e-4, 7e-4, 6e-4], params=[1e8, 1e8, 2e8, 2e8], tokens=[1e9, 2e9, 1e9, 2e9], families=("tokens",)
        ... )
        >>> scores[0].family
        'tokens'
    """
    z = optima_of(lr_opt, "lr_opt")
    n, d = positive(params, "params"), positive(tokens, "tokens")
    columns = {"params": np.log(n), "tokens": np.log(d), "compute": np.log(n) + np.log(d)}
    if active is not None:
        columns["active"] = np.log(positive(active, "active"))
    if batch is not None:
        columns["batch"] = np.log(positive(batch, "batch"))
    group = np.arange(z.size) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    weight = np.ones(z.size) if stderr is None else vector(stderr, "stderr") ** -2.0
    same_length(lr_opt=z, weight=weight, groups=group.astype(np.float64), **columns)
    if not (weight >= 0).all() or np.isinf(weight).any():
        raise InputError("stderr must be above zero (inf for a cell that measures nothing)")
    keep = np.isfinite(z) & (weight > 0)
    names = tuple(FAMILIES) if families is None else tuple(one_of(name, FAMILIES, "family") for name in families)
    scores = []
    for name in names:
        features = FAMILIES[name]
        if set(features) <= set(columns):
            x = np.stack([np.ones(z.size), *(columns[f] for f in features)], 1)[keep]
            scores.append(_score(name, features, x, np.log(z[keep]), weight[keep], group[keep]))
    return sorted(scores, key=lambda s: (math.isnan(s.cv_rmse), s.status, 0.0 if math.isnan(s.cv_rmse) else s.cv_rmse))


def _score(name: str, features: tuple[str, ...], x: Array, z: Array, w: Array, group: np.ndarray) -> FamilyScore:
    theta = _solve(x, z, w)
    if theta is None:
        nan = math.nan
        return FamilyScore(
            family=name, exponents=dict.fromkeys(features, nan), rmse=nan, cv_rmse=nan, status=Status.NOT_DETERMINED,
            message=_undetermined(features, x),
        )  # fmt: skip
    share, errors = w / w.sum(), np.full(z.size, math.nan)
    for one in np.unique(group):
        out = group == one
        fit = _solve(x[~out], z[~out], w[~out])
        if fit is not None:
            errors[out] = z[out] - x[out] @ fit
    whole = not np.isnan(errors).any()
    return FamilyScore(
        family=name,
        exponents=dict(zip(features, theta[1:].tolist(), strict=True)),
        rmse=math.sqrt(float(share @ (z - x @ theta) ** 2)),
        cv_rmse=math.sqrt(float(share @ errors**2)),
        status=Status.OK if whole else Status.UNCERTAIN,
        message=f"{np.unique(group).size} groups left out in turn" if whole else
        "without one of the groups the others do not determine the exponents",
    )  # fmt: skip


def _undetermined(features: tuple[str, ...], x: Array) -> str:
    """Why the cells do not determine the exponents of `features`."""
    if len(x) < x.shape[1]:
        return f"{len(x)} cells with an optimum for {x.shape[1]} parameters"
    same = [f for f, column in zip(features, x[:, 1:].T, strict=True) if np.std(column) < SAME]
    if same:
        return f"all cells have nearly the same {' and '.join(same)}"
    return f"over the cells {', '.join(features)} change together: their exponents are not determined separately"


def _solve(x: Array, z: Array, w: Array) -> Array | None:
    """Weighted least squares, None where the cells do not determine it."""
    if z.size < x.shape[1]:
        return None
    features = x[:, 1:] - x[:, 1:].mean(0)
    if features.size and np.linalg.svd(features, compute_uv=False)[-1] < SAME * math.sqrt(z.size):
        return None
    root = np.sqrt(w)[:, None]
    return np.asarray(np.linalg.lstsq(x * root, z * root[:, 0], rcond=None)[0])
