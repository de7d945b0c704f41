"""Hyperparameters of the response surface: the noise, what the quadratic misses, how steep each axis is and how sharp
the minimum, spread evenly over their prior.

A surface of losses that repeat exactly determines the power and the depth of a sharp minimum so well that none of the
first values lies near: further ones are then spread where the losses have shown them to be likely, and are weighed by
the ratio of the prior to the density with which they were spread (adaptive importance sampling).

Notation and shapes (d axes, p coefficients, T values)
    place   uniform numbers that stand for a value                (T, d + 3) or (T, d + 5)

References:
    Cappé et al. 2004, "Population Monte Carlo".
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from raylr.analysis.optimum._response_warp import Warp

Array = NDArray[np.float64]

HYPERS = 768
"""Values for a quadratic."""
SHARP_HYPERS = 384
"""And for a surface with a minimum sharper than that of a quadratic."""
SHARP = 0.2
"""Prior probability of one. No measured table has a kink; functions that people try an optimizer on do."""
POWERS = (1.0, 2.0)
"""Range of the power of the height that is a quadratic then, uniform: up to a cone. Half of the values are at the cone
itself: where losses repeat exactly, no other power is near enough to it."""
DEPTHS = (-5.8, 0.7)
"""Range of ln of the height of the best run above a sharp minimum, in units, uniform (0.003 to 2)."""
NOISES = (-6.9, 1.1, -1.2)
"""Range of ln of the standard deviation of a run, in units of height (0.001 to 3), uniform up to the third number and
falling by a factor e for each e-fold above it."""
SHARES = (-4.6, -1.6)
"""Range of ln of what the quadratic misses as a share of the height, uniform (1 to 20 %)."""
EVERYWHERE = (-6.2, -1.2)
"""The same everywhere, in units of height, uniform (0.002 to 0.3)."""
STEEP = (-0.5, 1.7)
"""Mean and standard deviation of ln of an axis's curvature: the steepest axis sets the unit of height, others may be
nearly flat."""
OWN = 1.0
BEND = 0.5
"""Standard deviation of an axis's curvature as a share of its expected value, and of a curvature between two axes as
a share of the geometric mean of theirs: so a correlation of 0.9 (a narrow ridge) lies within two of them."""
REACH = 1.2
"""Standard deviation of the distance between the best place tried and the minimum, in units: that of a uniform
distribution over the range."""
TAIL = 1e-4
"""Places closer than this to a face of the unit cube count as there: a normal number is then within 3.7."""
NARROWEST = 0.4
"""Each time, values are spread over at least this share of where they were spread before, along every direction."""
WIDER = 1.5
"""And over this multiple of the standard deviation that the losses leave, so that none of the tails is missed."""


@dataclass(frozen=True, kw_only=True)
class Hypers:
    """T values of the hyperparameters."""

    noise: Array
    """Standard deviation of a run, in units, (T,)."""
    share: Array
    """What the quadratic misses as a share of the height, (T,)."""
    every: Array
    """The same everywhere, in units, (T,)."""
    steep: Array
    """Expected curvature of every axis, (T, d)."""
    warp: Warp
    """Power of the height that is a quadratic, (T,)."""
    log_weight: Array
    """ln of the prior probability that each stands for, (T,)."""
    normal: Array
    """Places of the sharp ones as normal numbers, (T2, d + 5): the last T2 of the values."""

    def coefficients(self) -> tuple[Array, Array]:
        """Mean and standard deviation of a, b and H for every value, (T, p)."""
        steep, d = self.steep, self.steep.shape[1]
        i, k = np.triu_indices(d, 1)
        root = np.sqrt(steep)
        cross = BEND * root[:, i] * root[:, k]
        total = steep**2 + BEND**2 * steep * (steep.sum(axis=1, keepdims=True) - steep)
        zero = np.zeros((len(steep), 1))
        mean = np.concatenate([zero, np.zeros_like(steep), steep, np.zeros_like(cross)], axis=1)
        sd = np.concatenate([zero + 3.0, 2.0 * REACH * np.sqrt(total), OWN * steep, cross], axis=1)
        return mean, sd


def kronecker(count: int, d: int) -> Array:
    """`count` places that fill the unit cube evenly, (count, d): Roberts' generalised golden ratio."""
    ratio = 2.0
    for _ in range(60):
        ratio = (1.0 + ratio) ** (1.0 / (d + 1))
    steps = ratio ** -np.arange(1.0, d + 1)
    return np.asarray((0.5 + np.arange(1, count + 1)[:, None] * steps) % 1.0)


@lru_cache(maxsize=8)
def first(d: int) -> Hypers:
    """Values spread over the prior."""
    normal = ndtri(np.clip(kronecker(SHARP_HYPERS, d + 5), TAIL, 1 - TAIL))
    return _joined(d, normal, np.zeros(SHARP_HYPERS))


def again(before: Hypers, p: Array) -> Hypers:
    """Spread the values of sharp minima where they are likely.

    Args:
        before: Values that were tried.
        p: Their posterior probability (T,).
    """
    old, share = before.normal, p[HYPERS:] / p[HYPERS:].sum()
    d = before.steep.shape[1]
    mean = share @ old
    size, axes = np.linalg.eigh(np.cov(old.T, bias=True))
    root = axes * np.sqrt(np.maximum(size, 1e-12))
    # In the coordinates in which the old values have unit variance along every direction.
    away = np.linalg.solve(root, (old - mean).T)
    now, turn = np.linalg.eigh((away * share) @ away.T)
    root = root @ (turn * np.sqrt(np.clip(WIDER**2 * now, NARROWEST**2, 1.0)))
    step = ndtri(np.clip(kronecker(SHARP_HYPERS, d + 5), TAIL, 1 - TAIL))
    normal = mean + step @ root.T
    log_density = -0.5 * (step**2).sum(axis=1) - np.linalg.slogdet(root)[1]
    return _joined(d, normal, -0.5 * (normal**2).sum(axis=1) - log_density)


def _joined(d: int, normal: Array, log_ratio: Array) -> Hypers:
    """Values for a quadratic, then those for sharp minima at `normal`, with ln of prior over density `log_ratio`."""
    place = ndtr(normal)
    sharp, plain = _spread(place[:, : d + 3]), _spread(kronecker(HYPERS, d + 3))
    both = [np.concatenate(pair) for pair in zip(plain, sharp, strict=True)]
    power = POWERS[0] + (POWERS[1] - POWERS[0]) * np.minimum(2.0 * place[:, -2], 1.0)
    depth = np.exp(DEPTHS[0] + (DEPTHS[1] - DEPTHS[0]) * place[:, -1])
    one = np.ones(HYPERS)
    return Hypers(
        noise=both[0], share=both[1], every=both[2], steep=both[3],
        warp=Warp(power=np.append(one, power), depth=np.append(one, depth)),
        log_weight=np.append(math.log((1 - SHARP) / HYPERS) * one, math.log(SHARP / len(normal)) + log_ratio),
        normal=normal,
    )  # fmt: skip


def _spread(place: Array) -> tuple[Array, Array, Array, Array]:
    """Noise, misfit as a share, misfit everywhere (T,) and the expected curvature of every axis (T, d) at places of the
    unit cube (T, d + 3)."""
    low, high, knee = NOISES
    flat, tail = knee - low, 1.0 - math.exp(-(high - knee))
    t = place[:, 0] * (flat + tail)
    noise = np.where(t < flat, low + t, knee - np.log1p(-np.clip(t - flat, 0.0, tail * (1 - 1e-9))))
    share = SHARES[0] + place[:, 1] * (SHARES[1] - SHARES[0])
    every = EVERYWHERE[0] + place[:, 2] * (EVERYWHERE[1] - EVERYWHERE[0])
    steep = STEEP[0] + STEEP[1] * ndtri(np.clip(place[:, 3:], TAIL, 1 - TAIL))
    return np.exp(noise), np.exp(share), np.exp(every), np.exp(steep)
