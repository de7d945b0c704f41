"""The LR along a run, the progress that it makes, and the height of the noise floor that follows it.

Notation
    t, h     tokens, and LR over the reference LR along the path of a run        (n,)
    S        progress: the integral of h^p over tokens                           (P, n)
    R        height of the noise floor: dR/dt = (h0^w (h / h0)^q - R) h^r / lam,
             h0 the run's peak; for a finite beta a mixture of such              (Q, n)

At a constant LR R is constant. A decay lowers R, after a while that is measured in tokens, in LR times tokens or in
between, as in the annealing-area law of Tissue et al. 2024 and the multi-power law of Luo et al. 2025; the latter's
power-law response is among those that are integrated over.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylr.analysis._checks import Array

PROGRESS = ((0.5, 0.25), (0.75, 0.5), (1.0, 0.25))
"""p and its prior weight: 1 is the area itself; a higher LR makes less progress than that in public runs."""
MIDDLE = 1
"""Number of the p by which the discrepancy measures progress."""
FALLS, LEVELS_OVER_LR = (0.25, 0.5, 0.75, 1.0), (0.0, 0.25, 0.5, 0.75, 1.0)
"""q and w, equally likely: the noise floor of SGD grows as the LR, that of Adam slower; what a decay gives grows more
slowly with the peak LR than it falls with the LR within a run."""
RATES = (0.0, 0.5, 1.0)
"""r, equally likely: whether a floor follows the LR in tokens (Tissue et al. 2024), in LR times tokens, or in between
(the multi-power law, whose response to a fall to h is in h^-0.5 times the area)."""
DELAYS = np.geomspace(0.002, 0.3, 7)
"""lam as a share of the longest run's tokens, with a flat prior in ln."""
EXPONENTIAL = math.inf
POWERS = (EXPONENTIAL, 0.5)
"""beta, equally likely: what is left of a floor after a fall is exp(-x / lam), or (1 + x / lam)^-beta with an exponent
near those of the multi-power law (Luo et al. 2025: 0.4 to 0.6). Curves of 25M and 100M parameters under five schedules
want the former, decays of a 124M model and of small MoEs over many lengths the latter (lab notebook)."""
SPEEDS = np.geomspace(1e-3, 10, 13)
"""k of the exponential responses whose mixture a power law is: (1 + x)^-beta is the mean of exp(-k x) over k of a gamma
distribution with shape beta. They span x from 0.1 to 1,000."""
LINEAR = ((len(FALLS) - 1) * len(LEVELS_OVER_LR) * len(RATES) + 2) * len(DELAYS) + 1
"""Number of a response with q = 1, w = 0 and a short delay: how far a floor has come down, for its errors."""
STEP = 0.05
"""The LR changes by this share of the peak at most in one step of the integration."""


@dataclass(frozen=True, kw_only=True)
class Path:
    """The LR of one run, linear between its points."""

    tokens: Array
    """In order, from above zero on (n,)."""
    lr: Array
    """Over the reference (n,). Before the first point it is that of the first."""

    def refined(self) -> tuple["Path", NDArray[np.intp]]:
        """Return the path with points between which the LR changes by `STEP` of its peak at most, and where in it the
        present ones are (n,)."""
        pieces = np.ceil(np.abs(np.diff(self.lr)) / (STEP * self.peak) - 1e-9).astype(int).clip(1)
        at = np.append(0, np.cumsum(pieces))
        where = np.interp(np.arange(at[-1] + 1), at, np.arange(self.lr.size))
        tokens, lr = (np.interp(where, np.arange(self.lr.size), one) for one in (self.tokens, self.lr))
        return Path(tokens=tokens, lr=lr), at

    @property
    def peak(self) -> float:
        """The highest LR, over the reference."""
        return max(float(self.lr.max()), 1e-12)


def axes(longest: float) -> Array:
    """(q, w, r, lam, beta) of every response of the floor (Q, 5); lam varies fastest, beta slowest."""
    each = itertools.product(POWERS, FALLS, LEVELS_OVER_LR, RATES, DELAYS)
    return np.array([(q, w, r, share * longest, beta) for beta, q, w, r, share in each])


def _modes(responses: Array) -> tuple[Array, NDArray[np.intp], Array]:
    """Exponential responses that make up the responses (Q, 5): (q, w, r, lam) of each (M, 4), the number of the
    response that it is a part of, in order (M,), and its share in that (M,)."""
    power = np.isfinite(responses[:, 4])
    count = np.where(power, SPEEDS.size, 1)
    at, first = np.repeat(np.arange(count.size), count), np.append(0, np.cumsum(count)[:-1])
    speed, share = np.ones(at.size), np.ones(at.size)
    speed[power[at]] = np.tile(SPEEDS, int(power.sum()))
    share[power[at]] = speed[power[at]] ** responses[at, 4][power[at]] * np.exp(-speed[power[at]])
    share /= np.add.reduceat(share, first)[at]
    return np.column_stack([responses[at, :3], responses[at, 3] / speed]), at, share


def integrate(path: Path, responses: Array) -> tuple[Array, Array]:
    """Return S for each p (P, n) and R for each response (Q, n) at the points of a path."""
    powers = np.array([p for p, _ in PROGRESS])
    modes, at, share = _modes(responses)
    starts = np.searchsorted(at, np.arange(len(responses)))
    q, w, rate, lam = modes.T
    height, first = path.peak ** (w - q), max(float(path.lr[0]), 1e-3 * path.peak)
    s, r = path.tokens[0] * first**powers, height * first**q
    progress, floor = [s], [np.add.reduceat(share * r, starts)]
    for i in range(1, path.tokens.size):
        before, after = path.lr[i - 1], path.lr[i]
        pieces = max(1, math.ceil(abs(after - before) / STEP - 1e-9))
        width = (path.tokens[i] - path.tokens[i - 1]) / pieces
        for k in range(pieces):
            h = before + (after - before) * (k + 0.5) / pieces
            s = s + width * h**powers
            r = height * h**q + (r - height * h**q) * np.exp(-width * h**rate / lam)
        progress.append(s)
        floor.append(np.add.reduceat(share * r, starts))
    return np.array(progress).T, np.array(floor).T
