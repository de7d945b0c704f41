"""Eq. 4 of Zhou et al. 2026: the loss over tokens at a constant LR, L(D) = l0 + a * D^-gamma, after a burn-in.

Notation
    t, x     tokens (any unit) and ln(t / last t)                                (n,)
    y        loss, nats                                                          (R, n), one row a curve
    g        candidate exponents, evenly spaced in ln g                          (G,)
    u        (t / last t)^-g: l0 and b = a * (last t)^-g are linear given g, so only g is searched

Two ways to the burn-in. Given (a number of tokens), the earlier points are left out and the rest is least squares: the
optimum that `scipy.optimize.curve_fit` finds for the same model (`_varpro`). Residuals of loss curves are correlated,
so the covariance is that of n (1 - r) / (1 + r) points, r the residuals' lag-one correlation.

"auto" chooses none: what Eq. 4 leaves out is modelled by a smooth process in ln tokens that grows with the distance
from the end of the curve, counted in what the curve gains in an e-fold of tokens, and whose size is estimated from the
curve (`_discount`). Early points then weigh little; `burn_in` reports where a point's weight has risen to a sixteenth
of the last one's. The reports' noise is estimated, too, and dense reports are averaged first (`_reports`).

Either way the posterior over g gives `predict` its standard error: a curve that does not determine its exponent
predicts widely.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Protocol, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raylr.analysis._checks import Array, losses_of, positive, same_length, standard_errors
from raylr.analysis._threads import one_thread
from raylr.analysis.curves import _discount, _reports
from raylr.analysis.curves._varpro import LeastSquaresPosterior, least_squares
from raylr.analysis.curves.schedule import Schedule, effective_tokens, recognise_schedule
from raylr.analysis.status import Status
from raylr.errors import InputError

MIN_POINTS = 5
"""Fewest points after the burn-in."""
AFTER_WARMUP, WARMUP_SPAN = 8, 3.0
"""Reports inside the warmup are left out if this many follow and the last is at this many times its tokens."""
STEADY = 0.95
"""A curve whose last slope in ln tokens is at least this share of the one before has not begun its power law."""


class Forecast(Protocol):
    """A posterior of the loss at new tokens."""

    def predict(self, at: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the loss at ln(tokens / last tokens) `at` (k,), nats."""


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
    status: Status
    """`ok`, `too_short`, `not_converging` (the power law has not begun, or its exponent is at a bound: predictions are
    guesses), `not_falling`, `not_constant` (the LR falls throughout) or `diverged`."""
    message: str
    """One sentence: why this status."""
    tokens_last: float
    """Last token count of the fit, less half of `warmup`."""
    warmup: float = 0.0
    """Tokens of the linear warmup, of which the law counts half: `a` and `gamma` are of tokens - warmup / 2."""
    noise: float = math.nan
    """Standard deviation of one report around the curve, nats: what `predict` does not include."""
    forecast: Forecast | None = field(default=None, repr=False, compare=False)
    """Gives `predict` its losses; None without a fit."""

    @property
    def ok(self) -> bool:
        """Whether the curve determined its power law."""
        return self.status.ok

    def predict(self, tokens: ArrayLike) -> tuple[Array | float, Array | float]:
        """Return the loss at `tokens` and its posterior standard deviation.

        The loss is that of the curve, as if averaged over many reports: a single one scatters around it by `noise`.

        Args:
            tokens: Token counts of any shape, in the unit of the fit, above zero.

        Returns:
            Two arrays of the shape of `tokens`, nats (floats for a number); NaN and inf without a fit.

        Raises:
            InputError: tokens are not above zero.
        """
        t = effective_tokens(positive(np.ravel(tokens), "tokens"), self.warmup)
        if self.forecast is None:
            loss, stderr = np.full(t.size, math.nan), np.full(t.size, math.inf)
        else:
            loss, stderr = self.forecast.predict(np.log(t / self.tokens_last))
        if np.ndim(tokens) == 0:
            return float(loss[0]), float(stderr[0])
        return loss.reshape(np.shape(tokens)), stderr.reshape(np.shape(tokens))


@dataclass(frozen=True, kw_only=True)
class PowerLawFits(Sequence[PowerLawFit]):
    """Fits of many curves: their optima as arrays, and each as a `PowerLawFit` by its index."""

    l0: Array
    """(R,), NaN where there is no fit, as all optima."""
    a: Array
    """Factors (R,)."""
    gamma: Array
    """Exponents (R,)."""
    rmse: Array
    """Root mean square residuals, nats (R,)."""
    status: NDArray[np.str_]
    """Values of `Status` (R,)."""
    rows: Callable[[int], PowerLawFit] = field(repr=False, compare=False)
    """Gives the fit of a row."""

    def __len__(self) -> int:
        return int(self.gamma.size)

    @overload
    def __getitem__(self, index: int) -> PowerLawFit: ...
    @overload
    def __getitem__(self, index: slice) -> list[PowerLawFit]: ...
    def __getitem__(self, index: int | slice) -> PowerLawFit | list[PowerLawFit]:
        if isinstance(index, slice):
            return [self.rows(i) for i in range(*index.indices(len(self)))]
        return self.rows(range(len(self))[index])


def fit_power_law(
    tokens: ArrayLike,
    loss: ArrayLike,
    *,
    burn_in: float | str = "auto",
    loss_stderr: ArrayLike | None = None,
    current_lr: ArrayLike | None = None,
    schedule: Schedule | str | None = None,
    warmup_tokens: float | None = None,
) -> PowerLawFit:
    """Fit Eq. 4 to the loss curve of one run at a constant LR.

    Args:
        tokens: Token counts of the measurements (n,), in any order and unit, all above zero.
        loss: Losses in nats (n,). A curve whose last loss is NaN or infinite has `diverged`; other NaN and infinite
            losses are left out.
        burn_in: Token count before which points are left out (plain least squares of the rest), or "auto": no point
            is left out, early ones weigh less (see the module).
        loss_stderr: Standard deviation of the noise of a measurement in nats, scalar or (n,). Estimated if missing.
        current_lr: LR of the schedule at each measurement (n,); measurements after the LR began to fall are left out,
            and an LR that falls throughout gives no fit (status `not_constant`). None: taken as constant.
        schedule: The same, where the schedule is known: a `Schedule` or its name.
        warmup_tokens: Tokens of a linear warmup. Tokens count by their LR over the peak, so that half of them are
            subtracted from all token counts; reports inside the warmup are left out where enough follow. None takes the
            warmup that `schedule` or `current_lr` shows, 0 counts all tokens in full.

    Returns:
        The fit; `status` says whether the curve determined it.

    Raises:
        InputError: tokens are not above zero, lengths differ, or `burn_in` is something else.

    Example:
        >>> import numpy as np
        >>> tokens = np.linspace(1e9, 1e10, 40)
        >>> fit = fit_power_law(tokens, 2.0 + 300 * tokens**-0.3)
        >>> loss, stderr = fit.predict(2e10)
        >>> bool(abs(loss - 2.244) < stderr)
        True

    References:
        Zhou et al. 2026, arXiv 2601.05049, Eq. 4.
    """
    t, y = positive(tokens, "tokens"), losses_of(loss, "loss")
    same_length(tokens=t, loss=y)
    if warmup_tokens is not None and not (isinstance(warmup_tokens, Real) and 0 <= warmup_tokens < math.inf):
        raise InputError(f"warmup_tokens must be a number of tokens from 0 on, got {warmup_tokens!r}")
    known = Schedule.of(schedule)
    s, lrs = standard_errors(loss_stderr, t.size, "loss_stderr"), None if current_lr is None else np.ravel(current_lr)
    same_length(tokens=t, current_lr=lrs)
    kept = _reports.latest(t)
    t, y, s, lrs = t[kept], y[kept], None if s is None else s[kept], None if lrs is None else lrs[kept]
    seen = None if lrs is None else recognise_schedule(t, lrs)
    keep, w = np.ones(t.size, bool), 0.0
    for one in (known, seen):
        if one is not None and t.size and not one.constant:
            keep &= one.stable(t)
            if not keep.any():
                return _failed(Status.NOT_CONSTANT, f"{one}: Eq. 4 holds at a constant one", t)
        w = one.warmup if one is not None and one.warmup else w
    w = w if warmup_tokens is None else float(warmup_tokens)
    after = keep & (t >= w)
    if after.sum() >= AFTER_WARMUP and t[after][-1] >= WARMUP_SPAN * w:
        keep = after
    t, y, s = t[keep], y[keep], None if s is None else s[keep]
    if w and isinstance(burn_in, Real):
        burn_in = float(effective_tokens(float(burn_in), w))
    fit = fit_power_laws(effective_tokens(t, w), y[None, :], burn_in=burn_in, loss_stderr=s)[0]
    return replace(fit, warmup=w, burn_in=fit.burn_in + 0.5 * w) if w else fit


@one_thread
def fit_power_laws(
    tokens: ArrayLike, losses: ArrayLike, *, burn_in: float | str = "auto", loss_stderr: ArrayLike | None = None
) -> PowerLawFits:
    """Fit Eq. 4 to many curves that were measured at the same token counts.

    Curves with the same losses missing (as a rule none) are fitted together, a hundred times faster than one by one.

    Args:
        tokens: Token counts (n,), as for `fit_power_law`.
        losses: Losses in nats (R, n), one row a curve; NaN and infinite losses as for `fit_power_law`.
        burn_in: As for `fit_power_law`, the same for all curves.
        loss_stderr: As for `fit_power_law`, the same for all curves.

    Returns:
        The optima of all curves as arrays; indexing gives the `PowerLawFit` of one.

    Raises:
        InputError: as `fit_power_law`, or `losses` has another shape.

    Example:
        >>> tokens = [1, 2, 4, 8, 16, 32, 64]
        >>> fit_power_laws(tokens, [[2 + t**-0.5 for t in tokens]] * 2, burn_in=0).gamma.round(3)
        array([0.5, 0.5])

    References:
        Zhou et al. 2026, arXiv 2601.05049, Eq. 4.
    """
    t, y = positive(tokens, "tokens"), losses_of(losses, "losses", axes=2)
    if y.shape[1] != t.size:
        raise InputError(f"losses must have shape (curves, {t.size}), one column a token count, got {y.shape}")
    s = standard_errors(loss_stderr, t.size, "loss_stderr")
    if burn_in != "auto" and not (isinstance(burn_in, Real) and math.isfinite(burn_in) and burn_in >= 0):
        raise InputError(f'burn_in must be "auto" or a number of tokens from 0 on, got {burn_in!r}')
    if (np.diff(t) < 0).any():
        kept = _reports.latest(t)
        t, y, s = t[kept], y[:, kept], None if s is None else s[kept]
    finite = np.isfinite(y)
    if finite.all():
        return _together(t, y, burn_in, s)
    patterns, at = np.unique(finite, axis=0, return_inverse=True)
    rows = [np.flatnonzero(at.ravel() == i) for i in range(len(patterns))]
    parts = [_together(t[ok], y[np.ix_(some, ok)], burn_in, None if s is None else s[ok]) if ok[-1] else
             _nothing(Status.DIVERGED, "the curve ends in NaN or inf: the run diverged", t, some.size)
             for ok, some in zip(patterns, rows, strict=True)]  # fmt: skip
    back = np.argsort(np.concatenate(rows))
    part = np.repeat(np.arange(len(parts)), [some.size for some in rows])[back]
    inside = np.concatenate([np.arange(some.size) for some in rows])[back]
    l0, a, gamma, rmse, status = (
        np.concatenate([getattr(fits, name) for fits in parts])[back] for name in ("l0", "a", "gamma", "rmse", "status")
    )
    return PowerLawFits(
        l0=l0, a=a, gamma=gamma, rmse=rmse, status=status, rows=lambda i: parts[part[i]][int(inside[i])]
    )


def _together(t: Array, y: Array, burn_in: float | str, s: Array | None) -> PowerLawFits:
    """Curves without a missing loss, `t` in order."""
    return _auto(t, y, s) if burn_in == "auto" else _given(t, y, float(burn_in), s)


def _given(t: Array, y: Array, burn_in: float, s: Array | None) -> PowerLawFits:
    """Least squares of all rows of `y` after `burn_in`; weights 1 / s^2 if `s` is given."""
    keep = t >= burn_in
    if not keep.all():
        t, y, s = t[keep], y[:, keep], None if s is None else s[keep]
    if np.unique(t).size < MIN_POINTS:
        message = f"{t.size} points after the burn-in of {burn_in:.3g} tokens, {MIN_POINTS} needed"
        return _nothing(Status.TOO_SHORT, message, t, y.shape[0])
    w = np.full(t.size, 1.0 / t.size) if s is None else (s / s.min()) ** -2 / np.sum((s / s.min()) ** -2)
    noise = 0.0 if s is None else float(s.min() ** 2 / np.sum((s / s.min()) ** -2))
    fit = least_squares(np.log(t / t[-1]), y, w)
    falls = fit.b * np.expm1(fit.gamma * math.log(t[-1] / t[0])) > 1e-9 * np.abs(y[:, -1])
    status = np.where(falls, np.where(fit.at_bound, Status.NOT_CONVERGING, Status.OK), Status.NOT_FALLING)
    l0, b, gamma = (np.where(falls, value, math.nan) for value in (fit.l0, fit.b, fit.gamma))
    a, last = b * t[-1] ** fit.gamma, float(t[-1])
    rmse = np.where(falls, np.sqrt(fit.misfit), math.nan)
    span = f"least squares of {t.size} points from {t[0]:.4g} tokens on"

    def row(i: int) -> PowerLawFit:
        if not falls[i]:
            return _failed(Status.NOT_FALLING, "the loss does not fall after the burn-in", t)
        return PowerLawFit(
            l0=float(l0[i]), a=float(a[i]), gamma=float(gamma[i]), burn_in=burn_in, rmse=float(rmse[i]),
            status=Status(status[i]), tokens_last=last,
            message=f"the exponent is at its bound {gamma[i]:.3g}" if fit.at_bound[i] else span,
            noise=float(rmse[i]),
            forecast=LeastSquaresPosterior(
                t=t, y=y[i], w=w, noise=noise, l0=float(l0[i]), b=float(b[i]), gamma=float(gamma[i])
            ),
        )  # fmt: skip

    return PowerLawFits(l0=l0, a=a, gamma=gamma, rmse=rmse, status=status, rows=row)


def _auto(t: Array, y: Array, s: Array | None) -> PowerLawFits:
    """Curves whose early part is discounted instead of cut."""
    tokens, at = np.unique(t, return_inverse=True)
    if tokens.size < MIN_POINTS:
        return _nothing(
            Status.TOO_SHORT, f"{tokens.size} token counts with a finite loss, {MIN_POINTS} needed", t, len(y)
        )
    count, last = np.bincount(at).astype(np.float64), float(tokens[-1])
    if tokens.size < t.size:
        share = np.where(at[:, None] == np.arange(tokens.size), 1.0, 0.0) / count
        y, s = y @ share, None if s is None else np.sqrt(s**2 @ share)
    log_t = np.log(tokens / last)
    y = _reports.without_spikes(log_t, y)
    x, v, reports = _reports.averages(log_t, y, count)
    if x.size < MIN_POINTS:
        return _nothing(
            Status.TOO_SHORT, f"the curve spans {t[-1] / t[0]:.2g} times its first tokens: too little", t, len(y)
        )
    one = _reports.noise(log_t, y) if s is None else np.full(len(y), float(np.median(s**2)))
    slope, earlier = (-_reports.slope(x, v, reports, end) for end in (0.0, -_reports.END))
    falls = slope > 1e-9 * np.abs(v[:, -1])
    unit = np.where(falls, slope, 1.0)[:, None]
    smooth = _reports.smoothed(x, v, reports)
    excess = np.minimum(np.maximum(smooth - smooth[:, -1:], 0.0) / unit, 1e3)
    curves = (v - v[:, -1:]) / unit, np.minimum(one[:, None] / reports / unit**2, 1e30), excess
    mode = _discount.fit(x, *curves)
    fits = falls & np.isfinite(mode.gamma)
    level, b = v[:, -1] + unit[:, 0] * mode.l0, unit[:, 0] * mode.b
    l0, b, gamma = (np.where(fits, value, math.nan) for value in (level, b, mode.gamma))
    first = np.argmax(excess <= 1.0, axis=1)
    late = np.arange(x.size) >= first[:, None]
    residual = np.where(late, v - l0[:, None] - b[:, None] * np.exp(-gamma[:, None] * x), 0.0)
    rmse = np.where(fits, np.sqrt((residual**2).sum(1) / late.sum(1)), math.nan)
    converging = slope < STEADY * earlier
    status = np.where(fits, np.where(converging, Status.OK, Status.NOT_CONVERGING), Status.NOT_FALLING)
    a = b * last**gamma

    def row(i: int) -> PowerLawFit:
        if not falls[i]:
            return _failed(Status.NOT_FALLING, "the loss does not fall at the end of the curve", t)
        if not fits[i]:
            return _failed(Status.NOT_FALLING, "no falling power law fits the curve", t)
        if converging[i]:
            message = f"the slope in ln tokens fell from {earlier[i]:.3g} to {slope[i]:.3g} nats"
        elif np.isnan(earlier[i]):
            message = "the curve spans too few tokens to see its slope change"
        else:
            message = "the loss still falls as fast in ln tokens as before: the power law has not begun"
        posterior = _discount.CurvePosterior(x=x, **{k: c[i] for k, c in zip("yve", curves, strict=True)})
        return PowerLawFit(
            l0=float(l0[i]), a=float(a[i]), gamma=float(gamma[i]), burn_in=last * math.exp(x[first[i]]),
            rmse=float(rmse[i]), noise=math.sqrt(one[i]), status=Status(status[i]), message=message, tokens_last=last,
            forecast=_Scaled(posterior, float(v[i, -1]), float(slope[i])),
        )  # fmt: skip

    return PowerLawFits(l0=l0, a=a, gamma=gamma, rmse=rmse, status=status, rows=row)


@dataclass(frozen=True)
class _Scaled:
    """The forecast of a curve that was fitted in units of its slope, in nats."""

    posterior: _discount.CurvePosterior
    level: float
    slope: float

    def predict(self, at: Array) -> tuple[Array, Array]:
        loss, stderr = self.posterior.predict(at)
        return self.level + self.slope * loss, self.slope * stderr


def _failed(status: Status, message: str, t: Array) -> PowerLawFit:
    nan = math.nan
    last = float(t[-1]) if t.size else nan
    return PowerLawFit(
        l0=nan, a=nan, gamma=nan, burn_in=nan, rmse=nan, status=status, message=message, tokens_last=last
    )


def _nothing(status: Status, message: str, t: Array, count: int) -> PowerLawFits:
    """The same failure for `count` curves."""
    nan, one = np.full(count, math.nan), _failed(status, message, t)
    return PowerLawFits(l0=nan, a=nan, gamma=nan, rmse=nan, status=np.full(count, str(status)), rows=lambda _: one)
