"""Made-up laws, one decayed run each, seen with little noise: are the standard errors of predicted losses honest?

    python benchmarks/decay_noise.py [--count 8] [--first 0] [--laws "LR-area law" …] [--noises 0 1e-4 1e-3]

A run is at a constant LR and decayed over its last 10 to 60 % (linear, cosine or 1 - sqrt); its law is

    L = l0 + a (integral of LR^p)^-alpha - b (what the fall of the LR has taken away so far) + noise

with p of 0, 0.5 or 1 and one of the responses to a fall in `decayed_truths.RESPONSES`, or none (an immediate one), and
b of 0.5 to 10 of what the run gains in an e-fold of progress at its end. The losses at the ends of three other runs of
the model are predicted: of the same decay at twice the tokens, of another length or shape of decay at the same tokens,
and of no decay at all. `z` is the error of a prediction over its standard error; its root mean square should be
near 1.
"""

import argparse
import math

import numpy as np
from decayed_truths import RESPONSES, Response
from laws_tables import row

from raylr.analysis import Decay, fit_annealing
from raylr.analysis.curves.schedule import SHAPES

STEPS, REPORTS, LR = 50000.0, 100, 1e-3
NOISES = (0.0, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3)
TARGETS = ("longer", "other", "constant")


def _immediate(steps: np.ndarray, area: np.ndarray, eta: np.ndarray) -> np.ndarray:
    return np.ones(steps.size)


LAWS = {"immediate": lambda rng: _immediate, **RESPONSES}


class Truth:
    """A made-up law of a run."""

    def __init__(self, name: str, rng: np.random.Generator) -> None:
        self.response: Response = LAWS[name](rng)
        self.p, self.alpha = float(rng.choice([0.0, 0.5, 1.0])), rng.uniform(0.2, 0.6)
        self.q = rng.uniform(0.5, 1.0)
        gain = float(np.exp(rng.uniform(math.log(0.03), math.log(0.15))))
        self.a = gain / self.alpha * STEPS**self.alpha
        self.b = gain * float(np.exp(rng.uniform(math.log(0.5), math.log(10.0))))

    def losses(self, budget: float, decay: Decay | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps, LRs and losses of a run of `budget` steps on a fine grid."""
        grid = np.linspace(0.0, budget, 2001)[1:]
        eta = np.ones(grid.size) if decay is None else decay.factor(grid, budget)
        width = grid[1] - grid[0]
        progress, area = np.cumsum(eta**self.p if self.p else np.ones(grid.size)) * width, np.cumsum(eta) * width
        fall, taken = np.append(0.0, -np.diff(eta**self.q)), np.zeros(grid.size)
        for at in np.flatnonzero(fall > 0):
            taken[at:] += fall[at] * self.response(grid[at:] - grid[at], area[at:] - area[at], eta[at : at + 1])
        return grid, LR * eta, 2.5 + self.a * progress**-self.alpha - self.b * taken


def predicted(name: str, number: int, noises: list[float]) -> np.ndarray:
    """Errors and standard errors in gains of an e-fold, for each noise and target (noises, targets, 2)."""
    rng = np.random.default_rng([number, *name.encode()])
    truth = Truth(name, rng)
    one, other = (Decay(shape=str(rng.choice(SHAPES)), fraction=rng.uniform(0.1, 0.6)) for _ in range(2))
    gain = truth.a * truth.alpha * STEPS**-truth.alpha
    at = np.linspace(0.0, STEPS, REPORTS + 1)[2:]
    grid, lr, loss = truth.losses(STEPS, one)
    y, scatter = np.interp(at, grid, loss), rng.standard_normal(at.size)
    ends = [(2 * STEPS, one), (STEPS, other), (STEPS, None)]
    true = [truth.losses(*end)[2][-1] for end in ends]
    paths = [decay.path(LR, budget) if decay else ([200.0, budget], [LR, LR]) for budget, decay in ends]
    out = []
    for noise in noises:
        fit = fit_annealing(at, np.interp(at, grid, lr), y + noise * scatter)
        found = [fit.predict(*path) for path in paths]
        out.append([(loss[-1] - end, stderr[-1]) for (loss, stderr), end in zip(found, true, strict=True)])
    return np.array(out) / gain


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=8, help="draws of each law")
    parser.add_argument("--first", type=int, default=0, help="number of the first draw")
    parser.add_argument("--laws", nargs="*", default=list(LAWS), choices=list(LAWS))
    parser.add_argument("--noises", type=float, nargs="*", default=list(NOISES), help="nats")
    args = parser.parse_args()
    drawn = {name: np.array([predicted(name, i, args.noises) for i in range(args.first, args.first + args.count)])
             for name in args.laws}  # fmt: skip
    row("noise, law", *(f"{one} {what}" for one in TARGETS for what in ("z, worst", "error, stderr")))
    for i, noise in enumerate(args.noises):
        for name, found in [*drawn.items(), ("all", np.concatenate(list(drawn.values())))]:
            error, stderr = found[:, i, :, 0], found[:, i, :, 1]
            z = error / stderr
            cells = []
            for k in range(len(TARGETS)):
                cells.append(f"{np.sqrt(np.mean(z[:, k] ** 2)):.2f}, {np.abs(z[:, k]).max():.1f}")
                cells.append(f"{np.sqrt(np.mean(error[:, k] ** 2)):.3f}, {np.median(stderr[:, k]):.3f}")
            row(f"{noise:g}, {name}", *cells)


if __name__ == "__main__":
    main()
