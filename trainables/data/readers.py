"""Token ids from other programs: Megatron's .bin/.idx, Parquet or Arrow tables of ids, folders of Hugging Face's
`datasets`.

`raylr.trainables.data.importing` turns them into a corpus.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raylr.errors import DataError
from raylr.trainables.data.problems import Problems
from raylr.trainables.data.sources import Source
from raylr.trainables.data.tables import TEXT, opened

Ids = npt.NDArray[np.int64]
Found = tuple[Ids, int]
"""The ids of a document, and the bytes of its file that were read so far."""
COLUMN = "input_ids"
"""Column of ids where the user names none (the name in Hugging Face's data sets)."""
MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
MEGATRON_TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}
"""Type codes of Megatron-LM's `indexed_dataset.py` (DType)."""
_HEADER = "<QBQQ"


def id_documents(source: Source, column: str, problems: Problems) -> Iterator[Found]:
    """Yield the documents of a file of token ids.

    Args:
        source: Megatron's index, or a Parquet or Arrow file.
        column: Column of a table with lists of ids.
        problems: Receives rows without ids.

    Raises:
        DataError: For a file of another format or without that column, and where the file's own index states other
            counts than were read.
    """
    if source.kind == "megatron":
        return _megatron(source.path, problems)
    if source.kind in ("parquet", "arrow"):
        return _table(source, column, problems)
    raise DataError(f"{source.path}: token ids are read from Megatron's .bin/.idx, Parquet and Arrow")


def has_ids(source: Source, column: str | None) -> bool:
    """Whether a file holds token ids: Megatron's, or a table with a column of lists of integers and none of text."""
    if source.kind == "megatron":
        return True
    if source.kind not in ("parquet", "arrow"):
        return False
    with opened(source) as table:
        schema = table.schema
        names = [column] if column else [COLUMN] if TEXT not in schema.names else []
        return any(name in schema.names and _is_ids(schema.field(name).type) for name in names)


def _megatron(index: Path, problems: Problems) -> Iterator[Found]:
    data = index.with_suffix(".bin")
    if not index.is_file() or not data.is_file():
        raise DataError(f"{index.with_suffix('')}: Megatron data are two files, {index.name} and {data.name}")
    raw = index.read_bytes()
    if raw[:9] != MEGATRON_MAGIC:
        raise DataError(f"{index} is not a Megatron index (it does not begin with MMIDIDX)")
    start = 9 + struct.calcsize(_HEADER)
    if len(raw) < start:
        raise DataError(f"{index} has {len(raw)} bytes, its header alone has {start}: it is cut off")
    version, code, sequences, bounds_count = struct.unpack_from(_HEADER, raw, 9)
    dtype = np.dtype(MEGATRON_TYPES.get(code, "<f4"))
    if version != 1 or dtype.kind not in "iu":
        raise DataError(f"{index}: version {version} with type code {code}; version 1 with integer ids is read")
    if len(raw) < start + 12 * sequences + 8 * bounds_count:
        required = start + 12 * sequences + 8 * bounds_count
        raise DataError(f"{index} has {len(raw)} bytes, {sequences} sequences require {required}: it is cut off")
    lengths = np.frombuffer(raw, "<i4", sequences, start).astype(np.int64)
    pointers = np.frombuffer(raw, "<i8", sequences, start + 4 * sequences)
    bounds = np.frombuffer(raw, "<i8", bounds_count, start + 12 * sequences)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    required = int(ends[-1]) * dtype.itemsize
    if (lengths < 0).any() or not np.array_equal(pointers, ends[:-1] * dtype.itemsize):
        raise DataError(f"{index}: its sequences do not lie one behind the other, as Megatron writes them")
    if data.stat().st_size != required:
        raise DataError(f"{data} has {data.stat().st_size} bytes, its index requires {required}")
    if bounds_count < 1 or bounds[0] != 0 or bounds[-1] != sequences or (np.diff(bounds) < 0).any():
        raise DataError(f"{index}: its documents do not cover its {sequences} sequences once, in order")
    if not required:
        problems.skip(data, "is empty")
        return
    ids = np.memmap(data, dtype=dtype, mode="r")
    for number, (first, last) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True), 1):
        found = np.asarray(ids[ends[first] : ends[last]], dtype=np.int64)
        if found.size:
            yield found, int(ends[last]) * dtype.itemsize
        else:
            problems.skip(index, "is empty", unit="document", place=number)


def _table(source: Source, column: str, problems: Problems) -> Iterator[Found]:
    path, number = source.path, 0
    with opened(source) as table:
        _check_column(path, table.schema, column)
    with opened(source, [column]) as table:
        for batch in table.batches:
            batch.validate(full=True)  # a damaged file has offsets beyond its buffers, which would be read
            for row in batch.column(batch.schema.get_field_index(column)):
                number += 1
                if not row.is_valid or not len(row.values):
                    problems.skip(path, "has no ids", unit="row", place=number)
                elif row.values.null_count:
                    problems.bad(path, "has a null among its ids", unit="row", place=number)
                else:
                    yield np.asarray(row.values.to_numpy(zero_copy_only=False), dtype=np.int64), table.done(number)
        table.check_rows(path, number)


def _is_ids(kind: Any) -> bool:
    import pyarrow as pa

    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and pa.types.is_integer(kind.value_type))


def _check_column(path: Path, schema: Any, column: str) -> None:
    if column not in schema.names:
        raise DataError(f"{path} has no column {column!r}; its columns are {', '.join(schema.names)}")
    kind = schema.field(column).type
    if not _is_ids(kind):
        raise DataError(f"{path}: column {column!r} is {kind}, not lists of token ids")
