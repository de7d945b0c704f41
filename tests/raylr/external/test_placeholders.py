from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.errors import SpecError
from raylr.external.placeholders import CHECKPOINT, RUN, fill, names


@given(st.floats(min_value=1e-12, max_value=1e3))
def test_a_number_is_read_back_as_it_was(lr: float) -> None:
    assert float(fill("{lr}", {"lr": lr})) == lr


@given(st.text(alphabet="{}ab\"': ,1\n"))
def test_no_text_breaks_it_and_without_placeholders_only_doubled_braces_change(text: str) -> None:
    filled = fill(text, dict.fromkeys(names(text), "x"))
    if "{a" not in text and "{b" not in text:
        assert filled == text


def test_json_and_yaml_need_no_escaping() -> None:
    assert fill('{"lr": {lr}, "a": {}} {{lr}}', {"lr": 0.5}) == '{"lr": 0.5, "a": {}} {lr}'
    assert fill("--flag {flag}", {"flag": True}) == "--flag true"


def test_the_docs_list_every_placeholder() -> None:
    page = (Path(__file__).parents[3] / "docs" / "own_trainer.md").read_text(encoding="utf-8")
    assert [name for name in (*RUN, CHECKPOINT) if f"| `{{{name}}}" not in page and f", `{{{name}}}`" not in page] == []


def test_a_placeholder_without_a_value_is_named() -> None:
    with pytest.raises(SpecError, match=r"\{sequences\} has no value; the placeholders are \{lr\}, \{sequences\}"):
        fill("{sequences}", {"lr": 1.0, "sequences": None})
