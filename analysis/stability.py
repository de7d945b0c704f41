"""How strongly activations move with data and with model size, after the paper's Section 6.4.

Notation: y the standard deviation of the coordinates of x_t − x_0 (the probe `changes`, or a coordinate check), D the
tokens or steps up to t, S the size (parameters, or width in multiples of the base's), η the peak LR. The exponents are
those of y ∝ D^d · S^s · η^l:

* d from each run on its own, over its last factor of `SPAN` in D: activations move fastest at the start, and what is
  in question is whether they still do;
* s and l from the ends of all runs, at one D.

Data move an activation more than size does where d − s is above 0 with its interval.

References:
    Zhou et al. 2026 (arXiv 2601.05049), Section 6.4, Figure 10.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.9
"""Level of the intervals."""
SPAN = 4.0
"""Last part of a run from which its exponent of D is taken, as a factor: two doublings, so that noise between single
measurements is small beside what moved."""
LEAST_POINTS = 3
"""Measurements of a run within `SPAN` below which it has no exponent; two show no scatter. Coordinate checks, which
have few steps and no noise between them, may have two."""


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """An exponent with its interval at `LEVEL`; NaN where it is not determined, with the reason."""

    value: float
    low: float
    high: float
    stderr: float
    freedom: int
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Movement:
    """How one activation moves."""

    name: str
    runs: int
    ends: tuple[float, float]
    """Smallest and largest y at the ends of the runs."""
    tokens: Exponent
    """d, the mean over runs; its interval from the scatter between runs."""
    size: Exponent
    lr: Exponent
    faster: float
    """Probability that d is above s; NaN where one is not determined."""

    @property
    def verdict(self) -> str:
        """Return which moves it more: "data", "size" or "cannot tell"."""
        if math.isnan(self.faster) or 0.05 < self.faster < 0.95:
            return "cannot tell"
        return "data" if self.faster >= 0.95 else "size"

    def to_json(self) -> dict[str, Any]:
        """Return plain values, NaN as None."""
        found: dict[str, Any] = _plain(asdict(self) | {"verdict": self.verdict})
        return found


@dataclass(frozen=True, kw_only=True)
class Moved:
    """One measurement of one activation in one run."""

    name: str
    run: str
    progress: float
    """D: tokens or steps."""
    size: float
    lr: float
    value: float


def movements(measured: Iterable[Moved], *, least_points: int = LEAST_POINTS) -> list[Movement]:
    """Fit the exponents of every activation.

    Args:
        measured: Measurements of runs of one kind. Values that are not above 0 and finite are left out.
        least_points: Measurements within `SPAN` that a run must have.

    Returns:
        One for each name, in the order of the first measurement.

    Example:
        >>> made = [Moved(name="logits", run=f"{n} {lr}", progress=d, size=n, lr=lr, value=d**0.5 * n**0.1 * lr)
        ...         for n in (1, 2, 4) for lr in (1, 2) for d in (1, 2, 4, 8)]
        >>> found = movements(made)[0]
        >>> [round(one.value, 3) for one in (found.tokens, found.size, found.lr)], found.verdict
        ([0.5, 0.1, 1.0], 'data')
    """
    by_name: dict[str, dict[str, list[Moved]]] = {}
    for one in measured:
        if one.value > 0 and all(map(math.isfinite, (one.value, one.size, one.lr))):
            by_name.setdefault(one.name, {}).setdefault(one.run, []).append(one)
    return [_movement(name, list(runs.values()), least_points) for name, runs in by_name.items()]


def _movement(name: str, runs: Sequence[Sequence[Moved]], least_points: int) -> Movement:
    runs = [sorted(run, key=lambda one: one.progress) for run in runs]
    slopes = [slope for run in runs if (slope := _last_slope(run, least_points)) is not None]
    furthest = max(run[-1].progress for run in runs)
    ends = [run[-1] for run in runs if run[-1].progress >= 0.99 * furthest]
    tokens, size, lr = _mean(slopes), *_of_ends(ends)
    values = [end.value for end in ends]
    return Movement(
        name=name,
        runs=len(runs),
        ends=(min(values), max(values)),
        tokens=tokens,
        size=size,
        lr=lr,
        faster=_probability(tokens, size),
    )


def _last_slope(run: Sequence[Moved], least: int) -> float | None:
    last = [one for one in run if one.progress >= run[-1].progress / SPAN * (1 - 1e-9)]
    x, y = np.log([one.progress for one in last]), np.log([one.value for one in last])
    if len(last) < least or np.ptp(x) == 0:
        return None
    return float(np.polyfit(x, y, 1)[0])


def _nothing(problem: str) -> Exponent:
    nan = math.nan
    return Exponent(value=nan, low=nan, high=nan, stderr=nan, freedom=0, problem=problem)


def _with_interval(value: float, stderr: float, freedom: int) -> Exponent:
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * stderr
    return Exponent(value=value, low=value - half, high=value + half, stderr=stderr, freedom=freedom)


def _mean(slopes: Sequence[float]) -> Exponent:
    if len(slopes) < 2:
        return _nothing(f"{len(slopes)} run(s) with enough measurements; an interval needs two")
    stderr = float(np.std(slopes, ddof=1)) / math.sqrt(len(slopes))
    return _with_interval(float(np.mean(slopes)), stderr, len(slopes) - 1)


def _of_ends(ends: Sequence[Moved]) -> tuple[Exponent, Exponent]:
    """Return the exponents of size and LR, from one measurement of each run."""
    columns = {name: np.log([getattr(one, name) for one in ends]) for name in ("size", "lr")}
    moving = [name for name, column in columns.items() if np.ptp(column) > 1e-9]
    design = np.column_stack([np.ones(len(ends)), *(columns[name] for name in moving)])
    freedom = len(ends) - design.shape[1]
    found = {name: _nothing(f"all runs have one {name}") for name in columns if name not in moving}
    if freedom < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        why = f"{len(ends)} runs do not determine the exponents of {' and '.join(moving) or 'nothing'}"
        return found.get("size", _nothing(why)), found.get("lr", _nothing(why))
    y = np.log([one.value for one in ends])
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    rest: npt.NDArray[np.float64] = y - design @ solution
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * float(rest @ rest) / freedom)
    for place, name in enumerate(moving, start=1):
        found[name] = _with_interval(float(solution[place]), float(errors[place]), freedom)
    return found["size"], found["lr"]


def _probability(tokens: Exponent, size: Exponent) -> float:
    """Return the probability that `tokens` is larger (Welch's t)."""
    if math.isnan(tokens.value) or math.isnan(size.value):
        return math.nan
    one, other = tokens.stderr**2, size.stderr**2
    if one + other == 0:
        return float(tokens.value > size.value)
    freedom = (one + other) ** 2 / (one**2 / tokens.freedom + other**2 / size.freedom)
    return float(stats.t.cdf((tokens.value - size.value) / math.sqrt(one + other), freedom))


def of_rows(rows: Iterable[Mapping[str, Any]], observables: Sequence[str] | None = None) -> list[Moved]:
    """Return what the probe `changes` measured.

    Args:
        rows: Rows of the run table, with `trial`, `tokens`, `params` and `lr`.
        observables: Such as "attention_logits/last"; None: all.
    """
    prefix = "activation_change/"
    return [
        Moved(
            name=name.removeprefix(prefix),
            run=str(row["trial"]),
            progress=float(row["tokens"]),
            size=float(row["params"]),
            lr=float(row["lr"]),
            value=float(value),
        )
        for row in rows
        for name, value in row.items()
        if name.startswith(prefix) and value is not None
        if observables is None or name.removeprefix(prefix) in observables
    ]


def of_check(measured: Iterable[Mapping[str, Any]]) -> list[Moved]:
    """Return what a coordinate check measured after its first steps (`CoordinateCheck.measured`): D are steps."""
    return [
        Moved(
            name="/".join(filter(None, (str(row["observable"]), str(row["layer"])))),
            run=f"{row['scale']:g} {row['seed']}",
            progress=float(row["step"]),
            size=float(row["scale"]),
            lr=1.0,
            value=float(row["std"]) if row["std"] is not None else math.nan,
        )
        for row in measured
        if row["step"]
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
