"""The part of `laws.py` about made-up cells: is a known B^delta, bend or L(N, D) inside its 90 % interval?

The truth of each draw comes from the priors that the fits state, and its scatter or noise from theirs, so that the
shares test the fits and not the priors. Cells lie where a study of 9 to 16 settings has them."""

import math

import numpy as np
from laws_tables import Out, row

from raylr.analysis import fit_loss_law, fit_lr_law
from raylr.analysis.laws._fitting import SCATTER, SCATTER_DOF
from raylr.analysis.laws.loss_law import (
    A_PRIOR,
    B_PRIOR,
    BATCH_COST_PRIOR,
    BEST_BATCH,
    BEST_BATCH_SD,
    NOISE,
    NOISE_DOF,
)
from raylr.analysis.laws.lr_fit import DEFAULT_PRIORS as PRIORS

DRAWS = 200
LOSS = 2.8
"""Nats; the noise of the loss law is relative to it."""


def _grid(sizes: list[float], budgets: list[float]) -> tuple[np.ndarray, np.ndarray]:
    n, d = np.meshgrid(sizes, budgets, indexing="ij")
    return n.ravel(), d.ravel()


def _optima(rng: np.random.Generator, n: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, float]:
    """ln of the optima of a law from the priors, without a batch, and the scatter to add."""
    alpha, beta = rng.normal(*PRIORS.alpha), rng.normal(*PRIORS.beta)
    scatter = SCATTER * math.sqrt(SCATTER_DOF / rng.chisquare(SCATTER_DOF))
    return -7 - alpha * np.log(n / 1e8) - beta * np.log(d / 1e9), scatter


def recovery() -> Out:
    """Shares of the 90 % intervals that hold the truth."""
    rng = np.random.default_rng(0)
    hits: dict[str, list[bool]] = {}

    def note(name: str, low: float, truth: float, high: float) -> None:
        hits.setdefault(name, []).append(bool(low <= truth <= high))

    n, d = _grid([1e8, 2e8, 4e8], [1e9, 4e9, 1.6e10])
    long_n, long_d = _grid([1e8, 2e8, 4e8], [1e9, 2.8e9, 8e9, 2.3e10, 6.4e10])
    loss_n, loss_d = _grid([1e8, 2e8, 4e8, 8e8], [2e9, 4e9, 8e9, 1.6e10])
    few_n, few_d, few_b = (v.ravel() for v in np.meshgrid([1e8, 2e8, 4e8], [4e9, 1.6e10], [2.5e5, 1e6], indexing="ij"))
    for _ in range(DRAWS):
        z, scatter = _optima(rng, n, d)
        batch = 1e5 * np.sqrt(d / 1e9) * np.exp2(rng.uniform(-1, 1, n.size))
        delta = rng.normal(*PRIORS.delta)
        lr = np.exp(z + delta * np.log(batch / 1e5) + rng.normal(0, scatter, n.size))
        note("exponent of the batch", *_around(fit_lr_law(n, d, lr, batch=batch).interval(0.9)["delta"], delta))

        z, scatter = _optima(rng, long_n, long_d)
        bend = rng.choice([0.0, 0.1])
        z += bend * np.log(long_d / 8e9) ** 2 + rng.normal(0, scatter, long_n.size)
        law = fit_lr_law(long_n, long_d, np.exp(z), batch=1e5)
        test = next(one for one in law.bends if one.axis == "tokens")
        half = 1.75 * test.stderr  # Student's t, 95 % quantile at about 14 degrees of freedom
        note("bend in ln tokens", test.curvature - half, bend, test.curvature + half)

        a, b = (prior[0] * math.exp(prior[1] * rng.normal()) for prior in (A_PRIOR, B_PRIOR))
        e, size, length = rng.uniform(1.5, 2), rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.8)
        noise = NOISE * LOSS * math.sqrt(NOISE_DOF / rng.chisquare(NOISE_DOF))
        loss = e + size * (loss_n / 3e8) ** -a + length * (loss_d / 6e9) ** -b
        found = fit_loss_law(loss_n, loss_d, loss + rng.normal(0, noise, loss.size))
        for (name, ends), truth in zip(found.interval().items(), (e, a, b), strict=True):
            note(f"loss law, {name}", *_around(ends, truth))
        ahead = found.predict(4e9, 1e11)
        target = e + size * (4e9 / 3e8) ** -a + length * (1e11 / 6e9) ** -b
        note("loss law, loss at 5 N, 6 D", ahead.low, target + rng.normal(0, noise), ahead.high)

        cost = BATCH_COST_PRIOR[0] * math.exp(BATCH_COST_PRIOR[1] * rng.normal())
        best = math.log(BEST_BATCH[0]) + BEST_BATCH_SD * rng.normal()
        where = [np.append(v, last) for v, last in zip((few_n, few_d, few_b), (1.2e9, 6e10, 2e6), strict=True)]
        off = np.log(where[2]) - best - BEST_BATCH[1] * np.log(where[1])
        loss = e + size * (where[0] / 3e8) ** -a + length * (where[1] * np.exp(-cost * off**2) / 6e9) ** -b
        loss += rng.normal(0, noise, loss.size)
        found = fit_loss_law(few_n, few_d, loss[:-1], batch=few_b)
        ahead = found.predict(1.2e9, 6e10, batch=2e6)
        note("loss law with the batch, at 3 N, 4 D, 2 B", ahead.low, loss[-1], ahead.high)
    print(f"\nmade-up cells: truths inside 90 % intervals, {DRAWS} draws (85 to 97 % wanted)")
    out: Out = {}
    for name, inside in hits.items():
        share = float(np.mean(inside))
        out[f"recovery_{name.replace(', ', '_').replace(' ', '_')}"] = share
        row(name, f"{share:.1%}", "" if 0.85 <= share <= 0.97 else "not reached")
    return out


def _around(ends: tuple[float, float], truth: float) -> tuple[float, float, float]:
    return ends[0], truth, ends[1]
