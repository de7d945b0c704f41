"""What a trainable reports may be anything."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.execution.reports import current_lr, number, problem_of

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9)
    | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["loss", "tokens", "step"]), ANYTHING))
def test_a_report_without_a_problem_has_numbers(values):
    problem = problem_of(values)
    if problem:
        assert problem.startswith("it reported ")
        assert "\n" not in problem
        assert len(problem) < 250
    else:
        assert values["loss"] is None or isinstance(number(values["loss"]), float)
        assert 0 <= int(number(values["tokens"])) < 2**63


@pytest.mark.parametrize("loss", [3.5, -2, "3.5", math.nan, math.inf, -math.inf, None, 10**400, True])
def test_numbers_of_any_kind_are_losses(loss):
    assert problem_of({"loss": loss, "tokens": 100.0}) == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tokens": 1, "x": 2}, "it reported no `loss`, but tokens, x; report both"),
        ({}, "no `loss` and `tokens`, but nothing"),
        ({"loss": "low", "tokens": 1}, "it reported 'low' as `loss`; that must be a number, NaN if it diverged"),
        ({"loss": [3.0], "tokens": 1}, "reported [3.0] as `loss`"),
        ({"loss": 3.0, "tokens": -1}, "it reported -1 as `tokens`; that must be the number trained on so far"),
        ({"loss": 3.0, "tokens": math.nan}, "nan as `tokens`"),
        ({"loss": 3.0, "tokens": 1e30}, "1e+30 as `tokens`"),
        ({"loss": 3.0, "tokens": "many"}, "'many' as `tokens`"),
    ],
)
def test_what_is_wrong_is_said(values, words):
    assert words in problem_of(values)


def test_the_lr_of_the_schedule_is_the_first_that_is_one():
    assert current_lr({"lr": 1e-3}) == 1e-3
    assert current_lr({"lr": "high"}) is None
    assert current_lr({"lr": -1.0}) is None
