import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scores import made_loss, run_table, scored

from raylr.analysis.scores.scores import SCORES, summarise_all
from raylr.analysis.scores.table import (
    at_chance,
    calibrated,
    fit_score,
    fit_scores,
    join_scores,
    labels_of,
    suite_columns,
)
from raylr.analysis.status import Status

RUNS = {"slow": 0.2, "fast": 0.0}
TOKENS = (100_000, 300_000, 900_000, 1_000_000)


def same(one: pa.Table, other: pa.Table) -> bool:
    """Equality, of NaN too."""
    return one.schema == other.schema and one.to_pandas().equals(other.to_pandas())


def test_scores_join_the_run_table_by_trial_and_tokens() -> None:
    table, questions = run_table(RUNS, TOKENS), scored(RUNS, TOKENS)
    joined = join_scores(table, questions)
    assert joined.num_rows == table.num_rows
    assert same(joined.select(table.column_names), table)
    by_key = {(scores.run, scores.tokens): scores for scores in summarise_all(questions)}
    for row in joined.to_pylist():
        scores = by_key.get((row["trial"], row["tokens"]))
        if scores is None:
            assert row["mmlu"] is row["cmmlu_log_prob"] is row["mmlu_verdict"] is None
        else:
            assert row["mmlu"] == scores.row("mmlu").accuracy
            assert row["cmmlu_log_prob_stderr"] == scores.row("cmmlu").log_prob_stderr
            assert (row["mmlu_questions"], row["cmmlu_questions"]) == (120, 60)
            assert row["mmlu_verdict"] == scores.row("mmlu").verdict
    assert joined.filter(pa.compute.is_valid(joined["mmlu"])).num_rows == len(RUNS) * len(TOKENS)
    assert set(suite_columns(summarise_all(questions)[0])) <= set(joined.column_names)
    assert same(join_scores(table, questions.slice(0, 0)), table)


def test_two_backends_must_be_told_apart() -> None:
    table = run_table(RUNS, TOKENS)
    both = pa.concat_tables([scored(RUNS, TOKENS), scored(RUNS, TOKENS, backend="opencompass", slope=-0.1)])
    with pytest.raises(ValueError, match="several evaluations at 100000 tokens; choose a backend"):
        join_scores(table, both)
    one = join_scores(table, both, backend="opencompass")
    assert same(one, join_scores(table, scored(RUNS, TOKENS, backend="opencompass", slope=-0.1)))


def test_the_line_finds_what_was_put_in() -> None:
    joined = join_scores(run_table(RUNS, TOKENS), scored(RUNS, TOKENS, questions=400))
    fit = fit_scores(joined, "mmlu")
    assert fit.status is Status.OK
    assert fit.points == 8
    # d/d edge of log softmax is 1 - p(right), which is 3/4 where nothing is known and less above
    assert -0.3 * 0.8 < fit.slope < -0.3 * 0.5
    low, high = made_loss(TOKENS[-1]), made_loss(TOKENS[0])
    assert fit.predict(low)[0] > fit.predict(high)[0]
    assert fit.predict(fit.loss_mean)[0] == pytest.approx(fit.level)
    assert "nats of log-probability per nat of loss" in fit.message
    flat = fit_scores(join_scores(run_table(RUNS, TOKENS), scored(RUNS, TOKENS, slope=0.0)), "cmmlu")
    assert flat.status is Status.FLAT
    assert "does not follow the loss" in flat.message
    with pytest.raises(ValueError, match="suite with scores"):
        fit_scores(run_table(RUNS, TOKENS), "mmlu")


@given(
    st.lists(st.tuples(st.floats(1, 8), st.floats(-0.05, 0.05), st.floats(0.01, 0.1)), min_size=3, max_size=20),
    st.floats(-2, 2),
    st.floats(-3, -0.1),
)
@settings(deadline=None)
def test_a_fit_is_the_weighted_least_squares_line(points: list[tuple[float, float, float]], b: float, a: float) -> None:
    x, noise, s = (np.array(part) for part in zip(*points, strict=True))
    fit = fit_score(x, a + b * x + noise, s)
    if np.ptp(x) < 1e-3:
        return
    design = np.stack([np.ones_like(x), x], 1) / s[:, None]
    level, slope = np.linalg.lstsq(design, (a + b * x + noise) / s, rcond=None)[0]
    assert fit.slope == pytest.approx(slope, abs=1e-6, rel=1e-6)
    value, error = fit.predict(x)
    assert value == pytest.approx(level + slope * x, abs=1e-6)
    covariance = np.linalg.inv(design.T @ design)
    assert (
        error
        >= np.sqrt(
            np.einsum("ki,ij,kj->k", np.stack([np.ones_like(x), x], 1), covariance, np.stack([np.ones_like(x), x], 1))
        )
        * 0.999
    ).all()
    shifted = fit_score(x + 1, a + b * x + noise, s)
    assert shifted.slope == pytest.approx(fit.slope, abs=1e-6)


def test_intervals_of_the_slope_cover() -> None:
    rng = np.random.default_rng(1)
    x, s = np.linspace(3, 5, 8), np.full(8, 0.02)
    hits = 0
    for _ in range(400):
        fit = fit_score(x, -1.4 - 0.1 * x + rng.normal(0, s), s)
        hits += abs(fit.slope + 0.1) < 1.96 * fit.slope_stderr
    assert 0.93 < hits / 400 <= 1


def test_what_cannot_be_fitted_says_why() -> None:
    few = fit_score([3.0, 2.0, math.nan], [-1.3, -1.2, -1.1], [0.1, 0.1, 0.1])
    assert (few.status, few.points, few.message) == (Status.TOO_FEW, 2, "2 checkpoints with scores; a line takes 3")
    assert math.isnan(few.predict(2.0)[0])
    assert fit_score([3.0] * 4, [-1.3, -1.2, -1.1, -1.0], [0.1] * 4).message == "all checkpoints have the same loss"
    with pytest.raises(ValueError, match="one shape"):
        fit_score([1.0, 2.0], [1.0], [1.0])
    with pytest.raises(ValueError, match="must be positive"):
        fit_score([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [0.1, 0.0, 0.1])


def moved(questions: pa.Table, shift: tuple[float, ...], scale: float = 1.0) -> pa.Table:
    """The questions with a constant added to each letter's scores."""
    for name, more in zip(SCORES, shift, strict=True):
        values = questions[name].to_numpy() * scale + more
        questions = questions.set_column(questions.schema.get_field_index(name), name, pa.array(values))
    return questions


def log_probs(questions: pa.Table) -> list[float]:
    return [scores.row(suite).log_prob for scores in summarise_all(questions) for suite in ("mmlu", "cmmlu")]


def test_calibration_removes_the_answer_bias() -> None:
    plain = scored(RUNS, TOKENS, questions=300)
    want = log_probs(calibrated(plain))
    assert log_probs(plain) == pytest.approx(want, abs=0.02)  # these answers have no bias
    biased = moved(plain, (0.0, 3.0, -2.0, 0.5))
    assert all(below < -1.7 for below in log_probs(biased)[:2])
    assert log_probs(calibrated(biased)) == pytest.approx(want, abs=0.05)
    assert calibrated(biased).drop_columns(list(SCORES)).equals(plain.drop_columns(list(SCORES)))
    constant = moved(plain, (0.0, 3.0, -2.0, 0.5), scale=0.0)
    assert log_probs(calibrated(constant)) == pytest.approx([math.log(0.25)] * len(want), abs=1e-12)
    error = [scores.row("mmlu").log_prob_stderr for scores in summarise_all(constant)]
    assert min(error) > 0.05  # which letters are right is luck; calibrated, nothing is left of it
    assert max(scores.row("mmlu").log_prob_stderr for scores in summarise_all(calibrated(constant))) < 1e-12


def test_calibration_keeps_evaluations_apart_and_generated_answers() -> None:
    plain = scored(RUNS, TOKENS)
    other = moved(scored(RUNS, TOKENS, backend="opencompass"), (5.0, 0.0, 0.0, 0.0))
    both = calibrated(pa.concat_tables([plain, other]))
    assert both.slice(0, len(plain)).equals(calibrated(plain))
    generated = scored(RUNS, TOKENS, **dict.fromkeys(SCORES))
    assert same(calibrated(generated), generated)
    assert calibrated(plain.slice(0, 0)).num_rows == 0


def test_names_and_chance() -> None:
    assert labels_of(run_table(RUNS, TOKENS), {"fast": "ours"})["slow"] == "S, LR 1.00e-3"
    assert labels_of(run_table(RUNS, TOKENS), {"fast": "ours"})["fast"] == "ours"
    assert at_chance(summarise_all(scored(RUNS, TOKENS, slope=0.0))) == {"mmlu": True, "cmmlu": True}
    assert at_chance(summarise_all(scored(RUNS, TOKENS, slope=-0.5))) == {"mmlu": False, "cmmlu": False}
