"""Losses with a minimum sharper than a parabola's: what is stated of them has to hold."""

import math

import numpy as np
import pytest

from raylr.analysis.optimum import OptimumFit, fit_optimum, fit_response

LOW, HIGH = math.log(1e-5), math.log(1e-1)


def sharp(power: float, noise: float, number: int) -> tuple[OptimumFit, float, float]:
    """A fit to five to nine random LRs on both sides of a sharp minimum, ln of the best LR, and the true regret."""
    rng = np.random.default_rng([number, round(100 * power), round(1000 * noise)])
    best, ratio, size = rng.uniform(LOW + 2, HIGH - 2), math.exp(rng.uniform(-1, 1)), math.exp(rng.uniform(-4, 0))

    def loss(x: np.ndarray) -> np.ndarray:
        u = x - best
        return 3.0 + size * np.abs(u) ** power * np.where(u > 0, ratio**0.5, ratio**-0.5)

    n = int(rng.integers(5, 10))
    x = np.sort(rng.uniform(LOW, HIGH, n))
    x[:2], x[-2:] = best - rng.uniform(0.1, 3, 2), best + rng.uniform(0.1, 3, 2)
    fit = fit_optimum(np.exp(x), loss(x) + noise * size * rng.standard_normal(n))
    return fit, best, float(loss(np.array([math.log(fit.lr)]))[0]) - 3.0


def stated(fit: OptimumFit, level: float) -> float:
    """Quantile of the regret at the LR recommended."""
    curves = fit.curves
    assert curves is not None
    lost = curves.curves - curves.curves.min(axis=1, keepdims=True)
    at = [np.interp(math.log(fit.lr), curves.x, row) for row in lost]
    return fit.losses.unit * float(np.quantile(at, level))


@pytest.mark.parametrize(("power", "inside", "below"), [(0.8, 0.65, 0.25), (1.0, 0.8, 0.5), (1.5, 0.85, 0.6)])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_intervals_and_regrets_of_sharp_minima_hold(power: float, inside: float, below: float, noise: float) -> None:
    """The gaps between these LRs are up to four e-folds wide, and what a cusp (0.8) does there cannot be seen."""
    found = [sharp(power, noise, i) for i in range(60)]
    assert np.mean([fit.lr_low <= math.exp(best) <= fit.lr_high for fit, best, _ in found]) >= inside
    assert np.mean([true <= stated(fit, 0.9) + 1e-3 * fit.curvature for fit, _, true in found]) >= below


def cone(number: int) -> tuple[list[bool], float, float]:
    """Whether the interval of either axis holds the best value of a cone, its stated and its true regret."""
    rng = np.random.default_rng(number)
    ranges = {"lr": (1e-4, 1e-1), "wd": (1e-2, 1.0)}
    x = np.array([rng.uniform(*np.log(ends), 11) for ends in ranges.values()])
    best = np.array([rng.uniform(math.log(5e-4), math.log(2e-2)), rng.uniform(math.log(0.03), math.log(0.3))])
    tilt = rng.uniform(-0.7, 0.7)

    def loss(u: np.ndarray) -> np.ndarray:
        return 3.0 + 0.1 * np.sqrt(u[0] ** 2 + u[1] ** 2 + 2 * tilt * u[0] * u[1])

    points = dict(zip(ranges, np.exp(x), strict=True))
    fit = fit_response(points, loss(x - best[:, None]), ranges=ranges)
    at = np.log([fit.at[name] for name in ranges])
    ends = [fit.interval(name) for name in ranges]
    return [a <= math.exp(b) <= c for (a, c), b in zip(ends, best, strict=True)], fit.regret, float(loss(at - best)) - 3


def test_intervals_of_cones_hold_and_their_regrets_are_stated() -> None:
    found = [cone(i) for i in range(12)]
    assert np.mean([one for inside, _, _ in found for one in inside]) >= 0.8
    true, said = sum(one for _, _, one in found), sum(one for _, one, _ in found)
    assert said >= 0.2 * true
