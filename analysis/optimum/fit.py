"""`fit_optimum`: the best learning rate of one cell, how well it is known, and the loss around it.

The model is in `_hypotheses` (what is possible and how probable it is), its curves in `_curves`, the status in
`_verdict`. Nothing depends on the level or the scale of the loss: every scale in the model is a difference of measured
losses.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raylr.analysis._checks import floats, level_of, losses_of, positive, same_length, vector
from raylr.analysis._threads import one_thread
from raylr.analysis.optimum._curves import Curves, draw
from raylr.analysis.optimum._hypotheses import enumerate_hypotheses
from raylr.analysis.optimum._imprecise import CONTRADICTING, contradicts, informative, outweighed
from raylr.analysis.optimum._losses import CLUSTER, Losses, prepare
from raylr.analysis.optimum._recommend import at_least, best_lr
from raylr.analysis.optimum._verdict import interval, judge
from raylr.analysis.optimum.prior import OptimumPrior
from raylr.analysis.status import Status
from raylr.errors import InputError

Array = NDArray[np.float64]

LR_FACTOR = 2.0
"""The interval of an optimum that is `ok` lies within this factor to either side of its middle, by default. Where runs
differ by less than what that costs, the regret decides."""


@dataclass(frozen=True, kw_only=True)
class OptimumFit:
    """Best LR of one cell, and the posterior behind it. NaN marks what the losses do not say."""

    status: Status
    """What was found, or what stands in the way."""
    message: str
    """The reason in one sentence."""
    lr: float
    """LR of the least expected loss among those that the measured losses allow; NaN without a finite loss or a
    prior."""
    lr_low: float
    """Lower end of the interval of the best LR; 0 where the losses leave it open."""
    lr_high: float
    """Upper end of it; inf where open."""
    loss: float
    """Expected loss at `lr`."""
    loss_stderr: float
    """Its standard error."""
    regret: float
    """Expected loss at `lr` above the lowest possible, in the unit of the loss."""
    relative_regret: float
    """The same as a share of what a factor e of the LR costs (`curvature`)."""
    noise: float
    """Standard deviation of one run's loss around the curve (posterior median)."""
    curvature: float
    """Expected rise of the loss a factor e away from the optimum."""
    trials: int
    """LRs given, diverged ones included."""
    level: float
    """Probability of the interval."""
    lr_range: tuple[float, float]
    """Range in which the optimum was searched."""
    tolerance: float | None = None
    """Expected regret, in the unit of the loss, at which the optimum counts as known."""
    lr_factor: float = LR_FACTOR
    """Factor to either side within which the interval must lie."""
    searching: bool = False
    """Whether the runs are those of a search."""
    losses: Losses = field(repr=False, compare=False)
    """The losses as the model took them."""
    curves: Curves | None = field(default=None, repr=False, compare=False)
    """Draws of the curve; None without a finite loss."""
    given: tuple[Array, Array, Array | None] = field(repr=False, compare=False)
    """ln lr, losses and standard errors as they were given."""
    prior: OptimumPrior = field(repr=False, compare=False)
    """What was known beforehand."""
    contradicting: tuple[float, ...] = ()
    """ln of the LRs whose losses the others overrule although they lie further below than their errors explain."""

    @property
    def ok(self) -> bool:
        """Whether the optimum is known within the tolerance."""
        return self.status.ok

    def predict(self, lr: ArrayLike) -> tuple[Array | float, Array | float]:
        """Loss expected at `lr` and its standard deviation (without the noise of a run), of the shape of `lr`.

        Beyond the range by more than a quarter of it the standard deviation is inf. NaN and inf without a finite loss.
        """
        if self.curves is None:
            shape = np.shape(lr)
            return _shaped(np.full(np.size(lr), math.nan), shape), _shaped(np.full(np.size(lr), math.inf), shape)
        mean = self.losses.lowest + self.losses.unit * self._at(lr, self.curves.mean)
        sd = self.losses.unit * self._at(lr, self.curves.curves.std(axis=0), math.inf)
        return _shaped(mean, np.shape(lr)), _shaped(sd, np.shape(lr))

    @property
    def fitted_range(self) -> tuple[float, float]:
        """Range of LRs whose losses the curve was fitted to: `lr_range`, or less of it where some were left out because
        they are far from the best one. NaN without a finite loss."""
        seen, tried = self.losses.x, self.losses.tried
        if not seen.size:
            return math.nan, math.nan
        low, high = self.lr_range
        low = low if seen.min() <= tried[0] else math.exp(seen.min())
        return low, high if seen.max() >= tried[-1] else math.exp(seen.max())

    def loss_quantiles(self, lr: ArrayLike, levels: ArrayLike) -> Array:
        """Quantiles of the loss at LRs (without the noise of a run), of the shape of `lr` followed by that of `levels`;
        NaN without a finite loss. A small probability of a jump there moves the standard deviation of `predict` and not
        the middle ones."""
        shape = (*np.shape(lr), *np.shape(levels))
        if self.curves is None:
            return np.full(shape, math.nan)
        x = self.curves.x
        at = np.clip(np.log(positive(np.ravel(lr), "lr")), x[0], x[-1])
        right = np.clip(np.searchsorted(x, at), 1, x.size - 1)
        share = (at - x[right - 1]) / (x[right] - x[right - 1])
        heights = (1 - share) * self.curves.curves[:, right - 1] + share * self.curves.curves[:, right]
        quantiles = np.quantile(heights, np.ravel(np.asarray(levels, dtype=np.float64)), axis=0).T
        return np.asarray(self.losses.lowest + self.losses.unit * quantiles).reshape(shape)

    def divergence_probability(self, lr: ArrayLike) -> Array | float:
        """Probability that a run at `lr` diverges or jumps to far higher losses, of the shape of `lr`."""
        if self.curves is None:
            at = np.log(positive(np.ravel(lr), "lr"))
            lost = self.losses.diverged
            return _shaped(np.where(at >= lost[0] - 1e-12, 1.0, 0.5) if lost.size else np.zeros(at.size), np.shape(lr))
        return _shaped(self._at(lr, self.curves.jumped), np.shape(lr))

    def expected_regret(self, lr: ArrayLike) -> Array | float:
        """Expected loss at `lr` above the lowest possible, in the unit of the loss, of the shape of `lr`."""
        if self.curves is None:
            return _shaped(np.full(np.size(lr), math.nan), np.shape(lr))
        lost = (self.curves.curves - self.curves.curves.min(axis=1, keepdims=True)).mean(axis=0)
        return _shaped(self.losses.unit * self._at(lr, lost), np.shape(lr))

    def quantiles(self, levels: ArrayLike) -> Array:
        """Quantiles of the best LR, of the shape of `levels`."""
        out = np.quantile(self._optima(), np.asarray(levels, dtype=np.float64))
        return np.asarray(np.exp(out))

    def draws(self, count: int, seed: int = 0) -> Array:
        """`count` draws of ln of the best LR from its posterior, the same for the same `seed`."""
        optima = self._optima()
        return np.asarray(np.random.default_rng(seed).choice(optima, count))

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Interval that holds the best LR with probability `level`; 0 or inf on a side that is open."""
        tail = 0.5 * (1 - level_of(level))
        low, high = interval(self.losses, self.curves, self.lr, tail)
        ends = [math.exp(one + side * CLUSTER) for one in self.contradicting for side in (-1, 1)]
        return min([low, *ends]), max([high, *ends])

    def log_lr_stderr(self) -> float:
        """Standard deviation of ln of the best LR; inf where its interval is open."""
        low, high = self.interval(0.6827)
        return 0.5 * math.log(high / low) if low > 0 and math.isfinite(high) else math.inf

    def moments(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of ln of the best LR (`center`), of ln of the curvature in the unit of the loss
        (`curvature`), and of the skew (`skew`): what this cell says about others."""
        if self.curves is None:
            raise InputError("a cell without a finite loss says nothing about others")
        log_c = np.log(np.maximum(self.curves.curvature, 1e-12) * self.losses.unit)
        parts = {"center": self.curves.optimum, "curvature": log_c, "skew": self.curves.skew}
        return {name: (float(v.mean()), float(v.std())) for name, v in parts.items()}

    def recommend(self, low: float, high: float) -> tuple[float, float]:
        """The LR to choose within [`low`, `high`] and its expected regret in the unit of the loss."""
        if self.curves is None:
            return self.lr, math.nan
        at = best_lr(self.losses, self.curves, math.log(low), math.log(high), known=self.prior.informative)
        return math.exp(at), float(self.expected_regret(math.exp(at)))

    def extended(self, log_lr: Array, loss: Array) -> "OptimumFit":
        """The fit with further losses at `log_lr`, for instance imagined ones of runs that have not ended."""
        x, y, s = self.given
        more = None if s is None else np.concatenate([s, np.zeros(log_lr.size)])
        return fit_log(
            np.concatenate([x, log_lr]), np.concatenate([y, loss]), more, lr_range=self.lr_range, prior=self.prior,
            tolerance=self.tolerance, lr_factor=self.lr_factor, level=self.level, searching=self.searching,
        )  # fmt: skip

    def _optima(self) -> Array:
        if self.curves is None:
            raise InputError("no finite loss: the best LR has no distribution")
        return self.curves.optimum

    def _at(self, lr: ArrayLike, values: Array, beyond: float | None = None) -> Array:
        assert self.curves is not None
        at = np.log(positive(np.ravel(lr), "lr"))
        return np.interp(at, self.curves.x, values, left=beyond, right=beyond)


def _shaped(values: Array, shape: tuple[int, ...]) -> Array | float:
    return float(values[0]) if shape == () else values.reshape(shape)


def fit_optimum(
    lr: ArrayLike,
    loss: ArrayLike,
    *,
    stderr: ArrayLike | None = None,
    lr_range: tuple[float, float] | None = None,
    prior: OptimumPrior | None = None,
    tolerance: float | None = None,
    lr_factor: float = LR_FACTOR,
    level: float = 0.9,
    searching: bool = False,
) -> OptimumFit:
    """Find the best LR from the losses of runs at a few LRs.

    Args:
        lr: LRs (n,), in any order and unit, above zero. An LR may occur more than once: replicates show how noisy runs
            are.
        loss: Loss of each run (n,), smaller is better, at any level and scale. NaN, masked and infinite losses are
            diverged runs.
        stderr: Standard error of each loss, in its unit (a number or (n,)), for extrapolated losses; NaN: none; inf:
            nothing is known of that loss, which is left out. The noise between runs is estimated in addition. A lowest
            loss that is known less well than others, which are expected to be lower, is left out too.
        lr_range: Lowest and highest LR that are searched; those of `lr` by default.
        prior: What other settings or a law say.
        tolerance: Expected regret, in the unit of the loss, at which the optimum counts as known. By default 10 % of
            what a factor e of the LR costs.
        lr_factor: The factor to either side within which the interval must lie for that, too.
        level: Probability of the interval.
        searching: Whether the runs are those of a search, which can try what it is not sure of. Then an LR that was not
            tried is the answer on a rough curve only if it is expected to be better than the best one tried by more
            than the tolerance, and it is `ok` only if it is not: otherwise it has to be tried first.

    Returns:
        The fit. Losses that say too little or cannot be explained give a status, never an exception.

    Raises:
        InputError: If LRs are not positive, arrays are of unequal length or not flat, or options are out of range.

    Example:
        >>> fit = fit_optimum([1e-4, 3e-4, 1e-3, 3e-3, 1e-2], [3.30, 3.21, 3.17, 3.19, 3.26])
        >>> fit.status, 1e-3 < fit.lr < 2e-3
        (<Status.OK: 'ok'>, True)

    References:
        Eq. 2 of Zhou et al. 2026 (arXiv 2601.05049): the loss is a quadratic in ln lr near its optimum.
    """
    x = np.log(positive(lr, "lr"))
    y = losses_of(loss, "loss")
    same_length(lr=x, loss=y)
    s = errors_of(stderr, y.size)
    at_least("lr_factor", lr_factor, 1.0)
    if tolerance is not None:
        at_least("tolerance", tolerance, 0.0)
    if lr_range is not None:
        low, high = positive(lr_range, "lr_range")
        if not low < high:
            raise InputError(f"lr_range must be the lowest and the highest LR, got {lr_range}")
    if not (prior is None or isinstance(prior, OptimumPrior)):
        raise InputError(f"prior must be an OptimumPrior or None, got {type(prior).__name__}")
    return fit_log(x, y, s, lr_range=lr_range, prior=prior or OptimumPrior(), tolerance=tolerance, lr_factor=lr_factor,
                   level=level_of(level), searching=searching)  # fmt: skip


def errors_of(stderr: ArrayLike | None, size: int) -> Array | None:
    """Standard errors of `size` losses, 0 for one that has none (NaN); inf, of which nothing is known, stays."""
    if stderr is None:
        return None
    values = floats(stderr, "stderr")
    values = np.full(size, float(values)) if values.ndim == 0 else vector(values, "stderr")
    same_length(loss=np.empty(size), stderr=values)
    if (values < 0).any():
        at = int(np.argmax(values < 0))
        raise InputError(f"stderr must not be negative, got {values[at]} at position {at}")
    return np.where(np.isnan(values), 0.0, values)


@one_thread
def fit_log(
    x: Array, y: Array, s: Array | None, *, lr_range: tuple[float, float] | None, prior: OptimumPrior,
    tolerance: float | None, lr_factor: float, level: float, searching: bool,
) -> OptimumFit:  # fmt: skip
    """`fit_optimum` of values that were checked before.

    Args:
        x: ln lr, (n,).
        y: Losses, (n,); NaN or inf: diverged.
        s: Their standard errors; None: unknown.
        lr_range: As in `fit_optimum`, like all that follow.
        prior: The prior.
        tolerance: Regret at which a search may end.
        lr_factor: Factor within which the interval should be.
        level: Probability of the interval.
        searching: Whether runs can be added.
    """
    ends = [*(np.log(lr_range) if lr_range is not None else ()), *([x.min(), x.max()] if x.size else ())]
    low, high = (min(ends), max(ends)) if ends else (math.nan, math.nan)
    use, left_out = informative(y, s), []
    while True:
        losses = prepare(x[use], y[use], None if s is None else s[use], prior)
        curves = draw(enumerate_hypotheses(losses, low, high, prior)) if losses.x.size else None
        if curves is None or not losses.error[0]:
            break
        expected = np.interp(losses.x, curves.x, curves.mean)
        if not outweighed(losses.h, losses.error, expected):
            break
        there = use & np.isfinite(y) & (np.abs(x - losses.x[0]) <= CLUSTER)
        if not there.any():  # of so many LRs that neighbours are averaged
            break
        left_out.append((float(losses.x[0]), losses.lowest, float(losses.error[0]) * losses.unit))
        use &= ~there
    verdict = judge(losses, curves, low, high, prior, tolerance, lr_factor, level, searching)
    unit = losses.unit
    fit = OptimumFit(
        status=verdict.status, message=verdict.message, lr=verdict.lr, lr_low=verdict.lr_low, lr_high=verdict.lr_high,
        loss=losses.lowest + unit * verdict.loss, loss_stderr=unit * verdict.loss_stderr, regret=unit * verdict.regret,
        relative_regret=verdict.regret / verdict.curvature if verdict.curvature > 0 else math.nan,
        noise=unit * verdict.noise, curvature=unit * verdict.curvature, trials=int(y.size), level=level,
        lr_range=(math.exp(low), math.exp(high)) if ends else (math.nan, math.nan), tolerance=tolerance,
        lr_factor=lr_factor, searching=searching, losses=losses, curves=curves, given=(x, y, s), prior=prior,
    )  # fmt: skip
    expected_there = [(at, loss, error, *fit.predict(math.exp(at))) for at, loss, error in left_out]
    against = tuple(at for at, *rest in expected_there if contradicts(*map(float, rest)))
    if not against:
        return fit
    fit = replace(fit, contradicting=against)
    names, ends_of = " and ".join(f"{math.exp(one):.3g}" for one in against), fit.interval(level)
    return replace(
        fit, status=Status.CONTRADICTED, lr_low=ends_of[0], lr_high=ends_of[1], message=f"{CONTRADICTING}LR {names}"
    )
