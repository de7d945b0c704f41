import itertools
import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.scores.scores import (
    LEVEL,
    QUESTION_SCHEMA,
    SCORES,
    summarise,
    summarise_all,
)
from raylr.analysis.scores.suites import LETTERS, SUITES
from raylr.errors import DataError

ONE = {
    "run": "r",
    "checkpoint": "c",
    "tokens": 100,
    "phase": "stable",
    "backend": "opencompass",
    "engine": "transformers-cpu-float32",
    "mode": "ppl",
    "prompt": "p",
    "model_hash": "m",
    "data_hash": "d",
}


def question(subject, index, gold, prediction, scores=None, suite="mmlu", **fields):
    of_letters = dict(zip(SCORES, scores or [-1.0, -2.0, -3.0, -4.0], strict=True))
    row = {"suite": suite, "subject": subject, "index": index, "gold": gold, "prediction": prediction}
    return ONE | row | {"correct": gold == prediction} | of_letters | fields


def table(rows):
    return pa.Table.from_pylist(rows, schema=QUESTION_SCHEMA)


def answers(subject, golds, predictions, **fields):
    return [question(subject, i, g, p, **fields) for i, (g, p) in enumerate(zip(golds, predictions, strict=True))]


def test_averages_by_hand():
    rows = answers("anatomy", "AB", "AB") + answers("virology", "ABCDAB", "ABDCCC") + answers("astronomy", "C", "D")
    scores = summarise(table(rows))
    assert scores.row("mmlu", "anatomy").accuracy == 1
    assert scores.row("mmlu", "virology").accuracy == pytest.approx(2 / 6)
    stem = scores.row("mmlu", "STEM")
    assert (stem.accuracy, stem.subjects, stem.questions, stem.correct) == (pytest.approx((1 + 0) / 2), 2, 3, 2)
    assert scores.row("mmlu", "STEM", average="weighted").accuracy == pytest.approx(2 / 3)
    assert scores.row("mmlu").accuracy == pytest.approx((1 + 2 / 6 + 0) / 3)
    assert scores.row("mmlu", average="weighted").accuracy == pytest.approx(4 / 9)
    assert scores.row("mmlu").name == "MMLU"
    assert (scores.run, scores.tokens, scores.phase) == ("r", 100, "stable")


def test_what_is_missing_is_named_in_every_row_that_lacks_it():
    scores = summarise(table(answers("anatomy", "AB", "AB") + answers("genetics", "A", "A", suite="cmmlu")))
    whole = scores.row("mmlu")
    assert len(whole.missing) == 56
    assert "virology" in whole.missing
    assert "anatomy" not in whole.missing
    assert not whole.complete
    assert len(scores.row("mmlu", "STEM").missing) == 18
    assert scores.missing["cmmlu"] == tuple(sorted(set(SUITES["cmmlu"].test_questions) - {"genetics"}))
    with pytest.raises(ValueError, match="unknown row of mmlu 'Humanities'"):
        scores.row("mmlu", "Humanities")


def test_a_score_is_complete_only_with_all_questions_of_all_subjects():
    rows = []
    for subject, count in SUITES["mmlu"].test_questions.items():
        rows += answers(subject, ["A"] * count, ["A"] * count)
    scores = summarise(table(rows))
    assert scores.row("mmlu").complete
    assert scores.row("mmlu").questions == 14042
    assert scores.missing == {}
    assert not summarise(table(rows[:-1])).row("mmlu").complete


def test_log_probabilities_of_the_right_answer():
    logits = [[2.0, 1.0, 0.0, -1.0], [5.0, 5.0, 5.0, 5.0], [-3000.0, -3001.0, -3002.0, -3003.0]]
    rows = [question("anatomy", i, g, "A", s) for i, (g, s) in enumerate(zip("ABD", logits, strict=True))]
    row = summarise(table(rows)).row("mmlu", "anatomy")
    expected = [math.log(np.exp(np.subtract(s, max(s)))[LETTERS.index(g)] / np.exp(np.subtract(s, max(s))).sum())
                for g, s in zip("ABD", logits, strict=True)]  # fmt: skip
    assert row.log_prob == pytest.approx(np.mean(expected))
    assert row.log_prob_stderr == pytest.approx(np.std(expected, ddof=1) / math.sqrt(3))


def test_generated_answers_have_no_log_probability_and_unanswered_ones_are_wrong():
    empty = [None] * 4
    rows = [question("anatomy", i, "A", p, mode="gen") | dict(zip(SCORES, empty, strict=True)) for i, p in
            enumerate(["A", None, "B"])]  # fmt: skip
    scores = summarise(table(rows))
    row = scores.row("mmlu", "anatomy")
    assert (row.correct, row.unanswered) == (1, 1)
    assert math.isnan(row.log_prob)
    assert scores.flat()[0]["log_prob"] is None


def test_the_spread_of_one_question_a_subject_is_unknown_or_pooled():
    alone = [question("anatomy", 0, "A", "A")]
    assert math.isnan(summarise(table(alone)).row("mmlu").log_prob_stderr)
    rows = alone + [question("virology", i, "A", "A", [float(i), 0, 0, 0]) for i in range(4)]
    scores = summarise(table(rows))
    pooled = scores.row("mmlu", "virology").log_prob_stderr * 2
    assert math.isnan(scores.row("mmlu", "anatomy").log_prob_stderr)
    assert scores.row("mmlu").log_prob_stderr == pytest.approx(math.sqrt(pooled**2 / 4 + pooled**2 / 16))


def test_standard_errors_are_the_spread_of_repeated_evaluations():
    rng = np.random.default_rng(0)
    subjects = {"anatomy": (0.5, 20), "virology": (0.3, 40), "astronomy": (0.8, 8)}
    found = {"naive": [], "weighted": []}
    for _ in range(250):
        rows = []
        for subject, (skill, count) in subjects.items():
            for index in range(count):
                right = rng.random() < skill
                scores = [float(rng.normal(1.0 if right else -1.0)), 0.0, 0.0, 0.0]
                rows.append(question(subject, index, "A", "A" if right else "B", scores))
        scores = summarise(table(rows))
        for average, kept in found.items():
            row = scores.row("mmlu", average=average)
            kept.append((row.accuracy, row.accuracy_stderr, row.log_prob, row.log_prob_stderr))
    for kept in found.values():
        accuracies, errors, log_probs, log_errors = np.transpose(kept)
        assert np.mean(errors) == pytest.approx(np.std(accuracies), rel=0.13)
        assert np.mean(log_errors) == pytest.approx(np.std(log_probs), rel=0.13)


def test_no_answer_right_does_not_claim_certainty():
    row = summarise(table(answers("anatomy", "AAAAA", "BBBBB"))).row("mmlu", "anatomy")
    assert row.accuracy == 0
    assert row.accuracy_stderr == pytest.approx(math.sqrt(1 / 9 * 8 / 9 / 5))


def test_a_guesser_is_rarely_called_different_from_chance():
    rng = np.random.default_rng(1)
    called = 0
    for _ in range(150):
        golds, predicted = rng.choice(list(LETTERS), 60), rng.choice(list(LETTERS), 60)
        called += summarise(table(answers("anatomy", golds, predicted))).row("mmlu").differs_from_chance()
    assert called <= 1.5 + 3 * math.sqrt(1.5)  # LEVEL of 150, and three deviations of that
    assert LEVEL == 0.01


def test_knowledge_is_seen():
    rng = np.random.default_rng(2)
    golds = rng.choice(list(LETTERS), 200)
    predicted = [g if rng.random() < 0.3 else rng.choice(list(LETTERS)) for g in golds]
    row = summarise(table(answers("virology", golds, predicted))).row("mmlu")
    assert row.verdict == "above chance"
    inverse = ["BCDA"[LETTERS.index(g)] for g in golds]
    assert summarise(table(answers("virology", golds, inverse))).row("mmlu").verdict == "below chance"


def test_always_the_same_letter_is_at_chance_even_where_it_is_often_right():
    golds = ["D"] * 60 + ["A"] * 30 + ["B"] * 30 + ["C"] * 30
    row = summarise(table(answers("virology", golds, ["D"] * 150))).row("mmlu")
    assert row.accuracy == 0.4  # the binomial test alone would call this knowledge
    assert row.verdict == "at chance"


def test_one_question_a_subject_is_tested_by_the_binomial_test():
    subjects = sorted(SUITES["mmlu"].test_questions)[:40]
    rows = [question(subject, 0, "A", "A") for subject in subjects]
    assert summarise(table(rows)).row("mmlu").p_value == pytest.approx(0.25**40, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from(["A", "B", "C", "D", None])), min_size=2, max_size=6)
)
def test_the_moments_of_dealt_answers_are_those_of_all_permutations(pairs):
    from scipy.stats import binomtest, norm

    golds, predicted = zip(*pairs, strict=True)
    right = [sum(g == p for g, p in zip(order, predicted, strict=True)) for order in itertools.permutations(golds)]
    observed = sum(g == p for g, p in pairs)
    spread = np.std(right)
    dealt = 2 * norm.sf(abs(observed - np.mean(right)) / spread) if spread > 1e-9 else 1.0
    expected = max(dealt, binomtest(observed, len(pairs), 0.25).pvalue)
    row = summarise(table(answers("anatomy", golds, predicted))).row("mmlu")
    assert row.p_value == pytest.approx(expected, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_rows_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    rows = [
        question(
            subject, index, str(rng.choice(list(LETTERS))), str(rng.choice(list(LETTERS))), list(rng.normal(size=4))
        )
        for subject in ("anatomy", "virology", "marketing")
        for index in range(5)
    ]
    first = summarise(table(rows)).flat()
    shuffled = summarise(table([rows[i] for i in rng.permutation(len(rows))])).flat()
    for one, other in zip(first, shuffled, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value) == other[name]


def test_flat_rows_are_json():
    scores = summarise(table(answers("anatomy", "AB", "AA") + answers("genetics", "A", "A", suite="cmmlu", mode="ppl")))
    rows = json.loads(json.dumps(scores.flat(), allow_nan=False))
    assert [(row["level"], row["name"], row["average"]) for row in rows if row["suite"] == "cmmlu"] == [
        ("subject", "genetics", ""),
        ("category", "STEM", "naive"),
        ("category", "STEM", "weighted"),
        ("suite", "CMMLU", "naive"),
        ("suite", "CMMLU", "weighted"),
    ]
    assert {row["verdict"] for row in rows} == {"at chance"}
    assert rows[0]["differs_from_chance"] is False


@pytest.mark.parametrize(
    ("rows", "predicted"),
    [
        ([], "no questions"),
        (answers("anatomy", "A", "A") + answers("virology", "A", "A", tokens=200), "2 evaluations .*tokens"),
        (answers("anatomy", "A", "A") + answers("virology", "A", "A", phase=None), "2 evaluations .*phase"),
        (answers("anatomy", "A", "A") * 2, "question 0 of mmlu/anatomy is there twice"),
        (
            [*answers("anatomy", "A", "A"), question("anatomy", 1, "A", "A", data_hash="other")],
            "mmlu/anatomy was scored on several versions",
        ),
        (answers("anatomy", "E", "A"), "right answer is 'E'"),
        (answers("anatmy", "A", "A"), "MMLU has no subject 'anatmy'"),
        (answers("anatomy", "A", "A", suite="ceval"), "no suite 'ceval'"),
        ([question("anatomy", 3, "A", "A", [math.nan, 0, 0, 0])], "question 3 of mmlu/anatomy has the score nan for A"),
        ([question("anatomy", 3, "A", "A", [0, 0, -math.inf, 0])], "not finite"),
    ],
)
def test_bad_tables_are_refused(rows, predicted):
    with pytest.raises(DataError, match=predicted):
        summarise(table(rows))


def test_all_evaluations_of_a_table():
    rows = []
    for tokens, phase, predicted in ((200, "decay", "AAAA"), (100, "stable", "ABBB"), (None, None, "BBBB")):
        rows += answers("anatomy", "AAAA", predicted, tokens=tokens, phase=phase, checkpoint=f"step {tokens}")
    found = summarise_all(table(rows))
    assert {(scores.tokens, scores.phase, scores.row("mmlu").accuracy) for scores in found} == {
        (100, "stable", 0.25),
        (200, "decay", 1.0),
        (None, None, 0.0),
    }
    assert summarise_all(table([])) == []
