"""Where text comes from: files and folders, read as documents.

A text file is one document; JSON lines and Parquet have one a row.
"""

from __future__ import annotations

import gzip
import json
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from raylr.errors import DataError

SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})


def python_stdlib_sources() -> list[Path]:
    """Return the .py files of the running Python's standard library: real text (12 MB) that every machine has.

    Test suites are left out: many distributions do not install them, and the corpus should differ little between
    machines.

    Returns:
        The files, sorted.

    Raises:
        DataError: If the library is not installed as files.

    Example:
        >>> any(file.name == "pathlib.py" for file in python_stdlib_sources())
        True
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    found = sorted(p for p in root.rglob("*.py") if not SKIPPED_FOLDERS & set(p.relative_to(root).parts))
    if not found:
        raise DataError(
            f"no .py files under {root}: this Python keeps its library elsewhere; give text files of your own"
        )
    return found


def source_files(paths: Sequence[str | Path]) -> list[tuple[Path, bool]]:
    """List the files to read.

    Args:
        paths: Files and folders; hidden files in folders are left out.

    Returns:
        Each file, and whether it was named itself (and not found in a folder).

    Raises:
        DataError: If a path does not exist, or there is no file.
    """
    out: list[tuple[Path, bool]] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = (
                p
                for p in path.rglob("*")
                if p.is_file() and not any(q.startswith(".") for q in p.relative_to(path).parts)
            )
            out += [(p, False) for p in sorted(inside)]
        elif path.is_file():
            out.append((path, True))
        else:
            raise DataError(f"{path}: no such file or folder")
    if not out:
        raise DataError(f"no files in {', '.join(map(str, paths)) or 'an empty list of paths'}")
    return out


def documents(path: Path, named: bool, text_field: str) -> Iterator[str]:
    """Yield the documents of one file.

    Args:
        path: The file.
        named: Whether the user named it. A file that was found in a folder and is not UTF-8 text has no documents.
        text_field: Field of JSON lines, or column of Parquet, that holds the text.

    Raises:
        DataError: If the file does not have the format of its name; the message names the line.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        if text_field not in file.schema_arrow.names:
            raise DataError(
                f"{path} has no column {text_field!r}; its columns are {', '.join(file.schema_arrow.names)}"
            )
        for batch in file.iter_batches(batch_size=1024, columns=[text_field]):
            yield from (text for text in batch.column(0).to_pylist() if text)
        return
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        if name.endswith((".jsonl", ".ndjson")):
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _json_text(line, text_field, f"{path}, line {number}")
            return
        raw = stream.read()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if named:
            raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
        return
    if text:
        yield text


def _json_text(line: bytes, text_field: str, where: str) -> str:
    try:
        text = json.loads(line)[text_field]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: not a JSON object with a field {text_field!r}") from error
    if not isinstance(text, str):
        raise DataError(f"{where}: field {text_field!r} is {type(text).__name__}, not text")
    return text
