"""Made-up losses over LR and tokens whose optimum at the end is known: do 90 % intervals of predicted sections hold it?

    python benchmarks/surface_truths.py [--count 12] [--first 0] [--cuts 0.25 0.5]

Four to six LRs a factor 2 apart are seen up to a share of the tokens, with correlated noise. One of the forms is the
surface's own; in the others each LR has a power law of its own, there is a cliff, or the loss is a parabola over ln LR
that moves and bends. Draws whose optimum lies outside of the LRs do not count.
"""

import argparse
import math
from collections.abc import Callable

import numpy as np
from laws_tables import row

from raylr.analysis import fit_surface

REPORTS = 60
Loss = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""ln LR (n, 1) and share of the tokens (m,) -> losses (n, m)."""


def own(rng: np.random.Generator) -> Loss:
    """Progress and a floor, as the surface's mean."""
    gamma, a, q = 0.4 * np.exp(0.4 * rng.normal()), 0.3 * np.exp(0.4 * rng.normal()), 0.6 * np.exp(0.4 * rng.normal())
    floor = a / q
    return lambda z, t: 3 + np.exp(-a * z) * t**-gamma + floor * np.exp(q * z)


def power_laws(rng: np.random.Generator) -> Loss:
    """Each LR with an amplitude and an exponent of its own."""
    gamma, bend, lean = rng.uniform(0.25, 0.6), rng.uniform(0.05, 0.3), rng.uniform(-0.2, 0.0)
    return lambda z, t: 3 + (1 + bend * z**2) * t ** (-gamma * (1 + lean * np.tanh(z)))


def cliff(rng: np.random.Generator) -> Loss:
    """Progress, a floor and a cliff above the optimum."""
    loss, at, steep = own(rng), rng.uniform(0.7, 1.4), rng.uniform(3, 6)
    return lambda z, t: loss(z, t) + 0.3 * np.exp(np.minimum(steep * (z - at), 3))


def parabola(rng: np.random.Generator) -> Loss:
    """A parabola over ln LR whose minimum falls as a power of the tokens."""
    gamma, bend, beta = rng.uniform(0.25, 0.6), rng.uniform(0.03, 0.2), rng.uniform(0.0, 0.5)
    return lambda z, t: 3 + t**-gamma * (1 + bend * (z + beta * np.log(t)) ** 2 + 0.3 * bend * z**2)


FORMS = {"the surface's own": own, "power laws": power_laws, "cliff": cliff, "parabola": parabola}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12, help="draws of each form and cut")
    parser.add_argument("--first", type=int, default=0, help="number of the first draw")
    parser.add_argument("--cuts", type=float, nargs="*", default=[0.25, 0.5])
    args = parser.parse_args()
    row("cut, form", "inside 90 %", "open", "half width", "error of ln lr, rms", "mean")
    total = []
    for cut in args.cuts:
        for name in FORMS:
            each = [measured(name, cut, number) for number in range(args.first, args.first + args.count)]
            inside, opened, width, error = np.array(each, float).T
            total += list(inside)
            middle = f"{np.nanmedian(width):.2f}" if np.isfinite(width).any() else ""
            row(f"{cut:.0%}, {name}", f"{inside.mean():.0%}", f"{opened.mean():.0%}", middle,
                f"{np.sqrt(np.mean(error**2)):.2f}", f"{error.mean():+.2f}")  # fmt: skip
    print(f"  all: {np.sum(total):.0f} of {len(total)} inside")


def measured(name: str, cut: float, number: int) -> tuple[float, ...]:
    """Return whether the interval holds the optimum, whether it is open, its half width, and the error of ln LR."""
    rng = np.random.default_rng([number, *name.encode(), round(100 * cut)])
    fine = np.linspace(-4, 4, 1601)
    while True:
        loss, count = FORMS[name](rng), int(rng.integers(4, 7))
        z = math.log(2) * (np.arange(count) - 0.5 * (count - 1)) + rng.uniform(-0.5, 0.5)
        best = float(fine[np.argmin(loss(fine[:, None], np.ones(1))[:, 0])])
        if z[0] < best < z[-1]:
            break
    t = np.linspace(0, 1, REPORTS + 1)[2:]
    t = t[t <= cut]
    y, noise = loss(z[:, None], t), np.zeros((count, t.size))
    for i in range(t.size):
        noise[:, i] = (0.6 * noise[:, i - 1] if i else 0.0) + 0.002 * rng.standard_normal(count)
    fit = fit_surface(np.repeat(np.exp(z), t.size), np.tile(t, count), (y + noise).ravel())
    low, high = fit.lr_interval(1.0)
    closed = 0 < low < high < math.inf
    error = math.log(float(fit.lr_opt(1.0))) - best
    return low <= math.exp(best) <= high, not closed, 0.5 * math.log(high / low) if closed else math.nan, error


if __name__ == "__main__":
    main()
