"""Parquet and Arrow files of runs. An empty value (null) and NaN are different: NaN is a run that diverged."""

from __future__ import annotations

from pathlib import Path

from raylr.errors import DataError
from raylr.imports.options import ImportOptions
from raylr.imports.rows import Row, Rows
from raylr.imports.text import flat
from raylr.store.files import storage_errors

PARQUET, ARROW = (".parquet", ".pq"), (".arrow", ".feather")


def recognises(path: Path) -> bool:
    """Return whether the path is a Parquet or Arrow file by its name."""
    return path.suffix.lower() in PARQUET + ARROW and not path.is_dir()


def read(path: Path, options: ImportOptions) -> list[Rows]:
    """Return the rows of a file. Raises DataError if it is no such file."""
    import pyarrow as pa
    import pyarrow.feather as feather
    import pyarrow.parquet as pq

    try:
        with storage_errors(path, "read"):
            table = pq.read_table(path) if path.suffix.lower() in PARQUET else feather.read_table(path)
            table.validate(full=True)  # a damaged file has offsets beyond its buffers, which would be read
            found = table.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:  # OverflowError: a date beyond those of Python
        raise DataError(f"{path} cannot be read as {path.suffix}: {' '.join(str(error).split())[:200]}") from None
    rows = [Row(flat(row), f"{path.name}, row {i}") for i, row in enumerate(found, 1)]
    columns = list(dict.fromkeys(name for row in rows for name in row.values)) or list(table.column_names)
    return [Rows(rows=rows, columns=columns, where=path.name)]
