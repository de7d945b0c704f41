"""Arms beside each other: runs of one target that differ in how their hyperparameters were found.

Notation: an arm is one setting of the target, trained with one or more seeds; k arms make m = k (k − 1) / 2 pairs.

Every pair is compared by `compare_runs`, the noise between seeds being that of the pair itself, or of the other arms
where the pair has no two runs of one arm; runs of both arms with the same seed count as correlated as far as the pair
shows it. One of two equal settings is called better with a probability of 2 (1 − `decided`) at most; `decided` is
chosen so that for all m pairs together this stays at `FALSE_BETTER` (Bonferroni), and is never below that of a single
comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations

import numpy as np

from raylr.analysis._checks import Array
from raylr.analysis.laws.compare import DECIDED, RunComparison, compare_runs
from raylr.analysis.status import Status
from raylr.errors import InputError

FALSE_BETTER = 0.1
"""Most probability that any of several equal arms is called better than another."""
_AIMED = 0.09
"""What is aimed at: arms whose noise differs by a factor of 2, and seeds that seem to share something, add a tenth."""
LEVEL = 0.9
"""Coverage of the intervals."""
_LARGE = 50
"""From so many seeds on Student's distribution is the normal one."""
POWER = 0.8
"""Probability with which a difference is to be decided, where seeds are advised."""


class ArmKind(StrEnum):
    """How the hyperparameters of an arm were found."""

    FITTED = "fitted"
    """The LR of a law that was fitted to smaller models, under the standard parametrization."""
    TRANSFERRED = "transferred"
    """The hyperparameters of a proxy, carried over by a parametrization."""
    PARAMETRIZED = "parametrized"
    """The transferred run at the fitted LR: it differs from the fitted run in the parametrization, and from the
    transferred one in the LR."""
    SWEPT = "swept"
    """The LR of a sweep at the target itself, under the standard parametrization."""
    OTHER = "other"
    """Unknown: runs that were made elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Tokens and FLOPs of training."""

    tokens: float
    flops: float
    """NaN where the runs do not say them."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(tokens=self.tokens + other.tokens, flops=self.flops + other.flops)


NOTHING = Spent(tokens=0.0, flops=0.0)


@dataclass(frozen=True, kw_only=True)
class ArmScore:
    """The score of a run on one suite of questions."""

    accuracy: float
    """Share of right answers, 0 to 1."""
    stderr: float
    """Its standard error over the questions."""
    tokens: float
    """Tokens that the scored checkpoint was trained on."""
    at_chance: bool
    """Whether a guess would score as well."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmRun:
    """One run of an arm."""

    loss: float
    """Loss at the target's tokens, nats; NaN if the run diverged."""
    seed: int | None = None
    """Its seed, where it is known."""
    name: str = ""
    """What the run is called."""
    tokens: Array = field(default_factory=lambda: np.empty(0))
    """[evaluations], rising; empty where only the final loss is known."""
    curve: Array = field(default_factory=lambda: np.empty(0))
    """[evaluations], nats; NaN where the run has diverged."""
    scores: Mapping[str, ArmScore] = field(default_factory=dict)
    """Suite -> its last score."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """One setting of the target, with its runs."""

    name: str
    """What the arm is called."""
    kind: ArmKind = ArmKind.OTHER
    """How its hyperparameters were found."""
    lr: float = math.nan
    """Peak LR; under a parametrization that of the base, which the rule multiplies."""
    about: str = ""
    """What the arm is, in a few words."""
    runs: Sequence[ArmRun] = ()
    """One a seed."""
    search: Spent | None = None
    """What finding the arm's hyperparameters took; None where it is not known."""
    training: Spent | None = None
    """What one run of it takes."""

    @property
    def losses(self) -> Array:
        """[runs], losses at the target's tokens; NaN where a run diverged."""
        return np.array([run.loss for run in self.runs], float)

    @property
    def mean(self) -> float:
        """Mean loss of the runs that did not diverge; NaN without one."""
        known = self._known
        return float(known.mean()) if known.size else math.nan

    @property
    def sd(self) -> float:
        """Standard deviation between the seeds; NaN with fewer than two runs that did not diverge."""
        known = self._known
        return float(known.std(ddof=1)) if known.size > 1 else math.nan

    @property
    def diverged(self) -> int:
        """Number of runs that diverged."""
        return int((~np.isfinite(self.losses)).sum())

    @property
    def _known(self) -> Array:
        losses = self.losses
        return np.asarray(losses[np.isfinite(losses)])


@dataclass(frozen=True, kw_only=True)
class ArmPair:
    """The comparison of two arms."""

    a: str
    b: str
    result: RunComparison

    @property
    def better(self) -> str | None:
        """Name of the better arm; None if the runs do not decide."""
        return {"a": self.a, "b": self.b, None: None}[self.result.better]

    @property
    def probability(self) -> float:
        """Probability that the arm with the lower mean is the better one; NaN where the noise is not known."""
        return max(self.result.probability, 1 - self.result.probability)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Arms compared with each other at one target."""

    arms: Sequence[Arm]
    """Those that have runs, in the order they were given."""
    pairs: Sequence[ArmPair]
    """Every pair, in the arms' order."""
    best: str | None
    """Name of the arm that is better than every other; None if no arm is."""
    probability: float
    """Probability that the arm with the lowest mean loss is better than the next; NaN where it is not known."""
    decided: float
    """Probability from which one of two arms counts as better."""
    level: float
    """Coverage of the intervals of the pairs."""
    status: Status
    """`ok` if an arm is better than every other; `not_determined` if not; `too_few` with fewer than two arms or without
    a known noise; `diverged` if all runs of all arms diverged."""
    message: str
    """The outcome in one sentence."""

    def pair(self, a: str, b: str) -> RunComparison | None:
        """Return the comparison of two arms, as that of `a` with `b`; None if one of them has no runs."""
        for one in self.pairs:
            if (one.a, one.b) == (a, b):
                return one.result
            if (one.a, one.b) == (b, a):
                return one.result.turned()
        return None

    def arm(self, kind: ArmKind) -> Arm | None:
        """Return the first arm of a kind; None without one."""
        return next((arm for arm in self.arms if arm.kind is kind), None)


def compare_arms(
    arms: Sequence[Arm], *, seed_sd: float | None = None, seed_sd_dof: float = math.inf, level: float = LEVEL
) -> Comparison:
    """Compare arms by the final losses of their runs.

    Args:
        arms: The arms; those without a run are left out.
        seed_sd: Standard deviation between seeds, nats, known from elsewhere; it is used together with what the runs
            themselves say.
        seed_sd_dof: Its degrees of freedom.
        level: Coverage of the intervals of the differences.

    Returns:
        Every pair, and the best arm where there is one. That any of equal arms is called better than another has a
        probability of `FALSE_BETTER` at most, if their losses differ between seeds normally and equally.

    Raises:
        InputError: Two arms have one name, or a number is out of range.

    Example:
        >>> fitted, transferred = ([3.950, 3.948, 3.961], [3.801, 3.815, 3.808])
        >>> found = compare_arms(
        ...     [
        ...         Arm(name="fitted", runs=[ArmRun(loss=loss) for loss in fitted]),
        ...         Arm(name="transferred", runs=[ArmRun(loss=loss) for loss in transferred]),
        ...     ]
        ... )
        >>> found.best, found.probability > 0.99
        ('transferred', True)
    """
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise InputError(f"two arms have one name; the names are {', '.join(names)}")
    present = [arm for arm in arms if arm.runs]
    decided = decision(len(present))
    pairs = []
    for a, b in combinations(present, 2):
        known = _noise_elsewhere(a, b, present, seed_sd, seed_sd_dof)
        seeds = ([run.seed for run in a.runs], [run.seed for run in b.runs])
        result = compare_runs(a.losses, b.losses, seeds=seeds, level=level, decided=decided, **known)
        pairs.append(ArmPair(a=a.name, b=b.name, result=result))
    return _judged(present, pairs, decided, level)


def decision(arms: int) -> float:
    """Return the probability from which one of two arms counts as better, for a number of arms.

    Example:
        >>> [round(decision(arms), 4) for arms in (2, 3, 4)]
        [0.975, 0.985, 0.9925]
    """
    pairs = max(1, arms * (arms - 1) // 2)
    return max(DECIDED, 1 - _AIMED / (2 * pairs))


def seeds_needed(pair: RunComparison, decided: float, power: float = POWER) -> int | None:
    """Return how many seeds of each arm would decide, if the difference is the one that was measured.

    Args:
        pair: A comparison. What seeds share in it, they are taken to share with more of them too.
        decided: Probability from which an arm counts as better.
        power: Probability with which that many seeds decide.

    Returns:
        The number; None where difference or noise are not known, or the difference is 0.

    Example:
        >>> pair = compare_runs([3.80, 3.82], [3.81, 3.83])
        >>> seeds_needed(pair, 0.975)
        33
    """
    if not (math.isfinite(pair.difference) and pair.difference and math.isfinite(pair.seed_sd)):
        return None
    from scipy import stats

    ratio = abs(pair.difference) / (pair.seed_sd * math.sqrt(1 - pair.correlation))
    wanted = float(stats.norm.ppf(decided) + stats.norm.ppf(power))
    seeds = max(2, math.ceil(2 * (wanted / ratio) ** 2))  # by the normal distribution; Student's needs a few more
    while seeds < _LARGE:
        limit = stats.t(2 * seeds - 2).ppf(decided)
        if stats.nct.sf(limit, 2 * seeds - 2, ratio * math.sqrt(seeds / 2)) >= power:
            break
        seeds += 1
    return seeds


def mean_curve(arm: Arm) -> tuple[Array, Array, Array, Array]:
    """Return the loss curve of an arm over its seeds.

    Args:
        arm: The arm. Runs that diverged and runs without a curve are left out.

    Returns:
        Tokens (n,) at which every run was measured, or that lie inside of every curve where the runs share none; mean,
        lowest and highest loss over the runs (n,), losses between measurements being interpolated.
    """
    runs = [run for run in arm.runs if math.isfinite(run.loss) and run.tokens.size > 1]
    if not runs:
        return (np.empty(0),) * 4
    grid = np.unique(np.concatenate([run.tokens for run in runs]))
    inside = (grid >= max(run.tokens[0] for run in runs)) & (grid <= min(run.tokens[-1] for run in runs))
    shared = inside & np.all([np.isin(grid, run.tokens) for run in runs], axis=0)
    grid = grid[shared if shared.sum() > 1 else inside]
    losses = np.array([np.interp(grid, run.tokens, run.curve) for run in runs]).reshape(len(runs), grid.size)
    return grid, losses.mean(axis=0), losses.min(axis=0), losses.max(axis=0)


def _noise_elsewhere(
    a: Arm, b: Arm, arms: Sequence[Arm], seed_sd: float | None, seed_sd_dof: float
) -> dict[str, float]:
    """Return the noise between seeds that is known without the pair: as given, else that of the other arms."""
    if seed_sd is not None:
        return {"seed_sd": seed_sd, "seed_sd_dof": seed_sd_dof}
    own = [arm for arm in (a, b) if arm.sd > 0]
    others = [arm for arm in arms if arm not in (a, b) and arm.sd > 0]
    if own or not others:
        return {}
    dof = sum(len(arm.runs) - arm.diverged - 1 for arm in others)
    squares = sum((len(arm.runs) - arm.diverged - 1) * arm.sd**2 for arm in others)
    return {"seed_sd": math.sqrt(squares / dof), "seed_sd_dof": float(dof)}


def _judged(arms: Sequence[Arm], pairs: Sequence[ArmPair], decided: float, level: float) -> Comparison:
    def outcome(status: Status, message: str, best: str | None = None, probability: float = math.nan) -> Comparison:
        return Comparison(
            arms=arms, pairs=pairs, best=best, probability=probability, decided=decided, level=level, status=status,
            message=message,
        )  # fmt: skip

    if len(arms) < 2:
        return outcome(Status.TOO_FEW, "there are fewer than two arms with runs")
    if all(arm.diverged == len(arm.runs) for arm in arms):
        return outcome(Status.DIVERGED, "all runs of all arms diverged")
    ranked = sorted(arms, key=lambda arm: (arm.diverged > 0, arm.mean if math.isfinite(arm.mean) else math.inf))
    first, second = (arm.name for arm in ranked[:2])
    nearest = next(one for one in pairs if {one.a, one.b} == {first, second})
    sure = nearest.result.probability if nearest.a == first else 1 - nearest.result.probability
    beaten: dict[str, list[str]] = {}
    for one in pairs:
        if one.better:
            beaten.setdefault(one.better, []).append(one.b if one.better == one.a else one.a)
    best = next((name for name, losers in beaten.items() if len(losers) == len(arms) - 1), None)
    if best is not None:
        losers = _listed([arm.name for arm in arms if arm.name != best])
        return outcome(Status.OK, f"{best} is better than {losers}", best, sure)
    worse = {name for losers in beaten.values() for name in losers}
    left = [arm.name for arm in ranked if arm.name not in worse]
    unknown = any(one.result.status is Status.TOO_FEW for one in pairs)
    if unknown and not worse:
        return outcome(Status.TOO_FEW, nearest.result.message, probability=sure)
    if len(left) == 1:  # the order of the others is decided, and not that to this one
        open_ones = [
            one.b if one.a == left[0] else one.a for one in pairs if left[0] in (one.a, one.b) and not one.better
        ]
        left += [name for name in open_ones if name in worse]
        worse -= {*left}
    text = f"{_listed(left)} cannot be distinguished"
    if worse:
        text += f"; {_listed([arm.name for arm in ranked if arm.name in worse])}: worse than one of them"
    return outcome(Status.NOT_DETERMINED, text, probability=sure)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
