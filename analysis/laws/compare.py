"""Is the difference between two settings real, or what another seed would have given as well?

Losses of one setting differ between seeds by a standard deviation sigma that both settings share. It is known from
replicates of either setting, from elsewhere (`seed_sd`, as from a table of seeds or a law's noise), or from both: the
estimates are pooled by their degrees of freedom. Given sigma, the difference of the means is normal; with sigma
estimated it follows Student's t, and the probability that one setting is better is its distribution function at zero
(a flat prior on the difference).

Runs of the two settings that had the same seed may deviate in the same way: with the same order of the text and the
same initial weights they go up and down together. Their losses have a correlation rho, and the difference of the means
a variance of

    sigma^2 (1/n + 1/m - 2 rho c / (n m))        n, m: runs of a and of b;  c: seeds that both have

rho is not known. Before the runs three quarters of the probability are that it is 0 (a seed's effect in one setting
says nothing about the other) and the rest is even over 0 to 1; the runs change that by their likelihood (the restricted
one, from residuals), and the answer is the mixture over rho of Student's distributions. So the comparison is paired as
far as the runs show that a seed moves both settings by the same amount. Two or three seeds show little of it: a
comparison by differences alone would claim more, but only by taking rho = 1 for granted. Without two seeds in common
rho is 0.

A run that diverged has no loss to average. Where there is one, settings are compared by how often their runs diverge:
each share has a Beta posterior under Jeffreys' prior, and the probability is that of the lower share. One diverged run
of three against none of three (0.85) decides nothing, three against none does.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import level_of, losses_of, positive_number
from raylr.analysis.status import Status
from raylr.errors import InputError

DECIDED = 0.975
"""Probability from which a setting counts as better: with two directions, a test at 5 %. Noise differs between settings
and has tails, so that on public seeds equal settings are called different somewhat more often than that, and in less
than 10 % of comparisons (`benchmarks/laws.py --only scaling`)."""


_QUANTILES = 500
_RHO = np.concatenate([[0.0], (np.arange(60) + 0.5) / 60])
"""Correlations that are considered: 0, and the middles of equal parts of 0 to 1."""
_RHO_PRIOR = np.concatenate([[0.75], np.full(60, 0.25 / 60)])
"""Three to one for 0. With even odds, equal settings whose seeds share nothing are called different in 6.7 % of
comparisons, since a few seeds look correlated by accident; with these odds in 5.9 %, and in 5.0 % without pairs (15,000
simulated comparisons of three seeds)."""
_LEAST = 1e-12
"""Standard errors below this, in nats, are rounding."""
_LEAST_SHARED = 2
"""Seeds that both settings must have for anything to be known of the correlation."""


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """The comparison of settings a and b."""

    difference: float
    """Mean loss of a less that of b, nats; below zero where a is better."""
    stderr: float
    """Its standard error; inf if the noise between seeds is not known."""
    low: float
    """Lower end of the interval of the difference."""
    high: float
    """Upper end."""
    level: float
    """Probability of the interval."""
    probability: float
    """Probability that a has the lower loss; NaN if the noise is not known."""
    seed_sd: float
    """Standard deviation between seeds that was used, nats; NaN if not known."""
    correlation: float = 0.0
    """Correlation of the losses of runs with the same seed, its mean under what the runs say; 0 where fewer than two
    seeds are shared."""
    better: str | None
    """`a` or `b` if its probability reaches `DECIDED`, else None."""
    status: Status
    """`ok` if one is better, `not_determined` if the runs do not decide, `too_few` if the noise is not known,
    `diverged` if all runs of both settings diverged."""
    message: str
    """The comparison in one sentence."""

    def turned(self) -> "RunComparison":
        """Return the comparison of b with a; the message stays."""
        better = {"a": "b", "b": "a", None: None}[self.better]
        return replace(
            self, difference=-self.difference, low=-self.high, high=-self.low, probability=1 - self.probability,
            better=better,
        )  # fmt: skip


def compare_runs(
    a: ArrayLike,
    b: ArrayLike,
    *,
    seeds: tuple[Sequence[int | None], Sequence[int | None]] | None = None,
    seed_sd: float | None = None,
    seed_sd_dof: float = math.inf,
    level: float = 0.9,
    decided: float = DECIDED,
) -> RunComparison:
    """Compare two settings by the final losses of their runs.

    Args:
        a: Losses of the runs of one setting, one a seed (n,), nats. A NaN or infinite loss is a diverged run. Runs of
            exactly equal losses say nothing about the noise: they are copies, or their losses are rounded.
        b: Losses of the other setting (m,).
        seeds: Seeds of the runs of a and of b, where they are known: runs of a and b with equal seeds began with the
            same weights and read the same text in the same order, and may be correlated. None, and a seed that a
            setting has twice: a run that is like no other.
        seed_sd: Standard deviation between seeds, nats, known from elsewhere; needed if no setting has two runs.
        seed_sd_dof: Degrees of freedom of `seed_sd`: the number of replicates behind it, less one for each setting
            that they belong to.
        level: Probability of the interval of the difference.
        decided: Probability from which one counts as better, above 0.5 and below 1.

    Returns:
        The comparison: the difference, its interval, and the probability that a is better.

    Raises:
        InputError: a setting has no runs, `seeds` has not one for each run, or a number is out of range.

    Example:
        >>> result = compare_runs([3.01, 3.02, 3.00], [3.05, 3.06, 3.05])
        >>> result.better
        'a'
        >>> compare_runs([3.01], [3.02]).status
        <Status.TOO_FEW: 'too_few'>
        >>> compare_runs([3.01], [3.02], seed_sd=0.01).status
        <Status.NOT_DETERMINED: 'not_determined'>

        Seeds that move both settings by the same amount make a smaller difference visible:

        >>> a, b = [3.01, 3.05, 3.09, 2.98, 3.03], [3.04, 3.07, 3.12, 3.00, 3.06]
        >>> [compare_runs(a, b, seeds=seeds).better for seeds in (None, (range(5), range(5)))]
        [None, 'a']
    """
    x, y = losses_of(a, "a"), losses_of(b, "b")
    for name, values in (("a", x), ("b", y)):
        if not values.size:
            raise InputError(f"setting {name} has no runs")
    shared = _shared(seeds, (x.size, y.size))
    level = level_of(level)
    if seed_sd is not None:
        seed_sd = positive_number(seed_sd, "seed_sd")
    if not seed_sd_dof > 0:
        raise InputError(f"seed_sd_dof must be above zero, got {seed_sd_dof!r}")
    if not 0.5 < decided < 1:
        raise InputError(f"decided must be above 0.5 and below 1, got {decided!r}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return _diverged(x, y, level, decided)
    difference = float(x.mean() - y.mean())
    if _noise([x, y], seed_sd, seed_sd_dof)[1] == 0:
        return RunComparison(
            difference=difference, stderr=math.inf, low=-math.inf, high=math.inf, level=level, probability=math.nan,
            seed_sd=math.nan, better=None, status=Status.TOO_FEW,
            message="how much seeds differ is not known: no setting has two runs with different losses; give seed_sd "
            "(--seed-sd), or another run of a setting",
        )  # fmt: skip
    noise = _mixture(x, y, shared, seed_sd, seed_sd_dof)
    stderr, probability, half = noise.stderr, noise.below(-difference), noise.half_width(level)
    better = "a" if probability >= decided else "b" if probability <= 1 - decided else None
    words = f"{abs(difference):.4g} nats apart, noise of the difference {stderr:.2g}"
    if better is None:
        status, message = Status.NOT_DETERMINED, f"not decided: {words}; a is better with probability {probability:.0%}"
    else:
        sure = max(probability, 1 - probability)
        status, message = Status.OK, f"{better} is better with probability {min(sure, 0.999):.1%}: {words}"
    return RunComparison(
        difference=difference, stderr=stderr, low=difference - half, high=difference + half, level=level,
        probability=probability, seed_sd=noise.sd, correlation=noise.correlation, better=better, status=status,
        message=message,
    )  # fmt: skip


def _shared(
    seeds: tuple[Sequence[int | None], Sequence[int | None]] | None, runs: tuple[int, int]
) -> list[tuple[int, int]]:
    """Return which run of a and which of b have the same seed, where that can be known."""
    if seeds is None:
        return []
    if tuple(map(len, seeds)) != runs:
        raise InputError(f"seeds has {len(seeds[0])} and {len(seeds[1])} entries for {runs[0]} and {runs[1]} runs")
    places = [{seed: place for place, seed in enumerate(side) if list(side).count(seed) == 1} for side in seeds]
    return [(place, places[1][seed]) for seed, place in places[0].items() if seed is not None and seed in places[1]]


@dataclass(frozen=True, kw_only=True)
class _Noise:
    """Distribution of the difference of two means around the true one: a mixture of Student's distributions."""

    weights: np.ndarray
    """[rho], sum 1."""
    stderrs: np.ndarray
    """[rho], nats."""
    dof: float
    sd: float
    correlation: float

    @property
    def stderr(self) -> float:
        return math.sqrt(float((self.weights * self.stderrs**2).sum()))

    def below(self, value: float) -> float:
        """Return the probability of a value below this one."""
        from scipy.special import ndtr, stdtr

        ratios = value / self.stderrs
        return float((self.weights * (ndtr(ratios) if math.isinf(self.dof) else stdtr(self.dof, ratios))).sum())

    def half_width(self, level: float) -> float:
        """Return half of the width of the central interval."""
        from scipy import optimize
        from scipy.special import ndtri, stdtrit

        share = 0.5 + level / 2
        quantile = float(ndtri(share) if math.isinf(self.dof) else stdtrit(self.dof, share))
        low, high = quantile * float(self.stderrs.min()), quantile * float(self.stderrs.max())
        if high - low < 1e-9 * high:
            return high
        return float(optimize.brentq(lambda half: self.below(half) - share, low, high, rtol=1e-9))


def _mixture(
    x: np.ndarray, y: np.ndarray, shared: Sequence[tuple[int, int]], known: float | None, known_dof: float
) -> _Noise:
    """Return the noise of the difference of the means of x (n,) and y (m,) over the correlation of shared seeds."""
    sd, dof = _noise([x, y], known, known_dof)
    whole = 1 / x.size + 1 / y.size
    moved = max(float(((x - x.mean()) ** 2).sum()), float(((y - y.mean()) ** 2).sum())) > 0
    if len(shared) < _LEAST_SHARED or not moved:
        stderrs = np.array([max(sd * math.sqrt(whole), _LEAST)])
        return _Noise(weights=np.ones(1), stderrs=stderrs, dof=dof, sd=sd, correlation=0.0)
    # Sums and differences of runs with one seed, over √2, are independent, with variances 1 + rho and 1 - rho in units
    # of sigma^2; other runs have a variance of 1. Each has an expected value that is linear in the two means.
    i, j = np.array(shared).T
    alone = [np.setdiff1d(np.arange(size), used) for size, used in ((x.size, i), (y.size, j))]
    root = math.sqrt(0.5)
    values = np.concatenate([root * (x[i] + y[j]), root * (x[i] - y[j]), x[alone[0]], y[alone[1]]])
    rows = [(root, root), (root, -root), (1.0, 0.0), (0.0, 1.0)]
    counts = [len(i), len(i), len(alone[0]), len(alone[1])]
    design = np.repeat(rows, counts, axis=0)
    one = np.ones_like(_RHO)
    variances = np.repeat(np.stack([1 + _RHO, 1 - _RHO, one, one], axis=1), counts, axis=1)
    normal = np.einsum("ni,rn,nj->rij", design, 1 / variances, design)
    means = np.linalg.solve(normal, np.einsum("ni,rn,n->ri", design, 1 / variances, values)[..., None])[..., 0]
    squares = ((values - means @ design.T) ** 2 / variances).sum(axis=1)
    spread = -0.5 * (np.log(variances).sum(axis=1) + np.linalg.slogdet(normal)[1])
    if math.isinf(dof):
        variance = np.full_like(_RHO, sd**2)
        likelihood = spread - 0.5 * squares / sd**2
    else:
        total = squares + (known_dof * known**2 if known is not None else 0.0)
        variance, likelihood = total / dof, spread - 0.5 * dof * np.log(np.maximum(total, _LEAST**2))
    weights = _RHO_PRIOR * np.exp(likelihood - likelihood.max())
    weights /= weights.sum()
    stderrs = np.sqrt(variance * (whole - 2 * _RHO * len(i) / (x.size * y.size)))
    return _Noise(
        weights=weights, stderrs=np.maximum(stderrs, _LEAST), dof=dof, sd=math.sqrt(float((weights * variance).sum())),
        correlation=float((weights * _RHO).sum()),
    )  # fmt: skip


def _noise(groups: list[np.ndarray], known: float | None, known_dof: float) -> tuple[float, float]:
    """Return the standard deviation between seeds and its degrees of freedom (0 if nothing is known)."""
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    dof = float(sum(group.size - 1 for group in groups)) if squares > 0 else 0.0
    if known is not None:
        if math.isinf(known_dof):
            return known, math.inf
        squares, dof = squares + known_dof * known**2, dof + known_dof
    return (math.sqrt(squares / dof), dof) if dof else (math.nan, 0.0)


def _diverged(a: np.ndarray, b: np.ndarray, level: float, decided: float) -> RunComparison:
    """Return the comparison of settings by how often their runs diverge."""
    lost = [int((~np.isfinite(values)).sum()) for values in (a, b)]
    counts = f"{lost[0]} of {a.size} runs of a diverged, {lost[1]} of {b.size} of b"
    probability = _lower_share(lost[0], a.size, lost[1], b.size)
    better = "a" if probability >= decided else "b" if probability <= 1 - decided else None
    if lost == [a.size, b.size]:
        status, message, probability, better = Status.DIVERGED, "all runs of both settings diverged", math.nan, None
    elif better is None:
        status, message = Status.NOT_DETERMINED, f"not decided: {counts}"
    else:
        status, message = Status.OK, f"{better} is better: {counts}"
    return RunComparison(
        difference=math.nan, stderr=math.inf, low=-math.inf, high=math.inf, level=level, probability=probability,
        seed_sd=math.nan, better=better, status=status, message=message,
    )  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _lower_share(lost_a: int, runs_a: int, lost_b: int, runs_b: int) -> float:
    """Return the probability that runs of setting a diverge less often than those of b."""
    from scipy import stats

    # The mean of the second's distribution over the quantiles of the first, at the middles of equal parts.
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    first = stats.beta(lost_a + 0.5, runs_a - lost_a + 0.5).ppf(quantiles)
    return float(stats.beta(lost_b + 0.5, runs_b - lost_b + 0.5).sf(first).mean())
