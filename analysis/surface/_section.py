"""The losses of all runs of one model size at one token count, and the loss over the LR through them.

A run that was measured at the token count enters with what was measured, so that the answer is the one that the search
gave from the same losses; a run that was not enters with the loss that the surface predicts there.

Notation
    n    runs at the token count: each LR once, or as often as it was measured there (seeds)
    R    LRs that the surface was fitted to
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raylr.analysis._checks import Array
from raylr.analysis.optimum.fit import OptimumFit, fit_optimum
from raylr.analysis.optimum.prior import OptimumPrior

DRAWS = 800
"""Draws of an optimum."""
LOSS_DRAWS = 40
"""Draws of the predicted losses, to each of which the loss over the LR is fitted; it divides `DRAWS`."""
BEYOND = 1.5
"""Optima are looked for this far, in ln lr, beyond the LRs of the runs; an interval that reaches there is open."""
GROUPS = 8
"""Groups of draws among which a loss that is yet to be measured decides."""
SAME_TOKENS = 1e-9
"""Token counts whose logarithms differ by less than this are equal."""
MODEL_ERROR = 0.3
"""Error of a second-order expansion as a share of the height above the optimum: a point weighs less the further up the
curve it lies."""

Measured = Mapping[float, tuple[Array, Array]]
"""ln lr → token counts in ascending order and the losses there; a token count occurs once for each seed."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """Losses over LRs at one token count."""

    log_lr: Array
    """(n,), ascending."""
    loss: Array
    """(n,), NaN for a run that diverged."""
    stderr: Array
    """Standard error of each loss against that of the best run, 0 for a measured one (n,)."""
    measured: NDArray[np.bool_]
    """Whether the loss was measured, or is that of a run that diverged (n,)."""
    fit: OptimumFit
    """The loss over the LR through these losses."""

    @property
    def complete(self) -> bool:
        """Whether nothing in it is a prediction."""
        return bool(self.measured.all())

    @property
    def lr(self) -> float:
        """The best LR: the recommended one where losses were measured around it, which stays near the best LR tried
        where the losses leave doubts. Predicted losses are no evidence for the LR of one run: where one of the lowest
        loss or of its neighbours is predicted it is the posterior's median."""
        if self.fit.curves is None or self._measured_around_the_best():
            return self.fit.lr
        return float(self.fit.quantiles(0.5))

    def _measured_around_the_best(self) -> bool:
        """Whether the losses at the LR of the lowest one, and at the LRs next to it, were all measured."""
        if self.complete:
            return True
        lrs = np.unique(self.log_lr)
        if not np.isfinite(self.loss).any():
            return False
        best = int(np.searchsorted(lrs, self.log_lr[np.nanargmin(self.loss)]))
        near = lrs[max(best - 1, 0) : best + 2]
        return bool(self.measured[np.isin(self.log_lr, near)].all())

    def moved(self, shift: Array) -> Array:
        """How far the optimum moves in ln lr when the losses (n,) move by `shift` (s, n): (s,).

        A shift is read as a constant, a tilt and a change of curvature; the tilt moves the optimum. No change of
        curvature takes more than two thirds of it away: beyond that the expansion is meaningless.
        """
        use = np.isfinite(self.loss)
        d = self.log_lr[use] - math.log(self.lr)
        excess = np.maximum(self.loss[use] - self.fit.loss, 0.0)
        error = np.maximum(self.stderr[use], 1e-3 * max(self.fit.curvature, float(self.stderr.max())))
        root = 1.0 / np.hypot(error, MODEL_ERROR * excess)
        columns = np.stack([np.ones_like(d), d, d**2], 1) * root[:, None]
        inverse = np.linalg.pinv(columns)
        curvature = max(float(inverse[2] @ (self.loss[use] * root)), self.fit.curvature)
        _, tilt, bend = inverse @ (shift[:, use] * root).T
        return np.asarray(-0.5 * tilt / np.maximum(curvature + bend, curvature / 3))

    def optima(self, shifts: Array, error: float) -> Array:
        """Draws of ln of the best LR (DRAWS,), from draws of how far the predicted losses are off (LOSS_DRAWS, n).

        The model of the loss over the LR is fitted to each draw of the losses, the predicted ones known to `error`.
        Moving the optimum of one fit by a linear expansion (`moved`) is not enough for an interval: errors as large as
        the differences between the LRs change the shape of the loss, not its tilt alone.
        """
        stderr = np.where(self.measured, 0.0, error)
        parts = []
        for number, shift in enumerate(shifts):
            one = fit_optimum(
                np.exp(self.log_lr), self.loss + np.where(self.measured, 0.0, shift), stderr=stderr,
                lr_range=self.fit.lr_range, prior=self.fit.prior,
            )  # fmt: skip
            parts.append(_open_ends(one.draws(DRAWS // LOSS_DRAWS, seed=number), one, self.log_lr))
        return np.concatenate(parts)

    def shape(self, error: float) -> OptimumFit:
        """The loss over the LR were each predicted loss known to `error`: what is open then is the shape of the curve
        between the LRs. What the predictions are wrong by is in `moved`."""
        stderr = np.where(self.measured, 0.0, error)
        return fit_optimum(
            np.exp(self.log_lr), self.loss, stderr=stderr, lr_range=self.fit.lr_range, prior=self.fit.prior
        )


def _open_ends(drawn: Array, fit: OptimumFit, log_lr: Array) -> Array:
    """Draws of ln of the best LR of one fit. Where its interval is open, what lies beyond the LRs says only that."""
    low, high = fit.interval()
    beyond = log_lr[0] - BEYOND, log_lr[-1] + BEYOND
    drawn = np.where((low == 0) & (drawn < log_lr[0]), beyond[0], drawn)
    return np.clip(np.where(np.isinf(high) & (drawn > log_lr[-1]), beyond[1], drawn), *beyond)


def errors(shape: OptimumFit) -> Array:
    """Draws of how far the optimum of a shape may lie from its median, ln lr (DRAWS,)."""
    return shape.draws(DRAWS, seed=1) - math.log(shape.quantiles(0.5))


def share_left(shape: OptimumFit, log_lr: float, error: float) -> float:
    """Share of the variance of the optimum of a shape that is left once the loss at `log_lr` is measured to `error`.

    Draws of the curve are sorted by the loss that they have there, and the variance is that within groups of them.
    """
    curves = shape.curves
    if curves is None:
        return 1.0
    at = int(np.clip(np.searchsorted(curves.x, log_lr), 1, curves.x.size - 1))
    share = np.clip((log_lr - curves.x[at - 1]) / (curves.x[at] - curves.x[at - 1]), 0.0, 1.0)
    loss = (1 - share) * curves.curves[:, at - 1] + share * curves.curves[:, at]
    loss = loss + error / shape.losses.unit * np.random.default_rng(2).standard_normal(loss.size)
    groups = np.array_split(curves.optimum[np.argsort(loss)], GROUPS)
    within = sum(float(((part - part.mean()) ** 2).sum()) / max(part.size - 1, 1) for part in groups) / GROUPS
    return min(within / max(float(curves.optimum.var()), 1e-300), 1.0)


def section(
    log_lr: ArrayLike, loss: ArrayLike, stderr: ArrayLike, measured: ArrayLike,
    lr_range: tuple[float, float] | None, prior: OptimumPrior | None = None,
) -> Section:  # fmt: skip
    """Return the losses over LRs at one token count, with the fit through them.

    Args:
        log_lr: ln lr of each loss (n,).
        loss: The losses (n,); NaN for a run that diverged.
        stderr: Standard error of each loss, 0 for a measured one (n,).
        measured: Whether the loss was measured, or is that of a run that diverged (n,).
        lr_range: LRs between which the optimum is searched; None: around those tried.
        prior: What is known about the optimum from other sections; None for nothing.
    """
    order = np.lexsort((np.asarray(loss), np.asarray(log_lr)))
    x, y, s = (np.asarray(v, dtype=np.float64)[order] for v in (log_lr, loss, stderr))
    known = np.asarray(measured, dtype=np.bool_)[order]
    fit = fit_optimum(np.exp(x), y, stderr=s if (s > 0).any() else None, lr_range=lr_range, prior=prior)
    return Section(log_lr=x, loss=y, stderr=s, measured=known, fit=fit)


def measured_at(curves: Measured, tokens: float) -> dict[float, Array]:
    """Return the losses at `tokens` of the runs that were measured there or on both sides of it, by ln lr.

    Between two reports the loss is interpolated in ln tokens.
    """
    out = {}
    for log_lr, (t, y) in curves.items():
        same = np.abs(np.log(t / tokens)) <= SAME_TOKENS
        if same.any():
            out[log_lr] = y[same]
        elif t[0] < tokens < t[-1]:
            below, above = t[t < tokens][-1], t[t > tokens][0]
            left, right = y[t == below].mean(), y[t == above].mean()
            share = math.log(tokens / below) / math.log(above / below)
            out[log_lr] = np.array([left + share * (right - left)])
    return out
