"""Is the difference between two settings real, or what another seed would have given as well?

Losses of one setting differ between seeds by a standard deviation sigma that both settings share. It is known from
replicates of either setting, from elsewhere (`seed_sd`, as from a table of seeds or a law's noise), or from both: the
estimates are pooled by their degrees of freedom. Given sigma, the difference of the means is normal; with sigma
estimated it follows Student's t, and the probability that one setting is better is its distribution function at zero
(a flat prior on the difference).

A run that diverged has no loss to average. Where there is one, settings are compared by how often their runs diverge:
each share has a Beta posterior under Jeffreys' prior, and the probability is that of the lower share. One diverged run
of three against none of three (0.85) decides nothing, three against none does.
"""

import functools
import math
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
        seed_sd: Standard deviation between seeds, nats, known from elsewhere; needed if no setting has two runs.
        seed_sd_dof: Degrees of freedom of `seed_sd`: the number of replicates behind it, less one for each setting
            that they belong to.
        level: Probability of the interval of the difference.
        decided: Probability from which one counts as better, above 0.5 and below 1.

    Returns:
        The comparison: the difference, its interval, and the probability that a is better.

    Raises:
        InputError: a setting has no runs, or a number is out of range.

    Example:
        >>> result = compare_runs([3.01, 3.02, 3.00], [3.05, 3.06, 3.05])
        >>> result.better
        'a'
        >>> compare_runs([3.01], [3.02]).status
        <Status.TOO_FEW: 'too_few'>
        >>> compare_runs([3.01], [3.02], seed_sd=0.01).status
        <Status.NOT_DETERMINED: 'not_determined'>
    """
    x, y = losses_of(a, "a"), losses_of(b, "b")
    for name, values in (("a", x), ("b", y)):
        if not values.size:
            raise InputError(f"setting {name} has no runs")
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
    sd, dof = _noise([x, y], seed_sd, seed_sd_dof)
    if dof == 0:
        return RunComparison(
            difference=difference, stderr=math.inf, low=-math.inf, high=math.inf, level=level, probability=math.nan,
            seed_sd=math.nan, better=None, status=Status.TOO_FEW,
            message="how much seeds differ is not known: no setting has two runs with different losses; give seed_sd, "
            "or another run of a setting",
        )  # fmt: skip
    from scipy import stats

    stderr = max(sd * math.sqrt(1 / x.size + 1 / y.size), 1e-12)
    spread = stats.norm if math.isinf(dof) else stats.t(dof)
    probability = float(spread.cdf(-difference / stderr))
    half = float(spread.ppf(0.5 + level / 2)) * stderr
    better = "a" if probability >= decided else "b" if probability <= 1 - decided else None
    words = f"{abs(difference):.4g} nats apart, noise of the difference {stderr:.2g}"
    if better is None:
        status, message = Status.NOT_DETERMINED, f"not decided: {words}; a is better with probability {probability:.0%}"
    else:
        sure = max(probability, 1 - probability)
        status, message = Status.OK, f"{better} is better with probability {min(sure, 0.999):.1%}: {words}"
    return RunComparison(
        difference=difference, stderr=stderr, low=difference - half, high=difference + half, level=level,
        probability=probability, seed_sd=sd, better=better, status=status, message=message,
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
