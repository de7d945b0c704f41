"""Is a law straight? A test for curvature of the optimum in ln N, ln D and ln B, with its power.

A power law is a straight line in logarithms. A bend adds curvature * q to ln lr_opt, where q = (x - centre)^2 and x is
ln N, ln D or ln B. What of q the straight law can imitate is its regression on the law's own columns (`projection`);
the rest is what a prediction misses:

    shift at a target = curvature * (q - row @ projection).

The cells' spread decides how small a curvature they can show. `detectable` is the curvature that a two-sided test at
5 % would find with a probability of 80 %. A law whose cells show no bend may still bend by less than that; its effect
on a prediction beyond the cells is stated with the prediction.
"""

import math
from dataclasses import dataclass

import numpy as np

from raylr.analysis._checks import Array
from raylr.analysis.laws._regression import CoefficientPrior, ScatterPrior, regress
from raylr.errors import InputError

SIGNIFICANCE = 0.05
"""A bend counts as seen if its two-sided p-value is below this."""
POWER = 0.8
"""Probability with which a bend of the size `detectable` is seen."""
STATED = 0.1
"""Bends that would move a prediction by less than this in ln lr are not mentioned."""
LEVELS = 3
"""Fewest distinct values of N (D, B) for a curvature."""
NAMES = {"params": "parameters", "tokens": "tokens", "batch": "batch"}


@dataclass(frozen=True, kw_only=True)
class Bend:
    """The test of one axis."""

    axis: str
    """`params`, `tokens` or `batch`."""
    curvature: float
    """Change of ln lr_opt per squared e-fold from the centre of the cells."""
    stderr: float
    """Its standard error."""
    p_value: float
    """Two-sided: how often straight cells look as bent as these."""
    detectable: float
    """Curvature that these cells would have shown with a probability of 80 %."""
    centre: float
    """Mean of ln N (ln D, ln B) over the cells, all as counts."""
    projection: tuple[float, ...]
    """What the straight law imitates of a bend of curvature 1: coefficients of its own columns."""

    def __post_init__(self) -> None:
        numbers = (self.curvature, self.stderr, self.p_value, self.detectable, self.centre, *self.projection)
        if self.axis not in NAMES or not all(abs(value) < 1e30 for value in numbers):
            raise InputError("a bend has the axis params, tokens or batch and finite numbers")
        if not (0 <= self.p_value <= 1 and self.stderr > 0 and self.detectable > 0):
            raise InputError("a bend has a p-value from 0 to 1, and a stderr and a detectable size above zero")

    @property
    def seen(self) -> bool:
        """Whether the cells show a bend."""
        return self.p_value < SIGNIFICANCE

    @property
    def message(self) -> str:
        """The result of the test in one sentence."""
        name = NAMES[self.axis]
        if self.seen:
            return (
                f"the optima bend in ln {name}: curvature {self.curvature:+.3f} ± {self.stderr:.3f} per squared e-fold "
                f"(p = {self.p_value:.2g})"
            )
        return (
            f"no bend in ln {name} is seen ({self.curvature:+.3f} ± {self.stderr:.3f} per squared e-fold); these cells "
            f"could not have seen one below ±{self.detectable:.2g}"
        )

    def unit_shift(self, row: Array, value: float) -> float:
        """Return how far a bend of curvature 1 moves ln lr from the straight law, where the law's row is `row`."""
        return (math.log(value) - self.centre) ** 2 - float(row @ np.array(self.projection))

    def effect(self, row: Array, value: float, away: float) -> tuple[float, list[str]]:
        """Return by how much the interval widens (a standard deviation of ln lr), and what the message must state.

        A bend that is seen widens the interval by all that it would move the prediction. One that is not seen is only
        stated, and only beyond the cells (`away` above 0): the drift of the exponents there covers it.
        """
        unit = self.unit_shift(row, value)
        name = NAMES[self.axis]
        if self.seen:
            factor = _factor(self.curvature * unit)
            return abs(self.curvature * unit), [f"{self.message}; with the bend the prediction is {factor} times this"]
        if away > 0 and abs(self.detectable * unit) > STATED:
            factor = _factor(abs(self.detectable * unit))
            return 0.0, [
                f"that the law is straight in ln {name} is assumed (the cells would have shown only a bend that moves "
                f"this by a factor of {factor}); the interval allows for other exponents beyond the cells"
            ]
        return 0.0, []


def _factor(log: float) -> str:
    return f"{math.exp(log):.2g}" if abs(log) < math.log(100) else ("over 100" if log > 0 else "under 0.01")


def bends_of(
    x: Array, z: Array, error: Array, axes: dict[str, Array], prior: CoefficientPrior, scatter: ScatterPrior
) -> tuple[Bend, ...]:
    """Test each axis for a bend.

    Args:
        x: Design of the straight law (n, k).
        z: ln value (n,).
        error: Standard errors of z (n,).
        axes: Axis -> ln of the count (n,).
        prior: Priors of the straight law's coefficients; the curvature has none.
        scatter: Prior of the scatter.

    Returns:
        One test for each axis that has enough distinct values and cells to spare.
    """
    from scipy import stats

    out = []
    for axis, log in axes.items():
        if _levels(log) < LEVELS or z.size < x.shape[1] + 1:
            continue
        centre = float(log.mean())
        q = (log - centre) ** 2
        full = np.column_stack([x, q])
        free = prior.with_free()
        if np.linalg.matrix_rank(np.vstack([full, free.rows]), tol=1e-6) < full.shape[1]:
            continue
        fit = regress(full, z, error, free, scatter)
        # The projection of q on the straight law's columns, with the weights and the priors of the straight law.
        root = np.sqrt(fit.weights)[:, None]
        target = np.concatenate([q * root[:, 0], np.zeros(prior.values.size)])
        projection = np.linalg.lstsq(np.vstack([x * root, prior.rows]), target, rcond=None)[0]
        curvature, stderr = float(fit.theta[-1]), math.sqrt(float(fit.covariance[-1, -1]))
        p = float(2 * stats.t.sf(abs(curvature) / stderr, fit.dof))
        quantiles = stats.t.ppf(1 - SIGNIFICANCE / 2, fit.dof) + stats.t.ppf(POWER, fit.dof)
        out.append(
            Bend(
                axis=axis, curvature=curvature, stderr=stderr, p_value=min(p, 1.0),
                detectable=float(quantiles) * stderr, centre=centre, projection=tuple(projection.tolist()),
            )
        )  # fmt: skip
    return tuple(out)


def _levels(values: Array, same: float = 0.05) -> int:
    """Return the number of distinct values, those within `same` counted as one."""
    ordered = np.sort(np.asarray(values))
    return 1 + int((np.diff(ordered) > same).sum()) if ordered.size else 0
