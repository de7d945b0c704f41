"""Where the next run tells most: the LR whose result is expected to lower the expected regret of the final choice most.

The value of a run at x is min E[L] - E[min E[L | result at x]] (the knowledge gradient of Frazier et al. 2009), over
the LRs that could be chosen. Both expectations are taken over the drawn curves: these are sorted by the result that
each predicts at x, noise included, and cut into groups that such a result would tell apart. So a cliff, a replicate and
an LR outside the LRs tried are all valued in the same way.

Where all LRs tried show one smooth minimum or the best of them may lie beside a cliff, and losses repeat, the run goes
to the LR at which the optimum most probably lies. The knowledge gradient looks one run ahead and spends runs 3 to 5 on
the far sides of the minimum there (or beyond the cliff), which tells the shape; the runs after it are better placed
from close to the optimum.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum._curves import Curves
from raylr.analysis.optimum._recommend import REPEAT, beside_cliff, noise_of, noise_unconfirmed, smooth, sure_noise
from raylr.analysis.optimum.fit import OptimumFit
from raylr.analysis.status import Status
from raylr.errors import InputError

Array = NDArray[np.float64]

BLUR = 0.15
"""Width in ln lr of the kernel that makes a density of the drawn optima: that of Silverman's rule for 256 draws with
a standard deviation of 0.5."""
CROWD = 0.3
"""Distance in ln lr within which another run says little: twice the width of the kernel."""
GROUPS = 8
"""Groups of results at one LR: more groups have too few draws for their means."""
APART = 0.05
"""Two runs are closer than this in ln lr only if one repeats the other."""
OUTWARD = math.log(4.0)
"""A run beyond the LRs tried goes at most this far, in ln lr."""
SETTLED = 1e-6
"""Gain, in units of the curvature, that counts as none: an error of a thousandth in ln lr."""
LIKELY = 0.5
"""Probability of divergence from which an LR is only tried if no other is left."""


def next_lr(fit: OptimumFit, *, low: float | None = None, high: float | None = None) -> float | None:
    """LR of the next run.

    Args:
        fit: Fit of all runs so far; at least one has a finite loss.
        low: Lowest LR that may be tried; that of the fit's range by default.
        high: Highest one.

    Returns:
        The LR, which may be one that was tried where its noise matters most; None if the optimum is known or no LR is
        left to try.

    Example:
        >>> from raylr.analysis.optimum import fit_optimum
        >>> fit = fit_optimum([1e-4, 1e-3], [3.3, 3.2], lr_range=(1e-5, 1e-1))
        >>> 1e-3 < next_lr(fit) <= 1e-1
        True
    """
    if fit.status in (Status.OK, Status.PLATEAU):
        return None
    found = propose(fit, [], low=low, high=high)
    return None if found is None else math.exp(found)


def next_lrs(
    fit: OptimumFit, count: int, *, pending: Sequence[float] = (), low: float | None = None, high: float | None = None
) -> list[float]:
    """Return the LRs of the next runs, which are to run at once.

    Each is chosen as if the runs before it had ended with the loss that the fit expects. Fewer are returned if no LR is
    left to try.

    Args:
        fit: The fit of the runs so far.
        count: Number of LRs.
        pending: LRs of runs that have not ended.
        low: Lowest LR; None: that of the fit's range.
        high: Highest LR; None: that of the fit's range.
    """
    waiting = [math.log(v) for v in pending]
    out: list[float] = []
    for _ in range(count):
        now = imagined(fit, [*waiting, *out])
        found = propose(now, [*waiting, *out], low=low, high=high)
        if found is None:
            break
        out.append(found)
    return [math.exp(v) for v in out]


def imagined(fit: OptimumFit, log_lrs: Sequence[float]) -> OptimumFit:
    """The fit as if runs at `log_lrs` had ended with the loss that it expects of them."""
    if not log_lrs or fit.curves is None:
        return fit
    at = np.array(log_lrs)
    mean = fit.losses.lowest + fit.losses.unit * np.interp(at, fit.curves.x, fit.curves.mean)
    return fit.extended(at, mean)


def propose(
    fit: OptimumFit,
    taken: Sequence[float],
    *,
    low: float | None = None,
    high: float | None = None,
    repeats: bool = True,
) -> float | None:
    """Return the LR whose result tells most.

    Args:
        fit: The fit of the runs so far.
        taken: ln of LRs that are running.
        low: Lowest LR; None: that of the fit's range.
        high: Highest LR; None: that of the fit's range.
        repeats: Whether an LR may be proposed twice.

    Returns:
        ln of the LR; None if none is left to try.
    """
    curves = fit.curves
    if curves is None:
        raise InputError("no run has a finite loss: start anywhere below the LRs that diverged")
    first = math.log(low if low is not None else fit.lr_range[0])
    last = math.log(high if high is not None else fit.lr_range[1])
    x = curves.x
    inside = (x >= first - 1e-9) & (x <= last + 1e-9)
    candidate = inside & _new(fit, curves, taken, repeats)
    candidate = _outward(fit, curves, candidate)
    risky = curves.jumped > LIKELY
    if np.any(candidate & ~risky):
        candidate &= ~risky
    again = candidate & (np.abs(x[:, None] - fit.losses.tried).min(axis=1) < 1e-12)
    confirming = repeats and noise_unconfirmed(fit.losses, curves) and bool(again.any())
    if confirming:  # any replicate shows the noise: that of the best LR also shows whether it was lucky
        where = np.flatnonzero(again)
        return float(x[where[int(np.argmin(np.abs(x[where] - fit.losses.x[0])))]])
    if not candidate.any():
        return None
    where = np.flatnonzero(candidate)
    gains = gain(curves, where, np.flatnonzero(inside | candidate))
    if gains.max() <= SETTLED:  # nothing is left to learn: confirm the answer
        return float(x[where[int(np.argmin(np.abs(x[where] - math.log(fit.lr))))]])
    if (smooth(fit.losses) or beside_cliff(fit.losses)) and sure_noise(fit.losses, curves) <= REPEAT:
        gains = density(fit, curves, taken, first, last)[where]
    return float(x[where[int(np.argmax(gains))]])


def density(fit: OptimumFit, curves: Curves, taken: Sequence[float], low: float, high: float) -> Array:
    """Return the posterior density of the optimum over the grid, smoothed by `BLUR` and lowered within `CROWD` of runs.

    Args:
        fit: The fit of the runs so far.
        curves: Draws of its posterior, over a grid of G values of ln lr.
        taken: ln of LRs that are running.
        low: Lowest ln lr of an optimum.
        high: Highest.

    Returns:
        (G,).
    """
    x = curves.x
    optimum = np.clip(curves.optimum, low, high)
    out = np.exp(-0.5 * ((x[:, None] - optimum) / BLUR) ** 2) @ curves.weight
    known = np.concatenate([fit.losses.tried, fit.losses.diverged, np.array(taken, dtype=np.float64)])
    return np.asarray(out * np.prod(1.0 - np.exp(-0.5 * ((x[:, None] - known) / CROWD) ** 2), axis=1))


def gain(curves: Curves, candidates: NDArray[np.intp], choices: NDArray[np.intp]) -> Array:
    """Expected drop of the least expected loss by a run at each of the `candidates` (C,), in units, over LRs of the
    grid that can be chosen."""
    table = curves.curves[:, choices]
    draws = len(table)
    half = np.random.default_rng(1).standard_normal(draws // 2)
    error = np.random.default_rng(2).permutation(np.concatenate([half, -half]))
    result = curves.curves[:, candidates] + (curves.noise * error)[:, None]
    order = np.argsort(result, axis=0, kind="stable")
    group = np.empty_like(order)
    np.put_along_axis(group, order, (np.arange(draws) * GROUPS // draws)[:, None] * np.ones_like(order), axis=0)
    now = float(table.mean(axis=0).min())
    later = np.zeros(candidates.size)
    for g in range(GROUPS):
        member = (group == g).astype(np.float64)
        later += (member.T @ table).min(axis=1)
    return np.asarray(now - later / draws)


def _new(fit: OptimumFit, curves: Curves, taken: Sequence[float], repeats: bool) -> NDArray[np.bool_]:
    """Grid points that are no repetition, and LRs tried whose repetition can tell something."""
    known = np.concatenate([fit.losses.tried, fit.losses.diverged, np.array(taken, dtype=np.float64)])
    distance = np.abs(curves.x[:, None] - known).min(axis=1)
    out = distance > APART
    if repeats and noise_of(curves) > REPEAT:
        repeat = np.abs(curves.x[:, None] - fit.losses.x).min(axis=1) < 1e-12
        if len(taken):
            repeat &= np.abs(curves.x[:, None] - np.array(taken)).min(axis=1) > APART
        out |= repeat
    return np.asarray(out)


def _outward(fit: OptimumFit, curves: Curves, candidate: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """At an edge only LRs beyond it, and never far beyond the LRs tried."""
    x, tried = curves.x, fit.losses.tried
    near = candidate & (x >= tried[0] - OUTWARD) & (x <= tried[-1] + OUTWARD)
    candidate = near if near.any() else candidate
    side = {Status.EDGE_LOW: x < tried[0], Status.EDGE_HIGH: x > tried[-1]}.get(fit.status)
    if side is not None and np.any(candidate & side):
        candidate = candidate & side
    return candidate
