from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from raylr.spec.fields import check_booleans, check_plain, leaves_of, models_in, shorten


class Inner(BaseModel):
    flag: bool = True
    number: int = 1


class Outer(BaseModel):
    inner: Inner | None = None
    numbers: tuple[float, ...] = ()
    anything: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"a": {"b": [1, float("nan")]}}, r"a\.b\.1: nan is not a finite number"),
        ({"a": 2**63}, "a: 9223372036854775808 does not fit into 64 bits"),
        ({"a": {None: 1}}, "a: the key None is no text; write it in quotes"),
        ({"a": date(2026, 1, 1)}, "a: datetime.date.* is read as a date"),
        ([[[[[[[[[[[[[[1]]]]]]]]]]]]]], "nested more than 12 levels"),
        ([0] * 20_001, "more than 20000 values"),
    ],
)
def test_what_is_not_plain_is_named(data: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_plain(data)


def test_plain_data_passes() -> None:
    check_plain({"a": [1, 2.5, "x", None, True, {"b": ()}]})


def test_booleans_are_refused_where_they_are_no_value() -> None:
    check_booleans(Outer, {"inner": {"flag": True}, "anything": {"x": True}, "numbers": [1, 2], "unknown": True})
    with pytest.raises(ValueError, match=r"inner\.number: true and false"):
        check_booleans(Outer, {"inner": {"number": True}})
    with pytest.raises(ValueError, match="numbers: true and false"):
        check_booleans(Outer, {"numbers": [1, False]})


def test_annotations_are_taken_apart() -> None:
    assert leaves_of(dict[str, tuple[int, ...]] | None) == [str, int, ..., type(None)]
    assert models_in(Inner | None) == [Inner]


def test_long_values_are_cut() -> None:
    assert shorten("x" * 200) == "'" + "x" * 78 + "…"
    assert shorten(10**5000) == "a int too long to show"
