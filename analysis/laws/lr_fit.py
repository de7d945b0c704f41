"""Fits of laws to the optima of cells: learning rate, batch and weight decay over model size, tokens and batch.

Notation
    N, D, B  size, tokens and batch of a cell (a setting with a measured optimum), in the law's units          (n,)
    z        ln of the optimum in the law's unit                                                           (n,)
    theta    (ln c, alpha, beta[, delta]): z = ln c - alpha ln N - beta ln D + delta ln B                  (k,)

A regression in logarithms is linear in theta: no start values, no local optimum. Cells scatter around the law by more
than their own errors explain (`scatter`), which `_regression` estimates. Exponents have a prior that a few cells far
apart
overrule: from 2 x 2 cells a factor of 4 apart, least squares gives exponents of any size (issue "3 of 7": an error of
0.49 in ln lr against 0.36 with the prior). What the cells do not determine (one size: alpha; one budget: beta) then
rests on the prior, and the law's status shows it. Without a prior it is 0, and a prediction that needs it has an open
interval. Beyond the fitted range the exponents themselves are taken to change (`drift`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from raylr.analysis._checks import positive
from raylr.analysis._threads import one_thread
from raylr.analysis.laws._fitting import Prior, fit_law
from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.laws.quantities import BatchLaw, CurvatureLaw, WeightDecayLaw
from raylr.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ExponentPriors:
    """Normal priors (mean, standard deviation) of the exponents of an LR law; each datum moves them.

    The signs are those of the formula, lr = c N^-alpha D^-beta B^delta.
    """

    alpha: Prior = (0.35, 0.2)
    """Published exponents of N at one batch or at the best: 0.22 (Zhou), 0.23 (Björck), 0.33 (OLMo), 0.36 (Porian),
    0.71 (Step Law)."""
    width: Prior = (0.5, 0.5)
    """Published exponents of the hidden size: 0.15 and 0.37 (marin), 0 in muP, 0.9 to 1.1 in standard
    parametrization."""
    beta: Prior = (0.15, 0.2)
    """Published exponents of D at one batch: 0.35 (Zhou), 0.32 (Björck), -0.05 (Step Law's runs at one batch), 0.28 and
    0.40 (marin, with the batch divided out)."""
    alpha_any_batch: Prior = (0.35, 0.4)
    """Exponent of N where the batch of the cells is not known and may grow with scale. Published laws and cells without
    the batch in them have -0.3 (marin's cells) to 0.71 (Step Law)."""
    beta_any_batch: Prior = (0.05, 0.4)
    """The same for D: -0.31 (Step Law) to 0.54 (a 124M model at one batch)."""
    delta: Prior = (0.5, 0.5)
    """Exponent of the batch: one half in Complete(d)P, marin and nanochat, 0.46 between Step Law's best and fixed
    batches; the optimum of 160M models trained with Adam falls instead, as B^-0.36 +- 0.34."""

    def __post_init__(self) -> None:
        for name in ("alpha", "width", "beta", "alpha_any_batch", "beta_any_batch", "delta"):
            mean, sd = getattr(self, name)
            if not (math.isfinite(mean) and 0 < sd < math.inf):
                raise InputError(f"the prior of {name} must be a finite mean and a standard deviation above zero")


DEFAULT_PRIORS = ExponentPriors()
BATCH_PRIORS = {"alpha": (-0.15, 0.3), "beta": (-0.45, 0.25)}
"""Exponents of the best batch, B = c N^-alpha D^-beta: it grows as D^0.57 (Step Law), D^0.38 (nanochat), C^0.33
(DeepSeek), N^0.67 at 20 tokens a parameter (OLMo)."""
DECAY_PRIORS = {"alpha": (0.0, 0.3), "beta": (0.75, 0.4), "delta": (0.5, 0.3)}
"""Exponents of the weight decay: D^-1/2 (Complete(d)P), sqrt(B) / D (nanochat)."""

CURVATURE_PRIORS = {"alpha": (0.0, 0.3), "beta": (0.0, 0.3)}
"""Exponents of the curvature over ln lr: no change with scale, give or take a factor of two per decade."""


def fit_lr_law(
    params: ArrayLike | None,
    tokens: ArrayLike,
    lr_opt: ArrayLike,
    *,
    batch: ArrayLike | None = None,
    batch_exponent: float | str | None = None,
    width: ArrayLike | None = None,
    params_kind: str = "total",
    priors: ExponentPriors | None = DEFAULT_PRIORS,
    stderr: ArrayLike | None = None,
    draws: ArrayLike | None = None,
    params_unit: float | None = None,
    tokens_unit: float = 1e9,
    lr_unit: float = 1e-4,
    conditions: Conditions | Sequence[Conditions] | None = None,
    source: str = "",
) -> LRLaw:
    """Fit the LR law to the optima of cells.

    Args:
        params: Parameters of each cell (n,): counts, not multiples of `params_unit`. None if `width` is given.
        tokens: Training tokens of each cell (n,).
        lr_opt: Optimal LR of each cell (n,); NaN leaves the cell out.
        batch: Tokens of one optimizer step of each cell, scalar or (n,). The law then has the batch in it.
        batch_exponent: The exponent delta of the batch: a number (0 for an optimum that does not depend on it, 0.5 for
            the square root), "fit" (from the cells alone) or "prior" (the cells and a prior, the default).
        width: Hidden size of each cell (n,), in place of `params`: the law is then one over the width.
        params_kind: What `params` counts: "total", "active" or "non_embedding"; the law names it.
        priors: Priors of the exponents; None for plain least squares.
        stderr: Standard error of ln lr_opt, scalar or (n,); inf leaves a cell out. Without it, all deviations count as
            scatter of the cells.
        draws: ln lr_opt from a bootstrap over trials or from a posterior (draws, n). Each draw gives a law; intervals
            are the wider of their spread and that of the fit.
        params_unit: Size that counts as 1 in the law's formula: 1e9 parameters, a width of 1 if missing.
        tokens_unit: Tokens that count as 1.
        lr_unit: LR that counts as 1.
        conditions: What the runs behind the optima had in common, or one a cell.
        source: Where the optima come from.

    Returns:
        The law; `status` and `fitted` state which exponents the cells determined.

    Raises:
        InputError: sizes, tokens, LRs or standard errors are not above zero, lengths differ, sizes or tokens are in two
            units, or the cells' conditions have several batches and `batch` is missing.

    Example:
        >>> n, d, b = [1e8, 1e8, 4e8, 4e8], [1e9, 8e9, 1e9, 8e9], [1e5, 2e5, 2e5, 4e5]
        >>> law = fit_lr_law(n, d, [1e-3, 9e-4, 8e-4, 7e-4], batch=b, batch_exponent=0.5)
        >>> law.predict(1e9, 2e10, batch=5e5).ok
        True

    References:
        Zhou et al. 2026, arXiv 2601.05049, Eq. 8. Paule and Mandel 1982, J. Res. Natl. Bur. Stand. 87, 377.
    """
    if (params is None) == (width is None):
        raise InputError("give either the parameters of the cells (params) or their hidden size (width=…)")
    kind, size = (params_kind, params) if width is None else ("width", width)
    unit = params_unit if params_unit is not None else (1e9 if width is None else 1.0)
    positive([lr_unit], "lr_unit")
    each = [conditions] if isinstance(conditions, Conditions) else list(conditions or ())
    one_batch = batch is not None or any(one.batch_tokens is not None for one in each)
    given = {} if priors is None else {
        "alpha": priors.width if width is not None else priors.alpha if one_batch else priors.alpha_any_batch,
        "beta": priors.beta if one_batch else priors.beta_any_batch, "delta": priors.delta,
    }  # fmt: skip
    return fit_law(
        LRLaw(c=1.0, alpha=0.0, beta=0.0, params_kind=kind, params_unit=unit, tokens_unit=tokens_unit, lr_unit=lr_unit,
              source=source),
        size, tokens, lr_opt, batch=batch, batch_exponent=batch_exponent, priors=given, stderr=stderr, draws=draws,
        conditions=conditions, names=("params" if width is None else "width", "lr_opt"),
    )  # fmt: skip


def fit_batch_law(
    tokens: ArrayLike,
    batch_opt: ArrayLike,
    *,
    params: ArrayLike | None = None,
    params_kind: str = "total",
    stderr: ArrayLike | None = None,
    conditions: Conditions | Sequence[Conditions] | None = None,
    source: str = "",
) -> BatchLaw:
    """Fit the law of the optimal batch, B = c N^-alpha D^-beta tokens (its exponents are negative: batches grow).

    Args:
        tokens: Training tokens of each cell (n,).
        batch_opt: Best batch of each cell in tokens of one optimizer step (n,); NaN leaves the cell out.
        params: Parameters of each cell (n,); without them the batch depends on the tokens alone, as in Step Law.
        params_kind: As for `fit_lr_law`.
        stderr: Standard error of ln batch_opt, scalar or (n,).
        conditions: As for `fit_lr_law`.
        source: Where the optima come from.

    Returns:
        The law.

    Raises:
        InputError: as `fit_lr_law`.

    Example:
        >>> law = fit_batch_law([1e9, 1e10, 1e11], [8e4, 3e5, 1.1e6])
        >>> round(-law.beta, 1)
        0.6
    """
    blank = BatchLaw(c=1.0, alpha=0.0, beta=0.0, params_kind=params_kind, tokens_unit=1e9, source=source)
    return fit_law(
        blank, params, tokens, batch_opt, priors=BATCH_PRIORS, stderr=stderr, conditions=conditions,
        names=("params", "batch_opt"),
    )  # fmt: skip


def fit_weight_decay_law(
    tokens: ArrayLike,
    weight_decay_opt: ArrayLike,
    *,
    batch: ArrayLike | None = None,
    params: ArrayLike | None = None,
    params_kind: str = "total",
    stderr: ArrayLike | None = None,
    conditions: Conditions | Sequence[Conditions] | None = None,
    source: str = "",
) -> WeightDecayLaw:
    """Fit the law of the optimal weight decay, lambda = c N^-alpha D^-beta B^delta.

    Args:
        tokens: Training tokens of each cell (n,).
        weight_decay_opt: Best weight decay of each cell (n,); NaN leaves the cell out.
        batch: Tokens of one optimizer step of each cell, scalar or (n,).
        params: Parameters of each cell (n,); without them the weight decay does not depend on the size.
        params_kind: As for `fit_lr_law`.
        stderr: Standard error of ln weight_decay_opt, scalar or (n,).
        conditions: As for `fit_lr_law`.
        source: Where the optima come from.

    Returns:
        The law.

    Raises:
        InputError: as `fit_lr_law`.

    Example:
        >>> law = fit_weight_decay_law([1e9, 4e9, 1.6e10], [0.4, 0.2, 0.1])
        >>> round(law.beta, 1)
        0.5
    """
    blank = WeightDecayLaw(c=1.0, alpha=0.0, beta=0.0, params_kind=params_kind, tokens_unit=1e9, source=source)
    return fit_law(
        blank, params, tokens, weight_decay_opt, batch=batch, priors=DECAY_PRIORS, stderr=stderr,
        conditions=conditions, names=("params", "weight_decay_opt"),
    )  # fmt: skip


@one_thread
def fit_curvature_law(
    params: ArrayLike,
    tokens: ArrayLike,
    curvature: ArrayLike,
    *,
    stderr: ArrayLike | None = None,
    conditions: Conditions | Sequence[Conditions] | None = None,
    source: str = "",
) -> CurvatureLaw:
    """Fit the law of the curvature of the loss over ln lr, which determines what a wrong LR costs.

    Args:
        params: Parameters of each cell (n,).
        tokens: Training tokens of each cell (n,).
        curvature: C of Eq. 2, L = L_min + C (ln lr - ln lr_opt)^2, of each cell in nats (n,); NaN leaves a cell out.
        stderr: Standard error of ln curvature, scalar or (n,).
        conditions: As for `fit_lr_law`.
        source: Where the curvatures come from.

    Returns:
        The law; `cost` gives the loss that an LR beside the best costs.

    Raises:
        InputError: as `fit_lr_law`.

    Example:
        >>> law = fit_curvature_law([1e8, 2e8, 4e8], [2e9, 4e9, 8e9], [0.05, 0.045, 0.04])
        >>> 0.01 < law.cost(8e8, 1.6e10, 2).value < 0.03
        True

    References:
        Zhou et al. 2026, arXiv 2601.05049, Eq. 2.
    """
    blank = CurvatureLaw(c=1.0, alpha=0.0, beta=0.0, source=source)
    return fit_law(
        blank, params, tokens, curvature, priors=CURVATURE_PRIORS, stderr=stderr, conditions=conditions,
        names=("params", "curvature"),
    )  # fmt: skip
