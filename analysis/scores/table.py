"""Scores beside losses: columns of the run table, and how the log-probability of the right answer follows the loss.

Notation: K checkpoints, ℓ_k validation loss (nats a token), s_k mean log-probability of the right answer among the four
letters (nats, ln 1/4 for a guess), σ_k its standard error. Accuracy moves late; s moves with the loss from the start,
and near enough on a line over the range of one study:

    s = a + b·(ℓ − ℓ̄)        weighted least squares, weights 1/σ_k², ℓ̄ their weighted mean

The covariance of (a, b) is scaled by χ²/(K − 2) where that is above 1, as the points then scatter more than their
errors say (checkpoints of one run share its questions, and scatter less).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raylr.analysis._checks import one_of
from raylr.analysis.scores.scores import EVALUATION, SCORES, Scores, summarise_all
from raylr.analysis.scores.suites import SUITES
from raylr.store.table import Table

QUANTITIES = ("accuracy", "log_prob")
"""What can be drawn over tokens: share of right answers, and mean log-probability of the right answer."""
MIN_POINTS = 3
"""Checkpoints below which no line is fitted: two would fit any."""
FLAT = 2.576
"""Standard errors that a slope must differ from 0 by to count as one: 1 % of flat lines do, as in `scores.LEVEL`."""


ATTEMPTS = "attempts"
ATTEMPT_SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("checkpoint", pa.string()),  # <run>/step-…
        ("asked", pa.string()),  # hash of what was to be measured
        ("attempt", pa.int64()),  # from 0
        ("status", pa.string()),  # "scored" or "failed"
        ("reason", pa.string()),  # of a failure; "" otherwise
        ("tokens", pa.int64()),  # null if it failed
        ("seconds", pa.float64()),
        ("startup_seconds", pa.float64()),
        ("questions", pa.int64()),
    ]
)
ATTEMPT_KEY = ("run", "checkpoint", "asked", "attempt")


def attempts_table(folder: Path) -> Table:
    """Open the table of evaluations, successful or not, of the study in `folder`."""
    return Table(Path(folder) / ATTEMPTS, ATTEMPT_SCHEMA, ATTEMPT_KEY)


def failures(folder: Path) -> dict[str, str]:
    """Return checkpoint -> reason, of those whose last evaluation failed; nothing is made in the folder."""
    if not (Path(folder) / ATTEMPTS).is_dir():
        return {}
    last = {row["checkpoint"]: row for row in attempts_table(folder).read().to_pylist()}
    return {name: row["reason"] for name, row in last.items() if row["status"] == "failed"}


def suite_columns(scores: Scores, *, average: str = "naive") -> dict[str, Any]:
    """Return one evaluation's results as columns of a run table, for each suite in it: `mmlu` (accuracy, 0 to 1),
    `mmlu_stderr`, `mmlu_log_prob`, `mmlu_log_prob_stderr` (nats), `mmlu_questions` and `mmlu_verdict`; `cmmlu` alike.

    NaN: no log-probabilities (generated answers). Raises ValueError for another `average` than "naive" or "weighted".
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
    """Return the questions with each letter's own appeal taken out of its scores: what is left, the question does.

    Small models learn which letter they like long before they know an answer, and grow surer of it: that is most of
    their log-probability of the right answer, and nearly all of its standard error. From ln p_il, the log-probability
    of letter l among the four at question i, the logarithm of p_il's mean over the questions of the subject in the same
    evaluation is subtracted (batch calibration: Zhou et al. 2023, arXiv 2309.17249). A model that says the same to
    every question has ln 1/4 then; one whose opinions are noise a little less.

    Predictions stay as they are. Generated answers have no scores, and stay too. Take 20 questions a subject or more:
    of few, a letter's mean is partly the question's own.
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
    """Return the run table with `suite_columns` on the rows whose trial and tokens were scored, null on the others.

    Args:
        evaluations: the run table, `raylr.store.runtable.EVALUATION_SCHEMA`.
        questions: the scored questions, `raylr.analysis.scores.scores.QUESTION_SCHEMA`.
        backend: whose scores, where there are several's; None: there is one.
        average: over subjects, "naive" or "weighted".

    Raises ValueError if a checkpoint has several evaluations (other backends, modes or data: choose before).
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for scores in summarise_all(questions) if questions.num_rows else ():
        if backend not in (None, scores.backend) or scores.tokens is None:
            continue
        key = (scores.run, scores.tokens)
        if key in found:
            raise ValueError(
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
    """The line of the log-probability of the right answer over the loss. Source: this module's head."""

    status: Literal["ok", "flat", "undetermined"]
    """ "flat": the slope does not differ from 0 by `FLAT` standard errors; "undetermined": there is no line."""
    message: str
    points: int
    loss_mean: float = math.nan
    """ℓ̄, nats a token."""
    level: float = math.nan
    """a, nats: the log-probability at ℓ̄."""
    slope: float = math.nan
    """b, nats a nat; negative: a lower loss knows more."""
    covariance: tuple[tuple[float, float], tuple[float, float]] = ((math.nan, math.nan), (math.nan, math.nan))
    """Of (level, slope)."""

    @property
    def slope_stderr(self) -> float:
        """Standard error of the slope."""
        return math.sqrt(self.covariance[1][1])

    def predict(self, loss: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the log-probability at these losses and its standard error (of the line, not of an evaluation); NaN
        without a line."""
        x = np.asarray(loss, dtype=np.float64) - self.loss_mean
        (aa, ab), (_, bb) = self.covariance
        return self.level + self.slope * x, np.sqrt(aa + 2 * ab * x + bb * x**2)


def fit_score(loss: npt.ArrayLike, log_prob: npt.ArrayLike, stderr: npt.ArrayLike) -> ScoreFit:
    """Fit the line to K checkpoints; shapes (K,). Checkpoints with a NaN (diverged, or without scores) are left out.

    Raises ValueError for shapes that differ and standard errors that are not positive.
    """
    x, y, s = (np.asarray(part, dtype=np.float64) for part in (loss, log_prob, stderr))
    if not x.shape == y.shape == s.shape or x.ndim != 1:
        raise ValueError(f"loss, log_prob and stderr must be of one shape (K,), got {x.shape}, {y.shape} and {s.shape}")
    known = np.isfinite(x) & np.isfinite(y) & np.isfinite(s)
    x, y, s = x[known], y[known], s[known]
    if (s <= 0).any():
        raise ValueError(f"standard errors must be positive, got {s.min():g}")
    if len(x) < MIN_POINTS:
        return ScoreFit(
            status="undetermined", message=f"{len(x)} checkpoints with scores; a line takes {MIN_POINTS}", points=len(x)
        )
    w = 1 / s**2
    mean = float(w @ x / w.sum())
    spread = float(w @ (x - mean) ** 2)
    if spread <= 1e-18 * float(w @ x**2):
        return ScoreFit(status="undetermined", message="all checkpoints have the same loss", points=len(x))
    level, slope = float(w @ y / w.sum()), float(w @ ((x - mean) * y) / spread)
    scatter = float(w @ (y - level - slope * (x - mean)) ** 2) / (len(x) - 2)
    scale = max(1.0, scatter)
    error = math.sqrt(scale / spread)
    flat = abs(slope) < FLAT * error
    told = f"{slope:.3f} ± {error:.3f} nats of log-probability for a nat of loss, over {len(x)} checkpoints"
    return ScoreFit(
        status="flat" if flat else "ok",
        message=f"the log-probability of the right answer does not follow the loss: {told}" if flat else told,
        points=len(x),
        loss_mean=mean,
        level=level,
        slope=slope,
        covariance=((scale / float(w.sum()), 0.0), (0.0, scale / spread)),
    )


def fit_scores(joined: pa.Table, suite: str) -> ScoreFit:
    """Fit the line to all checkpoints of a run table with scores (`join_scores`). Raises ValueError for a suite without
    columns."""
    one_of(suite, [name for name in SUITES if f"{name}_log_prob" in joined.column_names], "suite with scores")
    columns = [joined[name].to_numpy() for name in ("loss", f"{suite}_log_prob", f"{suite}_log_prob_stderr")]
    return fit_score(*(np.asarray(column, dtype=np.float64) for column in columns))


def labels_of(evaluations: pa.Table, names: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return run -> what a figure calls it: its size and LR, or what `names` says."""
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
