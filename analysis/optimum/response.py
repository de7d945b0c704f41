"""`fit_response`: the best learning rate together with other hyperparameters, from the losses of a few runs.

The model is in `_response_model`, the answer and its status in `_response_verdict`. It is `fit_optimum` for two to
four axes: nothing depends on the level or the scale of the loss, on the unit of an axis, or on the order of axes and
runs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raylr.analysis._checks import level_of, losses_of, one_of, positive, same_length
from raylr.analysis._threads import one_thread
from raylr.analysis.optimum._imprecise import CONTRADICTING, contradicts, informative, outweighed
from raylr.analysis.optimum._recommend import at_least
from raylr.analysis.optimum._response_model import Surfaces, draw
from raylr.analysis.optimum._response_runs import SAME, Runs, prepare
from raylr.analysis.optimum._response_verdict import cost_of_e, interval, judge
from raylr.analysis.optimum._verdict import RELATIVE_REGRET
from raylr.analysis.optimum.fit import errors_of
from raylr.analysis.status import Status
from raylr.errors import InputError

Array = NDArray[np.float64]

AXES = (2, 4)
"""Fewest and most axes: one axis is `fit_optimum`'s; a quadratic over five has 21 parameters, and as many runs."""


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """How the best value of one axis moves with another: `of` ∝ `over`^`slope`."""

    of: str
    """The axis whose best value moves."""
    over: str
    """The axis that it moves with."""
    slope: float
    """Posterior median."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end of it."""

    def __str__(self) -> str:
        """The ridge as one formula."""
        return f"{self.of} ∝ {self.over}^{self.slope:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, kw_only=True)
class ResponseFit:
    """Best place of a search over several axes, and the posterior behind it. NaN marks what the losses do not say."""

    status: Status
    """What was found, or what stands in the way."""
    message: str
    """The reason in one sentence, with the axes that it concerns."""
    names: tuple[str, ...]
    """Names of the axes: the rising one first, then in alphabetical order."""
    at: dict[str, float]
    """The value of every axis to choose: least expected loss among those that the measured losses allow; empty without
    a finite loss."""
    low: dict[str, float]
    """Lower ends of the intervals of the best values; 0 where the losses leave it open."""
    high: dict[str, float]
    """Upper ends of them; inf where open."""
    loss: float
    """Expected loss at `at`."""
    loss_stderr: float
    """Its standard error."""
    regret: float
    """Expected loss at `at` above the lowest possible, in the unit of the loss."""
    noise: float
    """Standard deviation of one run's loss around the surface (posterior median)."""
    edges: dict[str, Status]
    """`EDGE_LOW` or `EDGE_HIGH` for axes whose best value lies beyond all values tried."""
    flat: tuple[str, ...]
    """Axes that make no difference larger than the noise over the values tried."""
    trials: int
    """Runs given, diverged ones included."""
    level: float
    """Probability of the intervals."""
    ranges: dict[str, tuple[float, float]]
    """Ranges in which the best place was searched."""
    rising: str | None
    """The axis above whose high values runs diverge."""
    tolerance: float | None = None
    """Expected regret, in the unit of the loss, at which the best place counts as known."""
    runs: Runs = field(repr=False, compare=False)
    """The losses as the model took them."""
    surfaces: Surfaces | None = field(default=None, repr=False, compare=False)
    """Draws of the surface; None without a finite loss."""
    given: tuple[Array, Array, Array | None] = field(repr=False, compare=False)
    """ln of the axes' values in the order of `names` (r, d), losses and standard errors as they were given."""

    @property
    def ok(self) -> bool:
        """Whether the best place is known within the tolerance."""
        return self.status.ok

    @property
    def allowed_regret(self) -> float:
        """Expected regret at which the best place counts as known: `tolerance`, or 10 % of what a factor e of the
        rising axis costs; NaN without a finite loss."""
        if self.tolerance is not None or self.surfaces is None:
            return math.nan if self.tolerance is None else self.tolerance
        return self.runs.unit * RELATIVE_REGRET * cost_of_e(self.runs, self.surfaces, _index(self.rising, self.names))

    def ridge(self, of: str, over: str, level: float | None = None) -> Ridge:
        """How the best value of the axis `of` moves with that of `over`, other axes held.

        Args:
            of: For instance "lr".
            over: For instance "batch".
            level: Probability of the interval; the fit's by default.

        Returns:
            The slope d ln `of` / d ln `over`; NaN without a finite loss.

        Raises:
            InputError: For names that are no two axes of the fit.
        """
        i, k = (self.names.index(one_of(name, self.names, "axis")) for name in (of, over))
        if i == k:
            raise InputError(f"a ridge needs two axes, got {of!r} twice")
        if self.surfaces is None:
            return Ridge(of=of, over=over, slope=math.nan, low=-math.inf, high=math.inf)
        h, width = self.surfaces.curvature, self.runs.width
        slope = -h[:, i, k] / np.maximum(h[:, i, i], 1e-300) * width[i] / width[k]
        tail = 0.5 * (1 - level_of(self.level if level is None else level))
        middle, low, high = np.quantile(slope, [0.5, tail, 1 - tail])
        return Ridge(of=of, over=over, slope=float(middle), low=float(low), high=float(high))

    def interval(self, axis: str, level: float = 0.9) -> tuple[float, float]:
        """Interval that holds the best value of an axis with probability `level`; 0 or inf on a side that is open."""
        k = self.names.index(one_of(axis, self.names, "axis"))
        if self.surfaces is None:
            return 0.0, math.inf
        at = self.runs.units(np.array([math.log(self.at[name]) for name in self.names]))
        low, high = interval(self.runs, self.surfaces, at, level_of(level))
        return float(np.exp(self.runs.logs(low)[k])), float(np.exp(self.runs.logs(high)[k]))

    def predict(self, points: Mapping[str, ArrayLike]) -> tuple[Array, Array]:
        """Loss expected at places (m,) and its standard deviation (without the noise of a run); NaN and inf without a
        finite loss."""
        table = self._table(points)
        if table is None:
            size = np.size(next(iter(points.values())))
            return np.full(size, math.nan), np.full(size, math.inf)
        heights = table.table[:, -self._size(points) :]
        return self.runs.lowest + self.runs.unit * heights.mean(axis=0), self.runs.unit * heights.std(axis=0)

    def divergence_probability(self, points: Mapping[str, ArrayLike]) -> Array:
        """Probability that a run at each of the places (m,) diverges or jumps to far higher losses; NaN without a
        finite loss."""
        table = self._table(points)
        return np.full(self._size(points), math.nan) if table is None else table.jumped[-self._size(points) :]

    def extended(self, x: Array, loss: Array) -> "ResponseFit":
        """The fit with further losses at places given as ln of the values (m, d), for instance imagined ones."""
        before, y, s = self.given
        more = None if s is None else np.concatenate([s, np.zeros(len(x))])
        return fit_logs(
            np.concatenate([before, x]), np.concatenate([y, loss]), more, self.names, self.ranges, self.rising,
            self.tolerance, self.level,
        )  # fmt: skip

    def _size(self, points: Mapping[str, ArrayLike]) -> int:
        return int(np.size(np.ravel(np.asarray(points[self.names[0]]))))

    def _table(self, points: Mapping[str, ArrayLike]) -> Surfaces | None:
        places = self.runs.units(logs_of(points, self.names))
        if self.surfaces is None:
            return None
        low, high = _box(self.runs, self.given[0], self.ranges, self.names)
        return draw(self.runs, low, high, _index(self.rising, self.names), places)


@one_thread
def fit_response(
    points: Mapping[str, ArrayLike],
    loss: ArrayLike,
    *,
    stderr: ArrayLike | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    rising: str | None = "lr",
    tolerance: float | None = None,
    level: float = 0.9,
) -> ResponseFit:
    """Find the best place over two to four axes from the losses of a few runs.

    The surface is a quadratic in the logarithms of all axes with one minimum, plus a Gaussian process for what the
    quadratic misses. Its curvature may be correlated between axes: see `ResponseFit.ridge`.

    Args:
        points: Name of each axis → its value in every run (n,), above zero, in any unit: `{"lr": ..., "batch": ...}`.
        loss: Loss of each run (n,), smaller is better, at any level and scale. NaN, masked and infinite losses are
            diverged runs.
        stderr: Standard error of each loss, in its unit (a number or (n,)). The noise between runs is estimated in
            addition.
        ranges: Lowest and highest value that are searched, for each axis; those of `points` by default. They also say
            what counts as a large change of an axis.
        rising: The axis above whose high values runs diverge ("lr"); None, or a name that is not an axis, for none.
        tolerance: Expected regret, in the unit of the loss, at which the best place counts as known. By default 10 % of
            what a factor e of the rising axis costs.
        level: Probability of the intervals.

    Returns:
        The fit. Losses that say too little or cannot be explained give a status, never an exception.

    Raises:
        InputError: If there are fewer than two or more than four axes, values are not positive, arrays are of unequal
            length, an axis has neither a range nor two values, or options are out of range.

    Example:
        >>> import numpy as np
        >>> lr, batch = (v.ravel() for v in np.meshgrid([1e-3, 2e-3, 4e-3, 8e-3], [32, 64, 128]))
        >>> loss = 3 + 0.02 * np.log(lr / 3e-3 * (64 / batch) ** 0.5) ** 2 + 0.01 * np.log(batch / 64) ** 2
        >>> fit = fit_response({"lr": lr, "batch": batch}, loss)
        >>> fit.status, round(fit.at["batch"]), str(fit.ridge("lr", "batch"))[:18]
        (<Status.OK: 'ok'>, 64, 'lr ∝ batch^0.50 (0')

    References:
        Box & Wilson 1951, "On the experimental attainment of optimum conditions".
    """
    if not isinstance(points, Mapping) or not AXES[0] <= len(points) <= AXES[1]:
        count = len(points) if isinstance(points, Mapping) else type(points).__name__
        raise InputError(f"points must map the names of {AXES[0]} to {AXES[1]} axes to their values, got {count}")
    names = order_of(points, rising)
    x, y = logs_of(points, names), losses_of(loss, "loss")
    same_length(**{names[0]: x[:, 0], "loss": y})
    if tolerance is not None:
        at_least("tolerance", tolerance, 0.0)
    unknown = sorted(set(ranges or ()) - set(names))
    if unknown:
        raise InputError(f"ranges has {unknown}, and the axes are {list(names)}")
    ends: dict[str, tuple[float, float]] = {}
    for k, name in enumerate(names):
        given = (ranges or {}).get(name)
        if given is not None:
            low, high = positive(given, f"the range of {name}")
        elif len(x):
            low, high = np.exp(x[:, k].min()), np.exp(x[:, k].max())
        else:
            raise InputError(f"without runs, a range of {name} is needed")
        if not math.log(high / low) > 1e-6:
            wrong = "is not the lowest and the highest value" if given is not None else "is one value: leave it out"
            raise InputError(f"the range of {name}, {low:g} to {high:g}, {wrong}")
        ends[name] = (float(low), float(high))
    return fit_logs(x, y, errors_of(stderr, y.size), names, ends, rising if rising in names else None, tolerance,
                    level_of(level))  # fmt: skip


def order_of(points: Mapping[str, object], rising: str | None) -> tuple[str, ...]:
    """Names of the axes in the order of the model: a fit must not depend on the order in which they were given."""
    return tuple(sorted(points, key=lambda name: (name != rising, name)))


def logs_of(points: Mapping[str, ArrayLike], names: Sequence[str]) -> Array:
    """ln of the values of all axes, (n, d)."""
    if set(points) != set(names):
        raise InputError(f"a point has the axes {list(names)}, got {sorted(points)}")
    columns = {name: positive(np.ravel(np.asarray(points[name])), name) for name in names}
    same_length(**columns)
    return np.asarray(np.log(np.array([columns[name] for name in names])).T)


@one_thread
def fit_logs(
    x: Array, y: Array, s: Array | None, names: tuple[str, ...], ranges: dict[str, tuple[float, float]],
    rising: str | None, tolerance: float | None, level: float,
) -> ResponseFit:  # fmt: skip
    """`fit_response` of values that were checked before.

    Args:
        x: ln of the axes' values, (n, d).
        y: Losses, (n,); NaN or inf: diverged.
        s: Their standard errors; None: unknown.
        names: Names of the axes.
        ranges: Axis → lowest and highest value.
        rising: Axis along which divergence rises; None: none.
        tolerance: Regret at which a search may end.
        level: Probability of the intervals.
    """
    given = np.log(np.array([ranges[name] for name in names]))
    use, top, left_out = informative(y, s), _index(rising, names), []
    while True:
        runs = prepare(x[use], y[use], None if s is None else s[use], given[:, 0], given[:, 1])
        low, high = _box(runs, x, ranges, names)
        surfaces = draw(runs, low, high, top) if runs.h.size else None
        if surfaces is None or not runs.error[0]:
            break
        if not outweighed(runs.h, runs.error, surfaces.mean[: runs.h.size]):
            break
        place = runs.logs(runs.v[0])
        left_out.append((place, runs.lowest, float(runs.error[0]) * runs.unit))
        use &= ~(np.isfinite(y) & (np.abs(x - place).max(axis=1) <= SAME))
    verdict = judge(runs, surfaces, names, low, high, top, tolerance, level)
    unit = runs.unit

    def values(v: Array | None, open_end: float) -> dict[str, float]:
        logs = np.full(len(names), open_end) if v is None else runs.logs(v)
        return {name: float(np.exp(logs[k])) for k, name in enumerate(names)}

    fit = ResponseFit(
        status=verdict.status, message=verdict.message, names=names,
        at={} if verdict.at is None else values(verdict.at, math.nan), low=values(verdict.low, -math.inf),
        high=values(verdict.high, math.inf), loss=runs.lowest + unit * verdict.loss,
        loss_stderr=unit * verdict.loss_stderr, regret=unit * verdict.regret,
        noise=unit * float(np.median(surfaces.noise)) if surfaces is not None else math.nan,
        edges={names[k]: v for k, v in (verdict.edges or {}).items()}, flat=tuple(names[k] for k in verdict.flat),
        trials=int(y.size), level=level, ranges=ranges, rising=rising, tolerance=tolerance, runs=runs,
        surfaces=surfaces, given=(x, y, s),
    )  # fmt: skip
    for place, loss, error in left_out:
        point = {name: float(np.exp(place[k])) for k, name in enumerate(names)}
        mean, sd = fit.predict({name: [value] for name, value in point.items()})
        if contradicts(loss, error, float(mean[0]), float(sd[0])):
            shown = ", ".join(f"{name} {value:.3g}" for name, value in point.items())
            ends_of = ({name: pick(ends[name], point[name]) for name in names}
                       for pick, ends in ((min, fit.low), (max, fit.high)))  # fmt: skip
            low_ends, high_ends = ends_of
            fit = replace(fit, status=Status.CONTRADICTED, message=CONTRADICTING + shown, low=low_ends, high=high_ends)
    return fit


def _box(runs: Runs, x: Array, ranges: dict[str, tuple[float, float]], names: tuple[str, ...]) -> tuple[Array, Array]:
    """The ranges in units, as far as the runs at `x`, ln of the axes' values, have extended them."""
    ends = runs.units(np.log(np.array([ranges[name] for name in names])).T)
    tried = np.concatenate([runs.units(x), ends])
    return tried.min(axis=0), tried.max(axis=0)


def _index(name: str | None, names: tuple[str, ...]) -> int | None:
    return None if name is None else names.index(name)
