"""What a search decided is kept, and never trusted further than that."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.store import plans
from raylr.store.plans import Plans, plans_table

VALUE = [False, [0.1 + 0.2, -6.907755278982137]]


def plans_in(folder, owner="a"):
    return Plans(plans_table(folder, owner=owner))


def kept(folder, keys, owner="a"):
    made = plans_in(folder, owner)
    for key in keys:
        made.put(key, VALUE)
    made.flush()
    return made


def test_values_come_back_bit_by_bit(tmp_path):
    made = kept(tmp_path, "ab")
    assert made.get("a") == plans_in(tmp_path).get("a") == VALUE
    assert plans_in(tmp_path).get("c") is None


def test_nothing_is_written_before_it_is_time(tmp_path, monkeypatch):
    made = plans_in(tmp_path)
    made.put("a", VALUE)
    made.flush_due()
    assert not (tmp_path / plans.PLANS).exists()
    monkeypatch.setattr(plans, "WRITE_SECONDS", 0.0)
    made.flush_due()
    assert plans_in(tmp_path).get("a") == VALUE


def damaged(folder):
    (file,) = (folder / plans.PLANS).glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-9] + b"nonsense!")


def torn(folder):
    (file,) = (folder / plans.PLANS).glob("*.parquet")
    file.write_bytes(b"")


def of_another_study(folder):
    for file in (folder / plans.PLANS).glob("*.parquet"):
        file.unlink()
    kept(folder, "ab", owner="b")


@pytest.mark.parametrize("break_it", [damaged, torn, of_another_study])
def test_a_table_that_is_broken_or_foreign_is_not_used_and_made_again(tmp_path, break_it):
    kept(tmp_path, "ab")
    break_it(tmp_path)
    made = plans_in(tmp_path)
    assert made.get("a") is None
    made.put("c", VALUE)
    made.flush()
    assert (plans_in(tmp_path).get("a"), plans_in(tmp_path).get("c")) == (None, VALUE)


def test_another_version_of_the_code_is_not_believed(tmp_path, monkeypatch):
    kept(tmp_path, "ab")
    assert len(plans.code_version()) == 16
    monkeypatch.setattr(plans, "code_version", lambda: "another")
    made = plans_in(tmp_path)
    assert made.get("a") is None
    made.put("a", [True, []])
    made.flush()
    monkeypatch.undo()
    assert plans_in(tmp_path).get("b") is None  # what no code would read again is not kept


def test_what_cannot_be_written_is_made_again(tmp_path):
    (tmp_path / plans.PLANS).write_text("a file in place of the folder")
    made = kept(tmp_path, "a")
    made.compact()
    assert made.get("a") == VALUE
    assert plans_in(tmp_path).get("a") is None


def test_a_folder_that_was_removed_is_not_made_again(tmp_path):
    kept(tmp_path / "study", "a")
    assert not (tmp_path / "study").exists()


def test_compacting_keeps_everything_in_one_file(tmp_path):
    for key in "abc":
        kept(tmp_path, key)
    made = plans_in(tmp_path)
    made.put("d", VALUE)
    made.compact()
    assert len(list((tmp_path / plans.PLANS).glob("*.parquet"))) == 1
    assert [plans_in(tmp_path).get(key) for key in "abcd"] == [VALUE] * 4


@settings(max_examples=20)
@given(
    key=st.sampled_from(["a", "b"]),
    value=st.one_of(st.none(), st.text(), st.sampled_from(['"a"', "[]", "[true, []]", "{", "[true, [0.5, NaN]]"])),
)
def test_a_row_that_was_changed_or_belongs_to_another_state_is_not_believed(key, value):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept(folder, ["a"])
        (row,) = plans_table(folder, owner="a").read().to_pylist()
        (file,) = (folder / plans.PLANS).glob("*.parquet")
        file.unlink()
        plans_table(folder, owner="a").append([row | {"key": key, "value": value}])
        made = plans_in(folder)
        assert made.get(key) is None
        made.put(key, VALUE)
        made.flush()
        assert plans_in(folder).get(key) == VALUE
