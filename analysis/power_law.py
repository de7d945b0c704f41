"""Eq. 4 of Zhou et al. 2026: the loss over tokens at a constant LR, L(D) = l0 + a * D^-gamma, after a burn-in.

Notation
    t, x     tokens (any unit) and ln(t / last t)                        (n,)
    y        loss, nats                                                  (n,) one curve, (R, n) curves at the same
    tokens g        candidate exponents, evenly spaced in ln g                  (G,) u        (t / last t)^-g: l0 and b
    = a * (last t)^-g are linear given g, so only g is searched (`_varpro`)

Two ways to the burn-in. Given (a number of tokens), the earlier points are left out and the rest is least squares: the
optimum that `scipy.optimize.curve_fit` finds for the same model, for all curves at once. Residuals of loss curves are
correlated, so the covariance is that of n (1 - r) / (1 + r) points, r the residuals' lag-one correlation.

"auto" chooses none: what Eq. 4 leaves out is modelled, as in `_progress`, by a process that is correlated in ln tokens
and grows with the distance from the end of the curve, counted in what the curve gains in an e-fold of tokens. Early
points then weigh little; `burn_in` reports where a point's weight has risen to a sixteenth of the last one's.

Either way the posterior over g gives `predict` its standard error: a curve that does not pin its exponent predicts
widely.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis import _progress
from raylr.analysis._checks import Array, positive, same_length, standard_errors, vector
from raylr.analysis._varpro import GAMMA_MAX, GAMMA_MIN, least_squares

GRID = 61
"""Exponents on the grid."""
GAMMA_PRIOR = (0.5, 0.5)
"""Median and ln-sd of gamma with `burn_in="auto"`: constant-LR curves of public models have 0.3-0.6."""
KAPPA = 0.05
"""With "auto": discrepancy at the end of the curve, as a share of its gain in an e-fold of tokens."""
MIN_POINTS = 5
"""Fewest points after the burn-in."""
REACH = 30.0
"""The posterior's grid ends where the misfit is this far above its least."""
STEADY = 0.95
"""A curve whose last slope in ln tokens is at least this share of the one before has not begun its power law."""


@dataclass(frozen=True, kw_only=True)
class PowerLawFit:
    """A fitted power law. Fields are NaN where the curve cannot tell; `status` and `message` say why."""

    l0: float
    """Loss after infinitely many tokens, nats."""
    a: float
    """Factor of the falling part, nats * tokens^gamma."""
    gamma: float
    """Exponent, above zero."""
    burn_in: float
    """Tokens before which the curve was left out (given) or weighs little ("auto")."""
    rmse: float
    """Root mean square residual after the burn-in, nats."""
    status: str
    """`ok`, `too_short`, `not_converging` (the power law has not begun, or its exponent is at a bound: predictions are
    guesses), `not_falling` or `diverged`."""
    message: str
    """One sentence: why this status."""
    tokens_last: float
    """Last token count of the fit."""
    grid: Array = field(repr=False)
    """Exponents of the posterior (G,)."""
    posterior: Array = field(repr=False)
    """Per exponent: weight, l0, b = a * tokens_last^-gamma, covariances (l0,l0), (l0,b), (b,b). (G, 6)."""
    discrepancy: float = 0.0
    """Standard deviation of what Eq. 4 leaves out at new tokens, nats."""

    @property
    def ok(self) -> bool:
        """Whether the curve determined its power law."""
        return self.status == "ok"

    def predict(self, tokens: ArrayLike) -> tuple[Array | float, Array | float]:
        """Loss at `tokens` and its standard error, nats, both of the shape of `tokens`; NaN and inf without a fit."""
        t = positive(np.ravel(tokens), "tokens")
        if not self.grid.size:
            loss, stderr = np.full(t.size, math.nan), np.full(t.size, math.inf)
        else:
            weight, l0, b, v00, v01, v11 = (column[:, None] for column in self.posterior.T)
            u = (t[None, :] / self.tokens_last) ** -self.grid[:, None]
            loss = self.l0 + self.a * self.tokens_last**-self.gamma * (t / self.tokens_last) ** -self.gamma
            spread = (l0 + b * u - loss) ** 2 + v00 + 2 * u * v01 + u**2 * v11
            stderr = np.sqrt((weight * spread).sum(0) + self.discrepancy**2)
        if np.ndim(tokens) == 0:
            return float(loss[0]), float(stderr[0])
        return loss.reshape(np.shape(tokens)), stderr.reshape(np.shape(tokens))


def fit_power_law(
    tokens: ArrayLike, loss: ArrayLike, *, burn_in: float | str = "auto", loss_stderr: ArrayLike | None = None
) -> PowerLawFit:
    """Fit Eq. 4 to one curve.

    `tokens` and `loss`: flat arrays of one length, in any order. `burn_in`: tokens before which points are left out, or
    "auto" (see the module). `loss_stderr`: noise of a point, nats, scalar or flat; it is estimated without. A curve
    whose last loss is NaN or inf has `diverged`; other non-finite losses are left out. Raises ValueError for tokens
    that are not positive, unequal lengths and other values of `burn_in`.
    """
    t, y = positive(tokens, "tokens"), vector(loss, "loss")
    same_length(tokens=t, loss=y)
    return fit_power_laws(t, y[None, :], burn_in=burn_in, loss_stderr=loss_stderr)[0]


def fit_power_laws(
    tokens: ArrayLike, losses: ArrayLike, *, burn_in: float | str = "auto", loss_stderr: ArrayLike | None = None
) -> Sequence[PowerLawFit]:
    """`fit_power_law` of many curves at the same tokens: `tokens` (n,), `losses` (R, n), one result a row.

    With a given `burn_in` all rows without non-finite losses are fitted in one go (`PowerLawFits`, if these are all).
    """
    t = positive(tokens, "tokens")
    y = np.atleast_2d(np.asarray(losses, dtype=np.float64))
    if y.ndim != 2 or y.shape[1] != t.size:
        raise ValueError(f"losses must have shape (curves, {t.size}), one column a token count, got {y.shape}")
    s = standard_errors(loss_stderr, t.size, "loss_stderr")
    order = np.lexsort((y[0], t)) if y.shape[0] == 1 else np.argsort(t, kind="stable")
    t, y, s = t[order], y[:, order], None if s is None else s[order]
    if isinstance(burn_in, str):
        if burn_in != "auto":
            raise ValueError(f'burn_in must be "auto" or a number of tokens, got {burn_in!r}')
        return [_refused(t, row) or _auto(t, row, s) for row in y]
    if not (np.isfinite(burn_in) and burn_in >= 0):
        raise ValueError(f'burn_in must be "auto" or a number of tokens from 0 on, got {burn_in!r}')
    whole = np.asarray(np.isfinite(y).all(axis=1), dtype=bool)
    together = _given(t, y[whole], float(burn_in), s) if whole.any() else []
    if whole.all():
        return together
    rest = iter(together)
    return [next(rest) if ok else _refused(t, row) or _patched(t, row, float(burn_in), s)
            for row, ok in zip(y, whole.tolist(), strict=True)]  # fmt: skip


def _refused(t: Array, y: Array) -> PowerLawFit | None:
    """The result for a curve that ends in NaN or inf, else None."""
    if t.size and not np.isfinite(y[-1]):
        return _failed("diverged", "the curve ends in NaN or inf: the run diverged", t)
    return None


def _patched(t: Array, y: Array, burn_in: float, s: Array | None) -> PowerLawFit:
    ok = np.isfinite(y)
    return _given(t[ok], y[None, ok], burn_in, None if s is None else s[ok])[0]


@dataclass(frozen=True, kw_only=True)
class PowerLawFits(Sequence[PowerLawFit]):
    """Least-squares fits of many curves: their optima as arrays, and each as a `PowerLawFit` by its index."""

    l0: Array
    """(R,), NaN where there is no fit, as all optima."""
    a: Array
    gamma: Array
    rmse: Array
    burn_in: float
    tokens: Array = field(repr=False)
    """After the burn-in (n,)."""
    losses: Array = field(repr=False)
    """After the burn-in (R, n)."""
    weight: Array = field(repr=False)
    """Of each point, sum 1 (n,)."""
    noise: float = 0.0
    """Given variance of the weighted mean of a curve's losses, or 0."""
    at_bound: Array = field(repr=False)
    """Whether the exponent is at its bound (R,)."""

    def __len__(self) -> int:
        return int(self.gamma.size)

    @overload
    def __getitem__(self, index: int) -> PowerLawFit: ...
    @overload
    def __getitem__(self, index: slice) -> list[PowerLawFit]: ...
    def __getitem__(self, index: int | slice) -> PowerLawFit | list[PowerLawFit]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        t, y, w = self.tokens, self.losses[index], self.weight
        if not np.isfinite(self.gamma[index]):
            return _failed("not_falling", "the loss does not fall after the burn-in", t)
        gamma, x, mean_y = float(self.gamma[index]), np.log(t / t[-1]), float(y @ w)
        residual = y - self.l0[index] - self.a[index] * t[-1] ** -gamma * np.exp(-gamma * x)
        size = float(residual @ residual)
        lag = float(residual[1:] @ residual[:-1]) / size if size > 0 else 0.0
        lag = min(max(lag + (3 + 4 * lag) / t.size, 0.0), 0.95)  # three fitted parameters bias it low
        variance = max(float(w @ residual**2) / max(t.size - 3, 1), self.noise) * (1 + lag) / (1 - lag)
        variance += (1e-9 * abs(mean_y)) ** 2 + 1e-300
        low, high = math.log(GAMMA_MIN), math.log(GAMMA_MAX)
        for _ in range(4):  # narrow the grid to where the posterior is
            grid = np.exp(np.linspace(low, high, GRID))
            u = np.exp(-grid[:, None] * x)
            mean_u = u @ w
            suu, suy = (u - mean_u[:, None]) ** 2 @ w, u @ (w * (y - mean_y))
            b = np.maximum(suy / suu, 0.0)
            misfit = np.maximum(float((y - mean_y) ** 2 @ w) - b * (2 * suy - b * suu), 0.0) / variance
            near = np.flatnonzero(misfit <= misfit.min() + REACH)
            low, high = np.log(grid[[max(near[0] - 1, 0), min(near[-1] + 1, GRID - 1)]])
        weight = np.exp(-0.5 * np.minimum(misfit - misfit.min(), 700.0))
        v11 = variance / suu
        table = [weight / weight.sum(), mean_y - b * mean_u, b, variance + mean_u**2 * v11, -mean_u * v11, v11]
        bound = bool(self.at_bound[index])
        span = f"least squares of {t.size} points from {t[0]:.4g} tokens on"
        return PowerLawFit(
            l0=float(self.l0[index]), a=float(self.a[index]), gamma=gamma, burn_in=self.burn_in,
            rmse=float(self.rmse[index]), status="not_converging" if bound else "ok",
            message=f"the exponent is at its bound {gamma:.3g}" if bound else span, tokens_last=float(t[-1]), grid=grid,
            posterior=np.stack(table, 1),
        )  # fmt: skip


def _given(t: Array, y: Array, burn_in: float, s: Array | None) -> Sequence[PowerLawFit]:
    """Least squares of all rows of `y` after `burn_in`; weights 1 / s^2 if `s` is given."""
    keep = t >= burn_in
    t, y = t[keep], y[:, keep]
    if np.unique(t).size < MIN_POINTS:
        message = f"{t.size} points after the burn-in of {burn_in:.3g} tokens, {MIN_POINTS} needed"
        return [_failed("too_short", message, t)] * y.shape[0]
    w = np.full(t.size, 1.0 / t.size) if s is None else s[keep] ** -2 / np.sum(s[keep] ** -2)
    fit = least_squares(np.log(t / t[-1]), y, w)
    falls = fit.b * np.expm1(fit.gamma * math.log(t[-1] / t[0])) > 1e-9 * np.abs(y[:, -1])
    return PowerLawFits(
        l0=np.where(falls, fit.l0, math.nan), a=np.where(falls, fit.b * t[-1] ** fit.gamma, math.nan),
        gamma=np.where(falls, fit.gamma, math.nan), rmse=np.sqrt(fit.misfit), burn_in=burn_in, tokens=t, losses=y,
        weight=w, noise=0.0 if s is None else float(1 / np.sum(s[keep] ** -2)), at_bound=fit.at_bound,
    )  # fmt: skip


def _auto(t: Array, y: Array, s: Array | None) -> PowerLawFit:
    """One curve whose early part is discounted instead of cut."""
    tokens, at = np.unique(t[np.isfinite(y)], return_inverse=True)
    if tokens.size < MIN_POINTS:
        return _failed("too_short", f"{tokens.size} token counts with a finite loss, {MIN_POINTS} needed", t)
    count = np.bincount(at).astype(np.float64)
    x, v, noise = _progress.binned(np.log(tokens / tokens[-1]), np.bincount(at, y[np.isfinite(y)]) / count, count)
    if x.size < MIN_POINTS:
        return _failed("too_short", f"the curve spans {math.exp(-x[0]):.2g} times its first tokens: too little", t)
    if s is not None:
        noise = np.maximum(noise, float(np.median(s)) ** 2)
    slope = _progress.last_slope(x, v)
    if slope <= 0:
        return _failed("not_falling", "the loss does not fall at the end of the curve", t)
    amp = _progress.discrepancy(v, v[-1], slope, KAPPA)
    zero = np.zeros_like(x)
    k = _progress.covariance(zero, x, amp, zero, x, amp, own=True) + np.diag(noise + (1e-3 * slope) ** 2)
    from scipy import linalg

    factor = np.linalg.cholesky(k)
    grid = GAMMA_PRIOR[0] * np.exp(GAMMA_PRIOR[1] * np.linspace(-3, 3, GRID))
    columns = np.concatenate([np.ones((1, x.size)), np.exp(-grid[:, None] * x), v[None, :]])
    white = linalg.solve_triangular(factor, columns.T, lower=True)
    one, u, z = white[:, 0], white[:, 1:-1].T, white[:, -1]
    s00, s01, s11 = float(one @ one), u @ one, (u**2).sum(1)
    det = s00 * s11 - s01**2
    r0, r1 = float(one @ z), u @ z
    l0, b = (s11 * r0 - s01 * r1) / det, (s00 * r1 - s01 * r0) / det
    misfit = np.maximum(float(z @ z) - l0 * r0 - b * r1, 0.0)
    prior = (np.log(grid / GAMMA_PRIOR[0]) / GAMMA_PRIOR[1]) ** 2
    score = np.where(b > 0, -0.5 * (misfit + prior), -np.inf)
    if not np.isfinite(score).any():
        return _failed("not_falling", "no falling power law fits the curve", t)
    best = int(np.argmax(score))
    weight = np.exp(score - score[best])
    weight /= weight.sum()
    scale = (float(weight @ misfit) + _progress.SCALE_DOF) / (x.size + _progress.SCALE_DOF)
    table = np.stack([weight, l0, b, scale * s11 / det, -scale * s01 / det, scale * s00 / det], 1)
    late = x >= x[np.argmax(amp <= 4 * amp[-1])]
    residual = (v - l0[best] - b[best] * np.exp(-grid[best] * x))[late]
    status, message = _converging(x, v, slope)
    return PowerLawFit(
        l0=float(l0[best]), a=float(b[best] * tokens[-1] ** grid[best]), gamma=float(grid[best]),
        burn_in=float(tokens[-1] * math.exp(x[late][0])), rmse=float(np.sqrt(np.mean(residual**2))), status=status,
        message=message, tokens_last=float(tokens[-1]), grid=grid, posterior=table,
        discrepancy=math.sqrt(scale) * KAPPA * slope,
    )  # fmt: skip


def _converging(x: Array, y: Array, slope: float) -> tuple[str, str]:
    """Whether the slope in ln tokens falls, as that of a power law does."""
    before = (x >= -2 * _progress.END) & (x <= -_progress.END)
    if before.sum() < 3:
        return "not_converging", "the curve spans too few tokens to see its slope change"
    earlier = -float(np.polyfit(x[before], y[before], 1)[0])
    if slope >= STEADY * earlier:
        return "not_converging", "the loss still falls as fast in ln tokens as before: the power law has not begun"
    return "ok", f"the slope in ln tokens fell from {earlier:.3g} to {slope:.3g} nats"


def _failed(status: str, message: str, t: Array) -> PowerLawFit:
    nan = math.nan
    last = float(t[-1]) if t.size else nan
    return PowerLawFit(
        l0=nan, a=nan, gamma=nan, burn_in=nan, rmse=nan, status=status, message=message, tokens_last=last,
        grid=np.empty(0), posterior=np.empty((0, 6)),
    )  # fmt: skip
