"""Power laws of an optimal setting over model size, tokens and batch: the part shared by all laws.

Notation
    N, D, B  size, tokens and batch of a cell in the law's units
    theta    (ln c, alpha, beta[, delta]): ln(value / unit) = ln c - alpha ln N - beta ln D + delta ln B
    row      (1, -ln N, -ln D[, ln B]): the prediction is row @ theta, its variance row @ covariance @ row

Every uncertainty is a prediction interval for the optimum of one more cell: the law's error, the scatter of cells
around it and, beyond the fitted range, a change of its exponents (`drift`).
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, level_of, one_of, positive, positive_number
from raylr.analysis.laws import _json, support
from raylr.analysis.laws.bend import Bend
from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.status import Status
from raylr.analysis.units import format_count, format_factor
from raylr.errors import InputError

PARAMETERS = ("c", "alpha", "beta", "delta")
SIZES = {
    "total": "parameters",
    "active": "active parameters",
    "non_embedding": "non-embedding parameters",
    "width": "hidden size",
    "flops_per_token": "training FLOPs per token",
}
"""What the size N of a law may count, and its name for people."""
BATCHES = ("tokens", "sequences")
FORMS = ("power", "logarithmic")
"""`power`: value = unit * c * N^-alpha * D^-beta * B^delta.
`logarithmic`: value = unit * (c - alpha ln N - beta ln D)."""
NEEDED = {
    Status.ONE_SIZE: {"alpha"},
    Status.ONE_BUDGET: {"beta"},
    Status.ONE_CELL: {"alpha", "beta"},
    Status.COLLINEAR: {"alpha"},
}
"""The exponents that the cells do not determine, by the status of the law."""
Matrix = tuple[tuple[float, ...], ...]
Span = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The value that a law gives for one setting, with its prediction interval."""

    value: float
    low: float
    high: float
    params_beyond: float
    """1.0 inside the fitted range, k when k times outside of it; so for the other two."""
    tokens_beyond: float
    batch_beyond: float
    status: Status
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ScalingLaw:
    """A power law with its units, range, conditions, source and uncertainty.

    value = unit * c * (N / params_unit)^-alpha * (D / tokens_unit)^-beta * (B / batch_unit)^delta
    """

    KIND: ClassVar[str] = "scaling_law"
    SCHEMA: ClassVar[int] = 5
    QUANTITY: ClassVar[str] = "value"

    c: float
    """Factor, in the law's units."""
    alpha: float
    """Exponent of the size, with a minus sign in the formula."""
    beta: float
    """Exponent of the tokens, with a minus sign in the formula."""
    delta: float = 0.0
    """Exponent of the batch."""
    delta_prior: Span | None = None
    """Mean and standard deviation of the prior of the exponent of the batch; None where none took part."""
    form: str = "power"
    """One of `FORMS`."""
    params_kind: str = "total"
    """What the size N counts: a key of `SIZES`."""
    params_unit: float = 1e9
    """Size that counts as 1."""
    tokens_unit: float = 1e9
    """Tokens that count as 1."""
    batch_unit: float | None = None
    """Tokens of one optimizer step that count as 1; None for a law without the batch in it."""
    batch_kind: str = "tokens"
    """What the batch counts: "tokens", or "sequences" where the runs did not say how long these are."""
    maximum: float | None = None
    """Largest value that the law gives; larger ones are cut."""
    params_range: Span | None = None
    """Smallest and largest size fitted; None if not known."""
    tokens_range: Span | None = None
    """Smallest and largest budget fitted, tokens; None if not known."""
    batch_range: Span | None = None
    """Smallest and largest batch fitted, tokens; None if not known or if the law has no batch in it."""
    support: Matrix | None = None
    """The distinct cells fitted: ln of those of size, tokens and batch that have a range; None if not known."""
    conditions: Conditions = field(default_factory=Conditions)
    """What the runs behind the law had in common."""
    notes: str = ""
    """What else a reader must know about the runs behind the law."""
    source: str = ""
    """Where the law comes from."""
    status: Status = Status.OK
    """`ok`, `one_size`, `one_budget`, `one_cell`, `collinear`, `no_law`, `not_determined` or `too_few`."""
    message: str = ""
    """One sentence: why this status."""
    r2: float = math.nan
    """Share of the variance of ln value explained."""
    rmse: float = math.nan
    """Root mean square residual of ln value."""
    scatter: float = 0.0
    """Standard deviation of a cell's ln value around the law, beyond what the errors of the optima explain."""
    drift: float = 0.0
    """Standard deviation by which the exponents differ beyond the cells; intervals widen by this times the distance
    from the cells in e-folds (`support`)."""
    cells: int = 0
    """Cells fitted."""
    dof: float = math.inf
    """Degrees of freedom of the intervals."""
    covariance: Matrix | None = None
    """Of (ln c, alpha, beta), and delta in a law with the batch; None where unknown, as for most published laws."""
    draws_covariance: Matrix | None = None
    """The same from a bootstrap of the optima, if they came with one; intervals are the wider of both."""
    bends: tuple[Bend, ...] = ()
    """Tests of whether the law is straight in ln N, ln D and ln B."""
    verified: bool = True
    """For a published law: whether its source's text was seen."""

    def __post_init__(self) -> None:
        one_of(self.form, FORMS, "form of a law")
        one_of(self.params_kind, SIZES, "kind of size")
        one_of(self.batch_kind, BATCHES, "what the batch counts")
        for name in ("params_unit", "tokens_unit", "batch_unit", "maximum"):
            if getattr(self, name) is not None:
                positive([getattr(self, name)], name)
        for name in PARAMETERS if self.usable else ():
            value = getattr(self, name)
            if not (math.isfinite(value) and (name != "c" or value > 0)):
                raise InputError(f"a law of status {self.status} needs a finite {name}, c above zero; got {value!r}")
        for name in ("params_range", "tokens_range", "batch_range"):
            if (span := getattr(self, name)) is not None and not (0 < span[0] <= span[1] < math.inf):
                raise InputError(f"{name} must be two counts above zero, the smaller first; got {span!r}")
        for name in ("scatter", "drift", "cells"):
            if not 0 <= getattr(self, name) < 1e30:
                raise InputError(f"{name} must be a number from 0 on, got {str(getattr(self, name))[:40]}")
        if not self.dof > 0:
            raise InputError(f"dof must be above zero, got {self.dof!r}")
        for name in ("covariance", "draws_covariance"):
            if getattr(self, name) is not None:
                _check_covariance(getattr(self, name), len(self.parameters), name)
        support.check(self.support or (), (self.params_range, self.tokens_range, self.batch_range))
        for bend in self.bends:
            if len(bend.projection) != len(self.parameters):
                raise InputError(f"bends must have a projection of {len(self.parameters)} numbers")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the law's parameters, in the order of its covariance."""
        return PARAMETERS[:3] if self.batch_unit is None else PARAMETERS

    @property
    def fitted(self) -> tuple[str, ...]:
        """Which parameters the cells determined; the others come from a prior, or are 0 by assumption."""
        if not self.usable:
            return ()
        missing = NEEDED.get(self.status, set())
        fixed = {"delta"} if self.covariance is not None and not self._variance("delta") > 0 else set()
        return tuple(name for name in self.parameters if name not in missing | fixed)

    @property
    def ok(self) -> bool:
        """Whether the cells determined all parameters of the law."""
        return self.status.ok

    @property
    def usable(self) -> bool:
        """Whether the law gives a value. A law from one model size is usable though not `ok`: the exponent of the size
        is that of the prior, or the interval at other sizes is open."""
        return self.status not in (Status.NO_LAW, Status.TOO_FEW, Status.NOT_DETERMINED)

    @property
    def unit(self) -> float:
        """Value that counts as 1."""
        return 1.0

    @property
    def formula(self) -> str:
        """The law as text."""
        size = {"width": "d", "flops_per_token": "M"}.get(self.params_kind, "N")
        if self.form == "logarithmic":
            c, slope = format_factor(self.c * self.unit), format_factor(self.alpha * self.unit)
            return f"{self.QUANTITY} = {c} − {slope}·ln {_ratio(size, self.params_unit)}"
        parts = [format_factor(self.c * self.unit)]
        if self.alpha:
            parts.append(f"{_ratio(size, self.params_unit)}^{-self.alpha:.4g}")
        if self.beta:
            parts.append(f"{_ratio('D', self.tokens_unit)}^{-self.beta:.4g}")
        if self.batch_unit is not None:
            parts.append(f"{_ratio('B', self.batch_unit)}^{self.delta:.4g}")
        cut = "" if self.maximum is None else f", at most {self.maximum:g}"
        return f"{self.QUANTITY} = {' · '.join(parts)}{cut}"

    def value(self, params: ArrayLike, tokens: ArrayLike, batch: ArrayLike | None = None) -> Array | float:
        """Return the law's value.

        Args:
            params: Sizes of the kind that the law counts, of any shape.
            tokens: Training tokens; shapes broadcast together.
            batch: Tokens of one optimizer step; for a law with the batch in it.

        Returns:
            Values of the common shape, a float if all are numbers; NaN where the law has no positive value.

        Raises:
            InputError: a number is not above zero, or the batch is missing.
        """
        n, d = (positive(np.ravel(v), k).reshape(np.shape(v)) for v, k in ((params, "params"), (tokens, "tokens")))
        size, length = np.log(n / self.params_unit), np.log(d / self.tokens_unit)
        if not self.usable:
            out = np.full(np.broadcast(size, length).shape, math.nan)
        elif self.form == "logarithmic":
            out = np.asarray(self.unit * (self.c - self.alpha * size - self.beta * length))
            out = np.where(out > 0, out, math.nan)
        else:
            log = math.log(self.unit * self.c) - self.alpha * size - self.beta * length
            if self.batch_unit is not None:
                if batch is None:
                    raise InputError(
                        f"the law of the {self.QUANTITY} has the batch in it: give batch, in tokens a step"
                    )
                log = log + self.delta * np.log(positive(np.ravel(batch), "batch") / self.batch_unit).reshape(
                    np.shape(batch)
                )
            out = np.exp(np.clip(log, -700, 700))
        out = out if self.maximum is None else np.minimum(out, self.maximum)
        return float(out) if out.ndim == 0 else np.asarray(out)

    def estimate(
        self, params: float, tokens: float, batch: float | None = None, *, level: float = 0.9, limit: float = math.inf
    ) -> Estimate:
        """Return the value at one setting with its prediction interval.

        Args:
            params: Size of the kind that the law counts.
            tokens: Training tokens.
            batch: Tokens of one optimizer step, for a law with the batch in it.
            level: Confidence level of the interval.
            limit: Times outside the fitted range above which the status is `extrapolated`.

        Returns:
            The estimate; NaN ends where the law has no known uncertainty, 0 and inf where it does not determine an
            exponent that is needed.

        Raises:
            InputError: as `value`, or the level is not between 0 and 1.
        """
        n, d = positive_number(params, "params"), positive_number(tokens, "tokens")
        b = None if self.batch_unit is None or batch is None else positive_number(batch, "batch")
        level = level_of(level)
        centre = float(self.value(n, d, b))
        spans = ((n, self.params_range), (d, self.tokens_range), (1.0 if b is None else b, self.batch_range))
        beyond = tuple(1.0 if b is None and i == 2 else _beyond(*pair) for i, pair in enumerate(spans))
        notes = [self.message] if not self.ok and self.message else []
        names = (SIZES[self.params_kind], "tokens", "batch")
        for name, k, (_, span) in zip(names, beyond, spans, strict=True):
            if k > 1 + 1e-9 and span is not None:
                fitted = f"{format_count(span[0])} to {format_count(span[1])}"
                notes.append(f"extrapolated: {k:.3g} times beyond the fitted {name} ({fitted})")
            elif span is None and (name != "batch" or b is not None):
                notes.append(f"the law's range of {name} is not known")
        lacking = [
            name for name, k in (("alpha", beyond[0]), ("beta", beyond[1]))
            if k > 1 + 1e-9 and name in NEEDED.get(self.status, set()) and self.status is not Status.COLLINEAR
        ]  # fmt: skip
        status = Status.OK if 0 < centre < math.inf else Status.NOT_DETERMINED  # a logarithmic law below its zero
        if not self.usable or lacking:
            status = self.status
        elif max(beyond) > limit:
            status = Status.EXTRAPOLATED
        low, high, why = self._interval(n, d, b, centre, beyond, lacking, level)
        return Estimate(
            value=centre, low=low, high=high, params_beyond=beyond[0], tokens_beyond=beyond[1], batch_beyond=beyond[2],
            status=status, notes=(*notes, *why),
        )  # fmt: skip

    def _interval(
        self, n: float, d: float, b: float | None, centre: float, beyond: tuple[float, ...], lacking: list[str],
        level: float,
    ) -> tuple[float, float, list[str]]:  # fmt: skip
        if not centre > 0 or not math.isfinite(centre):
            return math.nan, math.nan, [f"the law gives no {self.QUANTITY} there"]
        if self.covariance is None:
            return math.nan, math.nan, ["interval unknown: the law's covariance is not known"]
        if missing := [name for name in lacking if not self._variance(name) > 0]:
            return 0.0, math.inf, [f"interval open: the data do not determine {' and '.join(missing)}"]
        from scipy import stats

        row = self._row(n, d, b)
        variance = float(row @ np.array(self.covariance) @ row)
        if self.draws_covariance is not None:
            variance = max(variance, float(row @ np.array(self.draws_covariance) @ row))
        spans = (self.params_range, self.tokens_range, self.batch_range)
        place = [math.log(at) for at, span in zip((n, d, b), spans, strict=True) if span is not None and at is not None]
        away = support.away(self.support, place, beyond)
        spread = max(variance, 0.0) + self.scatter**2 + (self.drift * away) ** 2
        why = support.note(away, beyond)
        for bend in self.bends:
            shift, words = bend.effect(row, {"params": n, "tokens": d, "batch": b}[bend.axis] or 1.0, max(beyond) - 1)
            spread += shift**2
            why += words
        half = min(float(stats.t.ppf(0.5 + level / 2, self.dof)) * math.sqrt(spread), 700.0)
        return centre * math.exp(-half), centre * math.exp(half), why

    def _row(self, n: float, d: float, b: float | None) -> Array:
        row = [1.0, -math.log(n / self.params_unit), -math.log(d / self.tokens_unit)]
        if self.batch_unit is not None and b is not None:
            row.append(math.log(b / self.batch_unit))
        return np.array(row)

    def _variance(self, name: str) -> float:
        at = self.parameters.index(name) if name in self.parameters else -1
        return 0.0 if self.covariance is None or at < 0 else self.covariance[at][at]

    def interval(self, level: float = 0.9) -> dict[str, tuple[float, float]]:
        """Return confidence intervals of the parameters (credible intervals where a prior took part).

        Args:
            level: Confidence level.

        Returns:
            Intervals of c and the exponents: (nan, nan) without a covariance, open for what neither the cells nor a
            prior determined, of no width for an exponent that was given.

        Raises:
            InputError: the level is not between 0 and 1.
        """
        level_of(level)
        if self.covariance is None:
            return dict.fromkeys(self.parameters, (math.nan, math.nan))
        from scipy import stats

        half = stats.t.ppf(0.5 + level / 2, self.dof) * np.sqrt(np.diag(np.array(self.covariance)))
        out = {"c": (self.c * math.exp(-min(half[0], 700.0)), self.c * math.exp(min(half[0], 700.0)))}
        for name, h in zip(self.parameters[1:], half[1:], strict=True):
            value, missing = getattr(self, name), name in NEEDED.get(self.status, set()) and not h > 0
            out[name] = (-math.inf, math.inf) if missing else (value - float(h), value + float(h))
        return out

    def to_json(self) -> str:
        """Return the law as JSON text; `from_json` gives an equal law."""
        return _json.dump(self, self.KIND, self.SCHEMA)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the law of `to_json`'s text.

        Raises:
            LawError: the text is anything else; the message is one sentence that names the field.
        """
        return _json.load(cls, text, cls.KIND, cls.SCHEMA)


def _ratio(name: str, unit: float) -> str:
    return name if unit == 1 else f"({name}/{format_factor(unit)})"


def _beyond(value: float, span: Span | None) -> float:
    """Return 1.0 inside `span` (or where it is not known), else the factor outside."""
    if span is None:
        return 1.0
    return max(span[0] / value, value / span[1], 1.0)


def _check_covariance(matrix: Matrix, size: int, name: str) -> None:
    """Raise InputError unless `matrix` is a covariance of `size` parameters: finite and positive semidefinite."""
    if len(matrix) != size or any(len(row) != size for row in matrix):
        raise InputError(f"{name} must be {size} rows of {size} numbers")
    array = np.array(matrix, dtype=np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite")
    scale = np.sqrt(np.maximum(np.abs(np.diag(array)), 1e-100))
    with np.errstate(over="ignore"):
        unit = array / scale[:, None] / scale[None, :]
    if (np.diag(array) < 0).any() or not np.allclose(unit, unit.T, rtol=0, atol=1e-6) or np.isinf(unit).any():
        raise InputError(f"{name} must be symmetric with variances from 0 on")
    if np.linalg.eigvalsh((unit + unit.T) / 2).min() < -1e-6:
        raise InputError(f"{name} must be positive semidefinite")
