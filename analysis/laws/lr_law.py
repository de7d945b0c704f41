"""Eq. 8 of Zhou et al. 2026: the law of the optimal learning rate, lr_opt(N, D) = c * N^-alpha * D^-beta.

This module holds the law, its predictions and its file format; `lr_fit` fits it to measured optima, `presets` has
published ones.

Notation
    N, D     parameters and tokens, in the law's units (`params_unit`, `tokens_unit`)
    theta    (ln c, alpha, beta): ln(lr_opt / lr_unit) = ln c - alpha ln N - beta ln D
    row      (1, -ln N, -ln D): the prediction is row @ theta, its variance row @ covariance @ row
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, level_of, positive, positive_number
from raylr.analysis.laws import _json
from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.status import Status
from raylr.analysis.units import format_count
from raylr.errors import InputError

PARAMETERS = ("c", "alpha", "beta")
_FITTED = {
    Status.OK: PARAMETERS,
    Status.ONE_SIZE: ("c", "beta"),
    Status.ONE_BUDGET: ("c", "alpha"),
    Status.ONE_CELL: ("c",),
    Status.COLLINEAR: ("c", "beta"),
}
"""Which parameters the cells determine, by the status of the law."""
Matrix = tuple[tuple[float, ...], ...]
EXTRAPOLATION_LIMIT = 10.0
"""How many times outside the fitted range of parameters, or of tokens, a prediction may lie before its status is
`EXTRAPOLATED`. Laws were tried on optima up to 7 times beyond their cells in parameters times tokens
(`benchmarks/laws.py --only law`: 90 % intervals hold 84 % of the optima from 2.2 times beyond on); the paper's own test
is 4 times beyond in parameters and 2.3 times in tokens. Ten times in each is a target that costs a hundred times the
largest cell; nothing here was measured further out than that."""


@dataclass(frozen=True, kw_only=True)
class LRPrediction:
    """The LR that a law gives for one setting, with its prediction interval."""

    lr: float
    """Predicted LR; NaN from a law without one."""
    lr_low: float
    """Lower end of the prediction interval; NaN where the law has no known uncertainty."""
    lr_high: float
    """Upper end of the prediction interval; NaN where the law has no known uncertainty."""
    level: float
    """Confidence level of the interval."""
    params: float
    """Parameters of the setting."""
    tokens: float
    """Training tokens of the setting."""
    params_beyond: float
    """1.0 inside the fitted range, k when k times outside of it (below or above)."""
    tokens_beyond: float
    """The same for tokens."""
    status: Status
    """`ok`; `extrapolated` if parameters or tokens lie further outside the fitted range than the limit; the status of
    the law if it gives no LR, or if it lacks the exponent that this prediction needs."""
    message: str
    """What the reader must know: extrapolation, a missing interval, conditions of the target that differ."""

    @property
    def ok(self) -> bool:
        """Whether the LR may be used with its interval."""
        return self.status.ok


@dataclass(frozen=True, kw_only=True)
class LRLaw:
    """A law of the optimal learning rate with its units, range, conditions, source and uncertainty.

    lr = lr_unit * c * (params / params_unit)^-alpha * (tokens / tokens_unit)^-beta
    """

    KIND: ClassVar[str] = "lr_law"
    SCHEMA: ClassVar[int] = 1

    c: float
    """Factor, in the law's units."""
    alpha: float
    """Exponent of the parameters."""
    beta: float
    """Exponent of the tokens."""
    params_unit: float = 1e9
    """Parameters that count as 1."""
    tokens_unit: float = 1e9
    """Tokens that count as 1."""
    lr_unit: float = 1e-4
    """LR that counts as 1."""
    params_range: tuple[float, float] | None = None
    """Smallest and largest model fitted, parameters; None if not known."""
    tokens_range: tuple[float, float] | None = None
    """Smallest and largest budget fitted, tokens; None if not known."""
    conditions: Conditions = field(default_factory=Conditions)
    """What the runs behind the law had in common."""
    notes: str = ""
    """What else a reader must know about the runs behind the law."""
    source: str = ""
    """Where the law comes from."""
    status: Status = Status.OK
    """`ok`, `one_size`, `one_budget`, `one_cell`, `collinear`, `no_law` or `too_few`."""
    message: str = ""
    """One sentence: why this status."""
    fitted: tuple[str, ...] = PARAMETERS
    """Which of c, alpha, beta the data determined; the others are 0 by assumption."""
    r2: float = math.nan
    """Share of the variance of ln lr explained."""
    rmse: float = math.nan
    """Root mean square residual of ln lr."""
    scatter: float = 0.0
    """Standard deviation of ln lr_opt of a cell around the law, beyond what the errors of the optima explain."""
    drift: float = 0.0
    """Standard deviation by which the exponents differ beyond the fitted range; intervals widen with ln(times beyond)
    times this."""
    cells: int = 0
    """Cells fitted."""
    dof: float = math.inf
    """Degrees of freedom of the intervals."""
    covariance: Matrix | None = None
    """Of (ln c, alpha, beta); None where unknown, as for most published laws."""
    draws_covariance: Matrix | None = None
    """The same from a bootstrap of the optima, if they came with one; intervals are the wider of both."""
    verified: bool = True
    """For a published law: whether its source's text was seen."""

    def __post_init__(self) -> None:
        for name in ("params_unit", "tokens_unit", "lr_unit"):
            positive([getattr(self, name)], name)
        has_numbers = self.usable
        for name in PARAMETERS:
            value = getattr(self, name)
            if has_numbers and not (math.isfinite(value) and (name != "c" or value > 0)):
                raise InputError(f"a law of status {self.status} needs a finite {name}, c above zero; got {value!r}")
        for name in ("params_range", "tokens_range"):
            if (span := getattr(self, name)) is not None and not (0 < span[0] <= span[1] < math.inf):
                raise InputError(f"{name} must be two counts above zero, the smaller first; got {span!r}")
        for name in ("scatter", "drift"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be a number from 0 on, got {getattr(self, name)!r}")
        if not self.dof > 0:
            raise InputError(f"dof must be above zero, got {self.dof!r}")
        known = _FITTED.get(self.status, ())
        if self.fitted != known:
            raise InputError(f"a law of status {self.status} has fitted {known!r}, got {self.fitted!r}")
        for name in ("covariance", "draws_covariance"):
            if getattr(self, name) is not None:
                _check_covariance(getattr(self, name), len(PARAMETERS), name)

    @property
    def ok(self) -> bool:
        """Whether the cells determined all parameters of the law."""
        return self.status.ok

    @property
    def usable(self) -> bool:
        """Whether the law gives an LR. A law from one model size is usable though not `ok`: it predicts for that size,
        and for others with an open interval."""
        return self.status not in (Status.NO_LAW, Status.TOO_FEW, Status.NOT_DETERMINED)

    def lr(self, params: ArrayLike, tokens: ArrayLike) -> Array | float:
        """Return the predicted LR.

        Args:
            params: Parameters, of any shape.
            tokens: Training tokens, of a shape that broadcasts with that of `params`.

        Returns:
            LRs of the common shape; a float if both are numbers.

        Raises:
            InputError: a value is not above zero.
        """
        n, d = (positive(np.ravel(v), k).reshape(np.shape(v)) for v, k in ((params, "params"), (tokens, "tokens")))
        size, length = np.log(n / self.params_unit), np.log(d / self.tokens_unit)
        level = math.log(self.lr_unit * self.c) if self.usable else math.nan
        out = np.exp(np.clip(level - self.alpha * size - self.beta * length, -700, 700))
        return float(out) if out.ndim == 0 else np.asarray(out)

    def predict(
        self,
        params: float,
        tokens: float,
        level: float = 0.9,
        *,
        conditions: Conditions | None = None,
        extrapolation_limit: float = EXTRAPOLATION_LIMIT,
    ) -> LRPrediction:
        """Return the LR for one setting with a prediction interval for its optimum.

        The interval holds the law's error, the scatter of cells around it and, beyond the fitted range, a change of its
        exponents.

        Args:
            params: Parameters of the model: a count, not in the law's units.
            tokens: Training tokens.
            level: Confidence level of the interval.
            conditions: How the target will be trained; the message names what differs from the law's runs.
            extrapolation_limit: Times outside the fitted range from which the status is `extrapolated`; inf for never.

        Returns:
            The prediction with its status and how far beyond the fitted range it is.

        Raises:
            InputError: a count is not above zero, the level is not between 0 and 1, or the limit is below 1.

        Example:
            >>> from raylr.analysis.laws import presets
            >>> prediction = presets.get("zhou2026").predict(4e9, 120e9)
            >>> round(prediction.lr, 6)
            0.000527

        References:
            Zhou et al. 2026, arXiv 2601.05049, Eq. 8.
        """
        n, d = positive_number(params, "params"), positive_number(tokens, "tokens")
        if not extrapolation_limit >= 1:
            raise InputError(f"extrapolation_limit must be a factor from 1 on, got {extrapolation_limit!r}")
        beyond_n, beyond_d = _beyond(n, self.params_range), _beyond(d, self.tokens_range)
        low, high, why = self._interval_at(n, d, level_of(level))
        notes = [self.message] if not self.ok and self.message else []
        for name, k, span in (("parameters", beyond_n, self.params_range), ("tokens", beyond_d, self.tokens_range)):
            if k > 1 and span is not None:
                fitted = f"{format_count(span[0])} to {format_count(span[1])}"
                notes.append(f"extrapolated: {k:.3g} times beyond the fitted {name} ({fitted})")
            elif span is None:
                notes.append(f"the law's range of {name} is not known")
        if conditions is not None:
            notes += [f"the target differs in {one}" for one in self.conditions.differences(conditions)]
        status = Status.OK
        if not self.usable or (low == 0 and high == math.inf):
            status = self.status
        elif max(beyond_n, beyond_d) > extrapolation_limit:
            status = Status.EXTRAPOLATED
        return LRPrediction(
            lr=float(self.lr(n, d)), lr_low=low, lr_high=high, level=level, params=n, tokens=d, params_beyond=beyond_n,
            tokens_beyond=beyond_d, status=status, message="; ".join([*notes, *why]) or "inside the fitted range",
        )  # fmt: skip

    def _interval_at(self, n: float, d: float, level: float) -> tuple[float, float, list[str]]:
        centre = float(self.lr(n, d))
        if not centre > 0 or not math.isfinite(centre):
            return math.nan, math.nan, ["no prediction"]
        if self.covariance is None:
            return math.nan, math.nan, ["interval unknown: the law's covariance is not known"]
        row = np.array([1.0, -math.log(n / self.params_unit), -math.log(d / self.tokens_unit)])
        for name, k, span in (("alpha", n, self.params_range), ("beta", d, self.tokens_range)):
            if name not in self.fitted and self.status != Status.COLLINEAR and _beyond(k, span) > 1 + 1e-9:
                return 0.0, math.inf, [f"interval open: the data do not determine {name}"]
        from scipy import stats

        variance = float(row @ np.array(self.covariance) @ row)
        if self.draws_covariance is not None:
            variance = max(variance, float(row @ np.array(self.draws_covariance) @ row))
        beyond = math.hypot(
            *(math.log(_beyond(k, span)) for k, span in ((n, self.params_range), (d, self.tokens_range)))
        )
        spread = math.sqrt(max(variance, 0.0) + self.scatter**2 + (self.drift * beyond) ** 2)
        half = min(float(stats.t.ppf(0.5 + level / 2, self.dof)) * spread, 700.0)
        return centre * math.exp(-half), centre * math.exp(half), []

    def interval(self, level: float = 0.9) -> dict[str, tuple[float, float]]:
        """Return confidence intervals of the parameters.

        Args:
            level: Confidence level.

        Returns:
            Intervals of c, alpha and beta: (nan, nan) without a covariance, open for what was not determined.

        Raises:
            InputError: the level is not between 0 and 1.
        """
        level_of(level)
        if self.covariance is None:
            return dict.fromkeys(PARAMETERS, (math.nan, math.nan))
        from scipy import stats

        half = stats.t.ppf(0.5 + level / 2, self.dof) * np.sqrt(np.diag(np.array(self.covariance)))
        out = {"c": (self.c * math.exp(-min(half[0], 700.0)), self.c * math.exp(min(half[0], 700.0)))}
        for name, value, h in (("alpha", self.alpha, half[1]), ("beta", self.beta, half[2])):
            out[name] = (value - float(h), value + float(h)) if name in self.fitted else (-math.inf, math.inf)
        return out

    def to_json(self) -> str:
        """Return the law as JSON text; `from_json` gives an equal law."""
        return _json.dump(self, self.KIND, self.SCHEMA)

    @classmethod
    def from_json(cls, text: str) -> "LRLaw":
        """Return the law of `to_json`'s text.

        Raises:
            LawError: the text is anything else; the message is one sentence that names the field.
        """
        return _json.load(cls, text, cls.KIND, cls.SCHEMA)


def _beyond(value: float, span: tuple[float, float] | None) -> float:
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
