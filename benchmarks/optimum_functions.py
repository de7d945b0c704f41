"""Made-up losses over the learning rate, with their true minimum: the shapes that people meet who search an LR.

Notation: x = ln lr, z = x - x0 (x0 the centre of the shape, mostly its minimum), u = loss / level. Each function draws
its centre, curvature (0.003 to 10 per (ln lr)², relative to the level), level, range and the place of its cliff from
a generator seeded with its kind and number, so that function 7 of a kind is the same in every run.

`KINDS` are the ten of the table that docs/lab-notebook.md keeps, `MORE` are further ones: cliffs beside flat valleys,
noise with outliers, staircases, optima at or beyond the ends of the range, losses of any size and sign."""

import math
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

KINDS = (
    "parabola",
    "nan_cliff",
    "cliff_to_10",
    "cliff_to_chance",
    "flat",
    "two_minima",
    "hinge",
    "sgd_like",
    "noise_2",
    "noise_5",
)
"""A parabola; the same that is NaN, 10 or at chance level beyond a cliff; a flat valley between two walls; two valleys
of different depth; two straight lines; a power law that falls, one that rises and chance level above both; a parabola
with 2 % or 5 % noise."""
MORE = (
    "constant",
    "constant_noise_1",
    "plateau_low",
    "plateau_high",
    "cliff_edge",
    "cliff_46",
    "flat_then_nan",
    "noise_1",
    "noise_2_nan",
    "noise_2_chance",
    "narrow",
    "staircase",
    "ripple",
    "outliers",
    "range_end",
    "beyond_high",
    "beyond_low",
    "log_parabola",
    "tiny",
    "huge",
    "negative",
    "accuracy",
    "failures",
    "quartic",
    "wide",
    "wide_chance",
    "noise_grows",
    "rough_1",
)
"""Further shapes, see `Function._shape`."""
NOISY = (
    "noise_1",
    "noise_2",
    "noise_5",
    "noise_2_nan",
    "noise_2_chance",
    "outliers",
    "constant_noise_1",
    "noise_grows",
    "rough_1",
)
"""Kinds whose losses scatter around the curve; those of `rough_1` repeat exactly, as runs of one seed do."""
CLIFFS = ("nan_cliff", "cliff_to_10", "cliff_to_chance", "cliff_edge", "cliff_46", "flat_then_nan", "noise_2_nan",
          "noise_2_chance")  # fmt: skip
"""Kinds with a step up at high LRs."""
UNDEFINED = ("constant", "constant_noise_1", "beyond_high", "beyond_low")
"""Kinds without an optimum inside the range: their intervals are not scored."""


DIVERGED = 0.5
"""A loss this share above the lowest, at a higher LR, is that of a run that diverged."""


@dataclass
class Problem:
    """A loss over the LR with a known minimum, smaller is better; a function or a cell of a table."""

    name: str
    kind: str
    low: float
    """Ends of the LR range."""
    high: float
    noise: float = field(default=0.0, kw_only=True)
    """Standard deviation of one run's loss, relative to its mean."""
    best: float = field(default=math.nan, init=False)
    """Lowest loss within the range."""
    unit: float = field(default=math.nan, init=False)
    """The loss that regrets are shares of."""
    optimum: tuple[float, float] = field(default=(math.nan, math.nan), init=False)
    """ln lr of the lowest and the highest LR whose loss is the lowest."""

    def truth(self, x: Array) -> Array:
        """Loss at ln lr without noise, same shape; NaN where the run diverges."""
        raise NotImplementedError

    def nodes(self) -> Array:
        """ln lr where the minimum may lie between the points of a grid."""
        return np.empty(0)

    def solve(self, points: int = 20001) -> None:
        """Set `best`, `unit` and `optimum` from a grid over the range."""
        grid = np.linspace(math.log(self.low), math.log(self.high), points)
        grid = np.union1d(grid, self.nodes())
        y = self.truth(grid)
        self.best = float(np.nanmin(y))
        self.unit = abs(self.best)
        close = grid[np.nan_to_num(y, nan=np.inf) <= self.best + 1e-7 * (np.nanmax(y) - self.best)]
        self.optimum = (float(close[0]), float(close[-1]))

    def loss(self, lr: float) -> float:
        """Loss at `lr` without noise."""
        return float(self.truth(np.array([math.log(lr)]))[0])

    def regret(self, lr: float) -> float:
        """Percent of the lowest loss (of `unit`) above it; inf where the run diverges, below zero beyond the range."""
        loss = self.loss(lr)
        return 100 * (loss - self.best) / self.unit if math.isfinite(loss) else math.inf

    def diverges(self, lr: float) -> bool:
        """Whether a run at `lr` diverges: NaN, or far above the lowest loss (`DIVERGED`) at a higher LR."""
        loss = self.loss(lr)
        return not loss <= self.best + DIVERGED * abs(self.best) and math.log(lr) > self.optimum[1]

    def observe(self, lr: float, rng: np.random.Generator) -> float:
        """Loss of one run."""
        loss = self.loss(lr)
        return loss * (1 + self.noise * float(rng.standard_normal())) if self.noise else loss

    def rng(self, seed: int) -> np.random.Generator:
        """Noise of one search."""
        return np.random.default_rng([zlib.crc32(self.name.encode()), seed])


class Function(Problem):
    """One made-up function."""

    def __init__(self, kind: str, number: int):
        rng = self._draw = np.random.default_rng([zlib.crc32(kind.encode()), number])
        x0 = rng.uniform(math.log(1e-4), math.log(1e-1))
        width, at = rng.uniform(3.5, 9.0), rng.uniform(0.15, 0.85)
        if kind.startswith("wide"):
            width = rng.uniform(11.0, 16.0)
        if kind == "range_end":
            at = rng.choice([0.0, 0.02, 0.98, 1.0])
        if kind.startswith("beyond"):
            at = rng.uniform(1.1, 1.8) if kind == "beyond_high" else rng.uniform(-0.8, -0.1)
        super().__init__(f"{kind} {number}", kind, math.exp(x0 - at * width), math.exp(x0 + (1 - at) * width))
        self.x0, self.width = x0, width
        self.curvature = math.exp(rng.uniform(math.log(0.003), math.log(10.0)))
        self.level = math.exp(rng.uniform(math.log(0.05), math.log(5.0)))
        self.chance = rng.uniform(1.5, 6.0)
        self.gap = rng.uniform(0.05, min(2.0, 0.9 * (1 - at) * width)) if 0 <= at < 1 else 0.5
        self.side = rng.uniform(0.3, 3.0, 2)
        self.slopes = np.exp(rng.uniform(math.log(0.02), math.log(2.0), 2))
        self.powers = (rng.uniform(0.4, 1.5), rng.uniform(1.5, 4.0))
        self.apart, self.deeper = rng.uniform(1.5, 0.8 * width), rng.uniform(0.01, 0.3)
        self.noise = {"noise_1": 0.01, "noise_5": 0.05, "constant_noise_1": 0.01}.get(kind, 0.02 * (kind in NOISY))
        if kind == "cliff_edge":  # the parabola's minimum lies beyond the cliff: the best LR is the last before it
            self.gap = -rng.uniform(0.0, 0.7 * at * width)
        if kind == "flat_then_nan":
            self.curvature = math.exp(rng.uniform(math.log(3e-4), math.log(1e-2)))
        if kind == "narrow":
            self.side = rng.uniform(0.2, 0.5, 2)
        self.offset = {"negative": 30.0 * self.level, "accuracy": 1.0}.get(kind, 0.0)
        self.factor = {"tiny": 1e-6, "huge": 1e6}.get(kind, 1.0)
        self.solve()
        self.unit = self.level * self.factor if kind == "negative" else self.unit

    def truth(self, x: Array) -> Array:
        """Loss at ln lr without noise."""
        z = np.asarray(x, dtype=float) - self.x0
        if self.kind == "accuracy":  # its negative; from a tenth to nearly one
            return -0.1 - 0.85 * np.exp(-self.curvature * z * z) * (z < self.gap)
        return self.factor * (self.level * self._shape(z) - self.offset)

    def diverges(self, lr: float) -> bool:
        """Whether `lr` lies beyond the cliff, in kinds that have one."""
        return self.kind in (*CLIFFS, "accuracy") and math.log(lr) > self.x0 + self.gap

    def _shape(self, z: Array) -> Array:
        """Loss in units of the level; 1 at the minimum."""
        u = 1.0 + self.curvature * z * z
        cliff, name = z > self.gap, self.kind
        left, right = self.side
        if name in ("nan_cliff", "flat_then_nan", "noise_2_nan", "cliff_edge"):
            return np.where(cliff, np.nan, u)
        if name == "cliff_to_10":
            return np.where(cliff, 10.0 / self.level, u)
        if name in ("cliff_to_chance", "noise_2_chance", "wide_chance"):
            return np.where(cliff, self.chance, np.minimum(u, self.chance))
        if name == "cliff_46":  # a step smaller than most thresholds of divergence, then further ones
            return u + 0.46 * cliff + 0.6 * (z > self.gap + 0.7) + 0.3 * (z > self.gap + 1.4)
        if name == "flat":
            return 1.0 + self.curvature * np.maximum(np.maximum(z - right, -left - z), 0.0) ** 2
        if name == "two_minima":
            other = z - self.apart * (1 if self.gap > self.width / 6 else -1)
            return np.minimum(u, 1.0 + self.deeper + self.curvature * other * other)
        if name == "hinge":
            return 1.0 + self.slopes[0] * np.maximum(-z, 0) + self.slopes[1] * np.maximum(z, 0)
        if name == "sgd_like":
            p, q = self.powers
            size = self.slopes[0]
            return np.minimum(1 + size * (np.exp(-p * z) + p / q * np.exp(np.minimum(q * z, 50.0))),
                              10 * self.chance * (1 + size))  # fmt: skip
        if name in ("constant", "constant_noise_1"):
            return np.ones_like(z)
        if name == "plateau_low":  # nothing is learnt below some LR
            return np.minimum(u, np.where(z < 0, 1 + self.curvature * left**2, np.inf))
        if name == "plateau_high":  # and nothing above
            return np.minimum(u, np.where(z > 0, 1 + self.curvature * right**2, np.inf))
        if name == "narrow":
            half = np.where(z < 0, left, right)
            return 1.0 + self.deeper * np.minimum((z / half) ** 2, 1.0)
        if name == "staircase":
            return 1.0 + self.curvature * (np.ceil(np.abs(z) / (0.5 * left)) * 0.5 * left) ** 2
        if name == "ripple":
            return u + 0.005 * (1 - np.cos(2 * np.pi * z / left))
        if name == "log_parabola":
            return np.minimum(np.exp(np.minimum(self.curvature * z * z, 50.0)), 40 * self.chance)
        if name == "quartic":
            return 1.0 + self.curvature * z**4 / left**2
        return u

    def observe(self, lr: float, rng: np.random.Generator) -> float:
        """Loss of one run: a few with heavy tails, or that fail by chance, where the kind says so."""
        loss = self.loss(lr)
        if self.kind == "outliers":
            return loss * (1 + 0.01 * float(np.clip(rng.standard_t(1.5), -5, 50)))
        if self.kind == "rough_1":
            own = np.random.default_rng(round(1e6 * math.log(lr)) % 2**32)
            return loss * (1 + 0.01 * float(own.standard_normal()))
        if self.kind == "noise_grows":  # 0.2 % far below the optimum, 2 % at it, 20 % where runs are about to diverge
            z = math.log(lr) - self.x0
            return loss * (1 + 0.02 * min(max(math.exp(1.5 * z), 0.1), 10.0) * float(rng.standard_normal()))
        if self.kind == "failures" and rng.uniform() < 0.15:
            return math.nan
        return super().observe(lr, rng)


def functions(kind: str, count: int = 60) -> list[Function]:
    """The first `count` functions of a kind."""
    return [Function(kind, i) for i in range(count)]
