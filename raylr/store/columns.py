"""Rows of plain values to Arrow columns and back to one table: no column and no value is dropped on the way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raylr.errors import DataError

_INT64 = 2**63


def to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema, where: str) -> pa.Table:
    """Return rows as a table: the columns of `schema` with their types, then every further column as it comes.

    Args:
        rows: One mapping per row. Columns of `schema` that a row lacks are null.
        schema: The columns that are always there.
        where: What the rows are for, in the message of an error.

    Raises:
        DataError: If a value does not fit the type of its column in `schema`.
    """
    columns: dict[str, pa.Array] = {}
    for field in schema:
        values = [_plain(row.get(field.name)) for row in rows]
        try:
            columns[field.name] = pa.array(values, field.type)
        except (pa.ArrowException, OverflowError, TypeError) as error:
            text = f"{where}: column {field.name!r} takes {field.type} and was given something else ({error})"
            raise DataError(text) from None
    for name in dict.fromkeys(str(name) for row in rows for name in row):
        if name not in columns:
            columns[name] = _inferred([_plain(row.get(name)) for row in rows])
    return pa.table(columns)


def concatenate(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Return the rows of all tables; a column has the type that holds all its values (int < float < string)."""
    types: dict[str, pa.DataType] = {field.name: field.type for field in schema}
    for table in tables:
        for field in table.schema:
            types[field.name] = _wider(types.get(field.name, pa.null()), field.type)
    whole = pa.schema(list(types.items()))
    parts = [_cast(table, whole) for table in tables if table.num_rows]
    return pa.concat_tables(parts) if parts else whole.empty_table()


def first_of_each(table: pa.Table, key: Sequence[str]) -> pa.Table:
    """Return the table without rows whose key came before, in the same order."""
    order = pa.array(np.arange(table.num_rows))
    keys = table.select(list(key)).append_column("__row", order)
    first = keys.group_by(list(key), use_threads=False).aggregate([("__row", "min")])["__row_min"]
    if len(first) == table.num_rows:
        return table
    return table.take(pa.array(np.sort(first.to_numpy())))


def key_set(table: pa.Table, key: Iterable[str]) -> set[tuple[Any, ...]]:
    """Return the keys of all rows as tuples."""
    return set(zip(*(table[name].to_pylist() for name in key), strict=True)) if table.num_rows else set()


def _plain(value: Any) -> Any:
    """Return a bool, int64, float or str (or None) equal to `value`."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else str(value)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text.encode("utf-8", "backslashreplace").decode()


def _inferred(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool} or kinds == {int} or kinds == {str}:
        return pa.array(values)
    if kinds <= {bool, int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([value if value is None or isinstance(value, str) else json.dumps(value) for value in values])


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    integers = [pa.types.is_integer(kind) for kind in (one, other)]
    numbers = [integer or pa.types.is_floating(kind) for integer, kind in zip(integers, (one, other), strict=True)]
    if all(integers):
        return pa.int64()
    if all(number or pa.types.is_boolean(kind) for number, kind in zip(numbers, (one, other), strict=True)):
        return pa.float64()
    return pa.string()


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table[field.name]
        if pa.types.is_boolean(column.type) and pa.types.is_floating(field.type):
            column = column.cast(pa.int8())
        columns.append(column.cast(field.type, safe=False))
    return pa.table(columns, schema=schema)
