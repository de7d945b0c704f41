import math

import pytest

from raylr.analysis.runs import RunEnd
from raylr.errors import DataError
from raylr.imports import values


def test_counts_are_read_as_people_write_them() -> None:
    for text in ("124000000", "124e6", "124M", "124_000_000", "124,000,000"):
        assert values.count(text, "params", "here") == 124e6
    assert values.count("124", "params", "here", 1e6) == 124e6
    assert values.count("124M", "params", "here", 1e6) == 124e6  # a suffix of its own overrules the column's unit
    assert values.count("", "params", "here") is None


def test_a_diverged_loss_is_a_value_and_an_empty_one_is_missing() -> None:
    assert math.isnan(values.number("NaN", "loss", "here") or 0.0)
    assert values.number("inf", "loss", "here") == math.inf
    assert values.number(" ", "loss", "here") is None
    assert values.number(None, "loss", "here") is None


def test_words_of_trackers_are_ends() -> None:
    known = {"finished": RunEnd.COMPLETED, "RUNNING": RunEnd.PAUSED, "crashed": RunEnd.FAILED, "NaN": RunEnd.DIVERGED}
    assert {word: values.end_of(word, "here") for word in known} == known


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: values.number("fast", "lr", "row 3"), "row 3: lr is 'fast', not a number"),
        (lambda: values.number("3,14", "loss", "row 3"), "write a decimal point"),
        (lambda: values.number(True, "loss", "row 3"), "not a number"),
        (lambda: values.positive("0", "lr", "row 3"), "above zero"),
        (lambda: values.positive("5e-324", "lr", "row 3"), "must lie between 1e-20 and"),
        (lambda: values.count("-5", "params", "row 3"), "not a count"),
        (lambda: values.count(1e25, "params", "row 3"), "not a count"),
        (lambda: values.count(2.0**63, "params", "row 3"), "not a count"),
        (lambda: values.whole("1.5", "seed", "row 3"), "not a whole number"),
        (lambda: values.flag("maybe", "diverged", "row 3"), "neither yes nor no"),
        (lambda: values.end_of("sleeping", "row 3"), "is unknown \\("),
    ],
)
def test_what_is_no_value_is_named_with_its_place(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=message) as found:
        call()
    assert str(found.value).startswith("row 3: ")
