"""The model behind `fit_annealing`: progress by the LR's area, and a noise floor that follows the LR with a delay.

Notation
    S, R     progress and height of the noise floor, see `_floor`                (n,)
    node     (gamma, p, (q, w, r, lam, beta))                                    (N, 3)
    phi      (l_inf, a, b), linear given the node: L = l_inf + a (S / S_end)^-gamma + b R

At a constant LR R is constant, and this is Eq. 4.

What the law leaves out is the sum of two smooth processes, of which runs share the most, since they are one model:

    kappa    size of that in ln S, as for single curves (`_discount`), in gains
    tau      size of that in how far the LR has fallen, in gains: no response on the grid is the true one

Both sizes are integrated over. Without the second, losses with little noise are fitted to their last digit by one node,
and by a large kappa where none fits: estimates are then wrong by whole gains, at small standard errors.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from raylr.analysis._checks import Array
from raylr.analysis.curves import _coefficients
from raylr.analysis.curves._discount import FLOOR, GAMMA_PRIOR, KAPPA_PRIOR, KAPPAS, LEAST_WEIGHT, POWER, TIME_SCALE
from raylr.analysis.curves._floor import LINEAR, MIDDLE, PROGRESS, Path, axes, integrate

GAMMAS, GAMMA_SPREAD = 13, 2.5
"""Exponents on the grid, which reaches this many prior standard deviations."""
SHARED, BRANCHES = 0.7, 0.95
"""Share of the discrepancy's variance that all runs have in common, and that runs with one peak LR have."""
LEVELS = 1.0
"""Standard deviation of the level of runs of one LR around the law, in gains; more where LRs are so far apart that
their levels spread more: stable runs at other LRs do not tell what a decay gives, and the best LR need not be the
law's."""
RESPONSE = 0.1
"""By what share the effect of a decay differs from the law's, between shapes and between LRs: 0.05 to 0.12 in public
runs. Where no LR fell in the fitted runs, the effect is the prior's, and it may be wrong as a whole."""
RESPONSE_SHARED = 0.5
"""Correlation of that error between LRs under one decay: half of it is taken as the shape's, which LRs share."""
TAU_PRIOR = (0.01, 1.5)
"""Median and ln-sd of tau. Wide, so that the residuals decide: from the precision of printed losses (`FLOOR`) to the
twentieth part of a gain. Where losses scatter by more than tau, it has no effect."""
TAUS = TAU_PRIOR[0] * np.exp(TAU_PRIOR[1] * np.array([-1.0, 0.0, 1.0]))
FALL_SCALE = 0.3
"""Correlation length of what the law misses of a fall, as a share of the floor: the smooth error of a response's shape,
which neighbouring reports share, and not scatter between them."""
OTHER = 0.05
"""A path is another run's if its floor lies this share of its height from that of the run somewhere: the points of a
run are averaged over bins, within which its own floor moves by less."""
Sizes = tuple[float, float]
"""kappa and tau."""


@dataclass(frozen=True, kw_only=True)
class Points:
    """Averaged reports of all runs."""

    y: Array
    noise: Array
    """Variance of each y."""
    run: Array
    """Number of the run of each point."""
    trunk: Array
    """Peak LR of that run over the reference: runs with one peak count as branches of one."""
    progress: Array
    """S of each point for each p (P, n)."""
    floor: Array
    """R of each point for each response (Q, n)."""


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """The mixture over the nodes of weight, for each pair of kappa and tau one block."""

    points: Points
    gain: float
    """What the runs gain in an e-fold of progress at their end, nats: the unit of kappa."""
    level: float
    """Standard deviation of the level of runs of one LR, nats."""
    measured: bool
    """Whether the LR of a fitted run fell far enough to measure what a decay gives."""
    ends: Array
    """Largest S for each p (P,)."""
    nodes: Array
    """gamma and the numbers of p and of the response (N, 3)."""
    blocks: list[tuple[Sizes, NDArray[np.intp], Array, Array, Array, Array]]
    """kappa and tau, numbers of their nodes, their weights, phi (k, 3), covariances (k, 3, 3), and the Cholesky factor
    (n, n)."""

    def predict(self, progress: Array, floor: Array, run: int, trunk: float) -> tuple[Array, Array]:
        """Return mean and standard deviation of the loss at m points of a path, nats, each (m,).

        Args:
            progress: S at the points for each p (P, m).
            floor: R at the points for each response (Q, m).
            run: Number of the run that the points belong to; a new one for a run that was not fitted.
            trunk: Peak LR of that run, over the reference LR.
        """
        new = _path_points(progress, floor, run, trunk)
        prior = _covariance(new, new, self.ends, self.gain, self.level)
        lost, means, variances, weights = self._lost(new), [], [], []
        for sizes, weight, phi, mean, left, cov, white in self._conditioned(new):
            own = np.maximum(np.diag(prior.of(sizes)) - (white**2).sum(0), 0.0) + (lost * phi[:, 2:]) ** 2
            variances.append(own + ((left @ cov) * left).sum(-1))
            means.append(mean)
            weights.append(weight)
        mean, variance, weight = (np.concatenate(one) for one in (means, variances, weights))
        centre = weight @ mean
        return centre, np.sqrt(weight @ (variance + (mean - centre) ** 2))

    def joint(self, ends: Sequence[Points]) -> tuple[Array, Array]:
        """Means (m,) and covariance (m, m) of the losses at single points of m different runs, one each in `ends`."""
        new = _joined(ends)
        prior = _covariance(new, new, self.ends, self.gain, self.level)
        lost = np.concatenate([self._lost(one) for one in ends])
        alike = lost[:, None] * lost * (RESPONSE_SHARED + (1 - RESPONSE_SHARED) * np.eye(lost.size))
        means, weights, total = [], [], np.zeros((lost.size, lost.size))
        for sizes, weight, phi, mean, left, cov, white in self._conditioned(new):
            own = prior.of(sizes) - white.T @ white
            total += weight.sum() * own + float(weight @ phi[:, 2] ** 2) * alike
            total += np.tensordot(weight[:, None, None] * (left @ cov), left, axes=((0, 2), (0, 2)))
            means.append(mean)
            weights.append(weight)
        mean, weight = np.concatenate(means), np.concatenate(weights)
        centre = weight @ mean
        return centre, total + np.einsum("k,km,kn->mn", weight, mean - centre, mean - centre)

    def _conditioned(self, new: Points) -> Iterator[tuple[Sizes, Array, Array, Array, Array, Array, Array]]:
        """For each block: kappa and tau, weights and phi of its nodes (k, 3), means of new points (k, m), what their
        design has beyond that of the fitted points (k, m, 3), covariances of phi, and the fitted points' whitened part
        (n, m)."""
        p = self.points
        cross = _covariance(p, new, self.ends, self.gain, self.level)
        for sizes, at, weight, phi, cov, factor in self.blocks:
            white = linalg.solve_triangular(factor, cross.of(sizes), lower=True)
            mine, of_curve, of_response = _coefficients.columns(self.nodes[at], p.progress, p.floor, self.ends)
            one, curve, fall, y = (  # what the fitted points say of the new ones, for each column that nodes share
                linalg.solve_triangular(factor, part, lower=True).T @ white for part in (*mine, p.y[:, None])
            )
            seen = np.stack([np.broadcast_to(one, (at.size, new.y.size)), curve[of_curve], fall[of_response]], -1)
            left = design(self.nodes[at], new.progress, new.floor, self.ends) - seen
            mean = np.einsum("kmc,kc->km", left, phi) + y
            yield sizes, weight, phi, mean, left, cov, white

    def _lost(self, new: Points) -> Array:
        """Share of b by which the effect of the LR at new points (m,) of one run may differ from the law's.

        Of a fitted run it is that of what lies ahead; where the path has another LR than the run had, it is no longer
        that run's, and counts as a new one's.
        """
        new_run = (RESPONSE if self.measured else 1.0) * self._unlike(new)
        own = self.points.run == new.run[0]
        if not own.any():
            return new_run
        progress, floor = self.points.progress[MIDDLE][own], self.points.floor[LINEAR][own]
        order = np.argsort(progress)
        progress, floor, s = progress[order], floor[order], new.progress[MIDDLE]
        ahead, now = s > progress[-1], new.floor[LINEAR]
        apart = np.abs(now - np.interp(s, progress, floor))[~ahead]
        passed = np.abs(floor - np.interp(progress, s, now))[progress <= s[-1]]
        leaves = bool((apart > OTHER).any() or (passed > OTHER).any())
        own_run = RESPONSE * np.where(ahead, 0.5 * np.abs(now - floor[-1]), 0.0)  # half: measured in part
        return np.maximum(own_run, new_run) if leaves else own_run

    def _unlike(self, new: Points) -> Array:
        """How far the floor at new points (m,) is from that of the nearest fitted branch with as much progress.

        Where there is none, from its height at the peak LR.
        """
        p, s = self.points, new.progress[MIDDLE]
        unlike = np.abs(new.floor[LINEAR] - new.trunk ** axes(1.0)[LINEAR, 1])
        near = np.full(s.size, math.inf)
        for run in np.unique(p.run[np.abs(p.trunk - new.trunk[0]) <= 1e-3 * new.trunk[0]]):
            own = p.run == run
            order = np.argsort(p.progress[MIDDLE, own])
            theirs, floor = (one[own][order] for one in (p.progress[MIDDLE], p.floor[LINEAR]))
            apart = np.abs(new.floor[LINEAR] - np.interp(s, theirs, floor))
            near = np.where(s <= theirs[-1] * 1.02, np.minimum(near, apart), near)
        # What a run's own fall gave was not measured where none stayed high: being near the peak is then no comfort.
        return np.asarray(np.minimum(near, unlike) if self.measured else np.where(np.isfinite(near), near, unlike))


def _path_points(progress: Array, floor: Array, run: int, trunk: float) -> Points:
    """Points of one run without losses, S `progress` (P, m) and R `floor` (Q, m)."""
    m = progress.shape[1]
    return Points(
        y=np.zeros(m), noise=np.zeros(m), run=np.full(m, run), trunk=np.full(m, trunk), progress=progress, floor=floor
    )


def end_of(path: Path, responses: Array, run: int) -> Points:
    """The last point of a path, as a run of the number `run`."""
    progress, floor = integrate(path.refined()[0], responses)
    return _path_points(progress[:, -1:], floor[:, -1:], run, path.peak)


def _joined(parts: Sequence[Points]) -> Points:
    y, noise, run, trunk = (np.concatenate([getattr(p, n) for p in parts]) for n in ("y", "noise", "run", "trunk"))
    progress, floor = (np.concatenate([getattr(p, n) for p in parts], axis=1) for n in ("progress", "floor"))
    return Points(y=y, noise=noise, run=run, trunk=trunk, progress=progress, floor=floor)


def design(nodes: Array, progress: Array, floor: Array, ends: Array) -> Array:
    """Return the columns of the three linear parameters (N, m, 3).

    Args:
        nodes: gamma and the numbers of p and of the response (N, 3).
        progress: S for each p (P, m), above zero.
        floor: R for each response (Q, m).
        ends: Largest S for each p (P,).
    """
    which, response = nodes[:, 1].astype(int), nodes[:, 2].astype(int)
    u = np.exp(-nodes[:, :1] * np.log(progress / ends[:, None])[which])
    return np.stack([np.ones_like(u), u, floor[response]], -1)


def amplitude(share: Array) -> Array:
    """Growth of the discrepancy where progress is a share of its end, by the prior's exponent."""
    gamma = GAMMA_PRIOR[0]
    excess = np.maximum(np.minimum(share, 1.0) ** -gamma - 1, 0.0) / gamma
    return np.asarray((1 + np.minimum(excess, 1e3)) ** POWER)


def _matern(gap: Array) -> Array:
    """Correlation of a process with one continuous derivative, at gaps in units of its length."""
    d = math.sqrt(3) * np.abs(gap)
    return np.asarray((1 + d) * np.exp(-d))


@dataclass(frozen=True, kw_only=True)
class _Covariance:
    """Covariances of two sets of points, each (m_a, m_b)."""

    smooth: Array
    """Of the process in ln S at kappa 1."""
    fall: Array
    """Of the process in how far the LR has fallen, at tau 1."""
    level: Array
    """Of the levels of the LRs."""

    def of(self, sizes: Sizes) -> Array:
        """Their sum at a kappa and a tau."""
        return np.asarray(sizes[0] ** 2 * self.smooth + sizes[1] ** 2 * self.fall + self.level)


def _covariance(a: Points, b: Points, ends: Array, gain: float, level: float) -> _Covariance:
    ours, theirs = (one.progress[MIDDLE] / ends[MIDDLE] for one in (a, b))
    branches = np.abs(a.trunk[:, None] - b.trunk) <= 1e-3 * b.trunk
    alike = gain**2 * np.where(a.run[:, None] == b.run, 1.0, np.where(branches, BRANCHES, SHARED))
    later = _matern((np.log(ours)[:, None] - np.log(theirs)) / TIME_SCALE)
    return _Covariance(
        smooth=alike * later * np.outer(amplitude(ours), amplitude(theirs)),
        fall=alike * _matern((a.floor[LINEAR][:, None] - b.floor[LINEAR]) / FALL_SCALE),
        level=np.where(branches, level**2, 0.0),
    )


def posterior(points: Points, responses: int, *, measured: bool) -> Posterior | None:
    """Return the posterior; None where no falling curve fits."""
    ends = points.progress.max(1)
    gammas = GAMMA_PRIOR[0] * np.exp(GAMMA_PRIOR[1] * np.linspace(-GAMMA_SPREAD, GAMMA_SPREAD, GAMMAS))
    grid = np.meshgrid(gammas, np.arange(len(PROGRESS)), np.arange(responses), indexing="ij")
    nodes: Array = np.stack([axis.ravel() for axis in grid], 1).astype(np.float64)
    prior = -0.5 * (np.log(nodes[:, 0] / GAMMA_PRIOR[0]) / GAMMA_PRIOR[1]) ** 2
    prior += np.log(np.array(PROGRESS)[nodes[:, 1].astype(int), 1])
    gain, levels = _gain(points, ends)
    if not gain > 0:
        return None
    level_sd = max(LEVELS * gain, levels)
    covariance = _covariance(points, points, ends, gain, level_sd)
    design_columns, of_curve, of_response = _coefficients.columns(nodes, points.progress, points.floor, ends)
    parts, scores = [], []
    for kappa, tau in itertools.product(KAPPAS.tolist(), TAUS.tolist()):
        noise = points.noise + (FLOOR * gain) ** 2 + 1e-9 * kappa**2 * np.diag(covariance.smooth)
        factor = np.linalg.cholesky(covariance.of((kappa, tau)) + np.diag(noise))
        one, curve, fall, y = (
            linalg.solve_triangular(factor, part, lower=True) for part in (*design_columns, points.y[:, None])
        )
        gram, rhs = _coefficients.normal_equations(one, curve, fall, y[:, 0], of_curve, of_response)
        phi, inverse, log_det, misfit = _coefficients.coefficients(gram, rhs, float(y[:, 0] @ y[:, 0]), gain)
        score = prior - 0.5 * (misfit + log_det - 2 * np.log(nodes[:, 0])) - np.log(np.diag(factor)).sum()
        for size, (middle, spread) in ((kappa, KAPPA_PRIOR), (tau, TAU_PRIOR)):
            score = score - 0.5 * (math.log(size / middle) / spread) ** 2
        scores.append(np.where(phi[:, 1] > 0, score, -np.inf))
        parts.append(((kappa, tau), phi, inverse, factor))
    score = np.array(scores)
    if not np.isfinite(score).any():
        return None
    weight = np.exp(score - score.max())
    weight[weight < LEAST_WEIGHT] = 0
    weight /= weight.sum()
    blocks = []
    for (sizes, phi, inverse, factor), w in zip(parts, weight, strict=True):
        at = np.flatnonzero(w)
        if at.size:
            blocks.append((sizes, at, w[at], phi[at], inverse[at], np.asarray(factor)))
    return Posterior(points=points, gain=gain, level=level_sd, measured=measured, ends=ends, nodes=nodes, blocks=blocks)


def _gain(points: Points, ends: Array) -> tuple[float, float]:
    """What the loss falls in an e-fold of progress at the end, and how far the levels of the LRs spread.

    By least squares with the prior's exponent. Runs of one peak LR have a level of their own: a higher LR makes more
    progress, and may end higher all the same."""
    share, floor, gamma = points.progress[MIDDLE] / ends[MIDDLE], points.floor[LINEAR], GAMMA_PRIOR[0]
    weight = 1 / amplitude(share)
    levels = (points.trunk[:, None] == np.unique(points.trunk)).astype(float)
    columns = [share**-gamma, *levels.T]
    if any(np.ptp(floor[at > 0]) > 0.1 * floor[at > 0].max() for at in levels.T):
        columns.append(floor)
    best, *_ = np.linalg.lstsq(np.stack(columns, 1) * weight[:, None], points.y * weight, rcond=None)
    return float(gamma * best[0]), float(np.std(best[1 : 1 + levels.shape[1]]))
