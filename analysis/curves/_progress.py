"""The model behind `fit_surface`: progress, a noise floor, and a discrepancy that is larger far from the end.

Notation
    z        ln lr - ln(lr of the best run), tau = tokens / last tokens, x = ln tau       (n,) or (m,)
    y        loss, nats                                                                  (n,)
    phi      (l_inf, A, B), linear given the exponents                                    (3,)
    k        node of the grid over the exponents (gamma, a, q, decay)                     (K,)

Mean: L(z, tau) = l_inf + A exp(-a z) tau^-gamma + B exp(q z). The second term is Eq. 4 with tokens measured in progress
(a higher LR makes more of it), the third the noise floor that a constant LR keeps (a higher LR keeps more). Its optimum
moves as D^-(gamma / (a + q)), the D-part of the LR law, so all runs together determine where it goes.

What the mean leaves out is a Gaussian process D(z, tau): an Ornstein-Uhlenbeck process in ln tokens, smooth in z, so
that the errors of neighbouring LRs are shared and cancel in their differences. Its standard deviation is a share
`KAPPA` of what the best run still gains in an e-fold of tokens (`slope`), and grows with a measurement's distance from
the end of the best run, counted in such gains: AMP = KAPPA * slope * (1 + (y - y_best) / slope)^POWER. Burn-in, runs
that lag behind and runs that are about to diverge therefore weigh little, and no window has to be chosen.

Everything scales with the data: other units of loss or tokens, or a constant added to the loss, change nothing.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from raylr.analysis._checks import Array

KAPPA = 0.15
"""Discrepancy at the end of the best run, as a share of its gain in an e-fold of tokens."""
POWER = 2.0
"""Growth of the discrepancy with the distance from the end."""
TIME_SCALE = 0.7
"""Correlation length of the discrepancy, in ln tokens."""
LR_SCALE = 1.2
"""Correlation length of the discrepancy, in ln lr."""
OWN_SHARE = 0.05
"""Share of the discrepancy's variance that is a run's own, not shared with other LRs (seeds)."""
END = 0.7
"""Length of a run's end, in ln tokens, over which its slope is measured."""
BIN = 0.1
"""Evaluations within this in ln tokens are averaged."""
SCALE_DOF = 5.0
"""How many points the assumed size of the discrepancy is worth in the intervals, against the residuals."""
GAMMA_PRIOR = (0.4, 0.6)
"""Median and ln-sd of gamma: published token exponents of the loss are 0.28-0.6."""
A_PRIOR = (0.3, 0.5)
"""Median and ln-sd of a = gamma * (exponent of lr in progress): progress grows as lr^0.3 to lr^1."""
Q_PRIOR = (0.6, 0.6)
"""Median and ln-sd of q: the floor of SGD grows as lr^1, that of Adam slower; the optimum then falls as D^-0.3 to
D^-0.8."""
FLOOR_DECAY = ((0.0, 0.4), (0.5, 0.3), (1.0, 0.3))
"""How fast the noise floor falls with tokens, as a share of gamma, and the prior weight of that. A window does not
tell: the first member is what published LR laws say, and gives the estimates; the others (the optimum falls slower or
stays) have been seen on small byte-level models and together weigh more than it in the intervals."""
NODES = (11, 7, 7)
"""Grid nodes for gamma, a and q."""
SPREAD = 2.4
"""The grid reaches this many prior standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Points:
    """Binned evaluations of all runs, sorted by run, then tokens."""

    z: Array
    x: Array
    y: Array
    noise: Array
    """Variance of each y."""
    amp: Array
    """Standard deviation of the discrepancy at each point."""
    slope: float
    """What the best run gains in an e-fold of tokens at its end, nats."""


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """The mixture over the grid's nodes."""

    points: Points
    factor: Array
    """Lower Cholesky factor of the points' covariance (n, n)."""
    white: Array
    """factor^-1 (y - mean), per node (K, n)."""
    exponents: Array
    """gamma, a, q and the decay of the floor per node (K, 4)."""
    weight: Array
    """Weight of each node (K,)."""
    phi: Array
    """(K, 3)."""
    phi_cov: Array
    """(K, 3, 3)."""
    design: Array
    """factor^-1 times the design, per node (K, n, 3)."""
    lead: Array
    """Weight of each node among those of the first member of FLOOR_DECAY, for estimates (K,)."""
    scale: float
    """Variance of the whitened residuals: what the intervals' variances are multiplied by."""


def design(z: Array, x: Array, exponents: Array) -> Array:
    """The three columns of the mean at points (m,) for nodes (K, 4): shape (K, m, 3)."""
    gamma, a, q, decay = (column[:, None] for column in exponents.T)
    progress = np.exp(np.clip(-a * z[None, :] - gamma * x[None, :], -300, 300))
    return np.stack(
        [np.ones_like(progress), progress, np.exp(np.clip(q * z[None, :] - decay * gamma * x[None, :], -300, 300))], -1
    )


def covariance(z1: Array, x1: Array, amp1: Array, z2: Array, x2: Array, amp2: Array, *, own: bool) -> Array:
    """Return the covariance of the discrepancy between two sets of points, nats squared (m1, m2).

    Args:
        z1: ln LR over that of the best run, of the first set (m1,).
        x1: ln(tokens / last tokens) of the first set (m1,).
        amp1: Standard deviation of the discrepancy at the first set, nats (m1,).
        z2: As `z1`, of the second set (m2,).
        x2: As `x1`, of the second set (m2,).
        amp2: As `amp1`, of the second set (m2,).
        own: Whether points at the same LR belong to the same run and share its own part, too.
    """
    gap = z1[:, None] - z2[None, :]
    over_lr = (1 - OWN_SHARE) * np.exp(-0.5 * (gap / LR_SCALE) ** 2)
    if own:
        over_lr = over_lr + OWN_SHARE * (np.abs(gap) < 1e-9)
    return np.asarray(amp1[:, None] * amp2[None, :] * np.exp(-np.abs(x1[:, None] - x2[None, :]) / TIME_SCALE) * over_lr)


def posterior(points: Points) -> Posterior:
    """Weights, coefficients and their covariance at every node of the grid."""
    k = covariance(points.z, points.x, points.amp, points.z, points.x, points.amp, own=True) + np.diag(points.noise)
    factor = np.linalg.cholesky(k + 1e-10 * np.diag(np.diag(k)))
    priors = (GAMMA_PRIOR, A_PRIOR, Q_PRIOR)
    axes = [np.linspace(-SPREAD, SPREAD, nodes) for nodes in NODES]
    unit = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], 1)
    exponents = np.array([median for median, _ in priors]) * np.exp(unit * np.array([sd for _, sd in priors]))
    decays, shares = np.array(FLOOR_DECAY).T
    decay, share = np.repeat(decays, len(unit)), np.repeat(shares, len(unit))
    unit = np.tile(unit, (len(decays), 1))  # (K, 3)
    exponents = np.column_stack([np.tile(exponents, (len(decays), 1)), decay])  # (K, 4)
    f = design(points.z, points.x, exponents)
    count, n, _ = f.shape
    flat = linalg.solve_triangular(factor, f.transpose(1, 0, 2).reshape(n, -1), lower=True)
    white_f = flat.reshape(n, count, 3).transpose(1, 0, 2)
    white_y = linalg.solve_triangular(factor, points.y, lower=True)
    phi, phi_cov = _coefficients(white_f, white_y)
    white = white_y[None, :] - np.einsum("knc,kc->kn", white_f, phi)
    log_weight = np.log(share) - 0.5 * (white**2).sum(1) - 0.5 * (unit**2).sum(1)
    log_weight[phi[:, 1] <= 0] = -np.inf
    weight = np.exp(log_weight - log_weight.max()) if np.isfinite(log_weight).any() else np.zeros(count)
    keep = weight > 1e-4
    weight = weight[keep] / max(float(weight[keep].sum()), 1e-300)
    misfit = float(weight @ (white[keep] ** 2).sum(1))
    scale = (misfit + SCALE_DOF) / (n + SCALE_DOF)
    lead = np.where(decay[keep] == decays[0], weight, 0.0)
    lead = lead / lead.sum() if lead.sum() > 0 else weight
    return Posterior(
        lead=lead, scale=scale, points=points, factor=np.asarray(factor, dtype=np.float64), white=white[keep],
        exponents=exponents[keep], weight=weight, phi=phi[keep], phi_cov=phi_cov[keep] * scale, design=white_f[keep],
    )  # fmt: skip


def _coefficients(f: Array, y: Array) -> tuple[Array, Array]:
    """Least squares of whitened data per node; a negative noise floor is set to zero."""
    gram, rhs = np.einsum("kni,knj->kij", f, f), np.einsum("kni,n->ki", f, y)
    size = np.sqrt(np.einsum("kii->ki", gram))
    scaled = gram / (size[:, :, None] * size[:, None, :]) + 1e-10 * np.eye(3)
    inverse = np.linalg.inv(scaled) / (size[:, :, None] * size[:, None, :])
    phi = np.einsum("kij,kj->ki", inverse, rhs)
    below = phi[:, 2] < 0
    if below.any():
        small = np.linalg.inv(scaled[below][:, :2, :2]) / (size[below, :2, None] * size[below, None, :2])
        phi[below, :2] = np.einsum("kij,kj->ki", small, rhs[below, :2])
        phi[below, 2] = 0.0
        inverse[below] = 0.0
        inverse[below, :2, :2] = small
    return phi, inverse


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Posterior of the loss over m values of z at one token count."""

    mean: Array
    """(m,)."""
    node_mean: Array
    """Mean per node (K, m)."""
    basis: Array
    """Per node the columns whose coefficients have covariance phi_cov (K, m, 3)."""
    rest: Array
    """Covariance of the discrepancy given the data (m, m)."""
    stderr: Array
    """(m,)."""


def curve(post: Posterior, z: Array, x: Array | float, amp: Array) -> Curve:
    """Return the posterior of the loss at m points.

    Args:
        post: The posterior of the parameters.
        z: ln LR over that of the best run (m,).
        x: ln(tokens / last tokens), one number for all points or (m,).
        amp: Standard deviation of the discrepancy at the points, nats (m,).
    """
    p = post.points
    at = np.full(z.size, x)
    cross = covariance(p.z, p.x, p.amp, z, at, amp, own=False)
    white = linalg.solve_triangular(post.factor, cross, lower=True)  # (n, m)
    node_mean = np.einsum("kmc,kc->km", design(z, at, post.exponents), post.phi) + post.white @ white
    basis = design(z, at, post.exponents) - np.einsum("nm,knc->kmc", white, post.design)
    rest = (covariance(z, at, amp, z, at, amp, own=False) - white.T @ white) * post.scale
    mean = post.lead @ node_mean
    spread = np.einsum("kmi,kij,kmj->km", basis, post.phi_cov, basis) + (node_mean - mean) ** 2
    variance = post.weight @ spread + np.maximum(np.diag(rest), 0.0)
    return Curve(mean=mean, node_mean=node_mean, basis=basis, rest=rest, stderr=np.sqrt(variance))


def contrast(post: Posterior, c: Curve, at: int) -> Array:
    """Standard error of the loss at each z less that at the z numbered `at` (m,): errors that all LRs share cancel."""
    mean, basis = c.node_mean - c.node_mean[:, [at]], c.basis - c.basis[:, [at]]
    spread = np.einsum("kmi,kij,kmj->km", basis, post.phi_cov, basis) + (mean - post.lead @ mean) ** 2
    own = np.diag(c.rest) + c.rest[at, at] - 2 * c.rest[at]
    return np.asarray(np.sqrt(post.lead @ spread + np.maximum(own, 0.0)))


def draws(post: Posterior, c: Curve, count: int, rng: np.random.Generator) -> Array:
    """Return curves drawn from the posterior, nats (count, m).

    Args:
        post: The posterior of the parameters.
        c: The loss at the m points, from `curve`.
        count: Number of curves.
        rng: Source of the random numbers.
    """
    node = rng.choice(post.weight.size, size=count, p=post.weight)
    scale = np.linalg.cholesky(
        post.phi_cov[node] + 1e-12 * np.eye(3) * np.trace(post.phi_cov[node], axis1=1, axis2=2)[:, None, None]
    )
    phi = np.einsum("sij,sj->si", scale, rng.standard_normal((count, 3)))
    value, vector = np.linalg.eigh(c.rest)
    root = vector * np.sqrt(np.maximum(value, 0.0))
    return np.asarray(
        c.node_mean[node]
        + np.einsum("smi,si->sm", c.basis[node], phi)
        + rng.standard_normal((count, value.size)) @ root.T
    )


def binned(x: Array, y: Array, count: Array, width: float = BIN) -> tuple[Array, Array, Array]:
    """Return averages of runs in bins of x: x (m,), y (..., m) and the variance of y's noise (..., m).

    The noise comes from second differences over the last half, where the curve is nearly straight.

    Args:
        x: ln tokens, ascending (n,).
        y: Losses of one or several runs at the same x, nats (..., n). A point where any of them is not finite is left
            out of all.
        count: Number of evaluations behind each point (n,).
        width: Width of a bin in x.
    """
    ok = np.isfinite(y).all(axis=tuple(range(y.ndim - 1)))
    x, y, count = x[ok], y[..., ok], count[ok]
    if not x.size:
        return x, y, y
    noise = _noise(x, y)
    bins, at = np.unique(np.ceil((x - x[-1]) / width - 1e-9), return_inverse=True)
    share = np.where(at == np.arange(bins.size)[:, None], count, 0.0)
    share /= share.sum(1, keepdims=True)
    return share @ x, y @ share.T, noise[..., None] / np.bincount(at)


def _noise(x: Array, y: Array) -> Array:
    """Variance of the noise of each curve: y (..., n) to (...)."""
    late = slice(x.size // 2 if x.size > 12 else 0, None)
    x, y = x[late], y[..., late]
    if x.size < 4:
        return np.zeros(y.shape[:-1])
    share = (x[1:-1] - x[:-2]) / (x[2:] - x[:-2])
    miss = y[..., 1:-1] - (1 - share) * y[..., :-2] - share * y[..., 2:]
    return np.asarray((1.4826 * np.median(np.abs(miss), axis=-1)) ** 2 / np.mean(1 + (1 - share) ** 2 + share**2))


def assemble(runs: dict[float, tuple[Array, Array, Array]]) -> Points:
    """Points of all runs, keyed by z (0 is the best run); `slope` is 0 if the best run does not fall at its end."""
    bx, by, noise = runs[0.0]
    slope = float(last_slope(bx, by))
    z = np.concatenate([np.full(run[0].size, one) for one, run in runs.items()])
    x, y, noise = (np.concatenate([run[i] for run in runs.values()]) for i in range(3))
    amp = discrepancy(y, by[-1], slope, KAPPA)
    floor = (1e-3 * slope) ** 2
    return Points(z=z, x=x, y=y, noise=noise + floor, amp=amp, slope=slope)


def last_slope(x: Array, y: Array) -> Array:
    """What binned runs y (..., m) gain in an e-fold of tokens over their last `END` in x, nats (...); 0 if they do not
    fall."""
    end = x >= x[-1] - END
    end[-3:] = True
    slope = -slopes(x[end], y[..., end])
    return np.where(slope > 1e-9 * np.abs(y[..., -1]), slope, 0.0)


def slopes(x: Array, y: Array) -> Array:
    """Slope of the straight line through each of y (..., m) over x (m,)."""
    centred = x - x.mean()
    return np.asarray(y @ (centred / (centred @ centred)))


def discrepancy(y: Array, best: Array | float, slope: Array | float, kappa: float) -> Array:
    """Return the standard deviation of the discrepancy, nats (..., m): it grows with the distance from the best loss.

    Args:
        y: Losses, nats (..., m).
        best: Loss at the end of the best run, nats (...).
        slope: What that run gains in an e-fold of tokens at its end, nats (...). Where it is 0 the result is 0.
        kappa: The standard deviation at the loss `best`, in such gains.
    """
    gain = np.asarray(slope)[..., None]
    excess = np.maximum(y - np.asarray(best)[..., None], 0.0)
    behind = np.minimum(np.divide(excess, gain, out=np.zeros_like(y), where=gain > 0), 1e3)
    return np.asarray(kappa * gain * (1 + behind) ** POWER)


def amplitude(points: Points, z: Array, x: float) -> Array:
    """Standard deviation of the discrepancy at new LRs `z` (m,): that of the runs at `x`, interpolated in ln.

    Beyond its end a run that lags behind catches up: within `TIME_SCALE` it comes to be one gain behind at most.
    """
    each = np.unique(points.z)
    most = np.log(KAPPA * points.slope * 2**POWER)
    at = np.empty(each.size)
    for i, one in enumerate(each):
        own, log_amp = points.x[points.z == one], np.log(points.amp[points.z == one])
        later = own[-1] + TIME_SCALE
        at[i] = np.interp(x, np.append(own, later), np.append(log_amp, min(log_amp[-1], most)))
    return np.exp(np.interp(z, each, at))
