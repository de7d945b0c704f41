"""Scores of multiple-choice suites from single questions: accuracies, averages, standard errors, verdicts on chance.

Notation: a subject s has n_s questions, k_s of them answered right, p_s = k_s/n_s. A row over S subjects (a category, a
suite) is the mean Σ w_s p_s with w_s = 1/S (naive: every subject has the same weight) or w_s = n_s/N (weighted: every
question that was scored does). Subjects are fixed strata, the questions of each a sample:

    accuracy          stderr² = Σ w_s² q_s (1 - q_s) / n_s with q_s = (k_s + 1) / (n_s + 4), Laplace's rule over four
                      letters, so that five wrong answers of five do not claim certainty; with many questions q_s = p_s
    log-probability   of the right answer among the four letters: log softmax(score_a … score_d)[gold], in nats; a guess
                      has ln 1/4 = -1.386. stderr² = Σ w_s² v_s / n_s, v_s the variance between the questions of s (of
                      all subjects pooled where n_s = 1; NaN if no subject has two)
    chance            p_value, the larger of two: the exact binomial test of Σ k_s of N against 1/4, and the permutation
                      test (normal approximation) of answers against right answers within each subject, by which a model
                      that always answers "D" is at chance even where "D" is right more often than 1/4. Both averages of
                      a row share it: the hypothesis, that the model guesses, is the same.

Nothing is read from disk or written here: the table of questions is kept by `raylr.evaluation.tables`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raylr.analysis._checks import one_of
from raylr.analysis.scores.suites import CHANCE, LETTERS, SUITES
from raylr.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.01
"""Probability of calling a guessing model different from chance, for each row alone: of 57 subjects 0.57 will be."""

SCORES = tuple(f"score_{letter.lower()}" for letter in LETTERS)
QUESTION_SCHEMA = pa.schema(
    [
        ("run", pa.string()),  # the run that the checkpoint is from, "" if it is from none
        ("checkpoint", pa.string()),  # path or label of the model
        ("tokens", pa.int64()),  # trained on, null if not known
        ("phase", pa.string()),  # "stable", "decay" or null
        ("suite", pa.string()),
        ("subject", pa.string()),
        ("index", pa.int64()),  # row of the subject's test file, from 0, a header not counted
        ("gold", pa.string()),
        ("prediction", pa.string()),  # null: generated text without an answer in it, which is wrong
        ("correct", pa.bool_()),
        # log-likelihoods of the letters in nats, up to a constant of the question; null where answers were generated
        *((name, pa.float64()) for name in SCORES),
        ("backend", pa.string()),  # "opencompass" or "lm-eval"
        ("engine", pa.string()),  # what computed: "transformers", "turbomind", …
        ("mode", pa.string()),  # "ppl" (the letters' likelihoods) or "gen" (generated text)
        ("prompt", pa.string()),  # the prompt's definition in the backend, as "mmlu_ppl_ac766d opencompass 0.5.4"
        ("model_hash", pa.string()),
        ("data_hash", pa.string()),  # of the subject's dev and test questions
    ]
)
QUESTION_KEY = (
    "run",
    "checkpoint",
    "model_hash",
    "data_hash",
    "backend",
    "engine",
    "mode",
    "suite",
    "subject",
    "index",
)
EVALUATION = ("run", "checkpoint", "tokens", "phase", "backend", "engine", "mode", "model_hash")
"""Columns of the question table that one evaluation has in common."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row of results."""

    suite: str
    level: str
    """ "subject", "category" or "suite"."""
    name: str
    """Name of the subject, the category, or the suite."""
    average: str
    """ "naive" or "weighted"; "" for a subject."""
    subjects: int
    """Subjects in the row."""
    missing: tuple[str, ...]
    """Subjects that belong in the row and were not scored: it is not the suite's (the category's) score then."""
    questions: int
    """Questions in the row."""
    full_questions: int
    """Questions that the subjects in the row have in the full set."""
    correct: int
    unanswered: int
    """Questions without a prediction: they count as wrong."""
    accuracy: float
    accuracy_stderr: float
    log_prob: float
    """Mean log-probability of the right answer among the four letters, nats; NaN where answers were generated."""
    log_prob_stderr: float
    p_value: float
    """Of the hypothesis that the model guesses."""

    def differs_from_chance(self, level: float = LEVEL) -> bool:
        """Whether the model's answers differ from guesses at this significance level."""
        return self.p_value < level

    @property
    def verdict(self) -> str:
        """ "above chance", "below chance" or "at chance", at `LEVEL`."""
        if not self.differs_from_chance():
            return "at chance"
        return "above chance" if self.correct > CHANCE * self.questions else "below chance"

    @property
    def complete(self) -> bool:
        """Whether this is the score of the full set: all subjects, all questions."""
        return not self.missing and self.questions == self.full_questions


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The results of one evaluation of one model."""

    run: str
    checkpoint: str
    tokens: int | None
    phase: str | None
    backend: str
    engine: str
    mode: str
    model_hash: str
    rows: tuple[Score, ...] = field(repr=False)
    """Subjects, then categories, then the suite, of one suite after the other."""

    @property
    def missing(self) -> dict[str, tuple[str, ...]]:
        """Suite -> its subjects that were not scored, of the suites of which some were."""
        return {row.suite: row.missing for row in self.rows if row.level == "suite" and row.missing}

    def row(self, suite: str, name: str | None = None, *, average: str = "naive") -> Score:
        """Return one row.

        Args:
            suite: Name of the suite.
            name: Name of a subject or a category; None: the row of the suite itself.
            average: "naive" or "weighted"; a subject has neither.

        Raises:
            ValueError: There is no such row; the message has the nearest name.
        """
        one_of(average, ("naive", "weighted"), "average")
        rows = [row for row in self.rows if row.suite == suite and row.average in ("", average)]
        chosen = SUITES[one_of(suite, SUITES, "suite")].title if name is None else name
        one_of(chosen, {row.name for row in rows}, f"row of {suite}")
        return next(row for row in rows if row.name == chosen)

    def flat(self) -> list[dict[str, Any]]:
        """Return the rows as flat dicts of JSON values, each with the evaluation's own fields; NaN becomes None."""
        shared = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "rows"}
        return [
            {name: _plain(value) for name, value in (shared | asdict(row)).items()}
            | {"differs_from_chance": row.differs_from_chance(), "verdict": row.verdict, "complete": row.complete}
            for row in self.rows
        ]


def summarise(table: pa.Table) -> Scores:
    """Return the scores of one evaluation.

    Args:
        table: Its questions, `QUESTION_SCHEMA`.

    Returns:
        The scores. Averages are over the subjects that are in the table; every row names those that it lacks.

    Raises:
        DataError: The table is empty, holds several evaluations or several versions of a subject's questions, holds a
            question twice, a right answer that is no letter, or a score that is NaN or infinite.
    """
    evaluations = summarise_all(table)
    if len(evaluations) != 1:
        varied = [name for name in EVALUATION if len({getattr(scores, name) for scores in evaluations}) > 1]
        raise DataError(
            "there are no questions to summarise"
            if not evaluations
            else f"these are the questions of {len(evaluations)} evaluations (they differ in {', '.join(varied)}); "
            "choose one, or use summarise_all"
        )
    return evaluations[0]


def summarise_all(table: pa.Table) -> list[Scores]:
    """Return the scores of every evaluation in a table of questions, ordered by run and tokens.

    Raises:
        DataError: As `summarise`.
    """
    for name in SCORES:
        column = table.column(name)
        bad = table.filter(pc.invert(pc.is_finite(column)))
        if bad.num_rows:
            at = bad.slice(0, 1).to_pylist()[0]
            raise DataError(
                f"{at['checkpoint']}: question {at['index']} of {at['suite']}/{at['subject']} has the score {at[name]} "
                f"for {name[-1].upper()}; the model's output is not finite"
            )
    frame = table.to_pandas()
    found = []
    for _, part in frame.groupby(list(EVALUATION), dropna=False, sort=True):
        first: dict[str, Any] = {name: _plain(part[name].iloc[0]) for name in EVALUATION}
        first["tokens"] = None if first["tokens"] is None else int(first["tokens"])
        found.append(Scores(**first, rows=tuple(_rows(part))))
    return found


@dataclass(frozen=True)
class _Stratum:
    """The questions of one subject in numbers."""

    name: str
    n: int
    k: int
    unanswered: int
    log_probs_n: np.ndarray
    """NaN where there are no scores; shape (n,)."""
    expected: float
    """Right answers expected if the answers were dealt out to the questions by chance."""
    variance: float
    """Variance of the same."""


def _rows(frame: pd.DataFrame) -> Iterable[Score]:
    for suite in SUITES.values():
        of_suite = frame[frame["suite"] == suite.name]
        if of_suite.empty:
            continue
        strata = [_stratum(str(name), part) for name, part in of_suite.groupby("subject")]
        unknown = [stratum.name for stratum in strata if stratum.name not in suite.test_questions]
        if unknown:
            raise DataError(f"{suite.title} has no subject {unknown[0]!r}")
        for stratum in strata:
            yield _score(suite.name, "subject", stratum.name, "", [stratum], [stratum.name])
        groups = [("category", category, subjects) for category, subjects in suite.categories.items()]
        groups.append(("suite", suite.title, tuple(suite.test_questions)))
        for level, name, subjects in groups:
            present = [stratum for stratum in strata if stratum.name in subjects]
            for average in ("naive", "weighted") if present else ():
                yield _score(suite.name, level, name, average, present, subjects)
    strange = set(frame["suite"]) - set(SUITES)
    if strange:
        raise DataError(f"there is no suite {sorted(strange)[0]!r}; known: {', '.join(SUITES)}")


def _stratum(name: str, frame: pd.DataFrame) -> _Stratum:
    where = f"{frame['suite'].iloc[0]}/{name}"
    if frame["data_hash"].nunique(dropna=False) > 1:
        raise DataError(f"{where} was scored on several versions of its questions; choose one (data_hash)")
    if frame["index"].duplicated().any():
        raise DataError(f"question {frame['index'][frame['index'].duplicated()].iloc[0]} of {where} is there twice")
    gold = frame["gold"].to_numpy(dtype=object)
    strange = [letter for letter in gold if letter not in LETTERS]
    if strange:
        raise DataError(f"{where} has a question whose right answer is {strange[0]!r}, which is not one of {LETTERS}")
    answered = frame["prediction"].to_numpy(dtype=object)
    n = len(frame)
    right = np.array([LETTERS.index(letter) for letter in gold])
    scores_n4 = frame[list(SCORES)].to_numpy(dtype=np.float64)
    best_n = scores_n4.max(axis=1)
    log_probs_n = scores_n4[np.arange(n), right] - best_n - np.log(np.exp(scores_n4 - best_n[:, None]).sum(axis=1))
    answered_4 = np.array([(answered == letter).sum() for letter in LETTERS], dtype=np.float64)
    gold_4 = np.bincount(right, minlength=len(LETTERS)).astype(np.float64)
    mean = float(answered_4 @ gold_4) / n
    # the statistic Σ_i c(i, π(i)) over random π: variance Σ_ij d_ij² / (n - 1), d = c doubly centred (Hoeffding 1951)
    centred = np.eye(len(LETTERS)) - gold_4[:, None] / n - answered_4[None, :] / n + mean / n
    spread = (
        float(answered_4 @ centred**2 @ gold_4)
        + float((n - answered_4.sum()) * ((mean - answered_4) ** 2 @ gold_4)) / n**2
    )
    return _Stratum(
        name=name,
        n=n,
        k=int((answered == gold).sum()),
        unanswered=int(sum(letter not in LETTERS for letter in answered)),
        log_probs_n=log_probs_n,
        expected=mean,
        variance=spread / (n - 1) if n > 1 else 0.0,
    )


def _score(suite: str, level: str, name: str, average: str, strata: Sequence[_Stratum], of: Sequence[str]) -> Score:
    n_S = np.array([stratum.n for stratum in strata], dtype=np.float64)
    k_S = np.array([stratum.k for stratum in strata], dtype=np.float64)
    w_S = n_S / n_S.sum() if average == "weighted" else np.full(len(strata), 1 / len(strata))
    q_S = (k_S + 1) / (n_S + len(LETTERS))
    log_probs = [stratum.log_probs_n for stratum in strata]
    return Score(
        suite=suite,
        level=level,
        name=name,
        average=average,
        subjects=len(strata),
        missing=tuple(sorted(set(of) - {stratum.name for stratum in strata})),
        questions=int(n_S.sum()),
        full_questions=sum(SUITES[suite].test_questions[stratum.name] for stratum in strata),
        correct=int(k_S.sum()),
        unanswered=sum(stratum.unanswered for stratum in strata),
        accuracy=float(w_S @ (k_S / n_S)),
        accuracy_stderr=math.sqrt(float(w_S**2 @ (q_S * (1 - q_S) / n_S))),
        log_prob=float(w_S @ [part.mean() for part in log_probs]),
        log_prob_stderr=math.sqrt(float(w_S**2 @ (_variances(log_probs) / n_S))),
        p_value=_p_value(strata),
    )


def _variances(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the variance between the questions of each subject; the pooled one where a subject has one question."""
    squares = np.array([((part - part.mean()) ** 2).sum() for part in parts])
    freedom = np.array([len(part) - 1 for part in parts], dtype=np.float64)
    pooled = squares.sum() / freedom.sum() if freedom.sum() else math.nan
    return np.where(freedom > 0, squares / np.maximum(freedom, 1), pooled)


def _p_value(strata: Sequence[_Stratum]) -> float:
    """Return the larger p-value of the two tests of chance; see the head of this module."""
    from scipy.stats import binomtest, norm

    p_value = float(binomtest(sum(part.k for part in strata), sum(part.n for part in strata), CHANCE).pvalue)
    dealt = [part for part in strata if part.n > 1]  # one question can be dealt in one way only
    if not dealt:
        return p_value
    variance = sum(part.variance for part in dealt)
    excess = sum(part.k - part.expected for part in dealt)
    return max(p_value, float(2 * norm.sf(abs(excess) / math.sqrt(variance))) if variance > 0 else 1.0)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and math.isnan(value) else value
