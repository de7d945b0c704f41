"""Made-up families of loss curves, on which the pausing search's constants are checked: none of them was measured, and
none is exactly what the surface assumes.

Notation: tau = tokens / target, z = ln lr - ln(best lr at the target); losses in nats. Each family draws its own
exponents, curvature, burn-in, noise and range, from what public runs show (docs/lab-notebook.md)."""

import math
from dataclasses import dataclass

import numpy as np

REPORTS = 50
"""Reports of a whole run, evenly spaced in tokens."""
KINDS = ("quadratic", "progress", "settling")
"""A skewed square around an optimum that falls as a power of tokens; Eq. 4 in tokens times a power of the lr plus a
noise floor, whose optimum follows; and an optimum that falls first and stays then."""


@dataclass
class Family:
    """Loss over lr and tokens of one made-up model; what `Curves` is to measured ones."""

    kind: str
    seed: int
    level: float = 0.25
    """Regret, percent, at which the lr counts as found."""

    def __post_init__(self) -> None:
        rng = np.random.default_rng([KINDS.index(self.kind), self.seed])
        self.name, self.target = f"{self.kind} {self.seed}", 1e9
        self.tokens = self.target * np.arange(1, REPORTS + 1) / REPORTS
        self.optimum = rng.uniform(math.log(3e-4), math.log(1e-2))
        width, at = rng.uniform(3.5, 6.0), rng.uniform(0.25, 0.75)
        self.low, self.high = math.exp(self.optimum - at * width), math.exp(self.optimum + (1 - at) * width)
        self.floor, self.gain, self.gamma = rng.uniform(1.5, 3.0), rng.uniform(0.15, 0.6), rng.uniform(0.2, 0.6)
        self.drift, self.settles = rng.uniform(0.0, 0.7), rng.uniform(0.15, 0.6)
        self.curvature = self.floor * math.exp(rng.uniform(math.log(0.004), math.log(0.05)))
        self.skew, self.a, self.q = rng.uniform(-0.3, 0.8), rng.uniform(0.15, 0.5), rng.uniform(0.4, 1.2)
        self.burn_in, self.diverges = rng.uniform(0.005, 0.05), rng.uniform(1.2, 3.0)
        self.noise = self.floor * math.exp(rng.uniform(math.log(2e-4), math.log(2e-3)))
        grid = np.linspace(math.log(self.low), math.log(self.high), 2001)
        smooth = np.array([self._mean(x - self.optimum, np.ones(1))[0] for x in grid])
        self.best = float(smooth.min())

    def _mean(self, z: float, tau: np.ndarray) -> np.ndarray:
        """Loss without noise at `z` and `tau` (n,)."""
        if self.kind == "progress":
            share = self.gain * self.a / self.q * math.exp(self.q * z)  # lowest at z = 0 where tau = 1
            loss = self.floor + self.gain * np.exp(-self.a * z) * tau**-self.gamma + share
        else:
            fallen = np.minimum(tau / self.settles, 1.0) if self.kind == "settling" else tau
            u = z + self.drift * np.log(fallen)
            shape = 2 * (np.expm1(self.skew * u) - self.skew * u) / self.skew**2
            loss = self.floor + self.gain * tau**-self.gamma + self.curvature * shape
        return loss + 1.5 * np.exp(-tau / (self.burn_in * math.exp(-0.5 * z)))

    def curve(self, lr: float) -> list[tuple[float, float]]:
        """(tokens, loss) of a whole run, with its own noise: most of it slow, some from report to report."""
        x, tau = math.log(lr), self.tokens / self.target
        rng = np.random.default_rng([self.seed, round(1e6 * x) % 2**32])
        slow = np.zeros(REPORTS)
        for i in range(REPORTS):
            slow[i] = (0.9 * slow[i - 1] if i else 0.0) + math.sqrt(0.19 if i else 1.0) * rng.standard_normal()
        loss = self._mean(x - self.optimum, tau) + self.noise * (0.8 * slow + 0.6 * rng.standard_normal(REPORTS))
        if x - self.optimum > self.diverges:
            loss[tau > 0.08] = np.nan
        return list(zip(self.tokens.tolist(), loss.tolist(), strict=True))

    def loss(self, lr: float) -> float:
        """Last loss of a run, as it was measured; NaN and worse than any for one that diverged."""
        last = self.curve(lr)[-1][1]
        return last if math.isfinite(last) else 10 * self.floor

    def regret(self, lr: float) -> float:
        """Percent above the lowest loss in the range, both without noise."""
        z = math.log(lr) - self.optimum
        return 1e3 if z > self.diverges else 100 * (float(self._mean(z, np.ones(1))[0]) / self.best - 1)


def check_families(count: int) -> dict[str, dict[str, dict[str, float]]]:
    """Print where a `SurfaceSearch` with its defaults ends on `count` families a kind; {"families": {kind: …}}."""
    from search_curves import pausing, tokens_to

    print(f"\nSurfaceSearch on made-up curves, {count} of each kind")
    head = ("tokens to 0.25 %", "90th percentile", "at the end: tokens", "ok", "regret, %", "in interval", "lrs")
    print(f"{'':12}" + "".join(f"{name:>20}" for name in head))
    out: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        reached, ends = [], []
        for seed in range(count):
            family = Family(kind, seed)
            trace = list(pausing(family, 0))
            reached.append(tokens_to([(spent, found.lr) for spent, found in trace if found.lr], family))
            spent, last = trace[-1]
            if last.lr is not None and last.lr_low is not None and last.lr_high is not None:
                inside = last.lr_low <= math.exp(family.optimum) <= last.lr_high
                ends.append((spent, last.status == "ok", min(family.regret(last.lr), 5.0), inside, last.trials))
        spent, ok, regret, inside, lrs = np.mean(ends, axis=0)
        row = {"median": float(np.median(reached)), "p90": float(np.quantile(reached, 0.9, method="higher"))}
        row |= {"end": spent, "ok": ok, "regret": regret, "inside": inside, "lrs": lrs}
        print(f"{kind:12}" + "".join(f"{value:>20.2f}" for value in row.values()), flush=True)
        out[kind] = {name: float(value) for name, value in row.items()}
    return {"families": out}
