"""The loss over model size and tokens, L(N, D) = E + A N^-a + B D^-b (Hoffmann et al. 2022), at the best learning rate.

Notation
    n, d     ln(N / N0), ln(D / D0), N0 and D0 the geometric means of the cells                          (m,)
    y        losses, nats; w their weights 1 / (stderr^2 + noise^2), both relative to a common scale      (m,)
    phi      (E, A', B') with A' = A N0^-a, B' = B D0^-b: linear given the exponents (a, b)               (3,)

Given the exponents the rest is linear, so the fit is a grid over (a, b): at each node phi and its covariance by least
squares, the node weighed by its marginal likelihood and the prior of the exponents. There are no start values and no
local optimum, and an exponent that the cells do not determine keeps the width of its prior. Terms below zero mean
nothing: nodes where A' or B' would be negative have it set to zero, E likewise. The variance of the residuals is
unknown, with a prior worth `NOISE_DOF` cells at a noise of `NOISE` of the loss (what seeds differ by), so that
predictions follow a mixture of Student's t. A prediction interval is for the loss of one more run, its noise included.

With the batch of the cells, tokens at another batch than the best one count for less:

    ln D_eff = ln D - k (ln B - ln B*)^2,      B* = m D^g

above B* as in the model of the critical batch, below it as public runs at small batches show. The grid then has k and m
too, and the law E + A N^-a + B D^-b is that of the best batch. What the law misses of a size and budget is the same at
all its batches, so that these count as one cell for the width of intervals.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import (
    Array,
    level_of,
    losses_of,
    positive,
    positive_number,
    same_length,
    standard_errors,
)
from raylr.analysis._threads import one_thread
from raylr.analysis.status import Status
from raylr.errors import InputError

A_PRIOR = (0.34, 0.3)
"""Median and ln-sd of a: published fits give 0.34 (Hoffmann), 0.35 (Besiroglu et al. 2024), 0.076 in another form
(Kaplan)."""
B_PRIOR = (0.32, 0.3)
"""Median and ln-sd of b: 0.28 (Hoffmann), 0.37 (Besiroglu)."""
NOISE = 0.003
"""Standard deviation of a loss around the law, as a share of it, before any cell is seen: seeds differ by 0.2 to 0.4 %
in a 0.5M MoE, by 0.03 to 0.2 % in a 124M model."""
NOISE_DOF = 3.0
"""Number of cells that this prior is worth."""
BATCH_COST_PRIOR = (0.2, 0.7)
"""Median and ln-sd of k. Where tokens count as D / (1 + B / B_crit) (McCandlish et al. 2018), 4 to 16 times above a
best batch of a quarter of B_crit, k is 0.18 to 0.25."""
BEST_BATCH = (0.58, 0.571)
"""m and g, tokens: B* = 0.58 D^0.571 (Li et al. 2025, Step Law)."""
BEST_BATCH_SD = 1.0
"""ln-sd of m: published rules of the batch differ by up to a factor of 6."""
NODES = 41
"""Grid nodes of each exponent."""
BATCH_NODES = (11, 11, 7, 11)
"""Grid nodes of a, b, k and m in a law with the batch."""
SPREAD = 3.0
"""The grid reaches this many prior standard deviations."""
MIN_CELLS = 4
"""Fewest cells with at least two sizes and two budgets."""
SAME = 0.05
"""Sizes (budgets) whose logarithms span less than this count as one value."""


@dataclass(frozen=True, kw_only=True)
class LossPrediction:
    """The loss to expect at one size and budget."""

    loss: float
    """Predicted loss, nats: the posterior median; NaN without a law."""
    low: float
    """Lower end of the prediction interval for one run."""
    high: float
    """Upper end."""
    level: float
    """Probability of the interval."""
    status: Status
    """`ok` if the loss may be used with its interval."""
    message: str
    """What limits the prediction, such as extrapolation; in one sentence."""


@dataclass(frozen=True, kw_only=True)
class LossLaw:
    """L(N, D) = e + a_factor * N^-alpha + b_factor * D^-beta; fields are posterior means, NaN without a fit."""

    e: float
    """Loss of an infinite model after infinitely many tokens, nats."""
    a_factor: float
    """Factor of the size's term."""
    alpha: float
    """Exponent of the size."""
    b_factor: float
    """Factor of the tokens' term."""
    beta: float
    """Exponent of the tokens."""
    noise: float
    """Standard deviation of a run's loss around the law, nats."""
    cells: int
    """Cells fitted."""
    params_range: tuple[float, float] | None
    """Smallest and largest size."""
    tokens_range: tuple[float, float] | None
    """Smallest and largest budget."""
    batch_range: tuple[float, float] | None = None
    """Smallest and largest batch, tokens; None for a law without the batch in it."""
    status: Status
    """`ok`, `too_few`, `one_size` or `one_budget`."""
    message: str
    """One sentence: why this status."""
    nodes: "_Nodes | None" = field(default=None, repr=False, compare=False)
    """The posterior; None without a fit."""

    @property
    def ok(self) -> bool:
        """Whether the cells determined the law."""
        return self.status.ok

    def loss(self, params: ArrayLike, tokens: ArrayLike) -> Array | float:
        """Return the posterior mean of the law at sizes and budgets, which broadcast together; NaN without a fit.

        A law with the batch in it is taken at the best batch.

        Raises:
            InputError: a value is not above zero.
        """
        n, d = (positive(np.ravel(v), k).reshape(np.shape(v)) for v, k in ((params, "params"), (tokens, "tokens")))
        shape = np.broadcast(n, d).shape
        if self.nodes is None:
            out = np.full(shape, math.nan)
        else:
            flat = zip(*(np.broadcast_to(v, shape).ravel() for v in (n, d)), strict=True)
            out = np.array([float(self.nodes.weight @ self.nodes.at(*pair)[0]) for pair in flat]).reshape(shape)
        return float(out) if out.ndim == 0 else np.asarray(out)

    def predict(
        self, params: float, tokens: float, level: float = 0.9, *, batch: float | None = None
    ) -> LossPrediction:
        """Return the loss to expect from one run at the best LR, with its prediction interval.

        Args:
            params: Parameters of the model.
            tokens: Training tokens.
            level: Probability of the interval.
            batch: Tokens of one optimizer step, for a law with the batch in it; None: the best batch.

        Returns:
            The prediction; NaN without a fit.

        Raises:
            InputError: a count is not above zero, or the level is not between 0 and 1.
        """
        n, d = positive_number(params, "params"), positive_number(tokens, "tokens")
        b = None if batch is None or self.batch_range is None else positive_number(batch, "batch")
        tail = 0.5 * (1 - level_of(level))
        nan = math.nan
        if self.nodes is None:
            return LossPrediction(loss=nan, low=nan, high=nan, level=level, status=self.status, message=self.message)
        low, middle, high = self.nodes.quantiles(n, d, b, (tail, 0.5, 1 - tail))
        return LossPrediction(
            loss=middle, low=low, high=high, level=level, status=self.status,
            message=f"{self.message}; {self._beyond(n, d, b)}",
        )  # fmt: skip

    def _beyond(self, n: float, d: float, b: float | None) -> str:
        out = []
        spans = (("parameters", n, self.params_range), ("tokens", d, self.tokens_range), ("batch", b, self.batch_range))
        for name, value, span in spans:
            if value is not None and span is not None and (k := max(span[0] / value, value / span[1])) > 1:
                out.append(f"{k:.3g} times beyond the fitted {name}")
        best = "; at the best batch" if b is None and self.batch_range is not None else ""
        return (" and ".join(out) or "inside the fitted range") + best

    def interval(self, level: float = 0.9) -> dict[str, tuple[float, float]]:
        """Return posterior intervals of e, alpha and beta; (nan, nan) without a fit.

        Raises:
            InputError: the level is not between 0 and 1.
        """
        tail = 0.5 * (1 - level_of(level))
        if self.nodes is None:
            return dict.fromkeys(("e", "alpha", "beta"), (math.nan, math.nan))
        draws = self.nodes.draws
        return {
            name: (float(np.quantile(draws[:, i], tail)), float(np.quantile(draws[:, i], 1 - tail)))
            for i, name in enumerate(("e", "alpha", "beta"))
        }


@dataclass(frozen=True, kw_only=True)
class _Nodes:
    """The posterior over the grid's nodes (G)."""

    weight: Array
    """(G,)."""
    exponents: Array
    """a, b, and with the batch k and ln m (G, 2 or 4)."""
    phi: Array
    """E, A', B' (G, 3)."""
    covariance: Array
    """Of phi, in units of the variance of the residuals (G, 3, 3)."""
    variance: Array
    """Variance of the residuals (G,)."""
    dof: float
    centre: tuple[float, float]
    """ln N0, ln D0."""

    def at(self, n: float, d: float, b: float | None = None) -> tuple[Array, Array]:
        """Return each node's loss and its standard deviation without the noise of a run, both (G,)."""
        log_b = None if b is None else np.array([math.log(b)])
        row = _design(np.array([math.log(n)]), np.array([math.log(d)]), log_b, self.exponents, self.centre)[:, 0]
        mean = (row * self.phi).sum(1)
        spread = np.einsum("gi,gij,gj->g", row, self.covariance, row)
        return mean, np.sqrt(np.maximum(spread, 0.0) * self.variance)

    def quantiles(self, n: float, d: float, b: float | None, at: tuple[float, ...]) -> list[float]:
        """Return quantiles of the loss of one run: a mixture of Student's t."""
        from scipy import optimize, stats

        mean, sd = self.at(n, d, b)
        scale = np.sqrt(sd**2 + self.variance)
        keep = self.weight > 1e-6
        mean, scale, weight = mean[keep], scale[keep], self.weight[keep] / self.weight[keep].sum()

        def missing(value: float, share: float) -> float:
            return float(weight @ stats.t.cdf((value - mean) / scale, self.dof)) - share

        low, high = float((mean - 60 * scale).min()), float((mean + 60 * scale).max())
        return [float(optimize.brentq(missing, low, high, args=(share,), xtol=1e-9)) for share in at]

    @cached_property
    def draws(self) -> Array:
        """Draws of E, a and b (2000, 3), the same at every call."""
        rng = np.random.default_rng(0)
        node = rng.choice(self.weight.size, 2000, p=self.weight)
        sd = np.sqrt(np.maximum(self.covariance[node, 0, 0], 0) * self.variance[node])
        e = self.phi[node, 0] + sd * rng.standard_t(self.dof, node.size)
        return np.column_stack([np.maximum(e, 0.0), self.exponents[node, :2]])


@one_thread
def fit_loss_law(
    params: ArrayLike, tokens: ArrayLike, loss: ArrayLike, *, loss_stderr: ArrayLike | None = None,
    batch: ArrayLike | None = None,
) -> LossLaw:  # fmt: skip
    """Fit the loss over size and tokens to the losses of cells at their best LR.

    Args:
        params: Parameters of each cell (n,).
        tokens: Training tokens of each cell (n,).
        loss: Loss of each cell in nats (n,); NaN and infinite ones are left out.
        loss_stderr: Standard error of each loss in nats, scalar or (n,), beside the noise of runs around the law.
        batch: Tokens of one optimizer step of each cell (n,). Batches that differ enter the law; one batch does not.

    Returns:
        The law; `status` is `ok` if the cells determined it.

    Raises:
        InputError: counts or standard errors are not above zero, or lengths differ.

    Example:
        >>> import numpy as np
        >>> n, d = (v.ravel() for v in np.meshgrid([1e8, 2e8, 4e8], [2e9, 4e9, 8e9]))
        >>> law = fit_loss_law(n, d, 1.8 + 400 * n**-0.34 + 2000 * d**-0.32)
        >>> bool(law.predict(1e9, 2e10).low < 1.8 + 400 * 1e9**-0.34 + 2000 * 2e10**-0.32 < law.predict(1e9, 2e10).high)
        True

    References:
        Hoffmann et al. 2022, arXiv 2203.15556, Eq. 10. Besiroglu et al. 2024, arXiv 2404.10102. McCandlish et al. 2018,
        arXiv 1812.06162.
    """
    n, d, y = positive(params, "params"), positive(tokens, "tokens"), losses_of(loss, "loss")
    step = None if batch is None else positive(batch, "batch")
    same_length(params=n, tokens=d, loss=y, batch=step)
    s = standard_errors(loss_stderr, y.size, "loss_stderr")
    keep = np.isfinite(y)
    if (y[keep] <= 0).any():
        raise InputError(f"loss must be above zero nats, got {float(y[keep].min()):g}")
    n, d, y = n[keep], d[keep], y[keep]
    step = None if step is None or np.ptp(np.log(step[keep])) < SAME else step[keep]
    error = np.zeros(y.size) if s is None else s[keep]
    status, message = _status(n, d)
    if not status.ok:
        nan = math.nan
        return LossLaw(
            e=nan, a_factor=nan, alpha=nan, b_factor=nan, beta=nan, noise=nan, cells=int(y.size),
            params_range=_span(n), tokens_range=_span(d), status=status, message=message,
        )  # fmt: skip
    nodes = _posterior(np.log(n), np.log(d), None if step is None else np.log(step), y, error)
    w = nodes.weight
    alpha, beta = (float(w @ column) for column in nodes.exponents.T[:2])
    e, a, b = (float(w @ column) for column in nodes.phi.T)
    return LossLaw(
        e=e, a_factor=a * math.exp(alpha * nodes.centre[0]), alpha=alpha,
        b_factor=b * math.exp(beta * nodes.centre[1]), beta=beta, noise=math.sqrt(float(w @ nodes.variance)),
        cells=int(y.size), params_range=_span(n), tokens_range=_span(d), status=status, message=message, nodes=nodes,
        batch_range=None if step is None else _span(step),
    )  # fmt: skip


def _status(n: Array, d: Array) -> tuple[Status, str]:
    if n.size and np.ptp(np.log(n)) < SAME:
        return Status.ONE_SIZE, "one model size: the exponent of the size is not determined"
    if n.size and np.ptp(np.log(d)) < SAME:
        return Status.ONE_BUDGET, "one token budget: the exponent of the tokens is not determined"
    if n.size < MIN_CELLS:
        return Status.TOO_FEW, f"{n.size} cells with a loss, {MIN_CELLS} needed"
    return Status.OK, f"fitted to {n.size} cells"


def _span(values: Array) -> tuple[float, float] | None:
    return (float(values.min()), float(values.max())) if values.size else None


def _design(log_n: Array, log_d: Array, log_b: Array | None, exponents: Array, centre: tuple[float, float]) -> Array:
    """Return the three columns of the law at places (n,) for nodes (G, 2 or 4): (G, n, 3)."""
    x, t = log_n - centre[0], np.broadcast_to(log_d - centre[1], (len(exponents), log_d.size))
    if log_b is not None:
        best = exponents[:, 3:] + BEST_BATCH[1] * log_d
        t = t - exponents[:, 2:3] * (log_b - best) ** 2
    return np.stack([np.ones_like(t), np.exp(-exponents[:, :1] * x), np.exp(-exponents[:, 1:2] * t)], -1)


def _posterior(log_n: Array, log_d: Array, log_b: Array | None, y: Array, error: Array) -> _Nodes:
    """Return the posterior over the grid of exponents."""
    centre = float(log_n.mean()), float(log_d.mean())
    counts = (NODES, NODES) if log_b is None else BATCH_NODES
    axes = np.meshgrid(*(np.linspace(-SPREAD, SPREAD, count) for count in counts), indexing="ij")
    unit = np.stack([axis.ravel() for axis in axes], 1)  # (G, 2 or 4)
    priors = (A_PRIOR, B_PRIOR, BATCH_COST_PRIOR)[: min(unit.shape[1], 3)]
    columns = [median * np.exp(sd * u) for (median, sd), u in zip(priors, unit.T, strict=False)]
    if log_b is not None:
        columns.append(math.log(BEST_BATCH[0]) + BEST_BATCH_SD * unit[:, 3])
    exponents = np.column_stack(columns)
    design = _design(log_n, log_d, log_b, exponents, centre)
    prior = (NOISE * float(y.mean())) ** 2
    w = prior / (prior + error**2)  # the noise of a run counts as 1
    dof = max(y.size - 3, 0) + NOISE_DOF
    if log_b is not None:  # what the law misses of a size and budget is the same at every batch: they count as one cell
        same = np.hypot(log_n[:, None] - log_n, log_d[:, None] - log_d) < SAME
        w, dof = w / same.sum(1), max(float((1 / same.sum(1)).sum()) - 3, 0.0) + NOISE_DOF
    root = np.sqrt(w)
    phi, covariance, log_det, misfit = _least_squares(design * root[None, :, None], y * root)
    total = misfit + NOISE_DOF * prior
    score = -0.5 * dof * np.log(total) + 0.5 * log_det - 0.5 * (unit**2).sum(1)
    weight = np.exp(score - score.max())
    keep = weight > 1e-9
    return _Nodes(
        weight=weight[keep] / weight[keep].sum(), exponents=exponents[keep], phi=phi[keep],
        covariance=covariance[keep], variance=total[keep] / dof, dof=dof, centre=centre,
    )  # fmt: skip


def _least_squares(design: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """Return phi, its unit covariance, ln det of it and the misfit of each node; no coefficient below zero."""
    best: tuple[Array, Array, Array, Array] | None = None
    for columns in ((0, 1, 2), (1, 2), (0, 2), (0, 1), (0,)):
        part = design[:, :, list(columns)]
        gram = np.einsum("gni,gnj->gij", part, part)
        size = np.sqrt(np.einsum("gii->gi", gram))
        scaled = gram / (size[:, :, None] * size[:, None, :]) + 1e-10 * np.eye(len(columns))
        inverse = np.linalg.inv(scaled) / (size[:, :, None] * size[:, None, :])
        small = np.einsum("gij,gnj,n->gi", inverse, part, y)
        phi, covariance = np.zeros((len(design), 3)), np.zeros((len(design), 3, 3))
        phi[:, list(columns)] = small
        covariance[np.ix_(range(len(design)), columns, columns)] = inverse
        misfit = ((y[None, :] - np.einsum("gni,gi->gn", part, small)) ** 2).sum(1)
        log_det = np.linalg.slogdet(inverse)[1]
        if best is None:
            best, settled = (phi, covariance, log_det, misfit), (phi >= 0).all(1)
            continue
        better = ~settled & (phi >= 0).all(1)
        for kept, new in ((best[0], phi), (best[1], covariance), (best[3], misfit)):
            kept[better] = new[better]  # the determinant stays that of all columns: one prior volume for all nodes
        settled = settled | better
    assert best is not None
    return best
