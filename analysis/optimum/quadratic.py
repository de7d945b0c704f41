"""Eq. 2 of Zhou et al. 2026: the loss over LRs near its optimum, L(lr) = loss_min + curvature * (ln lr - ln lr_opt)^2.

Notation
    x        ln lr, the natural logarithm                                        (n,)
    y, s     loss in nats and the standard deviation of its noise                (n,)
    w        weight of a point, 1 / (noise^2 + model error^2)                    (n,)
    m        candidate optima, ln lr                                             (M,)
    k, c     candidate skews (K,) and curvatures; loss_min is linear and solved for

Real curves are steeper above the optimum than below, so the square is bent: S(d) = 2 (exp(k d) - 1 - k d) / k^2, which
is d^2 at k = 0, its second-order expansion for any k. The skew k is held near its prior (0 without one) and is zero on
data that are a quadratic. What is left out still grows with the distance from the optimum: a point's model error is a
share `MODEL_ERROR` of its excess loss over the best. A run far above the rest then weighs next to nothing, and a
diverged one (NaN, inf, or `DIVERGED` above the best) nothing at all: it only bounds the optimum from above. The one
exception: three LRs determine a quadratic but no skew, and with a diverged run above them the usual skew is taken.

The interval is a profile likelihood: all optima whose best curve (curvature >= 0) is not significantly worse than the
best of all. It is one-sided where the points do not bracket the optimum, which a covariance cannot express.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, level_of, losses_of, positive, same_length, standard_errors

RELATIVE_NOISE = 5e-4
"""Noise of a loss where none is given: 0.05 % (two runs of one setting differ by 0.03-0.4 % on public curves)."""
NOISE_DOF = 4.0
"""How many residuals the assumed noise is worth when the residuals speak against it."""
MODEL_ERROR = 0.3
"""Error of the curve as a share of the excess loss over the best point."""
DIVERGED = 0.5
"""A loss this share above the best (and NaN, inf) is a diverged run, not a measurement of the curve."""
SHARED_ERROR = 1.7
"""Variance inflation of the interval: model errors of neighbouring LRs are alike, so residuals understate them."""
SKEW_SD = 0.6
"""Standard deviation of the skew's prior: progress as lr^-0.3 against a floor as lr^0.6 has 0.3, divergence has
more."""
SKEW_DIVERGED = 0.6
"""Skew assumed where three usable LRs are left, which cannot tell it, and a run above them diverged: the curve turns up
towards that one. The median of the skews fitted on 77 public cells (all LRs) with a diverged run."""
REACH = 7.0
"""How far beyond the measured LRs, in ln lr, optima are considered; an interval that gets there is open."""


@dataclass(frozen=True, kw_only=True)
class QuadraticPrior:
    """What other cells say of a cell's curve: a log-normal curvature and, optionally, a log-normal optimum and a
    skew."""

    curvature: float
    """Nats per (ln lr)^2, above zero."""
    curvature_log_sd: float
    """Standard deviation of ln curvature."""
    lr_opt: float | None = None
    """Centre of the optimum's prior, None for no opinion."""
    log_lr_opt_sd: float = math.inf
    """Standard deviation of ln lr_opt."""
    skew: float = 0.0
    """Centre of the skew's prior."""
    skew_sd: float = SKEW_SD
    """Standard deviation of the skew's prior."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.curvature) and self.curvature > 0):
            raise ValueError(f"the prior's curvature must be above zero, got {self.curvature}")
        if not (self.curvature_log_sd > 0 and self.log_lr_opt_sd > 0 and self.skew_sd > 0):
            raise ValueError("the prior's curvature_log_sd, log_lr_opt_sd and skew_sd must be above zero")
        if self.lr_opt is not None and not (math.isfinite(self.lr_opt) and self.lr_opt > 0):
            raise ValueError(f"the prior's lr_opt must be above zero or None, got {self.lr_opt}")
        if not math.isfinite(self.skew):
            raise ValueError(f"the prior's skew must be finite, got {self.skew}")


@dataclass(frozen=True, kw_only=True)
class QuadraticFit:
    """A fitted quadratic in ln lr. Fields are NaN where the points cannot tell; `status` and `message` say why."""

    lr_opt: float
    """LR of the lowest loss. At `edge_*` the estimate, no further than one step of the LRs beyond the measured ones."""
    loss_min: float
    """Loss at `lr_opt`, nats."""
    curvature: float
    """Nats per (ln lr)^2."""
    skew: float = 0.0
    """How much steeper the curve is above the optimum (third over second derivative); 0 is Eq. 2 itself."""
    r2: float
    """Share of variance explained, over the points that carry weight."""
    rmse: float
    """Root mean square residual over the same points, nats."""
    status: str
    """`ok`, `edge_low`, `edge_high` (optimum beyond the lowest/highest LR), `flat`, `concave` or `too_few`."""
    message: str
    """One sentence: why this status."""
    profile_x: Array = field(repr=False)
    """Candidate optima, ln lr (M,)."""
    profile: Array = field(repr=False)
    """Misfit of each candidate above the best, in units of the noise variance (M,)."""
    dof: float = math.inf
    """Degrees of freedom behind the noise variance."""
    upper_bound: float = math.inf
    """Lowest LR above the best at which a run diverged: the optimum is below."""

    @property
    def ok(self) -> bool:
        """Whether the optimum was found inside the measured LRs."""
        return self.status == "ok"

    def lr_interval(self, level: float = 0.9) -> tuple[float, float]:
        """The interval of `lr_opt` at confidence `level`; 0 or inf on a side that the points leave open."""
        level_of(level)
        if self.profile.size == 0:
            return 0.0, self.upper_bound
        from scipy import special

        limit = float(special.fdtri(1.0, self.dof, level))
        inside = np.flatnonzero(self.profile <= limit)
        first, last = int(inside[0]), int(inside[-1])
        low = 0.0 if first == 0 else math.exp(self._crossing(first - 1, first, limit))
        high = math.inf if last == self.profile.size - 1 else math.exp(self._crossing(last, last + 1, limit))
        return min(low, self.upper_bound), min(high, self.upper_bound)

    def _crossing(self, i: int, j: int, limit: float) -> float:
        one, other = math.sqrt(self.profile[i]), math.sqrt(self.profile[j])  # nearly straight, as the profile is not
        share = (math.sqrt(limit) - one) / (other - one)
        return float(self.profile_x[i] + share * (self.profile_x[j] - self.profile_x[i]))

    def draws(self, count: int, rng: np.random.Generator) -> Array:
        """`count` errors of ln lr_opt, candidate less best one, whose quantiles are those of `lr_interval` (count,).

        Student's t is put where the root of the profile, signed, equals it: a confidence distribution. NaN without a
        fit.
        """
        if self.profile.size == 0:
            return np.full(count, math.nan)
        best, root = int(np.argmin(self.profile)), np.sqrt(self.profile)
        below = -np.maximum.accumulate(root[best::-1])[::-1]
        above = np.maximum.accumulate(root[best:])
        t = rng.standard_t(self.dof, count) if math.isfinite(self.dof) else rng.standard_normal(count)
        at = np.interp(t, np.append(below[:-1], above), self.profile_x)
        return np.asarray(at - self.profile_x[best])

    def log_lr_stderr(self) -> float:
        """Standard error of ln lr_opt: half the 68.3 % interval; inf where that is open."""
        low, high = self.lr_interval(0.6827)
        return math.inf if low == 0 or not math.isfinite(high) else 0.5 * math.log(high / low)

    def regret(self, lr: ArrayLike) -> Array | float:
        """Loss at `lr` above `loss_min`, nats, same shape as `lr`; NaN where the curve is unknown."""
        d = np.log(positive(np.ravel(lr), "lr")) - (math.log(self.lr_opt) if self.lr_opt > 0 else math.nan)
        out = (self.curvature * bend(d, np.array(self.skew))).reshape(np.shape(lr))
        return float(out) if out.ndim == 0 else out

    def predict(self, lr: ArrayLike) -> Array | float:
        """Loss at `lr`, nats, same shape as `lr`; NaN where the curve is unknown."""
        return self.loss_min + self.regret(lr)


def fit_quadratic(
    lr: ArrayLike, loss: ArrayLike, *, loss_stderr: ArrayLike | None = None, prior: QuadraticPrior | None = None
) -> QuadraticFit:
    """Fit Eq. 2 to the losses of one cell.

    `lr` and `loss`: flat arrays of one length, in any order; LRs may repeat (their scatter then informs the noise).
    `loss_stderr`: standard error of each loss, nats (scalar or flat); 0.05 % of the best loss is assumed without, and
    the residuals decide with it. NaN and inf losses are diverged runs. Three different LRs are needed, with a `prior`
    one (its interval is then mostly the prior's). Raises ValueError for LRs that are not positive, for unequal lengths,
    for arrays that are not flat and for a prior that is not a `QuadraticPrior`.
    """
    if not (prior is None or isinstance(prior, QuadraticPrior)):
        raise ValueError(f"prior must be a QuadraticPrior or None, got {type(prior).__name__}")
    x = np.log(positive(lr, "lr"))
    y = losses_of(loss, "loss")
    same_length(lr=x, loss=y)
    s = standard_errors(loss_stderr, y.size, "loss_stderr")
    order = np.lexsort((y, x))
    keep, bound = _converged(x, y)
    order = order[keep[order]]
    x, y, s = x[order], y[order], None if s is None else s[order]
    distinct = np.unique(x).size
    if distinct < (3 if prior is None else 1):
        need = "3 different LRs" if prior is None else "1 LR"
        return _failed("too_few", f"{distinct} usable LR(s): a quadratic needs {need} with a finite loss", bound)
    noise = (
        np.full(y.size, max(RELATIVE_NOISE * abs(float(y.min())), 1e-12 * float(np.abs(y).max()), 1e-60))
        if s is None
        else s
    )
    return _fit(x, y, noise, bound, prior, known=s is not None)


def _converged(x: Array, y: Array) -> tuple[Array, float]:
    """Which points measure the curve, and the lowest LR above the best at which a run diverged (inf without one)."""
    keep = np.isfinite(y)
    if not keep.any():
        return keep, math.inf
    best = float(y[keep].min())
    keep &= np.where(keep, y, math.inf) <= best + DIVERGED * abs(best)
    lost = x[~keep & (x > x[keep][np.argmin(y[keep])])]
    return keep, math.exp(lost.min()) if lost.size else math.inf


def weights(y: Array, noise: Array, floor: float) -> Array:
    """Weight of each point: its noise and a model error proportional to its excess over `floor`."""
    return np.asarray(1.0 / (noise**2 + (MODEL_ERROR * np.maximum(y - floor, 0.0)) ** 2))


def bend(d: Array, k: Array) -> Array:
    """S(d): d^2 at skew 0, steeper above the optimum for k > 0. `d` and `k` broadcast."""
    u = np.clip(k * d, -30.0, 30.0)
    small = np.abs(u) < 1e-3
    safe = np.where(small, 1.0, u)
    ratio = np.where(small, 1.0 + u / 3.0 + u**2 / 12.0, 2.0 * (np.expm1(safe) - safe) / safe**2)
    return np.asarray(d**2 * ratio)


@dataclass(frozen=True, kw_only=True)
class _Profile:
    """Best misfit over skew, curvature and loss_min as a function of the optimum."""

    x: Array
    y: Array
    w: Array
    prior: QuadraticPrior | None
    skew: float
    """Centre of the skew's prior without a `prior`."""

    def __call__(self, m: Array) -> tuple[Array, Array, Array, Array]:
        """For candidates (M,): misfit, curvature, loss_min and skew."""
        centre, sd = (self.skew, SKEW_SD) if self.prior is None else (self.prior.skew, self.prior.skew_sd)
        unit = np.linspace(-2.5, 2.5, 21) if np.unique(self.x).size > 3 or self.prior is not None else np.zeros(1)
        k = centre + sd * unit
        share = self.w / self.w.sum()
        q = bend(self.x - m[:, None, None], k[:, None])  # (M, K, n)
        q_bar, y_bar = q @ share, float(self.y @ share)
        q, dy = q - q_bar[..., None], self.y - y_bar
        qq, qy, yy = (q**2) @ self.w, q @ (dy * self.w), float(dy**2 @ self.w)
        c, penalty = self._curvature(qq, qy)
        misfit = np.maximum(yy - 2 * c * qy + c**2 * qq, 0.0) + penalty + unit**2
        if self.prior is not None and self.prior.lr_opt is not None:
            misfit = misfit + ((m - math.log(self.prior.lr_opt)) / self.prior.log_lr_opt_sd)[:, None] ** 2
        at = np.arange(m.size), np.argmin(misfit, axis=1)
        return misfit[at], c[at], y_bar - (c * q_bar)[at], k[at[1]]

    def _curvature(self, qq: Array, qy: Array) -> tuple[Array, Array]:
        """Curvature >= 0 of the smallest misfit, and what its prior adds to the misfit."""
        if self.prior is None:
            c = np.maximum(qy, 0.0) / np.maximum(qq, 1e-300)
            return c, np.zeros_like(c)
        unit = np.linspace(-5, 5, 81)
        c = self.prior.curvature * np.exp(unit * min(self.prior.curvature_log_sd, 3.0))
        at = np.argmin(c**2 * qq[..., None] - 2 * c * qy[..., None] + unit**2, axis=-1)
        return c[at], unit[at] ** 2

    def lowest(self, low: float, high: float) -> float:
        """The optimum of the smallest misfit between `low` and `high`."""
        from scipy import optimize

        def misfit(m: float) -> float:
            return float(self(np.array([m]))[0][0])

        return float(optimize.minimize_scalar(misfit, bounds=(low, high), method="bounded", options={"xatol": 1e-9}).x)


def _fit(x: Array, y: Array, noise: Array, bound: float, prior: QuadraticPrior | None, *, known: bool) -> QuadraticFit:
    grid = _candidates(x)
    floor = float(y.min())
    centre = SKEW_DIVERGED if x[-1] < math.log(bound) < math.inf and np.unique(x).size <= 3 else 0.0
    for _ in range(3):
        profile = _Profile(x=x, y=y, w=weights(y, noise, floor), prior=prior, skew=centre)
        misfit, _, level, _ = profile(grid)
        best = int(np.argmin(misfit))
        inside = x[0] <= grid[best] <= x[-1]
        floor = float(np.clip(level[best], y.min() - np.ptp(y), y.min() + np.ptp(y))) if inside else float(y.min())
    opt = profile.lowest(grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)])
    value = float(profile(np.array([opt]))[0][0])
    if value > misfit[best]:
        opt, value = float(grid[best]), float(misfit[best])
    opt = min(opt, math.log(bound))
    spare = max(x.size - 3, 0)
    scale = SHARED_ERROR * (NOISE_DOF + value) / (NOISE_DOF + spare)
    above = np.maximum(misfit - value, 0.0) / (max(scale, 1.0) if known else scale)
    at = int(np.searchsorted(grid, opt))
    grid, above = np.insert(grid, at, opt), np.insert(above, at, 0.0)
    above = np.where((grid < x[0]) | (grid > x[-1]), np.maximum(above, _beyond(x, y, noise, scale, grid)), above)
    opt, above = float(grid[np.argmin(above)]), above - above.min()
    status, message = _status(profile, opt, above, NOISE_DOF + spare)
    if status in ("edge_low", "edge_high"):
        step = np.diff(np.unique(x))[[0, -1]] if x[-1] > x[0] else np.ones(2)
        opt = float(np.clip(opt, x[0] - step[0], x[-1] + step[1]))
    _, (curve,), (loss_min,), (skew,) = profile(np.array([opt]))
    if status in ("flat", "concave"):
        opt = curve = loss_min = math.nan
    used = profile.w >= 0.01 * profile.w.max()
    residual = (y - loss_min - curve * bend(x - opt, np.array(skew)))[used]
    total = float(np.sum((y[used] - y[used].mean()) ** 2))
    return QuadraticFit(
        lr_opt=math.exp(opt), loss_min=float(loss_min), curvature=float(curve), skew=float(skew),
        r2=1 - float(np.sum(residual**2)) / total if total > 0 else math.nan,
        rmse=float(np.sqrt(np.mean(residual**2))), status=status, message=message, profile_x=grid, profile=above,
        dof=NOISE_DOF + spare, upper_bound=bound,
    )  # fmt: skip


def _beyond(x: Array, y: Array, noise: Array, scale: float, grid: Array) -> Array:
    """Misfit of optima beyond the measured LRs for any curve with one minimum: the loss at that end is then the lowest
    (M,)."""
    low, high = (float(np.max(np.maximum(y[end] - y, 0.0) ** 2 / (noise[end] ** 2 + noise**2))) for end in (0, -1))
    return np.asarray(np.where(grid < x[0], low, high)) / max(scale, 1.0)


def _candidates(x: Array) -> Array:
    """Candidate optima: every 0.02 within 1 of the measured LRs, wider steps out to `REACH` (M,)."""
    near = np.linspace(
        x[0] - 1.0, x[-1] + 1.0, 2 + math.ceil((x[-1] - x[0] + 2.0) / 0.02) if x[-1] - x[0] < 20 else 1100
    )
    far = np.geomspace(0.02, REACH - 1.0, 40)
    return np.concatenate([near[0] - far[::-1], near, near[-1] + far])


def _status(profile: _Profile, opt: float, above: Array, dof: float) -> tuple[str, str]:
    from scipy import special

    x, y, w = profile.x, profile.y, profile.w
    low, high = float(x[0]), float(x[-1])
    lrs = f"the measured LRs {math.exp(low):.3g} to {math.exp(high):.3g}"
    limit = float(special.fdtri(1.0, dof, 0.9))
    if above[0] <= limit and above[-1] <= limit:
        top = float(x[np.argmax(y)])
        if low < top < high and float(w @ (y - w @ y / w.sum()) ** 2) > limit * max(x.size - 1, 1):
            return "concave", f"over {lrs} the loss does not curve upwards: no quadratic has its minimum there"
        return "flat", f"the losses over {lrs} differ by no more than their noise"
    if opt < low or opt > high:
        side, where = ("low", "below") if opt < low else ("high", "above")
        return f"edge_{side}", f"the loss still falls at the {side}est LR: the optimum lies {where} {lrs}"
    return "ok", f"the optimum {math.exp(opt):.3g} lies inside {lrs}"


def _failed(status: str, message: str, bound: float) -> QuadraticFit:
    nan, none = math.nan, np.empty(0)
    return QuadraticFit(
        lr_opt=nan, loss_min=nan, curvature=nan, skew=nan, r2=nan, rmse=nan, status=status, message=message,
        profile_x=none, profile=none, upper_bound=bound,
    )  # fmt: skip
