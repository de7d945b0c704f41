"""Information that the cells of a study share: a prior for each cell's loss over the LR from all other
cells.

The logarithm of the optimum is regressed on features of the cells (ln params, ln tokens, ln batch, ...), that of the
curvature and the skew are averaged; each cell gets the prediction that the cells without it make, with the scatter of
their own residuals as its width (empirical Bayes, leave-one-out). Cells without an optimum inside their LRs take no
part.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, floats
from raylr.analysis.optimum.fit import OptimumFit
from raylr.analysis.optimum.prior import OptimumPrior
from raylr.errors import InputError

MIN_CELLS = 3
"""Fewest other cells for a prior, beside one a feature."""
LEAST_SD = 0.1
"""Least standard deviation of the priors of ln lr_opt and of ln curvature."""
SKEW_LRS = 6
"""LRs that a cell needs for its skew to be informative: three beyond level, curvature and optimum."""
RIDGE = 0.1
"""Weight of zero slopes, in cells: keeps a feature that hardly varies from mattering."""


def pooled_priors(fits: Sequence[OptimumFit], features: ArrayLike) -> list[OptimumPrior | None]:
    """Return a prior for each cell's loss over the LR from all other cells.

    Args:
        fits: One fit a cell.
        features: Logarithms of what the cells differ in (cells, k), such as ln params and ln tokens; k may be 0.

    Returns:
        One prior a cell, None where the other cells are too few.

    Raises:
        InputError: `features` has another shape or values that are not finite.

    Example:
        >>> import numpy as np
        >>> from raylr.analysis import fit_optimum
        >>> lr, tokens = np.geomspace(1e-4, 1e-2, 9), np.array([1e9, 2e9, 4e9, 8e9, 1.6e10])
        >>> best = 1e-3 * (tokens / 1e9) ** -0.3
        >>> fits = [fit_optimum(lr, 3 + 0.02 * np.log(lr / center) ** 2) for center in best]
        >>> priors = pooled_priors(fits, np.log(tokens)[:, None])
        >>> bool(abs(priors[-1].center - np.log(best[-1])) < 0.1)
        True
    """
    x = floats(features, "features")
    if x.ndim != 2 or x.shape[0] != len(fits) or not np.isfinite(x).all():
        raise InputError(f"features must be finite and of shape ({len(fits)}, k), got {x.shape}")
    ok = np.array([fit.ok and fit.curvature > 0 for fit in fits], dtype=bool)
    z = np.array([math.log(fit.lr) if good else math.nan for fit, good in zip(fits, ok, strict=True)])
    c = np.array([math.log(fit.curvature) if good else math.nan for fit, good in zip(fits, ok, strict=True)])
    k = np.array([fit.moments()["skew"][0] if good else math.nan for fit, good in zip(fits, ok, strict=True)])
    bent = ok & np.array([fit.losses.tried.size >= SKEW_LRS for fit in fits], dtype=bool)
    error = np.array([min(fit.log_lr_stderr(), 3.0) if good else 3.0 for fit, good in zip(fits, ok, strict=True)])
    out: list[OptimumPrior | None] = []
    for i in range(len(fits)):
        others = ok.copy()
        others[i] = False
        if others.sum() < MIN_CELLS + x.shape[1]:
            out.append(None)
            continue
        centre, sd = _predicted(x[others], z[others], error[others], x[i])
        curved = k[bent & others]
        known = curved.size >= MIN_CELLS
        skew_sd = OptimumPrior().skew_sd
        out.append(
            OptimumPrior(
                curvature=math.exp(float(np.median(c[others]))), curvature_log_sd=max(_spread(c[others]), LEAST_SD),
                center=centre, center_sd=max(sd, LEAST_SD), skew=float(np.median(curved)) if known else 0.0,
                skew_sd=min(max(_spread(curved), LEAST_SD), skew_sd) if known else skew_sd,
            )
        )  # fmt: skip
    return out


def _spread(values: Array) -> float:
    """Robust standard deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _predicted(x: Array, z: Array, error: Array, at: Array) -> tuple[float, float]:
    """Robust ridge regression of z on x: the prediction at `at` and the standard deviation of a cell around it."""
    mean = x.mean(0)
    scale = np.maximum(x.std(0), 1e-12)
    f = np.column_stack([np.ones(len(z)), (x - mean) / scale])
    row = np.concatenate([[1.0], (at - mean) / scale])
    penalty = np.diag([0.0, *[RIDGE] * x.shape[1]])
    w = np.ones(len(z))
    theta = np.zeros(f.shape[1])
    sd = 1.0
    for _ in range(5):
        base = w / (error**2 + sd**2) * sd**2
        theta = np.linalg.solve((f * base[:, None]).T @ f + penalty, (f * base[:, None]).T @ z)
        residual = z - f @ theta
        sd = max(_spread(residual), 1e-3)
        w = 1 / np.maximum(np.abs(residual) / (2 * sd), 1.0)
    return float(row @ theta), sd * math.sqrt(1 + f.shape[1] / len(z))
