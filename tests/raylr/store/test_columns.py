import pyarrow as pa
import pytest

from raylr.errors import DataError
from raylr.store.columns import concatenate, first_of_each, key_set, to_table

SCHEMA = pa.schema([("run", pa.string()), ("tokens", pa.int64())])


def test_types_of_further_columns_widen_from_table_to_table():
    values = [True, 3, 0.5, None, "text"]
    tables = [to_table([{"run": "a", "tokens": i, "x": value}], SCHEMA, "t") for i, value in enumerate(values)]
    for count, kind in enumerate([pa.bool_(), pa.float64(), pa.float64(), pa.float64(), pa.string()], start=1):
        assert concatenate(tables[:count], SCHEMA).schema.field("x").type == kind
    assert concatenate(tables[1:3], SCHEMA)["x"].to_pylist() == [3.0, 0.5]


def test_nothing_is_a_table_with_the_columns_of_the_schema():
    assert concatenate([], SCHEMA).schema.names == ["run", "tokens"]
    assert key_set(concatenate([], SCHEMA), ["run"]) == set()


def test_of_rows_with_one_key_the_first_is_kept():
    rows = [{"run": run, "tokens": tokens, "x": x} for x, (run, tokens) in enumerate([("b", 1), ("a", 1), ("b", 1)])]
    assert first_of_each(to_table(rows, SCHEMA, "t"), ["run", "tokens"])["x"].to_pylist() == [0, 1]


def test_integers_that_no_column_holds_are_kept_as_text():
    table = to_table([{"run": "a", "tokens": 1, "x": 10**400}, {"run": "b", "tokens": 1, "x": 1}], SCHEMA, "t")
    assert table["x"].to_pylist() == [str(10**400), "1"]
    with pytest.raises(DataError, match="column 'tokens' takes int64"):
        to_table([{"run": "a", "tokens": 10**400}], SCHEMA, "the table")
