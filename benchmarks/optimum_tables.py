"""Measured losses over the learning rate as problems with a known minimum, and selections of their LRs.

`smooth` cells follow `replay_data.LossOverLR`. Cells with cliffs follow a parabola through the points within 5 % of
the best, plus a monotone interpolation of what it leaves; beyond those points a monotone interpolation of the
losses. `small_sweeps.csv` is interpolated linearly in ln lr where it is searched, as its sweeps are dense; answers
from given points need a truth whose minimum is not always on one of them."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from optimum_functions import Array, Problem
from replay_data import DATA, LossOverLR
from scipy.interpolate import PchipInterpolator

NEAR = 0.05
"""Share above the best loss within which the points of a cell with a cliff follow a parabola."""
TABLES = ("lr_grid_moe", "lr_grid_dense", "lr_grid_adam160m", "widths_mup", "small_sweeps")
"""Tables of losses over the LR."""
SELECTIONS = ("all", "six", "four", "around")
"""All LRs of a cell, six or four spread over them, four around the best."""


class CliffOverLR:
    """Loss over ln lr through measured points, some of which lie beyond a cliff."""

    def __init__(self, log_lr: Array, loss: Array):
        self.x, self.y = log_lr, loss
        best, close = int(np.argmin(loss)), loss <= loss.min() + NEAR * abs(loss.min())
        first = last = best  # the unbroken run of close points around the best
        while first > 0 and close[first - 1]:
            first -= 1
        while last < loss.size - 1 and close[last + 1]:
            last += 1
        self.all = PchipInterpolator(log_lr, loss)
        self.inside = (log_lr[first], log_lr[last])
        self.parabola = np.array([0.0, 0.0, loss.min()])
        if last - first >= 2:
            fit = np.polyfit(log_lr[first : last + 1], loss[first : last + 1], 2)
            self.parabola = fit if fit[0] > 0 else self.parabola
        rest = loss[first : last + 1] - np.polyval(self.parabola, log_lr[first : last + 1])
        self.rest = PchipInterpolator(log_lr[first : last + 1], rest) if last - first >= 1 else None

    def __call__(self, x: Array) -> Array:
        """Loss at ln lr, held at the ends beyond the measured ones."""
        x = np.clip(x, self.x[0], self.x[-1])
        out = self.all(x)
        near = (x >= self.inside[0]) & (x <= self.inside[1])
        if self.rest is not None:
            out = np.where(near, np.polyval(self.parabola, x) + self.rest(np.clip(x, *self.inside)), out)
        return np.asarray(out)


class TableCell(Problem):
    """One cell of a table: measured LRs and losses, and the loss between them."""

    def __init__(self, table: str, name: str, lr: Array, loss: Array, over: Callable[[Array], Array]):
        super().__init__(f"{table}: {name}", table, float(lr[0]), float(lr[-1]))
        self.lr, self.measured, self.over = lr, loss, over
        self.solve()

    def truth(self, x: Array) -> Array:
        """Loss at ln lr."""
        return np.asarray(self.over(np.asarray(x, dtype=float)))

    def nodes(self) -> Array:
        """The measured LRs."""
        return np.asarray(np.log(self.lr))

    def diverges(self, lr: float) -> bool:
        """Whether a run at `lr` diverges; in the sweeps, whose losses are near zero, half of an untrained loss."""
        if self.kind != "small_sweeps":
            return super().diverges(lr)
        half = 0.5 * (self.best + float(self.measured[0]))
        return self.loss(lr) > half and math.log(lr) > self.optimum[1]

    def select(self, selection: str) -> Array:
        """Which of the measured LRs a selection has, ascending, each once."""
        n, best = self.lr.size, int(np.argmin(self.measured))
        if selection == "all":
            return np.arange(n)
        if selection == "around":  # every second one, as the grids are dense
            first = int(np.clip(best - 3, 0, max(n - 7, 0)))
            return np.arange(first, min(first + 7, n), 2)
        return np.unique(np.round(np.linspace(0, n - 1, {"six": 6, "four": 4}[selection])).astype(int))


def linear(x: Array, y: Array) -> Callable[[Array], Array]:
    """Straight lines between the points."""
    return lambda at: np.interp(at, x, y)


def _cells(name: str, keys: list[str], column: str, least: int, data: Path) -> list[TableCell]:
    frame = pd.read_csv(data / f"{name}.csv")
    out = []
    for values, part in frame.groupby(keys):
        mean = part.groupby("lr")[column].mean()
        if mean.size < least:
            continue
        lr, loss = mean.index.to_numpy(float), mean.to_numpy(float)
        smooth = name in ("lr_grid_moe", "lr_grid_dense")
        over = LossOverLR(np.log(lr), loss) if smooth else CliffOverLR(np.log(lr), loss)
        out.append(TableCell(name, "/".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in values),
                             lr, loss, over))  # fmt: skip
    return out


def _sweeps(data: Path, smooth: bool) -> list[TableCell]:
    """Every model and optimizer, both seeds and their mean, by its three metrics; accuracies are negated."""
    frame = pd.read_csv(data / "small_sweeps.csv")
    out = []
    for (model, optimizer), part in frame.groupby(["model", "optimizer"]):
        for seed in ("mean", 0, 1):
            rows = part if seed == "mean" else part[part["seed"] == seed]
            for metric in ("loss", "train_loss", "accuracy"):
                mean = rows.groupby("lr")[metric].mean() * (-1 if metric == "accuracy" else 1)
                lr, loss = mean.index.to_numpy(float), mean.to_numpy(float)
                name = f"{model} {optimizer} {metric} seed {seed}"
                over = CliffOverLR(np.log(lr), loss) if smooth else linear(np.log(lr), loss)
                out.append(TableCell("small_sweeps", name, lr, loss, over))
    return out


def cells(name: str, data: Path = DATA, smooth: bool = False) -> list[TableCell]:
    """Cells of a table; [] where the file is missing. `smooth`: no straight lines between the points of a sweep."""
    if not (data / f"{name}.csv").exists():
        return []
    if name == "small_sweeps":
        return _sweeps(data, smooth)
    keys = {
        "lr_grid_moe": ["sparsity", "N", "D", "batch_seqs"],
        "lr_grid_dense": ["N", "D", "batch_seqs"],
        "lr_grid_adam160m": ["cell", "batch"],
        "widths_mup": ["parametrization", "width"],
    }[name]
    column = "smooth_loss" if name in ("lr_grid_moe", "lr_grid_dense") else "loss"
    return _cells(name, keys, column, 5, data)
