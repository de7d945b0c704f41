"""All runs of one model size together: the loss over LR and tokens, and the path of the best LR.

The model is in `_progress`: a mean that couples all LRs (progress and noise floor) plus a discrepancy that they share.
Here evaluations become its points, and its posterior becomes optima, intervals and losses.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raylr.analysis._checks import Array, level_of, losses_of, positive, same_length
from raylr.analysis.curves import _backtest, _progress
from raylr.analysis.curves.schedule import Schedule, recognise_schedule
from raylr.analysis.optimum.quadratic import QuadraticFit, fit_quadratic, weights
from raylr.analysis.status import Status

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
SHAPE_NOISE = 0.02
"""Noise of a loss, in gains of an e-fold, in the error of Eq. 2 between the LRs: twice `CONTRAST`."""
MISSED = 0.25
"""Root mean square miss (`_backtest`) above which runs have not begun their power law."""


@dataclass(frozen=True, kw_only=True)
class LossSurface:
    """Loss over LR and tokens of one model size."""

    lrs: Array
    """LRs of the runs that are used (R,)."""
    tokens_range: tuple[float, float]
    """First and last token count used."""
    status: Status
    """`ok`, `not_converging` (the optimum at the last tokens is known, but the first part of the runs did not predict
    the rest, so that predictions beyond the last tokens are guesses), `edge_low`, `edge_high` (the optimum at the last
    tokens lies outside the measured LRs), `flat`, `too_few`, `too_short`, `not_falling` or `diverged`."""
    message: str
    """One sentence: why this status."""
    upper_bound: float = math.inf
    """Lowest LR above the best whose run diverged: the optimum is below."""
    posterior: _progress.Posterior | None = field(default=None, repr=False)
    """The fitted model, None without one."""
    centre: float = math.nan
    """ln lr of the best run."""
    miss: float = math.nan
    """How wrong losses predicted from the first part of the runs were, beyond the model's own standard error: gains of
    an e-fold, per e-fold (`_backtest`)."""

    @property
    def ok(self) -> bool:
        """Whether the optimum may be used with its interval, at the last tokens and beyond them."""
        return self.status.ok

    @property
    def usable(self) -> bool:
        """Whether the optimum at the last tokens may be used: it lies inside the measured LRs (`ok`, or
        `not_converging`, where predictions beyond the last tokens are guesses)."""
        return self.status in (Status.OK, Status.NOT_CONVERGING)

    def lr_opt(self, tokens: ArrayLike) -> Array | float:
        """Return the best LR at `tokens`.

        Args:
            tokens: Token counts of any shape, in the unit of the fit, above zero.

        Returns:
            LRs of the shape of `tokens`; NaN without a model.

        Raises:
            InputError: tokens are not above zero.
        """
        t = positive(np.ravel(tokens), "tokens")
        out = np.array([self._optimum(float(d)) for d in t])
        return float(out[0]) if np.ndim(tokens) == 0 else out.reshape(np.shape(tokens))

    def _optimum(self, tokens: float) -> float:
        if self.posterior is None:
            return math.nan
        fit = self.at(tokens)
        if fit.ok:
            return min(fit.lr_opt, self.upper_bound)
        axis = self.axis()
        lowest = self.centre + float(_lowest(axis, self._curve(axis, tokens).mean[None, :])[0])
        return min(math.exp(lowest), self.upper_bound)

    def at(self, tokens: float) -> QuadraticFit:
        """Eq. 2 through the losses that are predicted at `tokens` for the LRs that were run.

        A run's weight follows the standard error of its difference to the best: what all runs share cancels.
        """
        (t,) = positive([tokens], "tokens")
        return fit_quadratic([], []) if self.posterior is None else self._eq2(float(t))[0]

    def _eq2(self, tokens: float) -> tuple[QuadraticFit, _progress.Curve, Array]:
        """Eq. 2 at `tokens`, the losses of the runs there and their standard errors in it (R,)."""
        runs = self._curve(np.log(self.lrs) - self.centre, tokens)
        if self.posterior is None:
            raise RuntimeError("internal error: a surface without a model has no curve")
        error = _progress.contrast(self.posterior, runs, int(np.argmin(runs.mean))) / math.sqrt(2)
        error = np.maximum(error, CONTRAST * self.posterior.points.slope)
        return fit_quadratic(self.lrs, runs.mean, loss_stderr=error), runs, error

    def lr_interval(self, tokens: float, level: float = 0.9) -> tuple[float, float]:
        """Return the posterior (credible) interval of the best LR at one token count.

        Args:
            tokens: Token count in the unit of the fit.
            level: Posterior probability of the interval.

        Returns:
            Its two ends; 0 or inf on a side that the runs leave open.

        Raises:
            InputError: tokens are not above zero, or the level is not between 0 and 1.
        """
        tail = 0.5 * (1 - level_of(level))
        if self.posterior is None:
            return 0.0, self.upper_bound
        sample = self.optima(tokens)
        low, high = np.quantile(sample, [tail, 1 - tail])
        axis = self.axis()
        step = axis[1] - axis[0]
        ends = self.centre + axis[0] + step, self.centre + axis[-1] - step
        opt = self._optimum(float(tokens))
        lower = 0.0 if low <= ends[0] else min(math.exp(low), opt)
        upper = math.inf if high >= ends[1] else max(math.exp(high), opt)
        return lower, max(min(upper, self.upper_bound), lower)

    def optima(self, tokens: float) -> Array:
        """Draws of ln lr_opt at one token count (DRAWS,); the same at every call.

        Each is the estimate, moved as Eq. 2 moves when the runs' losses do (a draw from the posterior: noise, drift),
        and by an error of Eq. 2 itself (the shape of the curve between the LRs).
        """
        (t,) = positive([tokens], "tokens")
        if self.posterior is None:
            return np.full(DRAWS, math.nan)
        rng, axis = np.random.default_rng(0), self.axis()
        z, moves = self.movement(float(t))
        moved = moves(_progress.draws(self.posterior, self._curve(z, float(t)), DRAWS, rng))
        shape = fit_quadratic(self.lrs, self._eq2(float(t))[1].mean, loss_stderr=self.shape_noise)
        if not shape.profile.size:  # fewer than three runs near the best: Eq. 2 is not determined, both sides are open
            return self.centre + rng.choice(axis[[0, -1]], DRAWS)
        drawn = math.log(self._optimum(float(t))) + moved + shape.draws(DRAWS, rng)
        return np.clip(drawn, self.centre + axis[0], self.centre + axis[-1])

    def movement(self, tokens: float) -> tuple[Array, Callable[[Array], Array]]:
        """How the optimum at `tokens` follows the losses there: the z (m,) that it is read from, and the function from
        draws of their losses (s, m) to how far each moves it, ln lr (s,)."""
        fit, runs, error = self._eq2(tokens)
        if fit.ok:
            x, weight = np.log(self.lrs), weights(runs.mean, error, fit.loss_min)
            return x - self.centre, lambda drawn: _moved(x, drawn - runs.mean, fit, weight)
        axis = self.axis()
        lowest = _lowest(axis, self._curve(axis, tokens).mean[None, :])
        return axis, lambda drawn: _lowest(axis, drawn) - lowest

    @property
    def shape_noise(self) -> float:
        """Noise of a loss, nats, in the error of Eq. 2 between the LRs."""
        return math.nan if self.posterior is None else SHAPE_NOISE * self.posterior.points.slope

    def loss(self, lr: ArrayLike, tokens: ArrayLike) -> tuple[Array | float, Array | float]:
        """Loss at (`lr`, `tokens`), broadcast together, and its standard error, nats; NaN and inf without a model.

        Beyond the last tokens the error holds what the model missed when it was tried on the runs themselves.
        """
        pairs = np.broadcast(np.asarray(lr, dtype=np.float64), np.asarray(tokens, dtype=np.float64))
        each = np.array(list(pairs), dtype=np.float64).reshape(-1, 2)
        z, t = np.log(positive(each[:, 0], "lr")) - self.centre, positive(each[:, 1], "tokens")
        mean, stderr = np.full(t.size, math.nan), np.full(t.size, math.inf)
        if self.posterior is not None:
            for d in np.unique(t):
                here = t == d
                at = self._curve(z[here], float(d))
                ahead = max(math.log(d / self.tokens_range[1]), 0.0)
                mean[here] = at.mean
                stderr[here] = np.hypot(at.stderr, self.miss * self.posterior.points.slope * ahead)
        if pairs.ndim == 0:
            return float(mean[0]), float(stderr[0])
        return mean.reshape(pairs.shape), stderr.reshape(pairs.shape)

    def axis(self) -> Array:
        """The z, ln lr - `centre`, among which optima are looked for (STEPS,)."""
        ends = np.log(self.lrs[[0, -1]]) - self.centre
        return np.linspace(ends[0] - BEYOND, ends[1] + BEYOND, STEPS)

    def _curve(self, z: Array, tokens: float) -> _progress.Curve:
        if self.posterior is None:
            raise RuntimeError("internal error: a surface without a model has no curve")
        x = math.log(tokens / self.tokens_range[1])
        return _progress.curve(self.posterior, z, x, _progress.amplitude(self.posterior.points, z, x))


def _moved(x: Array, shift: Array, fit: QuadraticFit, weight: Array) -> Array:
    """How far the optimum of `fit` moves in ln lr when the losses at `x` (R,) move by `shift` (s, R): (s,).

    A shift is read, by the weights of the fit, as a constant, a tilt and a change of curvature; the tilt moves the
    optimum. No change of curvature takes more than two thirds of it away: beyond, the quadratic is meaningless.
    """
    d, root = x - math.log(fit.lr_opt), np.sqrt(weight)
    columns = np.stack([np.ones_like(d), d, d**2], 1)
    _, tilt, curvature = np.linalg.pinv(columns * root[:, None]) @ (shift * root).T
    return np.asarray(-0.5 * tilt / np.maximum(fit.curvature + curvature, fit.curvature / 3))


def _lowest(axis: Array, curves: Array) -> Array:
    """Where each of the curves (s, m) over the evenly spaced `axis` (m,) is lowest, between its points (s,)."""
    at = np.clip(np.argmin(curves, axis=1), 1, axis.size - 2)
    rows = np.arange(at.size)
    left, mid, right = curves[rows, at - 1], curves[rows, at], curves[rows, at + 1]
    bend = left - 2 * mid + right
    shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), np.sign(left - right))
    return np.asarray(axis[at] + np.clip(shift, -1, 1) * (axis[1] - axis[0]))


def fit_surface(
    lr: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    *,
    current_lr: ArrayLike | None = None,
    schedule: Schedule | str | None = None,
) -> LossSurface:
    """Fit the loss over LR and tokens to all runs of one model size.

    Args:
        lr: LR of each measurement (n,), in any order. Runs may be of unequal length.
        tokens: Token count of each measurement (n,), in any unit.
        loss: Loss of each measurement in nats (n,). Losses of one LR at one token count (seeds) are averaged. A run
            whose last loss is NaN or infinite has diverged: it bounds the optimum from above and nothing more. Other
            NaN and infinite losses are left out.
        current_lr: LR of the schedule at each measurement (n,), NaN where it is not known. Measurements after the LR
            began to fall are left out: the surface is that of the stable phase. None: the LRs are taken as constant.
        schedule: The same, where the schedule of all runs is known: a `Schedule` or its name.

    Returns:
        The surface; `status` is whether it has an optimum, and `not_constant` where the LRs fall throughout.

    Raises:
        InputError: LRs or tokens are not above zero, or lengths differ.

    Example:
        >>> import numpy as np
        >>> lr, tokens = (v.ravel() for v in np.meshgrid([5e-4, 1e-3, 2e-3, 4e-3], np.linspace(1e9, 1e10, 20)))
        >>> loss = 2 + 200 * tokens**-0.3 * (1 + 0.1 * np.log(lr / 1.5e-3) ** 2)
        >>> surface = fit_surface(lr, tokens, loss)
        >>> surface.usable
        True
    """
    x, t, y = np.log(positive(lr, "lr")), positive(tokens, "tokens"), losses_of(loss, "loss")
    same_length(lr=x, tokens=t, loss=y)
    if not t.size:
        return _failed(Status.TOO_FEW, "no evaluations")
    keep, decay = _stable(x, t, y, current_lr, Schedule.of(schedule))
    if not keep.any():
        return _failed(Status.NOT_CONSTANT, f"{decay}: the surface holds at a constant one")
    x, t, y = x[keep], t[keep], y[keep]
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
            return _failed(Status.DIVERGED, f"all {len(diverged)} runs diverged: the optimum is below LR {lowest:.3g}")
        status = Status.TOO_FEW if len(curves) < MIN_LRS or diverged else Status.TOO_SHORT
        return _failed(status, f"{len(runs)} LRs with {MIN_POINTS} evaluations spread over tokens, {MIN_LRS} needed")
    best = min(runs, key=lambda one: float(runs[one][1][-1]))
    points = _progress.assemble({one - best: run for one, run in runs.items()})
    above = [one for one in diverged if one > best]
    missed, foreseen = _backtest.misses(runs, MIN_LRS, MIN_POINTS)
    surface = LossSurface(
        lrs=np.exp(np.array(list(runs))),
        tokens_range=(last * math.exp(min(run[0][0] for run in runs.values())), last),
        status=Status.OK, message="", upper_bound=math.exp(min(above)) if above else math.inf, centre=best,
        posterior=_progress.posterior(points) if points.slope > 0 else None, miss=_backtest.size(missed, foreseen),
    )  # fmt: skip
    if surface.posterior is None or not surface.posterior.weight.size:
        return replace(
            surface, posterior=None, status=Status.NOT_FALLING, message="the loss of the best run does not fall"
        )
    status, message = _status(surface, missed)
    if decay is not None:
        message += f"; it is that of the stable phase: {decay}"
    return replace(surface, status=status, message=message)


def _stable(
    x: Array, t: Array, y: Array, current_lr: ArrayLike | None, given: Schedule | None
) -> tuple[NDArray[np.bool_], Schedule | None]:
    """Return which measurements were made before the LR fell (n,), and a schedule of those in which it does.

    If any run's LR changes throughout, none are left: its runs are of one schedule, and what is left of them tells
    nothing of the others' ends. A run that has diverged keeps its last loss, which is only a bound.
    """
    keep, decay = np.ones(t.size, bool), None
    found: list[tuple[NDArray[np.bool_], Schedule | None]] = [(np.ones(t.size, bool), given)]
    if current_lr is not None:
        now = np.asarray(current_lr, float).ravel()
        same_length(lr=x, current_lr=now)
        found += [(x == one, recognise_schedule(t[x == one], now[x == one])) for one in np.unique(x)]
    for of_run, schedule in found:
        if schedule is None or schedule.constant:
            continue
        if schedule.changing:
            return np.zeros(t.size, bool), schedule
        keep &= ~of_run | schedule.stable(t) | ~np.isfinite(y)
        decay = schedule if decay is None or schedule.decay_start < decay.decay_start else decay
    return keep, decay


def _status(surface: LossSurface, missed: Array) -> tuple[Status, str]:
    low, high = float(surface.lrs[0]), float(surface.lrs[-1])
    at, (left, right) = float(surface.lr_opt(surface.tokens_range[1])), surface.lr_interval(surface.tokens_range[1])
    measured = f"the measured LRs {low:.3g} to {high:.3g}"
    if left <= low and right >= high:
        return Status.FLAT, f"any of {measured} may be the best: the runs differ too little"
    if at < low or at > high:
        side, where = (Status.EDGE_LOW, "below") if at < low else (Status.EDGE_HIGH, "above")
        return side, f"the best LR at the last tokens, {at:.3g}, lies {where} {measured}"
    inside = f"the best LR at the last tokens, {at:.3g}, lies inside {measured}"
    if not missed.size:
        return Status.NOT_CONVERGING, f"{inside}; the runs are too short to try a prediction beyond them on themselves"
    if math.sqrt(float(np.mean(missed**2))) > MISSED:
        wrong = "too high" if missed.mean() < 0 else "too low"
        return (
            Status.NOT_CONVERGING,
            f"{inside}; losses predicted from the first part of the runs were {wrong}: beyond, a guess",
        )
    return Status.OK, inside


def _average(t: Array, y: Array) -> tuple[Array, Array, Array]:
    """Distinct token counts in order, the mean of the losses there, and how many they were."""
    tokens, at = np.unique(t, return_inverse=True)
    count = np.bincount(at)
    with np.errstate(invalid="ignore"):
        return tokens, np.asarray(np.bincount(at, y) / count), count.astype(np.float64)


def _failed(status: Status, message: str) -> LossSurface:
    return LossSurface(lrs=np.empty(0), tokens_range=(math.nan, math.nan), status=status, message=message)
