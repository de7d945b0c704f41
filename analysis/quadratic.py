"""Eq. 2 of Zhou et al. 2026: the loss over LRs near its optimum, L(lr) = loss_min + curvature * (ln lr - ln lr_opt)^2.

Notation
    x        ln lr, the natural logarithm                          (n,)
    y, s     loss in nats and the standard deviation of its noise  (n,)
    w        weight of a point, 1 / (noise^2 + model error^2)      (n,)
    m, c     candidate optima (grid over ln lr) and curvatures     (M,), (K,)

Eq. 2 is a second-order expansion: what it leaves out grows with the distance from the optimum, so a point's model error
is taken proportional to its excess loss over the best (`MODEL_ERROR`). A run far above the rest then weighs next to
nothing and a diverged one (NaN, inf) nothing at all: such runs only bound the optimum from above.

The interval is a profile likelihood: all optima whose best quadratic (curvature >= 0) is not significantly worse than
the best of all. It is one-sided where the points do not bracket the optimum, which a covariance cannot express.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, level_of, positive, same_length, standard_errors, vector

RELATIVE_NOISE = 1e-3
"""Noise of a loss where none is given: 0.1 % (two runs of one setting differ by 0.03-0.4 % on public curves)."""
NOISE_DOF = 4.0
"""How many residuals the assumed noise is worth when the residuals speak against it."""
MODEL_ERROR = 0.15
"""Error of Eq. 2 as a share of the excess loss over the best point."""
DIVERGED = 0.5
"""A loss this share above the best (and NaN, inf) is a diverged run, not a measurement of the curve."""
REACH = 7.0
"""How far beyond the measured LRs, in ln lr, optima are considered; an interval that gets there is open."""


@dataclass(frozen=True, kw_only=True)
class QuadraticPrior:
    """What other cells say of a cell's quadratic: a log-normal curvature and, optionally, a log-normal optimum."""

    curvature: float
    """Nats per (ln lr)^2, above zero."""
    curvature_log_sd: float
    """Standard deviation of ln curvature."""
    lr_opt: float | None = None
    """Centre of the optimum's prior, None for no opinion."""
    log_lr_opt_sd: float = math.inf
    """Standard deviation of ln lr_opt."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.curvature) and self.curvature > 0):
            raise ValueError(f"the prior's curvature must be above zero, got {self.curvature}")
        if not self.curvature_log_sd > 0 or not self.log_lr_opt_sd > 0:
            raise ValueError("the prior's standard deviations (curvature_log_sd, log_lr_opt_sd) must be above zero")
        if self.lr_opt is not None and not (math.isfinite(self.lr_opt) and self.lr_opt > 0):
            raise ValueError(f"the prior's lr_opt must be above zero or None, got {self.lr_opt}")


@dataclass(frozen=True, kw_only=True)
class QuadraticFit:
    """A fitted quadratic in ln lr. Fields are NaN where the points cannot tell; `status` and `message` say why."""

    lr_opt: float
    """LR of the lowest loss. At `edge_*` the estimate nearest to the measured range."""
    loss_min: float
    """Loss at `lr_opt`, nats."""
    curvature: float
    """Nats per (ln lr)^2."""
    r2: float
    """Share of variance explained, over the points that carry weight."""
    rmse: float
    """Root mean square residual over the same points, nats."""
    status: str
    """`ok`, `edge_low`, `edge_high` (optimum at or beyond the lowest/highest LR), `flat`, `concave` or `too_few`."""
    message: str
    """One sentence: why this status."""
    profile_x: Array = field(repr=False)
    """Candidate optima, ln lr."""
    profile: Array = field(repr=False)
    """Misfit of each candidate above the best, in units of the noise variance."""
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
        from scipy import stats

        inside = np.flatnonzero(self.profile <= stats.f.ppf(level, 1, self.dof))
        first, last = int(inside[0]), int(inside[-1])
        low = 0.0 if first == 0 else math.exp(self._crossing(first - 1, first, level))
        high = math.inf if last == self.profile.size - 1 else math.exp(self._crossing(last, last + 1, level))
        return low, min(high, max(self.upper_bound, low))

    def _crossing(self, i: int, j: int, level: float) -> float:
        from scipy import stats

        a, b = self.profile[i], self.profile[j]
        share = (stats.f.ppf(level, 1, self.dof) - a) / (b - a)
        return float(self.profile_x[i] + share * (self.profile_x[j] - self.profile_x[i]))

    def log_lr_stderr(self) -> float:
        """Standard error of ln lr_opt: half the 68.3 % interval; inf where that is open."""
        low, high = self.lr_interval(0.6827)
        return math.inf if low == 0 or not math.isfinite(high) else 0.5 * math.log(high / low)

    def regret(self, lr: ArrayLike) -> Array | float:
        """Loss at `lr` above `loss_min`, nats, same shape as `lr`; NaN where the curve is unknown."""
        x = np.log(positive(np.atleast_1d(np.asarray(lr, dtype=np.float64)), "lr"))
        out = self.curvature * (x - (math.log(self.lr_opt) if self.lr_opt > 0 else math.nan)) ** 2
        return float(out[0]) if np.ndim(lr) == 0 else out

    def predict(self, lr: ArrayLike) -> Array | float:
        """Loss at `lr`, nats, same shape as `lr`."""
        return self.loss_min + self.regret(lr)


def fit_quadratic(
    lr: ArrayLike, loss: ArrayLike, *, loss_stderr: ArrayLike | None = None, prior: QuadraticPrior | None = None
) -> QuadraticFit:
    """Fit Eq. 2 to the losses of one cell.

    `lr` and `loss`: flat arrays of one length, in any order, LRs may repeat (their scatter then informs the noise).
    `loss_stderr`: standard error of each loss, nats (scalar or flat); 0.1 % is assumed without. NaN and inf losses are
    diverged runs. Three different LRs are needed, with a `prior` one (its interval is then mostly the prior's).
    Raises ValueError for LRs that are not positive, for unequal lengths and for arrays that are not flat.
    """
    x = np.log(positive(lr, "lr"))
    y = vector(loss, "loss")
    same_length(lr=x, loss=y)
    s = standard_errors(loss_stderr, y.size, "loss_stderr")
    x, y, s, bound = _drop_diverged(x, y, s)
    distinct = np.unique(x).size
    if distinct < (3 if prior is None else 1):
        need = "3 different LRs" if prior is None else "1 LR"
        return _failed("too_few", f"{distinct} usable LR(s): a quadratic needs {need} with a finite loss", bound)
    known = s is not None
    if s is None:
        s = np.full(y.size, max(RELATIVE_NOISE * abs(float(y.min())), 1e-300))
    return _fit(x, y, s, bound, prior, known)


def _drop_diverged(x: Array, y: Array, s: Array | None) -> tuple[Array, Array, Array | None, float]:
    """Measurements of the curve, and the lowest LR above the best at which a run diverged (inf without one)."""
    finite = np.isfinite(y)
    if not finite.any():
        return x[finite], y[finite], None if s is None else s[finite], math.inf
    best = float(y[finite].min())
    keep = finite & (np.where(finite, y, 0.0) <= best + DIVERGED * abs(best))
    top = x[keep][np.argmin(y[keep])]
    lost = x[~keep & (x > top)]
    return x[keep], y[keep], None if s is None else s[keep], math.exp(lost.min()) if lost.size else math.inf


def _weights(y: Array, s: Array, floor: float) -> Array:
    excess = np.maximum(y - floor, 0.0)
    return np.asarray(1.0 / (s**2 + (MODEL_ERROR * excess) ** 2))


def _fit(x: Array, y: Array, s: Array, bound: float, prior: QuadraticPrior | None, known: bool) -> QuadraticFit:
    centre = float(x[np.argmin(y)])
    floor = float(y.min())
    for _ in range(3):
        w = _weights(y, s, floor)
        c2, c1, c0 = _parabola(x - centre, y, w)
        inside = c2 > 0 and x.min() <= centre - c1 / (2 * c2) <= x.max()
        floor = c0 - c1**2 / (4 * c2) if inside else float(y.min())
    w = _weights(y, s, floor)
    grid, misfit, curvature, level = _profile(x, y, w, prior)
    best = int(np.argmin(misfit))
    spread = max(x.size - 3 + 2 * (prior is not None), 0)
    scale = (NOISE_DOF + misfit[best]) / (NOISE_DOF + spread)
    if known:
        scale = max(scale, 1.0)
    profile = (misfit - misfit[best]) / scale
    opt, loss_min, curve = float(grid[best]), float(level[best]), float(curvature[best])
    if prior is None and inside:
        c2, c1, c0 = _parabola(x - centre, y, w)
        opt, curve = centre - c1 / (2 * c2), c2
        loss_min = c0 - c1**2 / (4 * c2)
    status, message = _status(x, y, w, opt, curve, profile, grid, prior)
    low, high = float(x.min()), float(x.max())
    if status in ("edge_low", "edge_high") and prior is None:
        step = float(np.diff(np.unique(x))[0 if status == "edge_low" else -1])
        opt = float(np.clip(opt, low - step, high + step))
        loss_min = float(level[np.argmin(np.abs(grid - opt))])
        curve = float(curvature[np.argmin(np.abs(grid - opt))])
    if status in ("flat", "concave"):
        opt = curve = loss_min = math.nan
    used = w >= 0.1 * w.max()
    residual = (y - loss_min - curve * (x - opt) ** 2)[used]
    total = float(np.sum((y[used] - y[used].mean()) ** 2))
    return QuadraticFit(
        lr_opt=math.exp(opt) if math.isfinite(opt) else math.nan,
        loss_min=loss_min,
        curvature=curve,
        r2=1 - float(np.sum(residual**2)) / total if total > 0 else math.nan,
        rmse=float(np.sqrt(np.mean(residual**2))),
        status=status,
        message=message,
        profile_x=grid,
        profile=profile,
        dof=NOISE_DOF + spread,
        upper_bound=bound,
    )


def _parabola(x: Array, y: Array, w: Array) -> tuple[float, float, float]:
    root = np.sqrt(w / w.max())
    c2, c1, c0 = np.linalg.lstsq(np.stack([x**2, x, np.ones_like(x)], 1) * root[:, None], y * root, rcond=None)[0]
    return float(c2), float(c1), float(c0)


def _profile(x: Array, y: Array, w: Array, prior: QuadraticPrior | None) -> tuple[Array, Array, Array, Array]:
    """Over candidate optima m (M,): misfit at the best curvature >= 0 and loss_min, that curvature, that loss_min."""
    fine = np.linspace(x.min() - 1.0, x.max() + 1.0, 1201)
    far = np.linspace(0.02, REACH - 1.0, 150)
    m = np.concatenate([fine[0] - far[::-1], fine, fine[-1] + far])
    q = (x[None, :] - m[:, None]) ** 2  # (M, n)
    share = w / w.sum()
    q_bar, y_bar = q @ share, float(y @ share)
    dq, dy = q - q_bar[:, None], y - y_bar
    sqq, sqy, syy = dq**2 @ w, dq * dy @ w, float(dy**2 @ w)
    best = np.maximum(sqy, 0.0) / np.maximum(sqq, 1e-300)
    if prior is None:
        misfit = syy - best * sqy
    else:
        c = prior.curvature * np.exp(np.linspace(-4, 4, 161) * prior.curvature_log_sd)  # (K,)
        penalty = (np.log(c / prior.curvature) / prior.curvature_log_sd) ** 2
        table = syy - 2 * c[None, :] * sqy[:, None] + c[None, :] ** 2 * sqq[:, None] + penalty[None, :]
        at = np.argmin(table, axis=1)
        misfit, best = table[np.arange(m.size), at], c[at]
        if prior.lr_opt is not None and math.isfinite(prior.log_lr_opt_sd):
            misfit = misfit + ((m - math.log(prior.lr_opt)) / prior.log_lr_opt_sd) ** 2
    return m, np.maximum(misfit, 0.0), best, y_bar - best * q_bar


def _status(
    x: Array, y: Array, w: Array, opt: float, curve: float, profile: Array, m: Array, prior: QuadraticPrior | None
) -> tuple[str, str]:
    low, high = float(x.min()), float(x.max())
    lrs = f"{math.exp(low):.3g} to {math.exp(high):.3g}"
    mean = float(y @ w / w.sum())
    constant = float(w @ (y - mean) ** 2)
    if prior is None and constant <= max(x.size - 1, 1) * 1.0:
        return "flat", f"the losses from LR {lrs} differ by no more than their noise"
    if curve <= 0 or opt <= low - 1 or opt >= high + 1:
        best = float(x[np.argmin(y)])
        if best in (low, high) or curve > 0:
            side = "low" if (best == low if curve <= 0 else opt < low) else "high"
            return f"edge_{side}", f"the loss still falls at the {side}est LR of {lrs}: the optimum is at or beyond it"
        return "concave", f"the losses from LR {lrs} do not curve upwards: no quadratic has its minimum there"
    if opt < low or opt > high:
        side, where = ("low", "below") if opt < low else ("high", "above")
        return f"edge_{side}", f"the optimum {math.exp(opt):.3g} lies {side}er than the measured LRs {lrs}".replace(
            "lowerer", "lower"
        )
    return "ok", f"the optimum lies inside the measured LRs {lrs}"


def _failed(status: str, message: str, bound: float) -> QuadraticFit:
    nan, none = math.nan, np.empty(0)
    return QuadraticFit(
        lr_opt=nan, loss_min=nan, curvature=nan, r2=nan, rmse=nan, status=status, message=message,
        profile_x=none, profile=none, upper_bound=bound,
    )  # fmt: skip
