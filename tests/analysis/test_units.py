import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.analysis.units import format_count, format_duration, format_lr, format_name, parse_count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("12e9", 12e9),
        ("12B", 12e9),
        ("1.5M", 1.5e6),
        ("500_000", 5e5),
        ("2k", 2e3),
        ("3T", 3e12),
        (7, 7.0),
        ("7 b", 7e9),
    ],
)
def test_counts_as_people_write_them(text, count):
    assert parse_count(text) == pytest.approx(count)


@pytest.mark.parametrize("text", ["", "many", "1e", "-5", "0", 0, -1, math.nan, math.inf, True, None, "1.2.3", [5]])
def test_what_is_no_positive_count_is_refused(text):
    with pytest.raises(ValueError, match="count"):
        parse_count(text)


@given(st.floats(1, 1e15))
def test_a_count_survives_being_written(count):
    assert parse_count(format_count(count)) == pytest.approx(count, rel=6e-3)


@given(st.floats(1e-9, 10))
def test_an_lr_survives_being_written(lr):
    assert float(format_lr(lr)) == pytest.approx(lr, rel=6e-3)


def test_what_is_not_finite_is_written_as_it_is():
    assert format_lr(math.nan) == "nan"
    assert format_lr(0.0) == "0.0"
    assert format_count(math.inf) == "inf"


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (720, "12 min"), (12_600, "3.5 h"), (181_440, "2.1 days"), (0, "0 s")]
)
def test_times_are_written_as_a_person_says_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("name", ["without", "the", "two words", "a", "my-size", "half_width"])
def test_names_that_read_as_words_of_a_sentence_are_quoted(name):
    assert format_name(name) == f'"{name}"'


@pytest.mark.parametrize("name", ["S", "XL", "0.5B", "124M", "wide2", "S B=2.05k", "s@home", ""])
def test_names_that_cannot_be_mistaken_stay_as_they_are(name):
    assert format_name(name) == name
