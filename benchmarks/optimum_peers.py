"""What raylr's model of the loss over the LR is compared with: answers from given points, and searches.

Answers from points: the lowest loss (argmin), a parabola through all points, one through those within 5 % of the
best, a Gaussian process, and a parabola through the best point and its two neighbours whose higher neighbour is taken
as at most four times as far above the best as the lower one. Diverged runs (NaN) are left out by all of them."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from optimum_functions import Array

Points = Callable[[Array, Array], "Answer"]
"""(lr (n,), loss (n,), NaN where diverged) to an answer."""


@dataclass(frozen=True)
class Answer:
    """What a method says after some runs."""

    lr: float
    status: str = ""
    low: float = math.nan
    """90 % interval of the best LR; NaN without one."""
    high: float = math.nan
    regret: float = math.nan
    """Stated regret, relative to the loss."""


def argmin(lr: Array, loss: Array) -> Answer:
    """The LR of the lowest loss."""
    return Answer(float(lr[np.nanargmin(loss)]))


def parabola(lr: Array, loss: Array) -> Answer:
    """`numpy.polyfit` of degree 2 over all finite points."""
    return _vertex(lr, loss, np.isfinite(loss))


def parabola_near(lr: Array, loss: Array, near: float = 0.05) -> Answer:
    """The same over those within `near` of the best, three at least."""
    safe = np.nan_to_num(loss, nan=np.inf)
    keep = safe <= safe.min() + near * abs(safe.min())
    keep[np.argsort(safe)[:3]] = True
    return _vertex(lr, loss, keep & np.isfinite(loss))


def capped_parabola(lr: Array, loss: Array, most: float = 4.0) -> Answer:
    """The parabola of three with the higher neighbour capped; at the ends, the best LR."""
    keep = np.isfinite(loss)
    order = np.argsort(lr[keep])
    x, y = np.log(lr[keep][order]), loss[keep][order]
    i = int(np.argmin(y))
    if i in (0, y.size - 1):
        return Answer(float(np.exp(x[i])))
    rise = np.array([y[i - 1], y[i + 1]]) - y[i]
    rise = np.minimum(rise, most * rise.min())
    xs, ys = x[i - 1 : i + 2], np.array([rise[0], 0.0, rise[1]])
    if not rise.max() > 0:
        return Answer(float(np.exp(x[i])))
    c2, c1, _ = np.polyfit(xs, ys / rise.max(), 2)
    return Answer(float(np.exp(np.clip(-c1 / (2 * c2), xs[0], xs[2]))) if c2 > 0 else float(np.exp(x[i])))


def gaussian_process(lr: Array, loss: Array) -> Answer:
    """Lowest mean of Optuna's Gaussian process (Matérn 5/2, its own priors) within the LRs given."""
    import torch
    from optuna._gp.gp import fit_kernel_params
    from optuna._gp.prior import DEFAULT_MINIMUM_NOISE_VAR, default_log_prior

    keep = np.isfinite(loss)
    x, y = np.log(lr[keep]), loss[keep]
    if y.size < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return argmin(lr, loss)
    torch.set_num_threads(1)
    grid = np.linspace(0, 1, 801)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = fit_kernel_params(
            X=((x - x.min()) / np.ptp(x))[:, None],
            Y=(y - y.mean()) / max(float(y.std()), 1e-10),
            is_categorical=np.array([False]),
            log_prior=default_log_prior,
            minimum_noise=DEFAULT_MINIMUM_NOISE_VAR,
            deterministic_objective=False,
        )
        mean = fitted.posterior(torch.from_numpy(grid[:, None]))[0].detach().numpy()
    return Answer(float(np.exp(x.min() + np.ptp(x) * grid[mean.argmin()])))


def _vertex(lr: Array, loss: Array, keep: Array) -> Answer:
    x, y = np.log(lr[keep]), loss[keep]
    if np.unique(x).size < 3:
        return argmin(lr, loss)
    c2, c1, _ = np.polyfit(x, y, 2)
    return Answer(float(np.exp(np.clip(-c1 / (2 * c2), x.min(), x.max()))) if c2 > 0 else float(np.exp(x[y.argmin()])))


BASELINES: dict[str, Points] = {
    "argmin": argmin,
    "parabola, all": parabola,
    "parabola, within 5 %": parabola_near,
    "Gaussian process": gaussian_process,
    "capped parabola of 3": capped_parabola,
}
"""Answers from points, by name."""


def search_peers() -> dict[str, Any]:
    """Searches by name, of `search_replay.peers`, that are installed."""
    from search_replay import peers

    wanted = ("Optuna GP", "Optuna TPE", "Optuna CMA-ES")
    return {peer.name: peer for peer in peers() if peer.name in wanted and not peer.missing}
