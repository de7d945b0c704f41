"""All runs of one model size together: the loss over LR and tokens, and the path of the best LR.

Notation
    x, t, y     ln lr, tokens, loss of every evaluation, flat                     (n,)
    r           run: the evaluations of one LR (repeats of an LR are averaged)      (R,)

Each run follows Eq. 4 with its own l0 and a; the exponent is shared among the runs that compete for the best loss,
because errors of an exponent that is the same for all runs move all predictions alike and leave the optimum where it
is. At a token count the predicted losses of the runs, with their standard errors, go through Eq. 2.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, level_of, positive, same_length, vector
from raylr.analysis.quadratic import QuadraticFit, fit_quadratic

COMPETING = 0.08
"""Runs whose last loss is within this share of the best share the exponent."""


@dataclass(frozen=True, kw_only=True)
class LossSurface:
    """Loss over LR and tokens of one model size."""

    lrs: Array
    """LRs of the runs that are used (R,)."""
    tokens_range: tuple[float, float]
    """First and last token count used."""
    status: str
    """`ok`, or the status of the fit at the last tokens, or `too_short`."""
    message: str
    """One sentence: why this status."""
    gamma: float
    """The shared exponent."""
    coefficients: Array = field(repr=False)
    """Per run: l0, b = a * t_last^-gamma, covariance entries (l0,l0), (l0,b), (b,b). (R, 5)."""

    @property
    def ok(self) -> bool:
        """Whether the surface can be used."""
        return self.status == "ok"

    def at(self, tokens: float) -> QuadraticFit:
        """Eq. 2 through the predicted losses at `tokens`."""
        loss, stderr = self._runs(float(tokens))
        return fit_quadratic(self.lrs, loss, loss_stderr=stderr if stderr.size else None)

    def _runs(self, tokens: float) -> tuple[Array, Array]:
        if not self.lrs.size:
            return np.empty(0), np.empty(0)
        l0, b, v00, v01, v11 = self.coefficients.T
        u = (tokens / self.tokens_range[1]) ** -self.gamma
        return l0 + b * u, np.sqrt(v00 + 2 * u * v01 + u**2 * v11)

    def lr_opt(self, tokens: ArrayLike) -> Array | float:
        """Best LR at `tokens`, same shape; NaN where there is none."""
        t = positive(np.atleast_1d(np.asarray(tokens, dtype=np.float64)), "tokens")
        out = np.array([self.at(d).lr_opt for d in t])
        return float(out[0]) if np.ndim(tokens) == 0 else out

    def lr_interval(self, tokens: float, level: float = 0.9) -> tuple[float, float]:
        """Interval of the best LR at one token count."""
        return self.at(tokens).lr_interval(level_of(level))

    def loss(self, lr: ArrayLike, tokens: ArrayLike) -> tuple[Array | float, Array | float]:
        """Loss at (`lr`, `tokens`), broadcast together, and its standard error, nats."""
        pairs = np.broadcast(np.asarray(lr, dtype=np.float64), np.asarray(tokens, dtype=np.float64))
        out = np.empty((2, pairs.size))
        for i, (one, d) in enumerate(pairs):
            fit = self.at(d)
            stderr = self._runs(float(d))[1]
            out[:, i] = fit.predict(float(one)), float(stderr.min()) if stderr.size else math.inf
        if pairs.ndim == 0:
            return float(out[0, 0]), float(out[1, 0])
        return out[0].reshape(pairs.shape), out[1].reshape(pairs.shape)


def fit_surface(lr: ArrayLike, tokens: ArrayLike, loss: ArrayLike) -> LossSurface:
    """Fit the runs of one model size: flat arrays, one entry an evaluation, runs of unequal length welcome.

    NaN and inf losses are diverged. Raises ValueError for LRs or tokens that are not positive and for unequal lengths.
    """
    x, t, y = positive(lr, "lr"), positive(tokens, "tokens"), vector(loss, "loss")
    same_length(lr=x, tokens=t, loss=y)
    runs = {float(one): _curve(t[x == one], y[x == one]) for one in np.unique(x)}
    runs = {one: curve for one, curve in runs.items() if curve[0].size >= 5 and np.isfinite(curve[1][-1])}
    if len(runs) < 3:
        return _failed("too_few", f"{len(runs)} LRs with at least 5 evaluations each, 3 needed")
    last = max(curve[0][-1] for curve in runs.values())
    cut = {one: (d[d >= 0.3 * d[-1]], v[d >= 0.3 * d[-1]]) for one, (d, v) in runs.items()}
    cut = {one: curve for one, curve in cut.items() if curve[0].size >= 4}
    if len(cut) < 3:
        return _failed("too_short", "fewer than 3 runs are long enough after the burn-in")
    best = min(v[-1] for _, v in cut.values())
    competing = [one for one, (_, v) in cut.items() if v[-1] <= best + COMPETING * abs(best)]
    grid = np.exp(np.linspace(math.log(0.02), math.log(3.0), 161))
    total = sum(_linear(*cut[one], last, grid)[1] for one in competing)
    gamma = float(grid[int(np.argmin(total))])
    rows = []
    for d, v in cut.values():
        (l0, b, suu, mean_u), ssr = _linear(d, v, last, np.array([gamma]))
        variance = float(ssr[0]) / max(d.size - 2, 1) * min(8.0, max(1.0, d.size / 8)) + (1e-5 * v[-1]) ** 2
        v11 = variance / suu[0]
        rows.append([l0[0], b[0], variance / d.size + mean_u[0] ** 2 * v11, -mean_u[0] * v11, v11])
    surface = LossSurface(
        lrs=np.array(list(cut)), tokens_range=(float(min(d[0] for d, _ in cut.values())), float(last)), status="ok",
        message="", gamma=gamma, coefficients=np.array(rows),
    )  # fmt: skip
    end = surface.at(last)
    return LossSurface(**{**surface.__dict__, "status": end.status, "message": end.message})


def _curve(t: Array, y: Array) -> tuple[Array, Array]:
    """Evaluations of one LR in the order of tokens, repeats averaged."""
    tokens, at = np.unique(t, return_inverse=True)
    return tokens, np.asarray(np.bincount(at, y) / np.bincount(at))


def _linear(t: Array, y: Array, last: float, grid: Array) -> tuple[tuple[Array, Array, Array, Array], Array]:
    u = (t[None, :] / last) ** -grid[:, None]
    du, dy = u - u.mean(1, keepdims=True), y - y.mean()
    suu = (du**2).sum(1)
    b = np.maximum(du @ dy / suu, 0.0)
    return (y.mean() - b * u.mean(1), b, suu, u.mean(1)), ((dy[None, :] - b[:, None] * du) ** 2).sum(1)


def _failed(status: str, message: str) -> LossSurface:
    return LossSurface(
        lrs=np.empty(0), tokens_range=(math.nan, math.nan), status=status, message=message, gamma=math.nan,
        coefficients=np.empty((0, 5)),
    )  # fmt: skip
