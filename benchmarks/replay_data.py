"""Where the benchmarks' tables lie, and their losses as functions of the learning rate. No Ray."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

DATA = Path(os.environ.get("RAYLR_DATA", Path(__file__).parents[2] / "shared" / "data"))


class LossOverLR:
    """The loss between measured lrs: a quadratic in ln lr through the points near the best, plus a monotone
    interpolation of what it leaves. (A monotone interpolation alone has its minimum on a measured lr always.)"""

    def __init__(self, log_lr: np.ndarray, loss: np.ndarray, near: float = 0.03):
        self.low, self.high = float(log_lr[0]), float(log_lr[-1])
        close = loss <= loss.min() * (1 + near)
        close[np.argsort(loss)[:4]] = True
        self._quadratic = np.polyfit(log_lr[close], loss[close], 2)
        if self._quadratic[0] <= 0:
            self._quadratic = np.array([0.0, 0.0, loss.min()])
        self._rest = PchipInterpolator(log_lr, loss - np.polyval(self._quadratic, log_lr))
        grid = np.linspace(self.low, self.high, 4001)
        y = self(grid)
        self.best, self.optimum = float(y.min()), float(grid[y.argmin()])

    def __call__(self, log_lr: Any) -> Any:
        """Loss at ln lr, held at the ends beyond the measured ones."""
        x = np.clip(log_lr, self.low, self.high)
        return np.polyval(self._quadratic, x) + self._rest(x)
