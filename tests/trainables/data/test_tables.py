from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylr.errors import InputError
from raylr.trainables.data.problems import Problems
from raylr.trainables.data.sources import Source
from raylr.trainables.data.tables import Table, choose_key, opened, table_texts


def test_the_key_where_none_is_named() -> None:
    assert choose_key({"id": True, "text": False}) == "text"
    assert choose_key({"id": False, "body": True}) == "body"
    assert choose_key({"title": True, "body": True}) is None
    assert choose_key({}) is None


def test_rows_that_are_no_text_have_their_numbers(tmp_path: Path) -> None:
    raw = [b"one", None, b"", b"\xff", "二".encode()]
    broken = pa.Array.from_buffers(pa.string(), 5, pa.array(raw, pa.binary()).buffers())  # strings that are not UTF-8
    for name, array in (("b", pa.array(raw, pa.binary())), ("s", broken)):
        table = pa.table({"text": array})
        with pa.OSFile(str(tmp_path / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        source, problems = Source(path=tmp_path / name, kind="arrow", named=True), Problems("skip")
        assert [text for text, _ in table_texts(source, None, "", problems)] == ["one", "二"]
        assert [(one.reason.partition(" (")[0], one.places) for one in problems.all] == [
            ("has no text", [2]),
            ("is empty", [3]),
            ("is not UTF-8", [4]),
        ]
        with pytest.raises(InputError, match="row 4: is not UTF-8"):
            list(table_texts(source, None, "", Problems()))


def test_rows_are_compared_with_the_index(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "t.parquet")
    with opened(Source(path=tmp_path / "t.parquet", kind="parquet", named=True)) as table:
        assert table.rows == 2
        table.check_rows(tmp_path / "t.parquet", 2)
        with pytest.raises(InputError, match="1 rows were read, its index states 2"):
            table.check_rows(tmp_path / "t.parquet", 1)
    Table(schema=None, batches=iter(()), done=lambda rows: 0, rows=None).check_rows(tmp_path, 3)


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), path)
    with pytest.raises(InputError, match="has 2 columns 'text'"):
        list(table_texts(Source(path=path, kind="parquet", named=True), None, "", Problems()))
