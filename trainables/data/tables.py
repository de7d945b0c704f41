"""Columns of text in Parquet and Arrow files: strings of every Arrow type, dictionaries of them, nested columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylr.errors import DataError
from raylr.trainables.data.problems import Problems
from raylr.trainables.data.sources import Source

TEXT = "text"
"""Key of the text where the user names none."""
ROWS = 1024
"""Rows read at a time from a table."""
Found = tuple[str, int]
"""A text, and the bytes of its file that were read so far."""


def choose_key(is_text: dict[str, bool]) -> str | None:
    """Return the key of the text where the user named none: "text", or else the only one that holds text."""
    if TEXT in is_text:
        return TEXT
    texts = [name for name, text in is_text.items() if text]
    return texts[0] if len(texts) == 1 else None


@dataclass(kw_only=True)
class Table:
    """An open Parquet or Arrow file."""

    schema: Any
    batches: Iterator[Any]
    """Record batches in their order; a DataError where one cannot be read."""
    done: Callable[[int], int]
    """Rows read -> bytes of the file read."""
    rows: int | None
    """Rows that the file's own index states; None: Arrow has none."""

    def check_rows(self, path: Path, read: int) -> None:
        """Compare the rows that were read with the file's own number."""
        if self.rows is not None and read != self.rows:
            raise DataError(f"{path}: {read} rows were read, its index states {self.rows}: the file is damaged")


@contextmanager
def opened(source: Source, columns: list[str] | None = None) -> Iterator[Table]:
    """Open a table.

    Args:
        source: A Parquet file, or an Arrow file or stream.
        columns: The columns to read of Parquet; None: all.

    Raises:
        DataError: If it cannot be read, also later while batches are read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, size = source.path, source.path.stat().st_size
    try:
        if source.kind == "parquet":
            with pq.ParquetFile(path) as file:
                rows = int(file.metadata.num_rows)
                yield Table(
                    schema=file.schema_arrow,
                    batches=file.iter_batches(batch_size=ROWS, columns=columns),
                    done=lambda read: size * read // max(1, rows),
                    rows=rows,
                )
            return
        with pa.memory_map(str(path)) as memory:
            try:
                reader = pa.ipc.open_file(memory)
                batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
            except pa.ArrowInvalid:
                memory.seek(0)
                reader = pa.ipc.open_stream(memory)
                batches = iter(reader)
            yield Table(schema=reader.schema, batches=batches, done=lambda _: int(memory.tell()), rows=None)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of the names of columns
        name = "Parquet" if source.kind == "parquet" else "Arrow"
        raise DataError(f"{path} cannot be read as {name}: {' '.join(str(error).split())}") from None


def table_texts(source: Source, key: str | None, _: str, problems: Problems) -> Iterator[Found]:
    """Yield the texts of a table; called as `raylr.trainables.data.records.documents`."""
    number = 0
    with opened(source) as table:
        column = _column(source, table.schema, key, problems)
    if column is None:
        return
    with opened(source, [column[0]]) as table:
        for text, row, fault in _rows(table, column):
            number = row
            if fault:
                problems.bad(source.path, fault, unit="row", place=row)
            elif text is None or not text.strip():
                problems.skip(source.path, "has no text (null)" if text is None else "is empty", unit="row", place=row)
            else:
                yield text, table.done(row)
        table.check_rows(source.path, number)


def _rows(table: Table, column: list[str]) -> Iterator[tuple[str | None, int, str]]:
    """Each row's text, number from 1 on, and what is wrong with it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    number = 0
    for batch in table.batches:
        batch.validate()  # a damaged file has offsets beyond its buffers, which would be read
        values = batch.column(batch.schema.get_field_index(column[0]))
        if len(column) > 1:
            values = pc.struct_field(values, column[1:])
        values = _as_bytes(values)
        values.validate(full=True)
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        for scalar in values:
            number += 1
            try:
                value = scalar.as_py()
                yield value.decode() if isinstance(value, bytes) else value, number, ""
            except UnicodeDecodeError as error:
                yield None, number, f"is not UTF-8 ({error.reason} at byte {error.start})"


def _as_bytes(values: Any) -> Any:
    """Return an array of strings as bytes without looking at them, so that each row is decoded separately."""
    import pyarrow as pa

    kinds = {
        pa.string(): pa.binary(),
        pa.large_string(): pa.large_binary(),
        pa.string_view(): pa.binary_view(),
    }
    return values.view(kinds[values.type]) if values.type in kinds else values


def _column(source: Source, schema: Any, key: str | None, problems: Problems) -> list[str] | None:
    """Return the path to the column of the text; None if the file is left out."""
    names = {field.name: is_text(field.type) for field in schema}
    wanted = key or choose_key(names)
    shown = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if wanted is None:
        reason = (
            f"has no column {TEXT!r} and not exactly one column of text; its columns are {shown} (name one: --text-key)"
        )
    else:
        path = [wanted] if wanted in names else wanted.split(".")
        twice = schema.names.count(path[0]) > 1
        kind = None if twice else _type_at(schema, path)
        if kind is not None and is_text(kind):
            if key is None and wanted != TEXT:
                problems.chose_key(source.path, wanted)
            return path
        reason = f"has no column {wanted!r}" if kind is None else f"column {wanted!r} is {kind}, not text"
        reason = f"has {schema.names.count(path[0])} columns {path[0]!r}" if twice else reason
        reason += f"; its columns are {shown}"
    problems.bad(source.path, reason)
    return None


def is_text(kind: Any) -> bool:
    """Whether an Arrow type holds text (strings in any form, and binary, which is read as UTF-8)."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    checks = ("string", "large_string", "string_view", "binary", "large_binary")
    return any(getattr(pa.types, f"is_{check}")(kind) for check in checks)


def _type_at(schema: Any, path: list[str]) -> Any:
    import pyarrow as pa

    if path[0] not in schema.names:
        return None
    kind = schema.field(path[0]).type
    for part in path[1:]:
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            return None
        kind = kind.field(part).type
    return kind
