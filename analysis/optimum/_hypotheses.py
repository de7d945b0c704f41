"""Posterior probability of every hypothesis about a cell: where the optimum is, which shape the loss has around it, how
far that shape holds, what it misses and how noisy runs are. Exact on a grid.

Model, in units of the curvature, for the LRs of a window around the best:
    h = a + c·f_k(x - m) + g(x) + e
f_k is a shape of one minimum (`_shapes`), g what it misses, a Gaussian process (one part grows with the height above
the best loss, as the error of an expansion does, the other is the same everywhere), e the noise of a run. a has a flat
prior, c a log-normal one around the curvature that the heights show. Both are integrated out. Beyond the window losses
have jumped to another branch (a cliff above, a plateau below); their heights then are anything above, on a logarithmic
scale.

Notation and shapes
    m   ln of the best LR, on a grid                              (M,)
    t   noise model: noise of a run × misfit of the shape         (T,)
    j   window: the number of lowest LRs that lie on the curve    (J,), of those that are contiguous in LR
    p   posterior probability of the hypotheses that are not negligible        (H,), sums to 1
    W   inverse Cholesky factor of the covariance of g + e, in order of height: its leading block is that of a window
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum._losses import NEAR, Losses, usual_curvature
from raylr.analysis.optimum._shapes import FIXED, log_prior, matern, shapes
from raylr.analysis.optimum.prior import OptimumPrior

Array = NDArray[np.float64]

NOISES = (1e-4, 3e-3, 0.03, 0.1, 0.3, 1.0, 3.0)
NOISE_WEIGHTS = (1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25)
"""Standard deviation of one run, in units of the curvature, and prior weights: from runs that repeat exactly to a noise
that is as large as what a factor e of the LR changes. Language models have about 0.03 to 0.3 (0.1 % noise, curvature
0.4 to 3 %)."""
ROUGH = 0.4
"""Standard deviation, in units of the curvature, of what the shape misses on a rough curve."""
MISFITS = ((0.01, 0.005), (0.07, 0.05), (0.2, ROUGH))
MISFIT_WEIGHTS = (1.0, 1.0, 0.5)
ROUGH_SHARE = MISFIT_WEIGHTS[-1] / sum(MISFIT_WEIGHTS)
"""What the shape misses, equally likely: as a share of the height, and everywhere, in units of the curvature. From an
exact shape to one whose minimum the rest moves by half an e-fold (0.4·√(5/3)/(2·`SHORT`)), which has a prior
probability of `ROUGH_SHARE`."""
LONG, SHORT = 1.5, 0.5
"""Correlation lengths of g in ln lr: of most of the part that grows with height, and of the rest."""
LONG_SHARE = 0.7
LEAST_JUMP = 0.3
"""Height in units of the curvature from which a loss can have jumped: the curve itself is as high half an e-fold from
its minimum."""
CURVATURE_LOG_SD = 1.5
"""Standard deviation of ln c around the unit, which is itself a guess of the curvature: a factor 4.5."""
WIDE = (1.0, 4.0)
"""Mean and standard deviation of c where two losses leave it open."""
JUMP = 4.0
"""ln of the range of heights to which losses jump: from the highest down to 2 % of it, and quickly less likely below.
What differs by less from the best loss lies on its curve."""
WINDOW = {"whole": 0.63, "cliff": 0.3, "other": 0.05, "point": 0.02}
"""Prior probability that all LRs lie on one curve; that only those above the best do not (a cliff: so in a third of the
cells of public tables whose range was wide enough); that others do not; and that none but the best does."""
VERTEX_STEPS = (-0.04, -0.01, 0.0, 0.01, 0.04)
"""Candidates of the optimum around the minimum of a parabola through the lowest LRs."""
CLOSE = 1e-6
"""Points of a grid closer than this in ln lr are one."""
CLIFF_BESIDE = 0.1
"""Most of it for a cliff in one given gap between LRs where a prior knows optimum and curvature: such LRs are close."""
OUTSIDE = 1.0
"""The prior of the optimum falls by a factor e with each e-fold outside of the range."""
NEGLIGIBLE = 23.0
"""Hypotheses less likely than the best by more than this, in ln, are dropped: all of them, 1e5 at most, together have a
probability below 1e-5, a four-hundredth of one draw."""


@dataclass(frozen=True, kw_only=True)
class Hypotheses:
    """All hypotheses and their probabilities."""

    losses: Losses
    low: float
    high: float
    m: Array
    sharp: Array
    """r and p of the sharp shapes, (K2, 2)."""
    kinks: Array
    """ln lr where lines through the LRs on both sides of the best meet, (0 to 2,)."""
    windows: NDArray[np.intp]
    """How many of the lowest LRs are in each window, (J,)."""
    models: Array
    """Noise, misfit as a share of height, misfit everywhere: (T, 3)."""
    whiten: Array
    """W, (T, n, n)."""
    form: tuple[int, int, int, int]
    """(T, J, M, K)."""
    at: NDArray[np.intp]
    """Flat index of each hypothesis that is kept, ascending, (H,)."""
    p: Array
    """(H,)."""
    curvature: tuple[float, float] | None
    """Mean and standard deviation of the prior of c, if there is one."""


def bracket(losses: Losses) -> tuple[float, float]:
    """ln lr of the neighbours of the best LR; an e-fold away where there is none."""
    best = losses.x[0]
    below, above = losses.tried[losses.tried < best], losses.tried[losses.tried > best]
    return (float(below[-1]) if below.size else best - 1.0), (float(above[0]) if above.size else best + 1.0)


def enumerate_hypotheses(losses: Losses, low: float, high: float, prior: OptimumPrior) -> Hypotheses:
    """Return all hypotheses about a cell, weighed by its losses.

    Args:
        losses: The losses; at least one is finite.
        low: Lower end of the range in which the optimum is searched, ln lr.
        high: Upper end of that range, ln lr.
        prior: What is known about the optimum from other cells.
    """
    kinks, ratios = _kinks(losses)
    m = _candidates(losses, low, high, prior, kinks)
    sharp = np.concatenate([FIXED, np.stack([ratios, np.ones_like(ratios)], axis=1)])
    f = shapes(losses.x[:, None] - m, sharp)
    models = np.array([(s, *misfit) for misfit in MISFITS for s in NOISES])
    variance = models[:, :1] ** 2 / losses.count + losses.error**2
    whiten = np.linalg.inv(np.linalg.cholesky(covariance(models, losses.x, losses.h, variance)))
    windows, log_window = _windows(losses, prior)
    usual = _usual(losses, windows)
    of_window = _log_noise(models, losses)[:, None] + log_window + _beyond(losses, windows)
    of_shape = (_within(losses, windows, m) + _log_center(m, low, high, prior))[:, :, None] + log_prior(
        prior.skew, prior.skew_sd, ratios
    )
    size = of_shape[0].size * windows.size
    found: list[tuple[NDArray[np.intp], Array]] = []
    for i in range(0, len(models), len(NOISES)):  # one misfit at a time: the arrays of all of them exceed a cache
        part = slice(i, i + len(NOISES))
        fit = _Fit(whiten[part], losses.h, f, windows, usual, _normal(prior, losses.unit))
        here, log_here = fit.posterior(of_window[part], of_shape)
        found.append((here + i * size, log_here))
    at, log_p = (np.concatenate(values) for values in zip(*found, strict=True))
    kept = log_p >= log_p.max() - NEGLIGIBLE
    at, log_p = at[kept], log_p[kept]
    p = np.exp(log_p - log_p.max())
    return Hypotheses(
        losses=losses, low=low, high=high, m=m, sharp=sharp, kinks=kinks, windows=windows, models=models,
        whiten=whiten, form=(len(models), windows.size, m.size, of_shape.shape[2]), at=at, p=p / p.sum(),
        curvature=_normal(prior, losses.unit),
    )  # fmt: skip


def covariance(models: Array, x: Array, h: Array, variance: Array) -> Array:
    """Return the covariance of g + e between n LRs for every noise model, in units squared (T, n, n).

    Args:
        models: Noise, misfit as a share of the height, misfit everywhere (T, 3).
        x: ln of the LRs (n,).
        h: Heights there, in units (n,).
        variance: Variance of each mean height by noise alone, in units squared (T, n).
    """
    distance = x[:, None] - x
    share = LONG_SHARE * matern(distance, LONG) + (1 - LONG_SHARE) * matern(distance, SHORT)
    height = models[:, 1, None, None] ** 2 * (np.outer(h, h) * share)
    out = height + models[:, 2, None, None] ** 2 * matern(distance, SHORT)
    index = np.arange(x.size)
    out[:, index, index] += variance + 1e-9 * out[:, index, index]
    return np.asarray(out)


def _candidates(losses: Losses, low: float, high: float, prior: OptimumPrior, kinks: Array) -> Array:
    """Candidates of the optimum: wide steps over the range and beyond, fine ones around the best LR."""
    beyond = 0.25 * (high - low) + 0.5
    wide = np.linspace(low - beyond, high + beyond, 25)
    left, right = bracket(losses)
    fine = [np.linspace(left, right, 17)]
    vertices = [*_vertices(losses, float(wide[0]), float(wide[-1])), *kinks]
    fine += [v + np.array(VERTEX_STEPS) for v in vertices]
    if prior.center is not None:
        fine.append(prior.center + prior.center_sd * np.linspace(-3, 3, 19))
    return distinct(np.concatenate([wide, *fine]))


def distinct(values: Array, first: Array | None = None) -> Array:
    """`values` in order without those that rounding alone tells apart from others or from `first`, which are added."""
    out = np.sort(values)
    out = out[np.append(True, np.diff(out) > CLOSE)]
    if first is None:
        return np.asarray(out)
    return np.sort(np.append(out[np.abs(out[:, None] - first).min(axis=1) > CLOSE], first))


def _vertices(losses: Losses, low: float, high: float) -> list[float]:
    """Minima of parabolas through the lowest LRs: candidates that an exact parabola needs: it leaves no room for a
    grid."""
    out = []
    for size in (3, 4, 6):
        x, h = losses.x[:size], losses.h[:size]
        if x.size < size:
            break
        u = x - x[0]
        square, slope, _ = np.linalg.lstsq(np.stack([u * u, u, np.ones(size)], axis=1), h)[0]
        if square > 0 and low < x[0] - 0.5 * slope / square < high:
            out.append(float(x[0] - 0.5 * slope / square))
    return out


def _kinks(losses: Losses) -> tuple[Array, Array]:
    """Where straight lines through the two nearest LRs on either side of the minimum meet, (0 to 2,), and ln of the
    ratio of their slopes: what an exact kink needs. The best LR is on the one line or on the other; on both, where the
    kink is at that LR."""
    x, h, best = losses.tried, losses.tried_h, int(np.argmin(losses.tried_h))
    kinks: list[float] = []
    ratios: list[float] = []
    for i in (best - 1, best):
        if not 1 <= i < x.size - 2:
            continue
        below, above = (h[i] - h[i - 1]) / (x[i] - x[i - 1]), (h[i + 2] - h[i + 1]) / (x[i + 2] - x[i + 1])
        if below < 0 < above:
            at = x[i] + (h[i + 1] - h[i] - above * (x[i + 1] - x[i])) / (below - above)
            known = any(abs(at - other) <= 2 * CLOSE for other in kinks)
            if x[i] - CLOSE <= at <= x[i + 1] + CLOSE and not known:
                kinks.append(at)
                ratios.append(math.log(above / -below))
    return np.array(kinks), np.array(ratios)


def _log_center(m: Array, low: float, high: float, prior: OptimumPrior) -> Array:
    width = np.log(np.gradient(m))
    if prior.center is not None:
        return np.asarray(width - 0.5 * ((m - prior.center) / prior.center_sd) ** 2)
    return np.asarray(width - np.maximum(0.0, np.maximum(low - m, m - high)) / OUTSIDE)


def _normal(prior: OptimumPrior, unit: float) -> tuple[float, float] | None:
    """Normal distribution of c with the mean and standard deviation of the prior's log-normal one."""
    if prior.curvature is None:
        return None
    s2 = min(prior.curvature_log_sd, 1.5) ** 2
    mean = prior.curvature / unit * math.exp(0.5 * s2)
    return mean, mean * math.sqrt(math.expm1(s2))


def _usual(losses: Losses, windows: NDArray[np.intp]) -> Array:
    """The curvature that the LRs of each window show, in units, (J,): the unit is that of all LRs, and a loss that has
    jumped says nothing of the curve that it left."""
    out = np.ones(windows.size)
    for j, size in enumerate(windows):
        x, h = losses.x[:size], losses.h[:size]
        if size < losses.x.size and np.any((np.abs(x - x[0]) > NEAR) & (h > 0)):
            out[j] = usual_curvature(x, h, 0)
    return out


def _log_noise(models: Array, losses: Losses) -> Array:
    """Log likelihood of every noise given the scatter of replicates, (T,)."""
    weight = np.log(np.outer(MISFIT_WEIGHTS, NOISE_WEIGHTS).ravel())
    if losses.scatter_dof == 0:
        return np.asarray(weight)
    known = float(np.mean(losses.error**2 * losses.count))
    variance = models[:, 0] ** 2 + known
    return np.asarray(weight - 0.5 * losses.scatter_dof * (np.log(variance) + losses.scatter / variance))


def _windows(losses: Losses, prior: OptimumPrior) -> tuple[NDArray[np.intp], Array]:
    """Contiguous windows of the lowest LRs and their log prior probabilities."""
    x, n = losses.x, losses.x.size
    size = np.arange(1, n + 1)
    first, last = np.minimum.accumulate(x), np.maximum.accumulate(x)
    beyond = np.append(np.minimum.accumulate(x[::-1])[::-1][1:], np.inf)  # the lowest LR outside of each window
    inside = (x > first[:, None]) & (x < last[:, None]) & (np.arange(n) >= size[:, None])
    size = size[~inside.any(axis=1)]  # a curve of one minimum does not leave its window and come back
    cliff = (beyond[size - 1] > x[0]) & (size >= min(2, n - 1))
    kinds = [
        "whole" if j == n else "cliff" if above else "other" if j >= 3 else "point"
        for j, above in zip(size.tolist(), cliff.tolist(), strict=True)
    ]
    share = {k: WINDOW[k] / max(kinds.count(k), 1) for k in WINDOW}
    if prior.informative:
        share["cliff"] = min(share["cliff"], CLIFF_BESIDE)
    share["whole"] = 1.0 - sum(share[k] * kinds.count(k) for k in share if k != "whole")
    log_p = np.array([math.log(share[k]) for k in kinds])
    return size, log_p


def _beyond(losses: Losses, windows: NDArray[np.intp]) -> Array:
    """Log density of the heights beyond each window, (J,)."""
    if losses.h.max() == 0:
        return np.where(windows == losses.h.size, 0.0, -np.inf)
    h = np.maximum(losses.h, 1e-12 * losses.h.max())
    share = np.log(h / h.max())
    density = -np.log(h) - math.log(JUMP + 0.5) + 2.0 * np.minimum(0.0, share + JUMP)
    density = density + 2.0 * np.minimum(0.0, np.log(h / LEAST_JUMP))
    return np.array([density[j:].sum() for j in windows])


def _within(losses: Losses, windows: NDArray[np.intp], m: Array) -> Array:
    """0 where an optimum lies on the curve of a window, -inf beyond an LR that has left it: (J, M).

    Otherwise a curve that holds for few LRs would have its minimum far away, as deep as its shape falls on the way.
    """
    outside = np.arange(losses.x.size) >= windows[:, None]
    below, above = losses.x < losses.x[0], losses.x > losses.x[0]  # the best LR is on every curve
    lowest = np.where(outside & below, losses.x, -np.inf).max(axis=1)[:, None]
    highest = np.where(outside & above, losses.x, np.inf).min(axis=1)[:, None]
    return np.where((m < lowest - CLOSE) | (m > highest + CLOSE), -np.inf, 0.0)


class _Fit:
    """Least squares of (a, c) for every noise model, window, optimum and shape at once.

    The whitened rows are ordered by height, so that the sums of a window are those of its first rows.
    """

    def __init__(
        self, whiten: Array, h: Array, f: Array, windows: NDArray[np.intp], usual: Array,
        curvature: tuple[float, float] | None,
    ):  # fmt: skip
        n, size = h.size, f.shape[1] * f.shape[2]
        member = (np.arange(n) < windows[:, None]).astype(np.float64)  # (J, n)
        one, y = whiten.sum(axis=2), whiten @ h
        wf = whiten @ f.reshape(n, size)
        s_11, s_1y, s_yy = ((v @ member.T) for v in (one * one, one * y, y * y))
        self.form = (len(whiten), windows.size, f.shape[1], f.shape[2])
        s_1f = (member * one[:, None, :]) @ wf  # (T, J, M·K)
        s_ff = member @ (wf * wf)
        floor = 1e-14 * s_ff
        floor += 1e-200
        self.cfy = (member * y[:, None, :]) @ wf  # in place from here: these arrays are large
        mean = s_1f / s_11[:, :, None]
        s_1f *= mean
        s_ff -= s_1f
        self.cff = np.maximum(s_ff, floor, out=s_ff)
        mean *= s_1y[:, :, None]
        self.cfy -= mean
        self.cyy = np.maximum(s_yy - s_1y**2 / s_11, 0.0)
        volume = np.log(np.diagonal(whiten, axis1=1, axis2=2)) @ member.T
        self.volume = volume - 0.5 * np.log(s_11) - 0.5 * (windows - 1) * math.log(2 * math.pi)
        self.single = windows <= 1
        self.log_usual = np.log(usual)
        self.curvature = curvature

    def posterior(self, of_window: Array, of_shape: Array) -> tuple[NDArray[np.intp], Array]:
        """Flat indices in `form` of the hypotheses that are not negligible, and the log densities of each with the
        heights (H,), a and c integrated out, from the log priors `of_window` (T, J) and `of_shape` (J, M, K).

        The integral over c only lowers a density: where the rest of it is negligible it is not worked out.
        """
        if self.curvature is None:
            bound = self.cfy * self.cfy
            bound /= self.cff
            bound -= self.cyy[:, :, None]
        else:
            mean, sd = self.curvature
            bound = (self.cfy + mean * sd**-2) ** 2
            bound /= self.cff + sd**-2
            bound -= (self.cyy + mean**2 * sd**-2)[:, :, None]
        bound *= 0.5
        np.minimum(bound, 0.0, out=bound)
        bound += of_shape.reshape(self.form[1], -1)
        bound += (self.volume + of_window)[:, :, None]
        flat = bound.ravel()
        first = np.array([int(np.argmax(flat))])
        at = np.flatnonzero(flat >= flat[first] + self._curvature_integral(first) - NEGLIGIBLE)
        return at, flat[at] + self._curvature_integral(at)

    def _curvature_integral(self, at: NDArray[np.intp]) -> Array:
        """Log of the share of its prior that the losses leave of c, at most 0, at the flat indices `at` (H,)."""
        cff, cfy = self.cff.ravel()[at], self.cfy.ravel()[at]
        if self.curvature is not None:
            mean, sd = self.curvature
            precision = cff + sd**-2
            z = (cfy + mean * sd**-2) / np.sqrt(precision)
            return np.asarray(_log_positive(z) - 0.5 * np.log(precision) - math.log(sd))
        c = cfy / cff
        # The volume that the losses leave of c's prior, by Laplace's method; where they do not determine c, all of it.
        window = at // (self.form[2] * self.form[3]) % self.form[1]
        size = 0.5 * np.log(c * c + 1.0 / cff)
        away = (size - self.log_usual[window]) / CURVATURE_LOG_SD
        out = _log_positive(c * np.sqrt(cff)) - 0.5 * np.log(cff) - size - 0.5 * away**2
        out = np.minimum(out - math.log(CURVATURE_LOG_SD), 0.0)
        return np.where(self.single[window], 0.0, out)


def _log_positive(z: Array) -> Array:
    """Log probability that a normal variable of mean z and sd 1 is above zero, by the logistic curve: within 0.01 of
    the probability, at a tenth of the cost of the exact one."""
    return np.asarray(-np.log1p(np.exp(np.minimum(-1.702 * z, 700.0))))
