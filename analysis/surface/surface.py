"""All runs of one model size together: the loss over LR and tokens, and the path of the best LR.

The model is in `_progress`: a mean that couples all LRs (progress and noise floor) plus a discrepancy that they share.
Here evaluations become its points, and its posterior becomes optima, intervals and losses.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, level_of, losses_of, positive, same_length
from raylr.analysis._threads import one_thread
from raylr.analysis.curves import _backtest, _progress
from raylr.analysis.curves.schedule import Schedule
from raylr.analysis.optimum import OptimumFit, OptimumPrior
from raylr.analysis.status import Status
from raylr.analysis.surface._evaluations import average, in_order, stable
from raylr.analysis.surface._section import DRAWS, Measured, Section, errors, measured_at, section

MIN_LRS = 3
"""Fewest LRs with a usable run."""
MIN_POINTS = 3
"""Fewest evaluations of a run, after averaging neighbours in ln tokens."""
MAX_POINTS = 400
"""Bins of evaluations widen where there would be more in all: the fit takes n^3 time."""
BEYOND = 1.5
"""Optima are looked for this far, in ln lr, beyond the measured LRs."""
STEPS = 121
"""Points of the LR axis."""
OWN_ERROR = 0.5
"""Share of the standard error of a predicted difference that changes the shape of the curve over the LRs. The rest
raises, tilts or bends the whole curve, and `Section.moved` carries it to the optimum. Draws from the posterior less
their constant, tilt and curvature have 0.25 to 0.78 of it on the public runs."""
CONTRAST = 0.01
"""Least standard error of a difference between two runs, as a share of the gain in an e-fold of tokens."""
SHAPE_NOISE = 0.02
"""Noise of a predicted loss, in gains of an e-fold, in the error of the shape between the LRs: twice `CONTRAST`."""
SAME_LR = 1e-9
"""LRs whose logarithms differ by less than this are equal."""
USABLE = (Status.OK, Status.UNCERTAIN, Status.PLATEAU, Status.NOT_CONVERGING)
"""Statuses of a surface whose optimum at the last tokens lies inside the measured LRs."""
BEYOND_RUNS = (Status.EDGE_LOW, Status.EDGE_HIGH, Status.TOO_FEW, Status.DIVERGED)
"""Statuses of predicted losses whose optimum lies beyond the LRs of the runs."""
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
    """That of the optimum at the last tokens (`OptimumFit.status`), or `not_converging` (that optimum is known, but the
    first part of the runs did not predict the rest, so that predictions beyond the last tokens are guesses),
    `too_few`, `too_short`, `not_falling`, `not_constant` or `diverged`."""
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
    lr_range: tuple[float, float] | None = None
    """Range in which the optimum was searched, None for that of the runs."""
    priors: dict[float, OptimumPrior] = field(default_factory=dict, repr=False)
    """What other sizes say of the loss over the LR, by token count."""
    curves: Measured = field(default_factory=dict, repr=False)
    """What was measured, by ln lr, of the runs that did not diverge."""
    diverged: Array = field(default_factory=lambda: np.empty(0), repr=False)
    """ln lr of the runs that diverged."""
    _sections: dict[float, Section] = field(default_factory=dict, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether the optimum may be used with its interval, at the last tokens and beyond them."""
        return self.status.ok

    @property
    def usable(self) -> bool:
        """Whether the optimum at the last tokens may be used: it lies inside the measured LRs (`ok`, `uncertain` or
        `plateau` with a wide interval, or `not_converging`, where predictions beyond the last tokens are guesses)."""
        return self.status in USABLE

    def section(self, tokens: float) -> Section:
        """Losses of all runs at `tokens`, measured or predicted, and the loss over the LR through them."""
        (t,) = (float(v) for v in positive([tokens], "tokens"))
        if t not in self._sections:
            self._sections[t] = self._section(t)
        return self._sections[t]

    def _section(self, tokens: float) -> Section:
        known = measured_at(self.curves, tokens)
        x, loss, stderr = list(self.diverged), [math.nan] * self.diverged.size, [0.0] * self.diverged.size
        for one, losses in known.items():
            x, loss, stderr = [*x, *[one] * losses.size], [*loss, *losses], [*stderr, *[0.0] * losses.size]
        measured = [True] * len(x)
        if self.posterior is not None:
            z = np.log(self.lrs) - self.centre
            runs = self._curve(z, tokens)
            error = _progress.contrast(self.posterior, runs, int(np.argmin(runs.mean))) / math.sqrt(2)
            error = np.maximum(OWN_ERROR * error, self.least_stderr)
            for one, mean, sd in zip(z + self.centre, runs.mean, error, strict=True):
                if not any(abs(one - other) < SAME_LR for other in known):
                    x, loss, stderr, measured = [*x, one], [*loss, mean], [*stderr, sd], [*measured, False]
        return section(x, loss, stderr, measured, self.lr_range, self.priors.get(tokens))

    @property
    def least_stderr(self) -> float:
        """Least standard error of a predicted loss, nats; NaN without a model."""
        return math.nan if self.posterior is None else SHAPE_NOISE * self.posterior.points.slope

    def at(self, tokens: float) -> OptimumFit:
        """The loss over the LR at `tokens`, through what was measured there and what is predicted for other runs.

        The weight of a predicted loss follows the standard error of its difference to the best: what all runs share
        cancels.
        """
        return self.section(tokens).fit

    def status_at(self, tokens: float) -> tuple[Status, str]:
        """Whether the optimum at `tokens` may be used with its interval, and why: that of the losses where they were
        measured, and where they are predicted also whether predictions of these runs can be trusted."""
        fit = self.at(tokens)
        if self.section(tokens).complete:
            return (fit.status, fit.message) if self.curves or self.diverged.size else (self.status, self.message)
        if tokens > self.tokens_range[1] and self.status is Status.NOT_CONVERGING:
            return self.status, self.message
        return fit.status, f"{fit.message} (losses of shorter runs are predicted)"

    def lr_opt(self, tokens: ArrayLike) -> Array | float:
        """Return the best LR at `tokens`.

        Args:
            tokens: Token counts of any shape, in the unit of the fit, above zero.

        Returns:
            LRs of the shape of `tokens`; NaN without a model and without losses measured there.

        Raises:
            InputError: tokens are not above zero.
        """
        t = positive(np.ravel(tokens), "tokens")
        out = np.array([self._optimum(float(d)) for d in t])
        return float(out[0]) if np.ndim(tokens) == 0 else out.reshape(np.shape(tokens))

    def _optimum(self, tokens: float) -> float:
        part = self.section(tokens)
        if self._expands(part):
            return min(part.lr, self.upper_bound)
        axis = self.axis()
        lowest = self.centre + float(_lowest(axis, self._curve(axis, tokens).mean[None, :])[0])
        return min(math.exp(lowest), self.upper_bound)

    def _expands(self, part: Section) -> bool:
        """Whether the optimum is that of the section. Otherwise it is the lowest point of the surface itself, which
        goes on beyond the LRs of the runs: predicted losses may have their optimum there."""
        return part.complete or self.posterior is None or part.fit.status not in BEYOND_RUNS

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
        tail, part = 0.5 * (1 - level_of(level)), self.section(tokens)
        if part.complete:
            return part.fit.interval(level)
        sample, axis = self.optima(tokens), self.axis()
        low, high = np.quantile(sample, [tail, 1 - tail])
        step = axis[1] - axis[0]
        ends = self.centre + axis[0] + step, self.centre + axis[-1] - step
        opt = self._optimum(float(tokens))
        lower = 0.0 if low <= ends[0] else min(math.exp(low), opt)
        upper = math.inf if high >= ends[1] else max(math.exp(high), opt)
        return lower, max(min(upper, self.upper_bound), lower)

    def optima(self, tokens: float) -> Array:
        """Draws of ln lr_opt at one token count (DRAWS,); the same at every call.

        Where all losses are measured they are those of the loss over the LR. Otherwise each is the estimate, moved as
        the predicted losses move it (a draw from the posterior: noise, drift), and by an error of the shape of the
        curve between the LRs.
        """
        part = self.section(tokens)
        if part.fit.curves is None:
            return np.full(DRAWS, math.nan)
        if part.complete:
            return part.fit.draws(DRAWS)
        rng, axis = np.random.default_rng(0), self.axis()
        z, moves = self.movement(float(tokens))
        assert self.posterior is not None
        moved = moves(_progress.draws(self.posterior, self._curve(z, float(tokens)), DRAWS, rng))
        drawn = math.log(self._optimum(float(tokens))) + moved + errors(part.shape(self.least_stderr))
        return np.clip(drawn, self.centre + axis[0], self.centre + axis[-1])

    def movement(self, tokens: float) -> tuple[Array, Callable[[Array], Array]]:
        """How the optimum at `tokens` follows the losses there: the z (m,) that it is read from, and the function from
        draws of their losses (s, m) to how far each moves it, ln lr (s,)."""
        part = self.section(tokens)
        if self._expands(part):
            free = np.where(part.measured, 0.0, 1.0)
            mean = np.where(part.measured, 0.0, part.loss)
            return part.log_lr - self.centre, lambda drawn: part.moved((drawn - mean) * free)
        axis = self.axis()
        lowest = _lowest(axis, self._curve(axis, tokens).mean[None, :])
        return axis, lambda drawn: _lowest(axis, drawn) - lowest

    def loss(self, lr: ArrayLike, tokens: ArrayLike) -> tuple[Array | float, Array | float]:
        """Loss at (`lr`, `tokens`), broadcast together, and its standard error, nats; NaN and inf without a model.

        It is the loss over the LR through the runs (`at`), and beyond their LRs the surface's own. Beyond the last
        tokens the error holds what the model missed when it was tried on the runs themselves.
        """
        pairs = np.broadcast(np.asarray(lr, dtype=np.float64), np.asarray(tokens, dtype=np.float64))
        each = np.array(list(pairs), dtype=np.float64).reshape(-1, 2)
        x, t = np.log(positive(each[:, 0], "lr")), positive(each[:, 1], "tokens")
        mean, stderr = np.full(t.size, math.nan), np.full(t.size, math.inf)
        for d in np.unique(t):
            here = t == d
            mean[here], stderr[here] = self._losses(x[here], float(d))
        if pairs.ndim == 0:
            return float(mean[0]), float(stderr[0])
        return mean.reshape(pairs.shape), stderr.reshape(pairs.shape)

    def run_loss(self, lr: float, tokens: float) -> tuple[float, float]:
        """Return the loss of the run at `lr` at `tokens`, and its standard error, nats.

        Unlike `loss`, which is that of the curve through all runs, it is what was measured of this run or is predicted
        for it; NaN and inf where there is neither.
        """
        part = self.section(tokens)
        own = np.flatnonzero((np.abs(part.log_lr - math.log(lr)) < SAME_LR) & np.isfinite(part.loss))
        if not own.size:
            mean, stderr = self.loss(lr, tokens)
            return float(mean), float(stderr)
        if part.measured[own].all():
            return float(part.loss[own].mean()), 0.0
        level = self._curve(part.log_lr[own] - self.centre, tokens).stderr
        return float(part.loss[own][0]), math.hypot(float(level[0]), self._ahead(tokens))

    def _ahead(self, tokens: float) -> float:
        """Standard error of losses beyond the last tokens because of what the model missed on the runs themselves."""
        if self.posterior is None:
            return 0.0
        return self.miss * self.posterior.points.slope * max(math.log(tokens / self.tokens_range[1]), 0.0)

    def _losses(self, x: Array, tokens: float) -> tuple[Array, Array]:
        """Losses at ln lr `x` (m,) and one token count, and their standard errors."""
        part = self.section(tokens)
        within = part.log_lr[np.isfinite(part.loss)]
        inside = np.clip(x, within[0], within[-1]) if within.size else x
        mean, stderr = (np.asarray(v) for v in part.fit.predict(np.exp(inside)))
        if self.posterior is None:
            return np.where(inside == x, mean, math.nan), np.where(inside == x, stderr, math.inf)
        own, edge = (self._curve(v - self.centre, tokens) for v in (x, inside))
        stderr = np.hypot(np.hypot(stderr, own.stderr), self._ahead(tokens))
        return mean + own.mean - edge.mean if within.size else own.mean, stderr

    def axis(self) -> Array:
        """The z, ln lr - `centre`, among which optima are looked for (STEPS,)."""
        ends = np.log(self.lrs[[0, -1]]) - self.centre
        return np.linspace(ends[0] - BEYOND, ends[1] + BEYOND, STEPS)

    def _curve(self, z: Array, tokens: float) -> _progress.Curve:
        if self.posterior is None:
            raise RuntimeError("internal error: a surface without a model has no curve")
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


@one_thread
def fit_surface(
    lr: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    *,
    current_lr: ArrayLike | None = None,
    schedule: Schedule | str | None = None,
    lr_range: tuple[float, float] | None = None,
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
        lr_range: Lowest and highest LR that were searched; those of `lr` by default.

    Returns:
        The surface; `status` is whether it has an optimum, and `not_constant` where the LRs fall throughout. Without a
        model (`too_few`, `too_short`, `not_falling`) it still has the optimum where the losses themselves were
        measured.

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
    keep, decay = stable(x, t, y, current_lr, Schedule.of(schedule))
    if not keep.any():
        return _failed(Status.NOT_CONSTANT, f"{decay}: the surface holds at a constant one")
    x, t, y = x[keep], t[keep], y[keep]
    last = float(t.max())
    averaged = {float(one): average(t[x == one], y[x == one]) for one in np.unique(x)}
    diverged = np.array([one for one, (_, v, _) in averaged.items() if not np.isfinite(v[-1])])
    raw = {one: in_order(t[x == one], y[x == one]) for one in averaged if one not in diverged}
    surface = LossSurface(
        lrs=np.empty(0), tokens_range=(math.nan, last), status=Status.TOO_FEW, message="", lr_range=lr_range,
        curves=raw, diverged=diverged,
    )  # fmt: skip
    count = sum(min(d.size, math.log(d[-1] / d[0]) / _progress.BIN + 1) for d, _, _ in averaged.values())
    width = _progress.BIN * max(1.0, count / MAX_POINTS)
    binned = {one: _progress.binned(np.log(d / last), v, n, width) for one, (d, v, n) in averaged.items() if one in raw}
    runs = {one: run for one, run in binned.items() if run[0].size >= MIN_POINTS}
    if len(runs) < MIN_LRS:
        if not raw:
            why = f"all {diverged.size} runs diverged: the optimum is below LR {math.exp(diverged.min()):.3g}"
            return replace(surface, status=Status.DIVERGED, message=why)
        status = Status.TOO_FEW if len(averaged) < MIN_LRS or diverged.size else Status.TOO_SHORT
        why = f"{len(runs)} LRs with {MIN_POINTS} evaluations spread over tokens, {MIN_LRS} needed"
        return replace(surface, status=status, message=why)
    best = min(runs, key=lambda one: float(runs[one][1][-1]))
    points = _progress.assemble({one - best: run for one, run in runs.items()})
    posterior = _progress.posterior(points) if points.slope > 0 else None
    if posterior is None or not posterior.weight.size:
        return replace(surface, status=Status.NOT_FALLING, message="the loss of the best run does not fall")
    missed, foreseen = _backtest.misses(runs, MIN_LRS, MIN_POINTS)
    above = diverged[diverged > best]
    surface = replace(
        surface, lrs=np.exp(np.array(list(runs))), centre=best, posterior=posterior,
        tokens_range=(last * math.exp(min(run[0][0] for run in runs.values())), last),
        upper_bound=math.exp(above.min()) if above.size else math.inf, miss=_backtest.size(missed, foreseen),
    )  # fmt: skip
    status, message = _status(surface, missed)
    if decay is not None:
        message += f"; it is that of the stable phase: {decay}"
    return replace(surface, status=status, message=message)


def _status(surface: LossSurface, missed: Array) -> tuple[Status, str]:
    fit = surface.at(surface.tokens_range[1])
    if fit.status not in USABLE:
        return fit.status, f"at the last tokens {fit.message}"
    inside = f"the best LR at the last tokens, {fit.lr:.3g}, lies inside the measured LRs"
    if not missed.size:
        return Status.NOT_CONVERGING, f"{inside}; the runs are too short to try a prediction beyond them on themselves"
    if math.sqrt(float(np.mean(missed**2))) > MISSED:
        wrong = "too high" if missed.mean() < 0 else "too low"
        return (
            Status.NOT_CONVERGING,
            f"{inside}; what the first part of the runs predicts is {wrong}, so that a prediction beyond is a guess",
        )
    return fit.status, inside if fit.ok else f"at the last tokens {fit.message}"


def _failed(status: Status, message: str) -> LossSurface:
    return LossSurface(lrs=np.empty(0), tokens_range=(math.nan, math.nan), status=status, message=message)
