import json
import math
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_table import KEY, SCHEMA, opened, row

from raylr.errors import DataError
from raylr.store import table as module
from raylr.store.table import Table


@pytest.fixture
def table(tmp_path):
    return Table(tmp_path / "table", SCHEMA, KEY)


def test_rows_come_back_in_the_order_written(table):
    assert table.append([row(2, loss=1.5)]) == 1
    assert table.append([row(1, loss=2.5), row(1, "b", loss=math.nan)]) == 2
    rows = table.read().to_pylist()
    assert [(row["trial"], row["tokens"]) for row in rows] == [("a", 2), ("a", 1), ("b", 1)]
    assert math.isnan(rows[2]["loss"])


def test_a_row_is_written_once_also_by_a_later_process(table):
    assert table.append([row(1), row(1)]) == 1
    again = opened(table)
    assert again.append([row(1, loss=9.0)]) == 0
    assert ("a", 1) in again
    assert again.read()["loss"].to_pylist() == [2.0]
    again.append([row(2)])
    assert again.read()["tokens"].to_pylist() == [1, 2]


def test_two_writers_that_do_not_know_of_each_other_leave_a_key_once(table):
    other = opened(table)
    assert len(other) == len(table) == 0
    assert (1, "a") not in other
    table.append([row(1)])
    other.append([row(1, loss=9.0), row(2)])
    assert opened(table).read().to_pylist() == [row(1), row(2)]


def test_reading_makes_nothing(table):
    assert table.read().num_rows == len(table) == 0
    assert table.fragments() == table.problems() == []
    assert not table.folder.exists()


def test_rows_that_were_put_are_written_together_and_in_time(table, monkeypatch):
    for tokens in range(5):
        table.put([row(tokens)])
    assert len(opened(table)) == 0
    table.flush()
    assert len(table.fragments()) == 1
    assert len(opened(table)) == 5
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.0)
    table.put([row(5)])
    assert len(opened(table)) == 6


def test_a_write_that_was_cut_off_is_not_seen(table):
    table.append([row(1)])
    whole = next(table.folder.glob("*.parquet")).read_bytes()
    (table.folder / ".00000001-0123456789abcdef.parquet.tmp").write_bytes(whole[: len(whole) // 2])
    assert len(opened(table)) == 1


def test_columns_beyond_the_schema_are_kept(table):
    table.append([row(1)])
    table.append([row(2, mmlu=0.25)])
    table.compact()
    table.append([row(3, nested={"a": [1, None]})])
    read = opened(table).read()
    assert read["mmlu"].to_pylist() == [None, 0.25, None]
    assert json.loads(read["nested"].to_pylist()[2]) == {"a": [1, None]}


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=())),
    st.lists(st.integers(), max_size=2),
    st.floats(width=32).map(np.float32),
    st.integers(0, 9).map(np.array),
)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(VALUES, min_size=1, max_size=5), together=st.booleans(), compacted=st.booleans())
def test_no_value_of_a_further_column_is_dropped_whatever_its_type(tmp_path_factory, values, together, compacted):
    table = Table(tmp_path_factory.mktemp("t") / "table", SCHEMA, KEY)
    rows = [row(i, more=value) for i, value in enumerate(values)]
    for part in [rows] if together else [[one] for one in rows]:
        table.append(part)
    if compacted:
        table.compact()
    back = opened(table).read()["more"].to_pylist()
    assert [value is None for value in back] == [value is None for value in values]
    for value, found in zip(values, back, strict=True):
        if isinstance(value, float) and isinstance(found, float):
            assert found == value or math.isnan(value)


def test_whole_numbers_become_fractions_and_then_text(table):
    table.append([row(1, more=1)])
    table.append([row(2, more=0.5)])
    assert table.read()["more"].to_pylist() == [1.0, 0.5]
    table.append([row(3, more="high")])
    assert table.read()["more"].to_pylist() == ["1", "0.5", "high"]


def test_a_value_that_does_not_fit_its_column_is_refused(table):
    with pytest.raises(DataError, match="column 'loss' takes double"):
        table.append([row(1, loss="high")])
    with pytest.raises(DataError, match="has no 'tokens'"):
        opened(table).append([{"trial": "a"}])


def test_reading_some_columns(table):
    table.append([row(1, mmlu=0.5)])
    assert table.read(columns=["loss", "mmlu"]).to_pylist() == [{"loss": 2.0, "mmlu": 0.5}]
    assert table.read(columns=["not there"]).to_pylist() == [{"not there": None}]


def test_compacting_changes_nothing_but_the_files(table):
    for tokens in range(10):
        table.append([row(tokens, loss=tokens / 7, **({"mmlu": 1} if tokens % 2 else {}))])
    before, key = table.read(), table.checksum()
    table.compact()
    assert len(table.fragments()) == len(list(table.folder.iterdir())) == 1
    assert table.read().to_pylist() == before.to_pylist()
    assert table.checksum() == opened(table).checksum() == key
    assert table.problems() == []
    table.append([row(10)])
    table.compact()
    assert table.read()["tokens"].to_pylist() == list(range(11))
    assert table.problems() == []


@pytest.mark.parametrize("left", range(5))
def test_a_kill_while_compacting_loses_and_doubles_nothing(table, left):
    for tokens in range(4):
        table.append([row(tokens)])
    replaced = {path.name: path.read_bytes() for path in table.fragments()}
    table.compact()
    for name in sorted(replaced)[:left]:  # the kill came before these were deleted
        (table.folder / name).write_bytes(replaced[name])
    again = opened(table)
    assert len(again.fragments()) == 1
    assert again.read()["tokens"].to_pylist() == [0, 1, 2, 3]
    again.append([row(4)])
    again.compact()
    assert len(list(table.folder.iterdir())) == 1
    assert opened(table).read()["tokens"].to_pylist() == [0, 1, 2, 3, 4]


def test_many_small_fragments_are_merged_on_the_way(table, monkeypatch):
    monkeypatch.setattr(module, "MERGE_AT", 4)
    for tokens in range(30):
        table.append([row(tokens)])
    assert len(table.fragments()) < 12
    assert table.read()["tokens"].to_pylist() == list(range(30))
    assert opened(table).problems() == []


@given(appends=st.integers(1, 50), merge_at=st.integers(2, 5))
@settings(max_examples=5)
def test_files_and_rewritten_rows_grow_with_the_logarithm_of_the_appends(tmp_path_factory, appends, merge_at):
    """So that an append, which lists the folder, costs as much in a table of any length."""
    table = Table(tmp_path_factory.mktemp("tables") / "table", SCHEMA, KEY)
    written, write = [], table._write

    def counted(rows, **more):
        written.append(rows.num_rows)
        return write(rows, **more)

    table._write = counted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MERGE_AT", merge_at)
        levels = 1 + math.floor(math.log(appends, merge_at) + 1e-9)
        for tokens in range(appends):
            table.append([row(tokens)])
            assert len(table.version()) <= (merge_at - 1) * levels
    assert sum(written) <= levels * appends
    assert table.read()["tokens"].to_pylist() == list(range(appends))
    assert opened(table).problems() == []


def _write_for_ever(folder):
    module.MERGE_AT = 8
    table = Table(folder, SCHEMA, KEY)
    for tokens in range(100_000):
        table.append([row(tokens)])


def test_a_writer_that_is_killed_leaves_every_appended_row(tmp_path):
    context = multiprocessing.get_context("spawn")
    table = Table(tmp_path / "table", SCHEMA, KEY)
    process = context.Process(target=_write_for_ever, args=(table.folder,))
    process.start()
    deadline = time.monotonic() + 100
    seen = 0
    while seen < 30:  # a reader beside the writer sees a growing prefix, also while fragments are merged
        found = table.read()["tokens"].to_pylist()
        assert found == list(range(len(found)))
        assert len(found) >= seen
        assert time.monotonic() < deadline
        seen = len(found)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    found = opened(table).read()["tokens"].to_pylist()
    assert found == list(range(len(found)))
    assert len(found) >= seen
    assert opened(table).problems() == []


def test_a_row_that_another_thread_puts_during_a_write_is_not_lost(table, monkeypatch):
    """As when Ray is gone, and the thread that watches it writes what waits."""
    write = table._write

    def writing(*arguments, **more):
        table.put([row(20)])
        return write(*arguments, **more)

    monkeypatch.setattr(table, "_write", writing)
    table.append([row(10)])
    monkeypatch.undo()
    table.flush()
    assert opened(table).read()["tokens"].to_pylist() == [10, 20]
