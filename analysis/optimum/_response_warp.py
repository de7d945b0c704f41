"""Surfaces whose minimum is sharper than a quadratic's: a power of the height is the quadratic.

    z = ((h + depth)^b - depth^b) / b,    h the height above the best run
With b = 1 z is the height itself. With b = 2 a quadratic z is a cone, and powers between are rounder. `depth` is how
far the minimum lies below the best run; on the surface z is never below -depth^b / b.

Notation and shapes (n runs, S hyperparameters or draws)
    h       heights, in units                                     (..., n)
    b       power, 1 or more                                      (S,)
    depth   in units                                              (S,)

References:
    Box & Cox 1964, "An analysis of transformations".
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BELOW = 1e-3
"""Slope of the height below the least z, where only the misfit can bring a draw, as a share of that at the best run: no
height is lower, and none is equal."""


@dataclass(frozen=True, kw_only=True)
class Warp:
    """The power of each of S hyperparameters or draws."""

    power: Array
    depth: Array

    def __getitem__(self, index: NDArray[np.intp]) -> "Warp":
        return Warp(power=self.power[index], depth=self.depth[index])

    @property
    def lowest(self) -> Array:
        """Least z on the surface, -inf where z is the height, (S,)."""
        return np.where(self.power > 1.0, -(self.depth**self.power) / self.power, -np.inf)

    def z(self, h: Array) -> Array:
        """z of heights (n,): (S, n)."""
        sharp = self.power > 1.0
        b, depth = self.power[sharp, None], self.depth[sharp, None]
        out = np.array(np.broadcast_to(h, (self.power.size, h.shape[-1])))
        out[sharp] = ((out[sharp] + depth) ** b - depth**b) / b
        return out

    def slope(self, h: Array, sd: Array) -> Array:
        """dz/dh at heights (n,) known to `sd` (S, n) each, (S, n); over the error, its root mean square for b = 2."""
        b = self.power[:, None]
        return np.asarray(((h + self.depth[:, None]) ** 2 + 0.5 * sd**2) ** (0.5 * (b - 1.0)))

    def height(self, z: Array) -> Array:
        """Heights of z (S, G): (S, G)."""
        sharp = self.power > 1.0
        b, depth = self.power[sharp, None], self.depth[sharp, None]
        w = depth**b + b * z[sharp]
        out = z.copy()
        out[sharp] = np.maximum(w, 0.0) ** (1.0 / b) + BELOW * np.minimum(w, 0.0) * depth ** (1.0 - b) - depth
        return out
