"""Could trunks of a decay study end early where their LR is already beaten? What it would save, and what it would cost.

    python benchmarks/decay_trunks.py [--count 4] [--first 300] [--laws "LR-area law" …] [--sigmas 2]

Studies of one made-up model (`decayed_truths.py`): four LRs a factor 2 apart, two budgets, half of and the whole of
`STEPS`. Once all trunks have reached the smaller budget, and the LRs with the two lowest stable losses there have a
branch, the annealing law predicts every decayed loss of the larger budget. A trunk ends there if its predicted loss
lies `sigmas` standard errors of the difference above the lowest one. The others go on and are decayed. Compared with a
study whose trunks all go on (and whose branches at the larger budget are spared by the same rule):

    ended       share of the trunks that end
    best ended  studies in which the LR whose decayed loss is lowest in truth was among them
    tokens      of trunks and branches, over those of the study whose trunks all go on
    moved       how far ln of the best LR lies from the answer of that study, rms; regret of both, nats
"""

import argparse
import math

import numpy as np
from decayed_truths import LRS, NOISE, REPORTS, RESPONSES, STEPS, Truth, made_up
from laws_tables import row

from raylr.analysis import Decay
from raylr.analysis.surface.decayed import Branch, annealing_of, decayed_optimum

SMALL = 0.5 * STEPS


def branch(truth: Truth, lr: float, budget: float, decay: Decay, rng: np.random.Generator) -> Branch:
    at = np.linspace(budget * (1 - decay.fraction), budget, 9)[1:]
    loss = truth.loss(lr, at, budget, decay) + NOISE * rng.standard_normal(at.size)
    return Branch(lr=lr, budget=budget, tokens=at, loss=loss)


def study(name: str, fraction: float, number: int, sigmas: float) -> tuple[float, ...]:
    """Return the numbers of one made-up study: see `main`."""
    truth, best, rng = made_up(name, fraction, number)
    decay, lrs = Decay(fraction=fraction), np.array(LRS)
    steps = np.linspace(0.0, STEPS, REPORTS + 1)[2:]
    curves = [truth.loss(lr, steps, STEPS, None) + NOISE * rng.standard_normal(steps.size) for lr in LRS]
    low = np.argsort([np.interp(SMALL, steps, curve) for curve in curves])[:2]
    small = [branch(truth, LRS[i], SMALL, decay, rng) for i in low]
    ends = [branch(truth, lr, STEPS, decay, rng) for lr in LRS]
    early = annealing_of(
        [(lr, steps[steps <= SMALL], y[steps <= SMALL]) for lr, y in zip(LRS, curves, strict=True)], small, decay
    )
    beaten = _beaten(early, decay, sigmas)
    true = np.array([truth.end(lr, STEPS, decay) for lr in LRS])
    answers, tokens = [], []
    for over in (np.zeros(lrs.size, bool), beaten):
        known = [(lr, steps[steps <= (SMALL if e else STEPS)], y[steps <= (SMALL if e else STEPS)])
                 for lr, y, e in zip(LRS, curves, over, strict=True)]  # fmt: skip
        spared = over | _beaten(annealing_of(known, small, decay), decay, sigmas)
        made = [one for one, e in zip(ends, spared, strict=True) if not e]
        fit = annealing_of(known, [*small, *made], decay)
        measured = [(one.lr, float(one.loss[-1])) for one in made]
        answers.append(decayed_optimum(fit, decay, STEPS, LRS, measured=measured).lr)
        trunks = np.where(over, SMALL, STEPS * (1 - fraction)).sum()
        tokens.append(trunks + fraction * (len(small) * SMALL + len(made) * STEPS))
    lost = [truth.end(lr, STEPS, decay) - truth.end(best, STEPS, decay) for lr in answers]
    return (float(beaten.mean()), float(beaten[int(np.argmin(true))]), tokens[1] / tokens[0],
            math.log(answers[1] / answers[0]), *lost)  # fmt: skip


def _beaten(fit, decay: Decay, sigmas: float) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Which LRs have a predicted loss at `STEPS` that lies `sigmas` standard errors above the lowest one."""
    mean, cov = fit.ends([decay.path(lr, STEPS) for lr in LRS])
    at = int(np.argmin(mean))
    apart = np.sqrt(np.maximum(np.diag(cov) + cov[at, at] - 2 * cov[at], 1e-300))
    return np.asarray(mean - mean[at] > sigmas * apart)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4, help="studies of each law and fraction")
    parser.add_argument("--first", type=int, default=300, help="number of the first draw")
    parser.add_argument("--laws", nargs="*", default=list(RESPONSES), choices=list(RESPONSES))
    parser.add_argument("--sigmas", type=float, default=2.0)
    args = parser.parse_args()
    row("decay, law", "ended", "best ended", "tokens", "moved", "regret, all go on", "regret, ended")
    for fraction in (0.2, 0.6):
        for name in args.laws:
            each = [study(name, fraction, number, args.sigmas) for number in range(args.first, args.first + args.count)]
            ended, best, tokens, moved, whole, early = np.array(each).T
            row(f"{fraction:.0%}, {name}", f"{ended.mean():.0%}", f"{best.sum():.0f} of {best.size}",
                f"{tokens.mean():.2f}", f"{np.sqrt(np.mean(moved**2)):.2f}", f"{whole.mean():.4f}",
                f"{early.mean():.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
