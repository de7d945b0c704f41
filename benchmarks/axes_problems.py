"""Losses over the LR and a second hyperparameter, for `axes.py`: made-up functions, and tables of real runs."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from replay_data import DATA
from scipy.interpolate import RegularGridInterpolator

Place = tuple[float, ...]
"""ln of the LR and of the other axes."""

KINDS = (
    "square", "skewed", "narrow ridge", "flat", "hinge", "NaN cliff", "cliff to 10", "noise 0.5 %", "noise 1 %",
    "noise 2 %", "three axes",
)  # fmt: skip


@dataclass
class Problem:
    """One function with its ranges."""

    kind: str
    ranges: tuple[tuple[float, float], ...]
    """Lowest and highest value of the LR and of the other axes."""
    loss: Callable[[Place], float]
    """True loss; NaN where runs diverge."""
    lowest: float
    """Its least value."""
    best: Place | None = None
    """Where; None for a table, whose runs are noisy."""
    noise: float = 0.0
    """Standard deviation of a measured loss."""
    flat: bool = False
    """Whether the second axis makes no difference."""
    slope: float | None = None
    """True ridge: d ln lr / d ln of the second axis."""

    def regret(self, place: Place) -> float:
        """Percent above the least loss; 100 where runs diverge."""
        value = self.loss(place)
        return 100 * (value / self.lowest - 1) if math.isfinite(value) else 100.0


def made_up(kind: str, index: int) -> Problem:
    """Function `index` of a kind: an optimum anywhere in the middle of the ranges, curvatures of LLM cells."""
    rng = np.random.default_rng([index, KINDS.index(kind)])
    ranges = ((1e-4, 1e-1), (1e-2, 1.0)) + (((16.0, 512.0),) if kind == "three axes" else ())
    ends = np.log(np.array(ranges))
    d = len(ranges)
    m = ends.mean(axis=1) + rng.uniform(-0.27, 0.27, d) * np.diff(ends)[:, 0]
    c = math.exp(rng.uniform(math.log(0.005), math.log(0.05)))
    ratio = np.append(1.0, np.exp(rng.uniform(math.log(0.15), math.log(1.5), d - 1)))
    root = np.linalg.cholesky(_correlation(rng, d, 0.95 if kind == "narrow ridge" else None))
    h = np.sqrt(np.outer(ratio, ratio)) * (root @ root.T)
    if kind == "flat":
        h[1:] = h[:, 1:] = 0.0
        h[0, 0] = 1.0
    tilt, gap, skew = rng.uniform(-0.5, 0.5), rng.uniform(0.1, 1.2), rng.uniform(0.3, 1.0)
    noise = float(kind.split()[1]) / 100 if kind.startswith("noise") else 0.0
    slope = -h[0, 1] / h[0, 0]

    def loss(place: Place) -> float:
        u = np.array(place) - m
        along = float(u[0] - slope * u[1])  # distance from the ridge, in ln lr
        rest = float(u @ h @ u) - along**2
        if kind == "skewed":
            rise = 2 * (math.expm1(skew * along) - skew * along) / skew**2 + rest
        elif kind == "hinge":
            rise = along * (2.0 if along > 0 else -1.0) + rest
        else:
            rise = along**2 + rest
        if u[0] + tilt * u[1] > gap and "cliff" in kind:
            return math.nan if kind == "NaN cliff" else 10.0
        return 3.0 * (1 + c * rise)

    return Problem(kind, ranges, loss, 3.0, tuple(m), 3.0 * noise, kind == "flat", None if kind == "flat" else slope)


def _correlation(rng: np.random.Generator, d: int, fixed: float | None) -> np.ndarray:
    out = np.eye(d)
    while True:
        i, k = np.triu_indices(d, 1)
        out[i, k] = out[k, i] = rng.choice([-1, 1]) * fixed if fixed else rng.uniform(-0.8, 0.8, i.size)
        if np.linalg.eigvalsh(out)[0] > 0.02:
            return out


def tables() -> list[Problem]:
    """LR × batch of `lr_grid_dense.csv` and `lr_grid_moe.csv`, one problem a model and budget, interpolated linearly in
    the logarithms."""
    out = []
    for name, kind, keys in (("lr_grid_dense", "dense LR × batch", ["N", "D"]),
                             ("lr_grid_moe", "MoE LR × batch", ["N", "D"])):  # fmt: skip
        path = DATA / f"{name}.csv"
        if not path.exists():
            continue
        for _, rows in pd.read_csv(path).groupby(keys):
            grid = rows.pivot_table(index="lr", columns="batch_seqs", values="smooth_loss")
            grid = grid.interpolate(axis=0, limit_direction="both").interpolate(axis=1, limit_direction="both")
            x = np.log(grid.index.to_numpy(float)), np.log(grid.columns.to_numpy(float))
            over = RegularGridInterpolator(x, grid.to_numpy(), bounds_error=False, fill_value=None)
            ends = tuple((math.exp(v[0]), math.exp(v[-1])) for v in x)
            out.append(Problem(kind, ends, inside(over, x), float(grid.to_numpy().min())))
    return out


def inside(over: RegularGridInterpolator, x: tuple[np.ndarray, ...]) -> Callable[[Place], float]:
    return lambda place: float(over([[min(max(p, v[0]), v[-1]) for p, v in zip(place, x, strict=True)]])[0])
