"""Least squares of l0 + b * u(g) with u = exp(-g x), for many curves at once.

Notation
    x        ln(tokens / last tokens), 0 at the end                              (n,)
    w        weights that sum to 1                                               (n,)
    y        losses                                                              (R, n)
    C(g)     sum of w (y - mean y) exp(-g x), one function a curve
    E(g)     sum of w exp(-g x);  V(g) = E(2 g) - E(g)^2, the variance of u

Given g the rest is linear and the misfit is var(y) - C^2 / V, so only g is searched. All curves are projected on a
grid of exponents by one matrix product; around the best node C and E are Taylor series, whose moments cost one more
product, and Newton's method on the derivative of C^2 / V runs on numbers instead of curves.
"""

import math
from dataclasses import dataclass

import numpy as np

from raylr.analysis._checks import Array

GAMMA_MIN, GAMMA_MAX = 0.02, 3.0
"""Bounds of the exponent."""
NODES = 48
"""Nodes of the search grid, evenly spaced in ln g."""
TERMS = 14
"""Terms of the Taylor series; between nodes |(g - node) x| stays below 1 for runs of a factor of 100 in tokens."""
STEPS = 30
"""Most Newton (or bisection) steps."""


@dataclass(frozen=True, kw_only=True)
class LeastSquares:
    """The optima of all curves, each (R,)."""

    gamma: Array
    l0: Array
    b: Array
    misfit: Array
    """Weighted mean square residual."""
    at_bound: Array
    """1 where the exponent is at a bound, else 0."""


def least_squares(x: Array, y: Array, w: Array) -> LeastSquares:
    """The optimum of every row of `y`; b is 0 for a curve that does not fall."""
    nodes = np.geomspace(GAMMA_MIN, GAMMA_MAX, NODES)
    mean = y @ w
    c = (y - mean[:, None]) * w
    u = np.exp(-nodes[:, None] * x)
    gain = np.maximum(c @ u.T, 0.0) ** 2 / ((u - (u @ w)[:, None]) ** 2 @ w)
    node = np.argmax(gain, axis=1)
    low, high = nodes[np.maximum(node - 1, 0)], nodes[np.minimum(node + 1, NODES - 1)]
    at = nodes[node]
    series = np.empty((3, TERMS, y.shape[0]))  # of C, E(g) and E(2 g) around the node, in powers of g - node
    power = (-x[:, None]) ** np.arange(TERMS) / np.array([math.factorial(k) for k in range(TERMS)])  # (n, TERMS)
    for i in np.unique(node):
        rows = node == i
        terms = u[i][:, None] * power
        series[0][:, rows] = (c[rows] @ terms).T
        series[1][:, rows] = (w @ terms)[:, None]
        series[2][:, rows] = ((w * u[i]) @ terms * 2.0 ** np.arange(TERMS))[:, None]
    g = at.copy()
    for _ in range(STEPS):
        (c0, e0, f0), (c1, e1, f1), (c2, e2, f2) = _taylor(series, g - at)
        v0, v1, v2 = f0 - e0**2, f1 - 2 * e0 * e1, f2 - 2 * e1**2 - 2 * e0 * e2
        slope = 2 * c1 * v0 - c0 * v1  # has the sign of the derivative of C^2 / V where C > 0
        bend = 2 * c2 * v0 + c1 * v1 - c0 * v2
        low, high = np.where(slope > 0, g, low), np.where(slope < 0, g, high)
        step = g - slope / np.where(bend < 0, bend, -np.inf)
        new = np.where((bend < 0) & (step >= low) & (step <= high), step, 0.5 * (low + high))
        moved = np.abs(new - g)
        g = np.where(slope == 0, g, new)
        if (moved <= 1e-12 * g).all():
            break
    bound = (g <= GAMMA_MIN * (1 + 1e-6)) | (g >= GAMMA_MAX * (1 - 1e-6))
    (c0, e0, f0), _, _ = _taylor(series, g - at)
    v0 = np.maximum(f0 - e0**2, 1e-300)
    b = np.maximum(c0, 0.0) / v0
    misfit = np.maximum(((y - mean[:, None]) * c).sum(1) - b * c0, 0.0)
    return LeastSquares(gamma=g, l0=mean - b * e0, b=b, misfit=misfit, at_bound=bound)


def _taylor(series: Array, d: Array) -> tuple[Array, Array, Array]:
    """Values, first and second derivatives of the three series at distance `d` (R,); each (3, R)."""
    value = series[:, -1].copy()
    first, second = np.zeros_like(value), np.zeros_like(value)
    for k in range(TERMS - 2, -1, -1):
        second = second * d + first
        first = first * d + value
        value = value * d + series[:, k]
    return value, first, 2 * second
