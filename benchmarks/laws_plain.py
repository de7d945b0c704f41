"""The plain methods that `laws.py` compares with: what one writes in ten lines of numpy and scipy.

Optima are ln lr; a fit that fails falls back to the last measured loss or the best measured LR."""

import warnings
from collections.abc import Callable

import numpy as np
from replay_data import LossOverLR
from scipy.optimize import OptimizeWarning, curve_fit

Method = Callable[[np.ndarray, np.ndarray, np.ndarray, float], float]
"""(lr (R,), tokens (n,), losses (R, n), target tokens) to ln lr of the optimum at the target."""


def eq4(t: np.ndarray, loss_inf: float, a: float, gamma: float) -> np.ndarray:
    """Eq. 4 with tokens in units of the last."""
    return loss_inf + a * t**-gamma


def curve_fit_loss(t: np.ndarray, y: np.ndarray, target: float, leave_out: float = 0.0) -> float:
    """Loss at `target` tokens by `scipy.optimize.curve_fit`, the first `leave_out` of the window left out."""
    keep = t >= leave_out * t[-1]
    bounds = ((-np.inf, 0, 0.02), (np.inf, np.inf, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)
        try:
            popt, _ = curve_fit(eq4, t[keep] / t[-1], y[keep], p0=(y[-1] - 0.2, 0.2, 0.4), bounds=bounds)
        except (RuntimeError, ValueError):
            return float(y[-1])
    return float(eq4(np.array(target / t[-1]), *popt))


def optimum(lr: np.ndarray, loss: np.ndarray) -> float:
    """Of losses at LRs, by the interpolation that regrets are measured with."""
    return LossOverLR(np.log(lr), loss).optimum


def no_extrapolation(lr: np.ndarray, t: np.ndarray, y: np.ndarray, target: float) -> float:
    """The optimum where the runs stopped."""
    return optimum(lr, y[:, -1])


def eq4_each(leave_out: float) -> Method:
    """Eq. 4 for every LR by itself."""

    def method(lr: np.ndarray, t: np.ndarray, y: np.ndarray, target: float) -> float:
        return optimum(lr, np.array([curve_fit_loss(t, row, target, leave_out) for row in y]))

    return method


def shared_gamma(leave_out: float, within: float = 0.08) -> Method:
    """Eq. 4 with one exponent for all LRs whose last loss is `within` a share of the best; l0 and a for each LR."""

    def method(lr: np.ndarray, t: np.ndarray, y: np.ndarray, target: float) -> float:
        keep = t >= leave_out * t[-1]
        u, v = t[keep] / t[-1], y[:, keep]
        near = v[:, -1] <= v[:, -1].min() * (1 + within)
        best = (np.inf, 0.0)
        for gamma in np.geomspace(0.02, 3, 120):
            x = np.stack([np.ones_like(u), u**-gamma], 1)
            residual = v[near].T - x @ np.linalg.lstsq(x, v[near].T, rcond=None)[0]
            best = min(best, (float((residual**2).sum()), float(gamma)))
        x = np.stack([np.ones_like(u), u ** -best[1]], 1)
        l0, b = np.linalg.lstsq(x, v.T, rcond=None)[0]
        return optimum(lr, l0 + b * (target / t[-1]) ** -best[1])

    return method


def polyfit_optimum(lr: np.ndarray, loss: np.ndarray) -> float:
    """`numpy.polyfit` of degree 2 over all finite points."""
    ok = np.isfinite(loss)
    return _vertex(np.log(lr[ok]), loss[ok])


def windowed_optimum(lr: np.ndarray, loss: np.ndarray, near: float = 0.03) -> float:
    """The same over the points within `near` of the best, three at least."""
    ok = loss <= np.nanmin(loss) * (1 + near)
    ok[np.argsort(loss)[:3]] = True
    return _vertex(np.log(lr[ok]), loss[ok])


def best_measured(lr: np.ndarray, loss: np.ndarray) -> float:
    """The LR of the lowest measured loss."""
    return float(np.log(lr[np.nanargmin(loss)]))


def _vertex(x: np.ndarray, y: np.ndarray) -> float:
    c2, c1, _ = np.polyfit(x, y, 2)
    return float(np.clip(-c1 / (2 * c2), x.min(), x.max())) if c2 > 0 else float(x[y.argmin()])


def step_law(params: float, tokens: float) -> float:
    """ln lr of Step Law's published law."""
    return float(np.log(1.79 * params**-0.713 * tokens**0.307))
