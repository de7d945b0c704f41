"""Scores beside losses: columns of the run table, and how the log-probability of the right answer follows the loss.

Notation: K checkpoints, ℓ_k validation loss (nats per token), s_k mean log-probability of the right answer among the
four letters (nats, ln 1/4 for a guess), σ_k its standard error. Accuracy moves late; s moves with the loss from the
start, and over the range of one study a line is a sufficient model:

    s = a + b·(ℓ − ℓ̄)        weighted least squares, weights 1/σ_k², ℓ̄ the weighted mean of ℓ_k

The covariance of (a, b) is scaled by χ²/(K − 2) where that is above 1, because the points then scatter more than their
standard errors predict (checkpoints of one run share its questions, and scatter less).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raylr.analysis._checks import one_of
from raylr.analysis.scores.scores import EVALUATION, SCORES, Scores, summarise_all
from raylr.analysis.scores.suites import SUITES
from raylr.analysis.status import Status
from raylr.errors import DataError, InputError

QUANTITIES = ("accuracy", "log_prob")
"""What can be drawn over tokens: share of right answers, and mean log-probability of the right answer."""
MIN_POINTS = 3
"""Checkpoints below which no line is fitted: two would fit any."""
FLAT = 2.576
"""Standard errors that a slope must differ from 0 by to count as one: 1 % of flat lines do, as in `scores.LEVEL`."""


def suite_columns(scores: Scores, *, average: str = "naive") -> dict[str, Any]:
    """Return one evaluation's results as columns of a run table.

    Args:
        scores: The evaluation.
        average: Over subjects, "naive" or "weighted".

    Returns:
        For each suite in it, such as mmlu: `mmlu` (accuracy, 0 to 1), `mmlu_stderr`, `mmlu_log_prob`,
        `mmlu_log_prob_stderr` (nats; NaN for generated answers), `mmlu_questions` and `mmlu_verdict`.

    Raises:
        ValueError: There is no such average.
    """
    columns: dict[str, Any] = {}
    for suite in SUITES:
        if any(row.suite == suite for row in scores.rows):
            row = scores.row(suite, average=average)
            columns |= {
                suite: row.accuracy,
                f"{suite}_stderr": row.accuracy_stderr,
                f"{suite}_log_prob": row.log_prob,
                f"{suite}_log_prob_stderr": row.log_prob_stderr,
                f"{suite}_questions": row.questions,
                f"{suite}_verdict": row.verdict,
            }
    return columns


def calibrated(questions: pa.Table) -> pa.Table:
    """Return the questions with the answer bias removed from the scores (batch calibration).

    Small models learn to prefer a letter long before they know an answer, and the preference becomes stronger during
    training. This answer bias is most of their log-probability of the right answer, and nearly all of its standard
    error. With p_il the probability of letter l among the four at question i, the logarithm of the mean of p_il over
    the questions of the subject in the same evaluation is subtracted from ln p_il. A model that gives the same
    probabilities to every question then has ln 1/4; one whose differences between questions are noise has a little
    less.

    Args:
        questions: Scored questions (`raylr.analysis.scores.scores.QUESTION_SCHEMA`) of any number of evaluations.
            Use 20 questions of each subject or more: with fewer, a letter's mean is partly the question's own score.

    Returns:
        The same rows with other scores. Predictions stay, and so do generated answers, which have no scores.

    References:
        Zhou et al. 2023, Batch Calibration, arXiv 2309.17249.
    """
    frame = questions.to_pandas()
    if frame.empty:
        return questions
    raw = frame[list(SCORES)].to_numpy(dtype=np.float64)
    top = raw.max(1, keepdims=True)
    log_p = raw - top - np.log(np.exp(raw - top).sum(1, keepdims=True))
    keys = [*EVALUATION, "suite", "subject", "data_hash"]
    group = frame.groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    sums = np.zeros((group.max() + 1, raw.shape[1]))
    np.add.at(sums, group, np.exp(log_p))
    means = sums / np.bincount(group)[:, None]
    left = log_p - np.log(means)[group]
    for column, name in enumerate(SCORES):
        place = questions.schema.get_field_index(name)
        questions = questions.set_column(place, name, pa.array(left[:, column], pa.float64(), from_pandas=True))
    return questions


def join_scores(
    evaluations: pa.Table, questions: pa.Table, *, backend: str | None = None, average: str = "naive"
) -> pa.Table:
    """Return the run table with scores: `suite_columns` on the rows that were scored, null on the others.

    Args:
        evaluations: The run table. Rows are matched by trial and tokens.
        questions: The scored questions, `raylr.analysis.scores.scores.QUESTION_SCHEMA`.
        backend: Whose scores to take; None: those of all backends.
        average: Over subjects, "naive" or "weighted".

    Raises:
        DataError: A checkpoint has several evaluations, by other backends, in other modes or on other data.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for scores in summarise_all(questions) if questions.num_rows else ():
        if backend not in (None, scores.backend) or scores.tokens is None:
            continue
        key = (scores.run, scores.tokens)
        if key in found:
            raise DataError(
                f"{scores.run} has several evaluations at {scores.tokens} tokens; choose a backend, or keep the "
                "questions of one"
            )
        found[key] = suite_columns(scores, average=average)
    names = {name: value for columns in found.values() for name, value in columns.items()}
    keys = list(zip(evaluations["trial"].to_pylist(), evaluations["tokens"].to_pylist(), strict=True))
    joined = evaluations
    for name, example in names.items():
        kind = pa.string() if isinstance(example, str) else pa.int64() if isinstance(example, int) else pa.float64()
        joined = joined.append_column(name, pa.array([found.get(key, {}).get(name) for key in keys], kind))
    return joined


@dataclass(frozen=True, kw_only=True)
class ScoreFit:
    """The line of the log-probability of the right answer over the loss. Notation: the head of this module."""

    status: Status
    """`FLAT`: the slope does not differ from 0 by `FLAT` standard errors. `TOO_FEW` checkpoints, or a slope that is
    `NOT_DETERMINED` because all have the same loss: there is no line."""
    message: str
    points: int
    """K."""
    loss_mean: float = math.nan
    """ℓ̄, nats per token."""
    level: float = math.nan
    """a, nats: the log-probability at ℓ̄."""
    slope: float = math.nan
    """b, nats per nat; negative where a lower loss goes with better answers."""
    covariance: tuple[tuple[float, float], tuple[float, float]] = ((math.nan, math.nan), (math.nan, math.nan))
    """Of (level, slope)."""

    @property
    def has_line(self) -> bool:
        """Whether there is a line, flat or not."""
        return self.status in (Status.OK, Status.FLAT)

    @property
    def slope_stderr(self) -> float:
        """Standard error of the slope."""
        return math.sqrt(self.covariance[1][1])

    def predict(self, loss: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the log-probability at these losses and the standard error of the line there.

        Args:
            loss: Validation losses of any shape, nats per token.

        Returns:
            Two arrays of that shape, nats; NaN without a line. The error is that of the line, not of one evaluation.
        """
        x = np.asarray(loss, dtype=np.float64) - self.loss_mean
        (aa, ab), (_, bb) = self.covariance
        return self.level + self.slope * x, np.sqrt(aa + 2 * ab * x + bb * x**2)


def fit_score(loss: npt.ArrayLike, log_prob: npt.ArrayLike, stderr: npt.ArrayLike) -> ScoreFit:
    """Fit the line of the log-probability of the right answer over the loss.

    Args:
        loss: Validation losses of K checkpoints, shape (K,), nats per token.
        log_prob: Mean log-probabilities of the right answer, shape (K,), nats.
        stderr: Their standard errors, shape (K,), nats.
            Checkpoints with a NaN in any of the three (diverged, or without scores) are left out.

    Raises:
        InputError: The shapes differ, or a standard error is not positive.

    Example:
        >>> fit_score([4.0, 3.0, 2.0], [-1.4, -1.3, -1.2], [0.01, 0.01, 0.01]).message
        '-0.100 ± 0.007 nats of log-probability per nat of loss, over 3 checkpoints'
    """
    x, y, s = (np.asarray(part, dtype=np.float64) for part in (loss, log_prob, stderr))
    if not x.shape == y.shape == s.shape or x.ndim != 1:
        raise InputError(f"loss, log_prob and stderr must be of one shape (K,), got {x.shape}, {y.shape} and {s.shape}")
    known = np.isfinite(x) & np.isfinite(y) & np.isfinite(s)
    x, y, s = x[known], y[known], s[known]
    if (s <= 0).any():
        raise InputError(f"standard errors must be positive, got {s.min():g}")
    if len(x) < MIN_POINTS:
        return ScoreFit(
            status=Status.TOO_FEW,
            message=f"{len(x)} checkpoints with scores; a line takes {MIN_POINTS}",
            points=len(x),
        )
    w = 1 / s**2
    mean = float(w @ x / w.sum())
    spread = float(w @ (x - mean) ** 2)
    if spread <= 1e-18 * float(w @ x**2):
        return ScoreFit(status=Status.NOT_DETERMINED, message="all checkpoints have the same loss", points=len(x))
    level, slope = float(w @ y / w.sum()), float(w @ ((x - mean) * y) / spread)
    scatter = float(w @ (y - level - slope * (x - mean)) ** 2) / (len(x) - 2)
    scale = max(1.0, scatter)
    error = math.sqrt(scale / spread)
    flat = abs(slope) < FLAT * error
    text = f"{slope:.3f} ± {error:.3f} nats of log-probability per nat of loss, over {len(x)} checkpoints"
    return ScoreFit(
        status=Status.FLAT if flat else Status.OK,
        message=f"the log-probability of the right answer does not follow the loss: {text}" if flat else text,
        points=len(x),
        loss_mean=mean,
        level=level,
        slope=slope,
        covariance=((scale / float(w.sum()), 0.0), (0.0, scale / spread)),
    )


def fit_scores(joined: pa.Table, suite: str) -> ScoreFit:
    """Fit the line (`fit_score`) to all checkpoints of a run table with scores (`join_scores`).

    Raises:
        ValueError: The table has no columns of the suite.
    """
    one_of(suite, [name for name in SUITES if f"{name}_log_prob" in joined.column_names], "suite with scores")
    columns = [joined[name].to_numpy() for name in ("loss", f"{suite}_log_prob", f"{suite}_log_prob_stderr")]
    return fit_score(*(np.asarray(column, dtype=np.float64) for column in columns))


def labels_of(evaluations: pa.Table, names: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return run -> its label in a figure: its entry in `names`, otherwise its size and LR."""
    from raylr.analysis.units import format_lr

    rows = evaluations.select(["trial", "size", "lr"]).to_pylist()
    return {row["trial"]: f"{row['size']}, LR {format_lr(row['lr'])}" for row in rows} | dict(names or {})


def at_chance(scores: Sequence[Scores]) -> dict[str, bool]:
    """Return suite -> whether every one of these evaluations is at chance there."""
    verdicts: dict[str, list[bool]] = {}
    for one in scores:
        for row in one.rows:
            if row.level == "suite" and row.average == "naive":
                verdicts.setdefault(row.suite, []).append(not row.differs_from_chance())
    return {suite: all(found) for suite, found in verdicts.items()}
