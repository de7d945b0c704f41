"""Eq. 8 of Zhou et al. 2026: the LR law over cells, lr_opt(N, D) = c * N^-alpha * D^-beta.

Notation
    N, D     parameters and tokens of a cell, in the law's units (`params_unit`, `tokens_unit`)    (n,)
    z        ln lr_opt in the law's unit (`lr_unit`), weights 1 / stderr(z)^2                       (n,)
    theta    (ln c, alpha, beta): z = ln c - alpha ln N - beta ln D                                (3,)

Least squares in log space is linear in theta: no start values, no local optimum. Cells scatter around the law by more
than their own errors say (`scatter`), so weights are 1 / (stderr^2 + scatter^2); the scatter solves the equation of
Paule and Mandel 1982, with a prior worth `SCATTER_DOF` cells, and is what Student's t is scaled by. What the design
does not determine (one size: alpha; one budget: beta) is set to 0 and listed as not fitted; a prediction that needs it
has an open interval. Tokens in a fixed ratio to parameters tell what happens along that line, and little off it. Beyond
the fitted range the exponents themselves are taken to change (`drift`).
"""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, level_of, losses_of, one_of, optima_of, positive, same_length, vector
from raylr.analysis.units import format_count

OBJECTIVES = ("stable", "decayed")
PARAMETERS = ("c", "alpha", "beta")
SAME = 0.05
"""Sizes or budgets within this in ln are one: their optima cannot tell an exponent."""
SCATTER = 0.2
"""Scatter of ln lr_opt before any cell is seen: what the optimum of one size and budget differs by between seeds."""
SCATTER_DOF = 2.0
"""How many cells that is worth."""
DRIFT = 0.2
"""Standard deviation by which an exponent beyond the fitted range differs from that inside: on public tables of LRs the
exponents between neighbouring sizes and budgets differ by that much."""
STEEP = 5.0
"""An exponent beyond this is none: cells that hardly differ in size have optima far apart."""
EXPONENT_SD = 1.0
"""Standard deviation of an exponent that the design does not tell; published ones lie between -0.4 and 0.7."""


@dataclass(frozen=True, kw_only=True)
class LRPrediction:
    """The LR that a law gives for one cell."""

    lr: float
    """Predicted LR; NaN from a failed law."""
    lr_low: float
    """Lower end of the interval; NaN where the law has no known uncertainty."""
    lr_high: float
    """Upper end of the interval; NaN where the law has no known uncertainty."""
    level: float
    """Confidence level of the interval."""
    params: float
    """Parameters asked for."""
    tokens: float
    """Tokens asked for."""
    params_beyond: float
    """1.0 inside the fitted range, k when k times outside of it (below or above)."""
    tokens_beyond: float
    """The same for tokens."""
    message: str
    """What the reader must know: extrapolation, a missing interval, what the law was fitted on."""


@dataclass(frozen=True, kw_only=True)
class LRLaw:
    """An LR law with its units, range, source and uncertainty.

    lr = lr_unit * c * (params / params_unit)^-alpha * (tokens / tokens_unit)^-beta
    """

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
    objective: str = "stable"
    """`stable` (loss at a constant LR) or `decayed` (loss after a cooldown)."""
    schedule: str = ""
    """LR schedule of the runs behind the law."""
    source: str = ""
    """Where the law comes from."""
    status: str = "ok"
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
    covariance: tuple[tuple[float, ...], ...] | None = None
    """Of (ln c, alpha, beta); None where unknown, as for most published laws."""
    draws: tuple[tuple[float, ...], ...] | None = None
    """Bootstrap draws of (ln c, alpha, beta), if the optima came with any."""
    verified: bool = True
    """For a published law: whether its source's text was seen."""

    def __post_init__(self) -> None:
        one_of(self.objective, OBJECTIVES, "objective")
        for name in ("params_unit", "tokens_unit", "lr_unit"):
            positive([getattr(self, name)], name)

    @property
    def ok(self) -> bool:
        """Whether all three parameters were determined."""
        return self.status == "ok"

    def lr(self, params: ArrayLike, tokens: ArrayLike) -> Array | float:
        """Predicted LR at (`params`, `tokens`), broadcast together. ValueError unless both are above zero."""
        n, d = (positive(np.ravel(v), k).reshape(np.shape(v)) for v, k in ((params, "params"), (tokens, "tokens")))
        size, length = np.log(n / self.params_unit), np.log(d / self.tokens_unit)
        out = np.exp(np.clip(math.log(self.lr_unit * self.c) - self.alpha * size - self.beta * length, -700, 700))
        return float(out) if out.ndim == 0 else np.asarray(out)

    def predict(self, params: float, tokens: float, level: float = 0.9) -> LRPrediction:
        """The LR at one cell, an interval for its optimum and how far beyond the fitted range it is.

        The interval holds the law's error, the scatter of cells around it and, beyond the fitted range, a change of its
        exponents. `params` and `tokens` are counts, not in the law's units. ValueError unless both are above zero.
        """
        n, d = float(positive([params], "params")[0]), float(positive([tokens], "tokens")[0])
        beyond_n, beyond_d = _beyond(n, self.params_range), _beyond(d, self.tokens_range)
        low, high, why = self._interval_at(n, d, level_of(level))
        notes = [self.message] if not self.ok and self.message else []
        for name, k, span in (("parameters", beyond_n, self.params_range), ("tokens", beyond_d, self.tokens_range)):
            if k > 1 and span is not None:
                fitted = f"{format_count(span[0])} to {format_count(span[1])}"
                notes.append(f"extrapolated: {k:.3g} times beyond the fitted {name} ({fitted})")
            elif span is None:
                notes.append(f"the law's range of {name} is not known")
        return LRPrediction(
            lr=float(self.lr(n, d)), lr_low=low, lr_high=high, level=level, params=n, tokens=d, params_beyond=beyond_n,
            tokens_beyond=beyond_d, message="; ".join([*notes, *why]) or "inside the fitted range",
        )  # fmt: skip

    def _interval_at(self, n: float, d: float, level: float) -> tuple[float, float, list[str]]:
        centre = float(self.lr(n, d))
        if not centre > 0 or not math.isfinite(centre):
            return math.nan, math.nan, ["no prediction"]
        if self.covariance is None:
            return math.nan, math.nan, ["interval unknown: the law's covariance is not known"]
        row = np.array([1.0, -math.log(n / self.params_unit), -math.log(d / self.tokens_unit)])
        for name, k, span in (("alpha", n, self.params_range), ("beta", d, self.tokens_range)):
            if name not in self.fitted and self.status != "collinear" and _beyond(k, span) > 1 + 1e-9:
                return 0.0, math.inf, [f"interval open: the data do not determine {name}"]
        from scipy import stats

        variance = float(row @ np.array(self.covariance) @ row)
        if self.draws is not None:
            variance = max(variance, float(np.var(np.array(self.draws) @ row)))
        beyond = math.hypot(
            *(math.log(_beyond(k, span)) for k, span in ((n, self.params_range), (d, self.tokens_range)))
        )
        spread = math.sqrt(max(variance, 0.0) + self.scatter**2 + (self.drift * beyond) ** 2)
        half = min(float(stats.t.ppf(0.5 + level / 2, self.dof)) * spread, 700.0)
        return centre * math.exp(-half), centre * math.exp(half), []

    def interval(self, level: float = 0.9) -> dict[str, tuple[float, float]]:
        """Intervals of c, alpha and beta; (nan, nan) without a covariance, open for what was not determined."""
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
        """The law as JSON text; `from_json` gives an equal law (NaN and inf as null and strings)."""
        return json.dumps(_plain(asdict(self)), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "LRLaw":
        """The law of `to_json`'s text. ValueError for other text and for unknown or missing fields."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ValueError(f"not an LR law: the text is not JSON ({error})") from error
        known = {f.name for f in fields(cls)}
        if not isinstance(data, dict) or not {"c", "alpha", "beta"} <= set(data):
            raise ValueError("not an LR law: an object with c, alpha and beta is needed")
        if set(data) - known:
            one_of(sorted(set(data) - known)[0], known, "field of an LR law")
        return cls(**{name: _restored(value) for name, value in data.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_restored(v) for v in value)
    return float(value) if value in ("nan", "inf", "-inf") else value


def _beyond(value: float, span: tuple[float, float] | None) -> float:
    """1.0 inside `span` (or where it is not known), else the factor outside."""
    if span is None:
        return 1.0
    return max(span[0] / value, value / span[1], 1.0)


def fit_lr_law(
    params: ArrayLike,
    tokens: ArrayLike,
    lr_opt: ArrayLike,
    *,
    stderr: ArrayLike | None = None,
    draws: ArrayLike | None = None,
    params_unit: float = 1e9,
    tokens_unit: float = 1e9,
    lr_unit: float = 1e-4,
    objective: str = "stable",
    schedule: str = "constant",
    source: str = "",
) -> LRLaw:
    """Fit Eq. 8 to the optima of cells.

    `params`, `tokens`, `lr_opt`: flat arrays, one entry a cell; cells whose `lr_opt` is NaN are left out. `stderr`:
    standard error of ln lr_opt (inf leaves a cell out); without, all of it is counted as scatter of the cells.
    `draws`: ln lr_opt of a bootstrap over trials, (B, cells); each gives a law, and intervals are the wider of both.
    Raises ValueError for sizes, tokens or LRs that are not positive and for unequal lengths.
    """
    n, d = positive(params, "params"), positive(tokens, "tokens")
    for name, unit in (("params_unit", params_unit), ("tokens_unit", tokens_unit), ("lr_unit", lr_unit)):
        positive([unit], name)
    z = optima_of(lr_opt, "lr_opt")
    same_length(params=n, tokens=d, lr_opt=z)
    s = None if stderr is None else vector(np.atleast_1d(np.asarray(stderr)), "stderr")
    if s is not None:
        s = np.full(z.size, s[0]) if s.size == 1 else s
        same_length(lr_opt=z, stderr=s)
        if np.isnan(s).any() or (s <= 0).any():
            raise ValueError("stderr must be above zero (inf for a cell that tells nothing)")
    keep = np.isfinite(z) & (True if s is None else np.isfinite(s))
    samples = None
    if draws is not None:
        samples = losses_of(draws, "draws", axes=2)
        if samples.shape[1] != z.size:
            raise ValueError(f"draws must have shape (draws, {z.size}), got {samples.shape}")
        samples = samples[:, keep] - math.log(lr_unit)
        if not np.isfinite(samples).all():
            raise ValueError("draws must be finite for every cell that has an optimum")
    law = _fit(
        n[keep] / params_unit, d[keep] / tokens_unit, np.log(z[keep] / lr_unit), None if s is None else s[keep], samples
    )
    return replace(
        law, params_unit=params_unit, tokens_unit=tokens_unit, lr_unit=lr_unit, objective=objective, schedule=schedule,
        source=source, params_range=_range(n[keep]), tokens_range=_range(d[keep]),
    )  # fmt: skip


def _range(values: Array) -> tuple[float, float] | None:
    return (float(values.min()), float(values.max())) if values.size else None


def _fit(n: Array, d: Array, z: Array, s: Array | None, samples: Array | None) -> LRLaw:
    if z.size == 0:
        return LRLaw(
            c=math.nan, alpha=math.nan, beta=math.nan, status="too_few", message="no cell has an optimum", fitted=()
        )
    full = np.stack([np.ones_like(z), -np.log(n), -np.log(d)], 1)
    columns, status, message = _design(full)
    x, error = full[:, columns], np.zeros_like(z) if s is None else np.minimum(s, 1e30)
    scatter = _scatter(x, z, error)
    theta, unit, w = _solve(x, z, error, scatter)
    if np.abs(theta[1:]).max(initial=0.0) > STEEP:
        nan, message = math.nan, f"exponents of {', '.join(f'{v:.3g}' for v in theta[1:])}: these optima follow no law"
        return LRLaw(c=nan, alpha=nan, beta=nan, status="no_law", message=message, fitted=(), cells=z.size)
    residual = z - x @ theta
    covariance = np.zeros((3, 3))
    covariance[np.ix_(columns, columns)] = unit
    if status == "collinear":
        covariance += _unknown(full)
    total = float(w @ (z - w @ z / w.sum()) ** 2)
    each = None
    if samples is not None:
        root, table = np.sqrt(w)[:, None], np.zeros((samples.shape[0], 3))
        table[:, columns] = np.linalg.lstsq(x * root, samples.T * root, rcond=None)[0].T
        each = tuple(map(tuple, table.tolist()))
    values = np.zeros(3)
    values[columns] = theta
    return LRLaw(
        c=math.exp(values[0]), alpha=float(values[1]), beta=float(values[2]), status=status, message=message,
        fitted=tuple(PARAMETERS[i] for i in columns), r2=1 - float(w @ residual**2) / total if total > 0 else math.nan,
        rmse=float(np.sqrt(np.mean(residual**2))), scatter=scatter, drift=DRIFT, cells=z.size,
        dof=z.size - len(columns) + SCATTER_DOF, covariance=tuple(map(tuple, covariance.tolist())), draws=each,
    )  # fmt: skip


def _solve(x: Array, z: Array, error: Array, scatter: float) -> tuple[Array, Array, Array]:
    """Least squares with weights 1 / (error^2 + scatter^2): theta, its covariance and the weights."""
    w = 1 / (error**2 + scatter**2)
    root = np.sqrt(w)[:, None]
    q, triangle = np.linalg.qr(x * root)
    half = np.linalg.inv(triangle)
    return half @ (q.T @ (root[:, 0] * z)), half @ half.T, w


def _scatter(x: Array, z: Array, error: Array) -> float:
    """The standard deviation, beside `error`, that makes the weighted residuals as large as they should be."""
    from scipy import optimize

    dof = z.size - x.shape[1] + SCATTER_DOF

    def excess(log_scatter: float) -> float:
        scatter = math.exp(log_scatter)
        theta, _, w = _solve(x, z, error, scatter)
        return float(SCATTER_DOF * (SCATTER / scatter) ** 2 + w @ (z - x @ theta) ** 2 - dof)

    plain = z - x @ np.linalg.lstsq(x, z, rcond=None)[0]
    low, high = SCATTER_DOF * SCATTER**2, SCATTER_DOF * SCATTER**2 + float(plain @ plain)
    log_low, log_high = 0.5 * math.log(low / dof) - 1e-6, 0.5 * math.log(high / dof) + 1e-6
    while excess(log_high) > 0:  # rounding
        log_high += 0.5
    return math.exp(float(optimize.brentq(excess, log_low, log_high, xtol=1e-10)))


def _unknown(full: Array) -> Array:
    """Covariance of the exponents in the direction that a collinear design does not tell; 0 along the cells."""
    centre = full[:, 1:].mean(0)
    across = np.linalg.svd(full[:, 1:] - centre)[2][-1]
    row = np.concatenate([[-float(across @ centre)], across])
    return np.asarray(EXPONENT_SD**2 * np.outer(row, row))


def _design(full: Array) -> tuple[list[int], str, str]:
    """Columns of the design that the cells determine, the status and why."""
    one_size, one_budget = np.ptp(full[:, 1:], axis=0) < SAME
    if one_size and one_budget:
        return [0], "one_cell", "one model size at one token budget: neither exponent is determined"
    if one_size:
        return [0, 2], "one_size", "one model size: the exponent of the parameters is not determined"
    if one_budget:
        return [0, 1], "one_budget", "one token budget: the exponent of the tokens is not determined"
    centred = full[:, 1:] - full[:, 1:].mean(0)
    if np.linalg.svd(centred, compute_uv=False)[-1] < 1e-3:
        return [0, 2], "collinear", "tokens grow in a fixed ratio to parameters: the two exponents cannot be told apart"
    return [0, 1, 2], "ok", ""
