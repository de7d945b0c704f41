"""Eq. 4 of Zhou et al. 2026: the loss over tokens at a constant LR, L(D) = l0 + a * D^-gamma, after a burn-in.

Notation
    t        tokens (any unit)                                      (n,)
    y        loss, nats                                             (n,) or (R, n) for R curves on one set of tokens
    g        candidate exponents (grid)                             (G,)
    u        (t / t_last)^-g, 1 at the last point: l0 and b = a * t_last^-g are linear given g

Variable projection: for each exponent on a grid l0 and b follow by linear least squares, and the best exponent is
refined by a parabola in ln g. The posterior over the grid (flat in ln g, errors as if only `n / AUTOCORRELATION`
points were independent) gives `predict` its standard error, so that a curve that does not pin its exponent predicts
with a wide one.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, positive, same_length, standard_errors, vector

GAMMA_MIN, GAMMA_MAX = 0.02, 3.0
"""Bounds of the exponent."""
GRID = 81
"""Exponents on the grid, evenly spaced in ln gamma."""
MIN_POINTS = 5
"""Fewest points after the burn-in."""
BURN_INS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Candidate burn-ins, as a share of the last token count."""


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
    """Tokens before which the curve was left out."""
    rmse: float
    """Root mean square residual after the burn-in, nats."""
    status: str
    """`ok`, `too_short`, `not_converging` (exponent at a bound), `not_falling` or `diverged`."""
    message: str
    """One sentence: why this status."""
    tokens_last: float
    """Last token count of the fit."""
    grid: Array = field(repr=False)
    """Exponents of the posterior (G,)."""
    posterior: Array = field(repr=False)
    """Per exponent: weight, l0, b = a * tokens_last^-gamma, and covariances (l0,l0), (l0,b), (b,b). (G, 6)."""

    @property
    def ok(self) -> bool:
        """Whether the curve determined its power law."""
        return self.status == "ok"

    def predict(self, tokens: ArrayLike) -> tuple[Array | float, Array | float]:
        """Loss at `tokens` and its standard error, nats, both of the shape of `tokens`; NaN and inf without a fit."""
        t = positive(np.atleast_1d(np.asarray(tokens, dtype=np.float64)), "tokens")
        if not self.grid.size:
            loss, stderr = np.full(t.size, math.nan), np.full(t.size, math.inf)
        else:
            weight, l0, b, v00, v01, v11 = (column[:, None] for column in self.posterior.T)
            u = (t[None, :] / self.tokens_last) ** -self.grid[:, None]
            each = l0 + b * u
            mean = (weight * each).sum(0)
            variance = (weight * ((each - mean) ** 2 + v00 + 2 * u * v01 + u**2 * v11)).sum(0)
            loss, stderr = (
                self.l0 + self.a * t**-self.gamma,
                np.sqrt(variance + (self.l0 + self.a * t**-self.gamma - mean) ** 2),
            )
        return (float(loss[0]), float(stderr[0])) if np.ndim(tokens) == 0 else (loss, stderr)


def fit_power_law(
    tokens: ArrayLike, loss: ArrayLike, *, burn_in: float | str = "auto", loss_stderr: ArrayLike | None = None
) -> PowerLawFit:
    """Fit Eq. 4 to one curve.

    `tokens` and `loss`: flat arrays of one length, in any order. `burn_in`: tokens before which the curve is left
    out, or `"auto"`. `loss_stderr`: noise of a point, nats (from the residuals without). A curve that ends in NaN, inf
    or above its start is `diverged`. Raises ValueError for tokens that are not positive and for unequal lengths.
    """
    t = positive(tokens, "tokens")
    y = vector(loss, "loss")
    same_length(tokens=t, loss=y)
    s = standard_errors(loss_stderr, y.size, "loss_stderr")
    order = np.argsort(t, kind="stable")
    return fit_power_laws(t[order], y[order][None, :], burn_in=burn_in, loss_stderr=None if s is None else s[order])[0]


def fit_power_laws(
    tokens: ArrayLike, losses: ArrayLike, *, burn_in: float | str = "auto", loss_stderr: ArrayLike | None = None
) -> list[PowerLawFit]:
    """`fit_power_law` of many curves at the same tokens: `tokens` (n,), `losses` (R, n), one result a row."""
    t = positive(tokens, "tokens")
    y = np.atleast_2d(np.asarray(losses, dtype=np.float64))
    if y.ndim != 2 or y.shape[1] != t.size:
        raise ValueError(f"losses must have shape (curves, {t.size}), one column a token count, got {y.shape}")
    if not (burn_in == "auto" or (not isinstance(burn_in, str) and np.isfinite(burn_in) and burn_in >= 0)):
        raise ValueError(f'burn_in must be "auto" or a number of tokens from 0 on, got {burn_in!r}')
    s = standard_errors(loss_stderr, t.size, "loss_stderr")
    order = np.argsort(t, kind="stable")
    t, y, s = t[order], y[:, order], None if s is None else s[order]
    return [_one(t, row, burn_in, s) for row in y]


def _one(t: Array, y: Array, burn_in: float | str, s: Array | None) -> PowerLawFit:
    finite = np.isfinite(y)
    if not finite.size or not finite[-1]:
        return _failed("diverged" if finite.size else "too_short", "the curve ends in NaN or inf: the run diverged", t)
    t, y = t[finite], y[finite]
    start = 0.3 * float(t[-1]) if isinstance(burn_in, str) else float(burn_in)
    keep = t >= start
    if np.unique(t[keep]).size < MIN_POINTS:
        return _failed(
            "too_short", f"{int(keep.sum())} points after the burn-in of {start:.3g} tokens, {MIN_POINTS} needed", t
        )
    t, y = t[keep], y[keep]
    grid = np.exp(np.linspace(math.log(GAMMA_MIN), math.log(GAMMA_MAX), GRID))
    u = (t[None, :] / t[-1]) ** -grid[:, None]
    du, dy = u - u.mean(1, keepdims=True), y - y.mean()
    suu, suy = (du**2).sum(1), du @ dy
    b = np.maximum(suy / suu, 0.0)
    ssr = np.maximum((dy**2).sum() - 2 * b * suy + b**2 * suu, 0.0)
    if b.max() <= 0:
        return _failed("not_falling", "the loss does not fall after the burn-in", t)
    best = int(np.argmin(ssr))
    gamma = float(grid[best])
    if 0 < best < GRID - 1:
        left, mid, right = ssr[best - 1 : best + 2]
        bend = left - 2 * mid + right
        gamma *= math.exp(0.5 * (left - right) / bend * math.log(grid[1] / grid[0])) if bend > 0 else 1.0
    v = (t / t[-1]) ** -gamma
    slope = float((v - v.mean()) @ dy / ((v - v.mean()) @ (v - v.mean())))
    l0 = float(y.mean() - slope * v.mean())
    rmse = float(np.sqrt(np.mean((y - l0 - slope * v) ** 2)))
    variance = max(float(ssr[best]) / max(t.size - 3, 1), (1e-5 * abs(float(y[-1]))) ** 2)
    if s is not None:
        variance = max(variance, float(np.mean(s**2)))
    thin = min(8.0, max(1.0, t.size / 8))
    weight = np.exp(-0.5 * (ssr - ssr[best]) / variance / thin)
    weight /= weight.sum()
    v11 = variance * thin / suu
    mean_u = u.mean(1)
    table = np.stack(
        [weight, y.mean() - b * mean_u, b, variance * thin / t.size + mean_u**2 * v11, -mean_u * v11, v11], 1
    )
    edge = best in (0, GRID - 1)
    return PowerLawFit(
        l0=l0,
        a=slope * float(t[-1]) ** gamma,
        gamma=gamma,
        burn_in=start,
        rmse=rmse,
        status="not_converging" if edge else "ok",
        message=f"the exponent is at its bound {gamma:.3g}"
        if edge
        else f"fitted to {t.size} points from {t[0]:.4g} tokens on",
        tokens_last=float(t[-1]),
        grid=grid,
        posterior=table,
    )


def _failed(status: str, message: str, t: Array) -> PowerLawFit:
    nan = math.nan
    last = float(t[-1]) if t.size else nan
    return PowerLawFit(
        l0=nan, a=nan, gamma=nan, burn_in=nan, rmse=nan, status=status, message=message, tokens_last=last,
        grid=np.empty(0), posterior=np.empty((0, 6)),
    )  # fmt: skip
