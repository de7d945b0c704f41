"""Linear regression over cells that scatter, with priors on the coefficients.

Notation
    X        design (n, k), one row a cell, one column a coefficient
    z, s     values and their standard errors (n,)
    theta    coefficients (k,), each with a normal prior (mean m, standard deviation d; d infinite for none)
    tau      scatter: standard deviation of z around X theta beyond what s explains
    H        hat matrix of the weighted regression with its priors

Weights are 1 / (s^2 + tau^2). The scatter solves the equation of Paule and Mandel: weighted squared residuals are as
large as they should be. With normal priors the residuals' covariance is 1 - H, so their expected sum is n - tr H,
which is n - k without priors. The scatter itself has a prior worth `dof` cells at the value `scatter`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raylr.analysis._checks import Array


@dataclass(frozen=True, kw_only=True)
class ScatterPrior:
    """What is known about the scatter before any cell is seen."""

    scatter: float
    """Its value."""
    dof: float
    """Number of cells that this is worth."""


@dataclass(frozen=True, kw_only=True)
class CoefficientPrior:
    """Normal priors of coefficients as further rows of the design."""

    rows: Array
    """One row a prior: 1 / standard deviation in the column of its coefficient (p, k)."""
    values: Array
    """Mean / standard deviation (p,)."""

    @classmethod
    def of(cls, mean: Sequence[float], sd: Sequence[float]) -> "CoefficientPrior":
        """Return the priors with these means and standard deviations (k,); an infinite one is no prior."""
        spread = np.array(sd, dtype=np.float64)
        known = np.isfinite(spread)
        rows = np.eye(spread.size)[known] / spread[known, None]
        return cls(rows=rows, values=np.array(mean, dtype=np.float64)[known] / spread[known])

    def with_free(self) -> "CoefficientPrior":
        """Return the priors for a design with one more column, whose coefficient has none."""
        return CoefficientPrior(rows=np.column_stack([self.rows, np.zeros(self.values.size)]), values=self.values)


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A fitted regression."""

    theta: Array
    """(k,)."""
    covariance: Array
    """(k, k)."""
    weights: Array
    """Of the cells (n,)."""
    scatter: float
    dof: float
    """Degrees of freedom of the intervals: cells to spare, and those that the scatter's prior is worth."""
    residual: Array
    """(n,)."""


def regress(x: Array, z: Array, error: Array, prior: CoefficientPrior, scatter: ScatterPrior) -> Regression:
    """Fit z = X theta to n cells.

    Args:
        x: The design, one row a cell and one column a coefficient (n, k); finite.
        z: The values (n,); finite.
        error: Their standard errors, 0 where a value is exact (n,).
        prior: Priors of the coefficients.
        scatter: Prior of the scatter.
    """
    rows, values = prior.rows, prior.values
    tau = _scatter(x, z, error, rows, values, scatter)
    theta, covariance, w, spent = _solve(x, z, error, tau, rows, values)
    return Regression(
        theta=theta, covariance=covariance, weights=w, scatter=tau, dof=z.size - spent + scatter.dof,
        residual=z - x @ theta,
    )  # fmt: skip


def _solve(
    x: Array, z: Array, error: Array, scatter: float, rows: Array, values: Array
) -> tuple[Array, Array, Array, float]:
    """Return theta, its covariance, the weights and tr H: the priors are further rows of the design."""
    w = 1 / (error**2 + scatter**2)
    root = np.sqrt(w)[:, None]
    if not values.size:
        q, triangle = np.linalg.qr(x * root)
        half = np.linalg.inv(triangle)
        return half @ (q.T @ (root[:, 0] * z)), half @ half.T, w, float(x.shape[1])
    q, triangle = np.linalg.qr(np.vstack([x * root, rows]))
    half = np.linalg.inv(triangle)
    theta = half @ (q.T @ np.concatenate([root[:, 0] * z, values]))
    return theta, half @ half.T, w, float((q[: z.size] ** 2).sum())


def _scatter(x: Array, z: Array, error: Array, rows: Array, values: Array, prior: ScatterPrior) -> float:
    """Return the scatter that makes the weighted residuals as large as they should be."""
    from scipy import optimize

    def excess(log_scatter: float) -> float:
        tau = math.exp(log_scatter)
        theta, _, w, spent = _solve(x, z, error, tau, rows, values)
        dof = z.size - spent + prior.dof
        return float(prior.dof * (prior.scatter / tau) ** 2 + w @ (z - x @ theta) ** 2 - dof)

    if values.size:
        plain = z - x @ np.linalg.lstsq(np.vstack([x, rows]), np.concatenate([z, values]), rcond=None)[0]
        least = prior.dof
    else:
        plain = z - x @ np.linalg.lstsq(x, z, rcond=None)[0]
        least = z.size - x.shape[1] + prior.dof
    low, high = prior.dof * prior.scatter**2, prior.dof * prior.scatter**2 + float(plain @ plain)
    most = z.size + prior.dof if values.size else least
    log_low, log_high = 0.5 * math.log(low / most) - 1e-6, 0.5 * math.log(high / least) + 1e-6
    while excess(log_high) > 0:  # rounding
        log_high += 0.5
    while excess(log_low) < 0:
        log_low -= 0.5
    return math.exp(float(optimize.brentq(excess, log_low, log_high, xtol=1e-10)))
