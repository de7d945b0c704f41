import re

from raylr.records.text import flat, json_record, regex_record


def test_lines_that_hold_no_object_give_no_record() -> None:
    for line in ("", "step 3", "[1, 2]", "{'loss': 2}", '{"loss": 2', "{" * 100_000):
        assert json_record(line) is None
    assert json_record('12:00 {"loss": NaN, "a": {"b": {"c": 1}}}')["a/b/c"] == 1


def test_groups_that_took_no_part_are_left_out() -> None:
    assert regex_record(re.compile(r"(?P<a>\d)(?P<b>x)?"), "1") == {"a": "1"}
    assert flat({"a": {"b": 1}, "c": 2}) == {"a/b": 1, "c": 2}
