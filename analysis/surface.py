"""All runs of one model size together: the loss over LR and tokens, and the path of the best LR.

The model is in `_progress`: a mean that couples all LRs (progress and noise floor) plus a discrepancy that they share.
Here evaluations become its points, and its posterior becomes optima, intervals and losses.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis import _progress
from raylr.analysis._checks import Array, level_of, positive, same_length, vector
from raylr.analysis.quadratic import QuadraticFit, fit_quadratic

MIN_LRS = 3
"""Fewest LRs with a usable run."""
MIN_POINTS = 3
"""Fewest evaluations of a run, after averaging neighbours in ln tokens."""
MAX_POINTS = 400
"""Bins of evaluations widen where there would be more in all: the fit takes n^3 time."""
BEYOND = 1.5
"""Optima are looked for this far, in ln lr, beyond the measured LRs."""
DRAWS = 800
"""Curves drawn for intervals."""
STEPS = 121
"""Points of the LR axis."""
CONTRAST = 0.01
"""Least standard error of a difference between two runs, as a share of the gain in an e-fold of tokens."""


@dataclass(frozen=True, kw_only=True)
class LossSurface:
    """Loss over LR and tokens of one model size."""

    lrs: Array
    """LRs of the runs that are used (R,)."""
    tokens_range: tuple[float, float]
    """First and last token count used."""
    status: str
    """`ok`, `edge_low`, `edge_high` (optimum at the last tokens outside the measured LRs), `flat`, `too_few`,
    `too_short`, `not_falling` or `diverged`."""
    message: str
    """One sentence: why this status."""
    upper_bound: float = math.inf
    """Lowest LR above the best whose run diverged: the optimum is below."""
    posterior: _progress.Posterior | None = field(default=None, repr=False)
    """The fitted model, None without one."""
    centre: float = math.nan
    """ln lr of the best run."""

    @property
    def ok(self) -> bool:
        """Whether the optimum at the last tokens lies inside the measured LRs."""
        return self.status == "ok"

    def lr_opt(self, tokens: ArrayLike) -> Array | float:
        """Best LR at `tokens`, same shape; NaN where there is none. ValueError for tokens that are not above zero."""
        t = positive(np.atleast_1d(np.asarray(tokens, dtype=np.float64)), "tokens")
        out = np.array([self._optimum(float(d)) for d in t])
        return float(out[0]) if np.ndim(tokens) == 0 else out

    def _optimum(self, tokens: float) -> float:
        if self.posterior is None:
            return math.nan
        fit = self.at(tokens)
        if fit.ok:
            return fit.lr_opt
        axis = self._axis()
        return math.exp(self.centre + float(_lowest(axis, self._curve(axis, tokens).mean[None, :])[0]))

    def at(self, tokens: float) -> QuadraticFit:
        """Eq. 2 through the losses that are predicted at `tokens` for the LRs that were run.

        A run's weight follows the standard error of its difference to the best: what all runs share cancels.
        """
        (t,) = positive([tokens], "tokens")
        if self.posterior is None:
            return fit_quadratic([], [])
        runs = self._curve(np.log(self.lrs) - self.centre, float(t))
        error = _progress.contrast(self.posterior, runs, int(np.argmin(runs.mean))) / math.sqrt(2)
        return fit_quadratic(self.lrs, runs.mean, loss_stderr=np.maximum(error, CONTRAST * self.posterior.points.slope))

    def lr_interval(self, tokens: float, level: float = 0.9) -> tuple[float, float]:
        """Interval of the best LR at one token count; 0 or inf on a side that the runs leave open."""
        tail = 0.5 * (1 - level_of(level))
        if self.posterior is None:
            return 0.0, self.upper_bound
        sample = self.optima(tokens)
        low, high = np.quantile(sample, [tail, 1 - tail])
        axis = self._axis()
        step = axis[1] - axis[0]
        ends = self.centre + axis[0] + step, self.centre + axis[-1] - step
        opt = self._optimum(float(tokens))
        lower = 0.0 if low <= ends[0] else min(math.exp(low), opt)
        upper = math.inf if high >= ends[1] else max(math.exp(high), opt)
        return lower, max(min(upper, self.upper_bound), lower)

    def optima(self, tokens: float) -> Array:
        """Draws of ln lr_opt at one token count from the posterior (DRAWS,); the same at every call."""
        (t,) = positive([tokens], "tokens")
        if self.posterior is None:
            return np.full(DRAWS, math.nan)
        axis = self._axis()
        sample = _progress.draws(self.posterior, self._curve(axis, float(t)), DRAWS, np.random.default_rng(0))
        return self.centre + _lowest(axis, sample)

    def loss(self, lr: ArrayLike, tokens: ArrayLike) -> tuple[Array | float, Array | float]:
        """Loss at (`lr`, `tokens`), broadcast together, and its standard error, nats; NaN and inf without a model."""
        pairs = np.broadcast(np.asarray(lr, dtype=np.float64), np.asarray(tokens, dtype=np.float64))
        each = np.array(list(pairs), dtype=np.float64).reshape(-1, 2)
        z, t = np.log(positive(each[:, 0], "lr")) - self.centre, positive(each[:, 1], "tokens")
        mean, stderr = np.full(t.size, math.nan), np.full(t.size, math.inf)
        if self.posterior is not None:
            for d in np.unique(t):
                here = t == d
                at = self._curve(z[here], float(d))
                mean[here], stderr[here] = at.mean, at.stderr
        if pairs.ndim == 0:
            return float(mean[0]), float(stderr[0])
        return mean.reshape(pairs.shape), stderr.reshape(pairs.shape)

    def _axis(self) -> Array:
        ends = np.log(self.lrs[[0, -1]]) - self.centre
        return np.linspace(ends[0] - BEYOND, ends[1] + BEYOND, STEPS)

    def _curve(self, z: Array, tokens: float) -> _progress.Curve:
        if self.posterior is None:
            raise ValueError("a surface without a model has no curve")
        x = math.log(tokens / self.tokens_range[1])
        return _progress.curve(self.posterior, z, x, _progress.amplitude(self.posterior.points, z, x))


def _lowest(axis: Array, curves: Array) -> Array:
    """Where each of the curves (s, m) over the evenly spaced `axis` (m,) is lowest, between its points (s,)."""
    at = np.clip(np.argmin(curves, axis=1), 1, axis.size - 2)
    rows = np.arange(at.size)
    left, mid, right = curves[rows, at - 1], curves[rows, at], curves[rows, at + 1]
    bend = left - 2 * mid + right
    shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), np.sign(left - right))
    return np.asarray(axis[at] + np.clip(shift, -1, 1) * (axis[1] - axis[0]))


def fit_surface(lr: ArrayLike, tokens: ArrayLike, loss: ArrayLike) -> LossSurface:
    """Fit the runs of one model size: flat arrays, one entry an evaluation, in any order.

    Runs may be of unequal length; evaluations of one LR at one token count (seeds) are averaged. Tokens in any unit. A
    run whose last loss is NaN or inf has diverged: it bounds the optimum from above and nothing more; other NaN and inf
    losses are left out. Raises ValueError for LRs or tokens that are not positive and for unequal lengths.
    """
    x, t, y = np.log(positive(lr, "lr")), positive(tokens, "tokens"), vector(loss, "loss")
    same_length(lr=x, tokens=t, loss=y)
    if not t.size:
        return _failed("too_few", "no evaluations")
    last = float(t.max())
    curves = {float(one): _average(t[x == one], y[x == one]) for one in np.unique(x)}
    diverged = [one for one, (_, v, _) in curves.items() if not np.isfinite(v[-1])]
    count = sum(min(d.size, math.log(d[-1] / d[0]) / _progress.BIN + 1) for d, _, _ in curves.values())
    width = _progress.BIN * max(1.0, count / MAX_POINTS)
    binned = {
        one: _progress.binned(np.log(d / last), v, n, width) for one, (d, v, n) in curves.items() if one not in diverged
    }
    runs = {one: run for one, run in binned.items() if run[0].size >= MIN_POINTS}
    if len(runs) < MIN_LRS:
        if not runs and diverged:
            lowest = math.exp(min(diverged))
            return _failed("diverged", f"all {len(diverged)} runs diverged: the optimum is below LR {lowest:.3g}")
        status = "too_few" if len(curves) < MIN_LRS or diverged else "too_short"
        return _failed(status, f"{len(runs)} LRs with {MIN_POINTS} evaluations spread over tokens, {MIN_LRS} needed")
    best = min(runs, key=lambda one: float(runs[one][1][-1]))
    points = _progress.assemble({one - best: run for one, run in runs.items()})
    above = [one for one in diverged if one > best]
    surface = LossSurface(
        lrs=np.exp(np.array(list(runs))),
        tokens_range=(last * math.exp(min(run[0][0] for run in runs.values())), last),
        status="ok", message="", upper_bound=math.exp(min(above)) if above else math.inf, centre=best,
        posterior=_progress.posterior(points) if points.slope > 0 else None,
    )  # fmt: skip
    if surface.posterior is None or not surface.posterior.weight.size:
        return replace(surface, posterior=None, status="not_falling", message="the loss of the best run does not fall")
    status, message = _status(surface)
    return replace(surface, status=status, message=message)


def _status(surface: LossSurface) -> tuple[str, str]:
    low, high = float(surface.lrs[0]), float(surface.lrs[-1])
    at, (left, right) = float(surface.lr_opt(surface.tokens_range[1])), surface.lr_interval(surface.tokens_range[1])
    measured = f"the measured LRs {low:.3g} to {high:.3g}"
    if left <= low and right >= high:
        return "flat", f"any of {measured} may be the best: the runs differ too little"
    if at < low or at > high:
        side, where = ("low", "below") if at < low else ("high", "above")
        return f"edge_{side}", f"the best LR at the last tokens, {at:.3g}, lies {where} {measured}"
    return "ok", f"the best LR at the last tokens, {at:.3g}, lies inside {measured}"


def _average(t: Array, y: Array) -> tuple[Array, Array, Array]:
    """Distinct token counts in order, the mean of the losses there, and how many they were."""
    tokens, at = np.unique(t, return_inverse=True)
    count = np.bincount(at)
    with np.errstate(invalid="ignore"):
        return tokens, np.asarray(np.bincount(at, y) / count), count.astype(np.float64)


def _failed(status: str, message: str) -> LossSurface:
    return LossSurface(lrs=np.empty(0), tokens_range=(math.nan, math.nan), status=status, message=message)
