import math

import pyarrow as pa
import pytest

from raylr.store.runtable import FragmentTable, evaluations_table

SCHEMA = pa.schema([("trial", pa.string()), ("tokens", pa.int64()), ("loss", pa.float64())])


@pytest.fixture
def table(tmp_path):
    return FragmentTable(tmp_path / "table", SCHEMA, ("trial", "tokens"))


def test_rows_come_back_in_the_order_written(table):
    assert table.append([{"trial": "a", "tokens": 2, "loss": 1.5}]) == 1
    assert table.append([{"trial": "a", "tokens": 1, "loss": 2.5}, {"trial": "b", "tokens": 1, "loss": math.nan}]) == 2
    rows = table.read().to_pylist()
    assert [(row["trial"], row["tokens"]) for row in rows] == [("a", 2), ("a", 1), ("b", 1)]
    assert math.isnan(rows[2]["loss"])


def test_a_row_is_written_once_also_by_a_later_process(table):
    row = {"trial": "a", "tokens": 1, "loss": 2.0}
    assert table.append([row, row]) == 1
    again = FragmentTable(table.folder, SCHEMA, table.key)
    assert again.append([row | {"loss": 9.0}]) == 0
    assert ("a", 1) in again
    assert again.read()["loss"].to_pylist() == [2.0]
    again.append([row | {"tokens": 2}])
    assert again.read()["tokens"].to_pylist() == [1, 2]


def test_a_write_that_was_cut_off_is_not_seen(table):
    table.append([{"trial": "a", "tokens": 1, "loss": 2.0}])
    whole = next(table.folder.glob("*.parquet")).read_bytes()
    (table.folder / ".00000001-dead.parquet.tmp").write_bytes(whole[: len(whole) // 2])
    assert len(FragmentTable(table.folder, SCHEMA, table.key)) == 1


def test_a_damaged_fragment_is_named(table):
    (table.folder / "00000000-bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(ValueError, match=r"00000000-bad\.parquet is damaged"):
        table.read()


def test_columns_beyond_the_schema_are_kept(table):
    table.append([{"trial": "a", "tokens": 1}])
    table.append([{"trial": "a", "tokens": 2, "mmlu": 0.25}])
    assert table.read()["mmlu"].to_pylist() == [None, 0.25]
    assert table.read()["loss"].to_pylist() == [None, None]


def test_an_empty_table_has_its_columns(tmp_path):
    assert evaluations_table(tmp_path).read().num_rows == 0
    assert "loss" in evaluations_table(tmp_path).read().column_names
