"""Coordinate checks: log-log slopes of activations over width, depth or tokens, and what they say about a rule.

Notation: s scale (width, depth or tokens in multiples of the base's), x_t an activation after t steps, y the standard
deviation of the coordinates of x_0 (t = 0) or of x_t − x_0 (t > 0). The slope is that of ln y over ln s.

A parametrization that transfers along an axis keeps every change x_t − x_0 at one size, or lets it shrink in a known
way: the `Expected` slope, a range. Slopes are compared with it and not with 0. The exponents of all rules are multiples
of 1/2, and so are those of the mistakes that are made with them, which sets the tolerances.

References:
    Yang et al. 2022 (arXiv 2203.03466), Appendix D.1: the coordinate check.
    Zhou et al. 2026 (arXiv 2601.05049), Section 6.3, Figures 8 and 9.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from raylr.analysis._checks import positive, vector
from raylr.errors import InputError

LEVEL = 0.9
"""Level of the intervals of slopes."""
LONE_SCATTER = 0.15
"""Standard deviation of ln std between networks that three networks of one seed count for at least, since they cannot
show it: that of what attention adds in a deep network, the activation that scatters most, is 0.08 to 0.18 over seeds
(the quickstart's smallest model with 2 to 8 layers, steps 0 to 16, 20 seeds)."""
INITIAL_TOLERANCE = 0.125
"""Largest distance of a slope of x_0 from the expected one: half of what the smallest mistake in a rule for init
variances, an exponent wrong by 1/2, does to the standard deviation."""
CHANGE_TOLERANCE = 0.25
"""The same for x_t − x_0: half of the smallest mistake in a rule for LRs or multipliers, an exponent wrong by 1/2."""
LEAST_SCALES = 3
"""Scales below which a slope is not judged: two points show no scatter."""

OBSERVABLES: dict[str, str] = {
    "embeddings": "word embeddings",
    "attention_logits": "raw attention logits",
    "attention_logits_normed": "QK-normed logits",
    "attention_outputs": "attention outputs",
    "router_logits": "router logits",
    "mlp_outputs": "expert/MLP outputs",
    "layer_outputs": "block outputs",
    "residual_stream": "residual stream",
    "hidden": "hidden layer",
    "logits": "output logits",
}
"""Name of what is observed → what it is. Outputs of attention, experts and blocks are what they add to the residual
stream; QK-normed logits are attention logits after QK norm, both without the rotation of positions."""


class Verdict(StrEnum):
    """What a slope says about the rule."""

    AS_EXPECTED = "as expected"
    GROWS = "grows"
    """It grows faster (or shrinks less) than expected."""
    VANISHES = "vanishes"
    """It shrinks faster (or grows less) than expected."""
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Slopes that a rule which transfers can have."""

    low: float
    high: float
    why: str

    def __str__(self) -> str:
        """Return the range as `0` or `−0.5 to 0`."""
        low, high = (f"{round(value, 2):+g}" if value else "0" for value in (self.low, self.high))
        return low if low == high else f"{low} to {high}"


@dataclass(frozen=True, kw_only=True)
class Slope:
    """A log-log slope, with its interval at `LEVEL`."""

    slope: float
    low: float
    high: float
    last: float
    """Slope between the two largest scales: it differs from `slope` where there is no power law."""
    seeds: int
    scales: int
    problem: str = ""
    """Why there is no slope; "" if there is one."""
    grew: bool = False
    """Whether the activation is finite at the smallest scale and not at a larger one."""


def fit_slope(scale: npt.ArrayLike, std: npt.ArrayLike, seed: npt.ArrayLike) -> Slope:
    """Fit the slope of ln std over ln scale, one for all seeds, which may differ in level.

    Args:
        scale: Scales [n], above 0.
        std: Standard deviations [n]; NaN or infinite where training diverged. Zero where the activation does not vary.
        seed: Seeds [n]. Only seeds that have all scales count.

    Returns:
        The slope with Student's interval from the scatter of seeds and networks. A slope that cannot be fitted is NaN,
        with `problem`.

    Raises:
        InputError: If the arrays differ in length, or a scale is not above 0.

    Example:
        >>> found = fit_slope([1, 2, 4, 1, 2, 4], [1, 2, 4, 1.1, 2, 4.2], [0, 0, 0, 1, 1, 1])
        >>> round(found.slope, 2), found.seeds
        (0.98, 2)
    """
    x, y, s = positive(scale, "scale"), vector(std, "std"), vector(seed, "seed")
    if not len(x) == len(y) == len(s):
        raise InputError(f"scale, std and seed must be equally long; they have {len(x)}, {len(y)} and {len(s)} entries")
    scales = np.unique(x)
    rows = []
    for one in np.unique(s):
        mine = {float(a): float(b) for a, b in zip(x[s == one], y[s == one], strict=True)}
        if len(mine) == len(scales):
            rows.append([mine[float(value)] for value in scales])
    table = np.array(rows).reshape(-1, len(scales))

    def without(problem: str, *, grew: bool = False) -> Slope:
        nan = math.nan
        return Slope(slope=nan, low=nan, high=nan, last=nan, seeds=len(table), scales=len(scales), problem=problem,
                     grew=grew)  # fmt: skip

    if not len(table) or len(scales) < LEAST_SCALES:
        return without(f"{len(scales)} scales and {len(table)} seeds that have all of them")
    if not np.isfinite(table).all():
        first = float(scales[(~np.isfinite(table)).any(0)][0])
        return without(f"not finite at scale {first:g}", grew=first > scales[0])
    if not (table > 0).all():
        return without(f"zero at scale {float(scales[(table <= 0).any(0)][0]):g}" if table.any() else "zero everywhere")
    u, v = np.log(scales) - np.log(scales).mean(), np.log(table)
    slope = float((v @ u).mean() / (u @ u))
    # One slope, and a level of its own for each seed (which has another batch). What is left is the scatter between
    # seeds and between networks of one seed, and the bend of what is no power law.
    rest = v - v.mean(1, keepdims=True) - slope * u
    freedom = v.size - len(v) - 1
    unit = 1 / math.sqrt(len(v) * (u @ u))
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom) * math.sqrt((rest * rest).sum() / freedom) * unit)
    if freedom == 1:  # three networks of one seed, which lie on a line by accident now and then
        half = max(half, float(stats.norm.ppf((1 + LEVEL) / 2)) * LONE_SCATTER * unit)
    last = float((v[:, -1] - v[:, -2]).mean() / math.log(scales[-1] / scales[-2]))
    return Slope(slope=slope, low=slope - half, high=slope + half, last=last, seeds=len(table), scales=len(scales))


def judge(found: Slope, expected: Expected, tolerance: float) -> Verdict:
    """Compare a slope with the expected range.

    Args:
        found: The slope.
        expected: The range.
        tolerance: Distance from the range within which a slope agrees.

    Returns:
        `AS_EXPECTED` if the slope is within the tolerance of the range and its interval within twice the tolerance,
        so that the smallest mistake is excluded; `GROWS` or `VANISHES` if the slope is beyond the tolerance and its
        whole interval beyond half of it (networks are finite, and no slope is exactly the expected one); otherwise
        `CANNOT_TELL`.
    """
    if found.problem:
        return Verdict.GROWS if found.grew else Verdict.CANNOT_TELL
    if expected.low - tolerance <= found.slope <= expected.high + tolerance:
        margin = 2 * tolerance
        decided = expected.low - margin <= found.low and found.high <= expected.high + margin
        return Verdict.AS_EXPECTED if decided else Verdict.CANNOT_TELL
    if found.low > expected.high + tolerance / 2:
        return Verdict.GROWS
    return Verdict.VANISHES if found.high < expected.low - tolerance / 2 else Verdict.CANNOT_TELL


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The slope of one activation at one step, and its verdict."""

    observable: str
    layer: str
    step: int
    """0: of x_0; otherwise of x_step − x_0."""
    found: Slope
    expected: Expected
    verdict: Verdict
    distance: float
    """Distance of the slope from the expected range, in tolerances; with the sign of the deviation. NaN without one."""

    @property
    def name(self) -> str:
        """Return what was observed, in words."""
        layer = f", {self.layer} layer" if self.layer in ("first", "last") else f", {self.layer}" if self.layer else ""
        residual = self.observable == "residual_stream"
        return OBSERVABLES.get(self.observable, self.observable) + (layer if not residual else "")


@dataclass(frozen=True, kw_only=True)
class CoordinateCheck:
    """The check of one parametrization along one axis."""

    variant: str
    """The parametrization, and what else sets it apart from others of the same check."""
    axis: str
    rows: tuple[Judged, ...]
    """By observable, layer and step."""
    measured: tuple[Mapping[str, Any], ...]
    """What was measured: `scale`, `seed`, `observable`, `layer`, `step`, `std`."""

    @property
    def verdict(self) -> Verdict:
        """Return the verdict of all slopes together.

        That of the slope that deviates most, if any deviates; `CANNOT_TELL` if an activation has no slope that decides;
        otherwise `AS_EXPECTED`.
        """
        worst = self.worst
        if worst is not None:
            return worst.verdict
        decided = {(row.observable, row.layer) for row in self.rows if row.verdict is Verdict.AS_EXPECTED}
        missing = any((row.observable, row.layer) not in decided for row in self.rows)
        return Verdict.CANNOT_TELL if missing or not self.rows else Verdict.AS_EXPECTED

    @property
    def worst(self) -> Judged | None:
        """Return the slope that deviates most from what is expected, or None if none does."""
        return next(iter(self.deviating()), None)

    def deviating(self) -> list[Judged]:
        """Return the slopes that grow or vanish, those that deviate most (in tolerances) first."""
        found = [row for row in self.rows if row.verdict in (Verdict.GROWS, Verdict.VANISHES)]
        return sorted(found, key=lambda row: -math.inf if math.isnan(row.distance) else -abs(row.distance))

    def undecided(self) -> list[Judged]:
        """Return the slopes that decide nothing."""
        return [row for row in self.rows if row.verdict is Verdict.CANNOT_TELL]

    def to_json(self) -> dict[str, Any]:
        """Return the check as JSON's types; NaN becomes None."""
        rows = [
            {**{key: getattr(row, key) for key in ("observable", "layer", "step")}, "name": row.name,
             "verdict": row.verdict.value, "distance": _number(row.distance), "expected": asdict(row.expected),
             **{key: _number(value) for key, value in asdict(row.found).items()}}
            for row in self.rows
        ]  # fmt: skip
        measured = [{**row, "std": _number(row["std"])} for row in self.measured]
        return {"variant": self.variant, "axis": self.axis, "verdict": self.verdict.value, "rows": rows,
                "measured": measured}  # fmt: skip


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_coordinates(
    variant: str,
    axis: str,
    measured: Iterable[Mapping[str, Any]],
    expected: Callable[[str, int], Expected],
    steps: Sequence[int],
) -> CoordinateCheck:
    """Fit and judge all slopes of a check.

    Args:
        variant: Name of the parametrization.
        axis: `width`, `depth` or `tokens`.
        measured: Rows with `scale`, `seed`, `observable`, `layer`, `step` and `std`.
        expected: Returns the expected slope of an observable at a step.
        steps: Steps that are judged.

    Returns:
        The check.
    """
    rows = tuple(measured)
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((str(row["observable"]), str(row["layer"]), int(row["step"])), []).append(row)
    order = list(OBSERVABLES)
    judged = []
    for (observable, layer, step), mine in sorted(groups.items(), key=lambda one: (order.index(one[0][0]), one[0][1:])):
        if step not in steps:
            continue
        found = fit_slope(*([row[key] for row in mine] for key in ("scale", "std", "seed")))
        target = expected(observable, step)
        tolerance = CHANGE_TOLERANCE if step else INITIAL_TOLERANCE
        over, under = found.slope - target.high, found.slope - target.low
        distance = (max(over, 0.0) + min(under, 0.0)) / tolerance
        judged.append(
            Judged(observable=observable, layer=layer, step=step, found=found, expected=target,
                   verdict=judge(found, target, tolerance), distance=distance)
        )  # fmt: skip
    return CoordinateCheck(variant=variant, axis=axis, rows=tuple(judged), measured=rows)
