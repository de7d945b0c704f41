"""The best LR after a decay, from runs of which only some were decayed.

    stable curves of all LRs ─┐
    one or two decayed runs ──┴─ fit_annealing ─▶ loss of every LR after the decay ─ fit_optimum ─▶ best LR, interval

A run that was decayed enters with what was measured. Any other enters with what the annealing law predicts for its
decay, and with the error of its difference to the best one: what the LRs share cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raylr.analysis._checks import Array, level_of, positive
from raylr.analysis.curves.annealing import AnnealingFit, fit_annealing
from raylr.analysis.curves.schedule import Decay
from raylr.analysis.optimum.fit import OptimumFit
from raylr.analysis.status import Status
from raylr.analysis.surface._section import BEYOND, DRAWS, LOSS_DRAWS, Section, errors, section

OWN_ERROR = 0.5
"""As `surface.OWN_ERROR`: the share of the error of a predicted difference that changes the shape of the curve."""
SHAPE_NOISE = 0.02
"""Least standard error of a predicted loss, in what runs gain in an e-fold of tokens (as `surface.SHAPE_NOISE`)."""


@dataclass(frozen=True, kw_only=True)
class DecayedOptimum:
    """The loss over the LR after a decay, measured or predicted, and the best LR there."""

    status: Status
    """That of the losses over the LR (`OptimumFit.status`); `not_determined` where some losses are predicted and no
    decayed run has shown what a decay gives; the annealing law's own where it predicts nothing."""
    message: str
    """One sentence: why this status."""
    lr: float
    """The best LR; NaN without any loss."""
    lrs: Array
    """LRs of the runs (n,), ascending; that of replicates as often as there are."""
    losses: Array
    """Their losses after the decay (n,), NaN for a run that diverged."""
    stderr: Array
    """Standard error of each loss, 0 for a measured one (n,)."""
    measured: NDArray[np.bool_]
    """Which of them were measured (n,)."""
    draws: Array = field(repr=False)
    """Draws of ln of the best LR (DRAWS,)."""
    predicted_share: float = 0.0
    """Share of the variance of ln of the best LR that goes back to errors of predicted losses: what measuring them
    would take away. The rest is the shape of the loss between the LRs, which only other LRs tell."""
    fit: OptimumFit | None = field(default=None, repr=False)
    """The loss over the LR through these losses; None without a loss."""

    @property
    def ok(self) -> bool:
        """Whether the best LR may be used with its interval."""
        return self.status.ok

    @property
    def loss(self) -> tuple[float, float]:
        """Loss at the best LR and its standard error, nats: that of the run nearest to it counts, too."""
        known = np.flatnonzero(np.isfinite(self.losses))
        if self.fit is None or not known.size:
            return math.nan, math.nan
        nearest = known[int(np.argmin(np.abs(np.log(self.lrs[known] / self.lr))))]
        return self.fit.loss, math.hypot(self.fit.loss_stderr, float(self.stderr[nearest]))

    @property
    def curvature(self) -> float:
        """Expected rise of the loss a factor e away from the best LR, nats; NaN where it is not known."""
        return math.nan if self.fit is None else self.fit.curvature

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Return the interval of the best LR; 0 and inf without one."""
        tail = 0.5 * (1 - level_of(level))
        if self.fit is None or not np.isfinite(self.draws).all():
            return 0.0, math.inf
        if self.measured.all():
            return self.fit.interval(level)
        low, high = (float(one) for one in np.quantile(self.draws, [tail, 1 - tail]))
        ends, diverged = np.log(self.lrs[[0, -1]]), self.lrs[np.isnan(self.losses) & (self.lrs > self.lr)]
        lower = 0.0 if low <= ends[0] - BEYOND else min(math.exp(low), self.lr)
        upper = math.inf if high >= ends[1] + BEYOND else max(math.exp(high), self.lr)
        return lower, min(upper, float(diverged.min(initial=math.inf)))


@dataclass(frozen=True, kw_only=True)
class Branch:
    """Reports of a run that was decayed, from the start of its decay on."""

    lr: float
    """Peak LR."""
    budget: float
    """Tokens of the whole run."""
    tokens: Array
    """Token counts (n,), ascending."""
    loss: Array
    """(n,), nats."""

    def path(self, decay: Decay) -> tuple[Array, Array, Array]:
        """Return tokens, LRs and losses of the whole run; NaN where only the LR is known."""
        t, _ = decay.path(self.lr, self.budget)
        tokens = np.union1d(t, self.tokens)
        loss = np.full(tokens.size, math.nan)
        loss[np.searchsorted(tokens, self.tokens)] = self.loss
        return tokens, self.lr * decay.factor(tokens, self.budget), loss


def annealing_of(
    stable: Sequence[tuple[float, ArrayLike, ArrayLike]], branches: Sequence[Branch], decay: Decay
) -> AnnealingFit:
    """Fit the annealing law to the stable curves of a model and to its branches.

    Args:
        stable: LR, tokens (n,) and losses (n,) of each run at a constant LR, warmup left out.
        branches: Runs that were decayed.
        decay: How the LR fell in them.

    Returns:
        The fit; its `status` says whether a decay was measured.
    """
    parts = [(np.asarray(t, float), np.full(np.size(t), lr), np.asarray(y, float)) for lr, t, y in stable]
    parts += [branch.path(decay) for branch in branches]
    if not parts:
        return fit_annealing([], [], [])
    tokens, lr, loss = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return fit_annealing(tokens, lr, loss, run=np.repeat(np.arange(len(parts)), [part[0].size for part in parts]))


def decayed_optimum(
    annealing: AnnealingFit,
    decay: Decay,
    tokens: float,
    lrs: Sequence[float],
    *,
    measured: Sequence[tuple[float, float]] = (),
    lr_range: tuple[float, float] | None = None,
) -> DecayedOptimum:
    """Return the best LR of runs of `tokens` that end with a decay.

    Args:
        annealing: Fit of the stable curves of the model and of those runs that were decayed.
        decay: How the LR falls.
        tokens: Tokens of a run, those of its decay included.
        lrs: Peak LRs (n,) that are compared; those of the stable curves.
        measured: (LR, loss) of every run after this very decay at these tokens, NaN for one that diverged. Several
            runs of an LR are replicates; LRs that `lrs` lacks are added.
        lr_range: Lowest and highest LR that were searched; those of the runs by default.

    Returns:
        The best LR. Losses that say too little give a status, never an exception.

    Raises:
        InputError: LRs or tokens are not above zero.

    Example:
        >>> import numpy as np
        >>> from raylr.analysis import Decay, decayed_optimum, fit_annealing
        >>> t, lrs, decay = np.linspace(1e8, 1e10, 50), [2.5e-4, 5e-4, 1e-3, 2e-3], Decay(fraction=0.2)
        >>> def loss(lr, t, now):  # progress, and a noise floor that follows the LR
        ...     return 2 + 200 * (t * lr / 1e-3) ** -0.3 + 60 * lr**0.5 * now
        >>> runs = [(t, np.full(50, lr), loss(lr, t, lr**0.5), lr) for lr in lrs]
        >>> fall = 1e-3 * decay.factor(t, 1e10)
        >>> runs.append((t, fall, loss(1e-3, t, fall / 1e-3**0.5), -1.0))
        >>> labels = np.repeat([run[3] for run in runs], 50)
        >>> fit = fit_annealing(*(np.concatenate([run[i] for run in runs]) for i in range(3)), run=labels)
        >>> decayed_optimum(fit, decay, 1e10, lrs).lr > 1e-3  # the stable loss is lowest near 2.5e-4
        True

    References:
        Tissue et al. 2024, arXiv 2408.11029. Luo et al. 2025, arXiv 2503.12811.
    """
    (budget,) = (float(one) for one in positive([tokens], "tokens"))
    known = positive([lr for lr, _ in measured], "measured")
    unknown = np.array([lr for lr in np.unique(positive(list(lrs), "lrs")) if not (known == lr).any()])
    every = np.concatenate([known, unknown])
    loss = np.concatenate([[float(one) for _, one in measured], np.full(unknown.size, math.nan)])
    order = np.argsort(every, kind="stable")
    every, loss, there = every[order], loss[order], (np.arange(every.size) < known.size)[order]
    if annealing.posterior is None and there.any():  # nothing is known of the others
        every, loss, there = every[there], loss[there], there[there]
    stderr = np.zeros(every.size)
    open_ones = every[~there]
    if not every.size or (open_ones.size and annealing.posterior is None):
        where, what = (annealing.status, annealing.message) if every.size else (Status.TOO_FEW, "no runs")
        return DecayedOptimum(
            status=where, message=what, lr=math.nan, lrs=every, losses=loss, stderr=np.where(there, 0.0, math.inf),
            measured=there, draws=np.full(DRAWS, math.nan),
        )  # fmt: skip
    covariance = np.zeros((every.size, every.size))
    if open_ones.size:
        ends, spread = annealing.ends([decay.path(float(lr), budget) for lr in open_ones])
        loss[~there] = ends
        covariance[np.ix_(~there, ~there)] = spread
        stderr[~there] = np.sqrt(np.diag(spread))
    part = _section(every, loss, there, covariance, annealing, lr_range)
    status, message = part.fit.status, part.fit.message
    if open_ones.size:
        message += f" ({open_ones.size} of {every.size} losses are predicted by the annealing law)"
        if annealing.status is Status.NOT_DETERMINED:
            status, message = annealing.status, annealing.message
    draws, share = _draws(part, covariance, annealing)
    return DecayedOptimum(
        status=status, message=message, lr=part.lr, lrs=every, losses=loss, stderr=stderr, measured=there, draws=draws,
        predicted_share=share, fit=part.fit,
    )  # fmt: skip


def _section(
    lrs: Array, loss: Array, there: NDArray[np.bool_], covariance: Array, annealing: AnnealingFit,
    lr_range: tuple[float, float] | None,
) -> Section:  # fmt: skip
    """The loss over the LR through the losses (n,), each weighed by the error of its difference to the best."""
    stderr = np.zeros(loss.size)
    if not there.all():
        best = int(np.nanargmin(loss))
        variance = np.diag(covariance) + covariance[best, best] - 2 * covariance[best]
        stderr = np.maximum(OWN_ERROR * np.sqrt(np.maximum(variance, 0.0) / 2), _least(annealing))
        stderr[there] = 0.0
    return section(np.log(lrs), loss, stderr, there, lr_range)


def _least(annealing: AnnealingFit) -> float:
    assert annealing.posterior is not None
    return SHAPE_NOISE * annealing.posterior.gain


def _draws(part: Section, covariance: Array, annealing: AnnealingFit) -> tuple[Array, float]:
    """Draws of ln of the best LR (DRAWS,), and the share of their variance that goes back to the predicted losses.

    The losses are drawn from their joint posterior, and the model of the loss over the LR is fitted to each draw.
    """
    if part.fit.curves is None:
        return np.full(DRAWS, math.nan), 0.0
    if part.complete:
        return part.fit.draws(DRAWS), 0.0
    root = np.linalg.cholesky(covariance + 1e-12 * np.eye(part.loss.size) * max(float(covariance.max()), 1e-12))
    shifts = np.random.default_rng(0).standard_normal((LOSS_DRAWS, part.loss.size)) @ root.T
    # For the share that is due to the predicted losses, a linear expansion around one fit is accurate enough.
    moved = part.moved(np.random.default_rng(0).standard_normal((DRAWS, part.loss.size)) @ root.T).var()
    shape = errors(part.shape(_least(annealing))).var()
    return part.optima(shifts, _least(annealing)), float(moved / max(moved + shape, 1e-300))
