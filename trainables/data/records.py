"""The documents of one file: a whole text, or one in each record of JSON lines, a JSON array, Parquet or Arrow.

`documents` yields texts together with the bytes of the file that were read so far. Records without text and records
that cannot be read go to a `Problems`, so that every record is a document or is counted there.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from raylr.errors import DataError
from raylr.trainables.data.problems import Problems
from raylr.trainables.data.sources import Source, compression_of
from raylr.trainables.data.tables import TEXT, Found, choose_key, table_texts

CHUNK = 1 << 20
"""Characters read at a time from a JSON array."""
TEXT_ENDINGS = (".txt", ".text", ".md", ".rst", ".tex", ".tokens", ".raw")
"""Files of these names are text: bytes that cannot be decoded are damage, not another format."""
BROKEN = (EOFError, OSError, lzma.LZMAError, zlib.error)
"""What the readers of compressed files raise for damaged ones."""
_SPACE = re.compile(r"[\s,]*")


def documents(source: Source, key: str | None, encoding: str, problems: Problems) -> Iterator[Found]:
    """Yield the documents of one file.

    Args:
        source: The file.
        key: Key or column with the text, `a.b` for key b in the object of key a. None: "text", or else the only one
            that holds text.
        encoding: Encoding of text and JSON, a name of Python's codecs.
        problems: Receives what is left out.

    Yields:
        Texts that are not empty, each with the bytes of the file that were read so far.

    Raises:
        DataError: If the file does not have the format of its name or lacks the key; for a record that cannot be read
            if `problems` stops there. The message names the file and the record.
    """
    readers = {"text": _text, "lines": _lines, "json": _json, "parquet": table_texts, "arrow": table_texts}
    if source.kind not in readers:
        raise DataError(f"{source.path} holds token ids, not text")
    try:
        yield from readers[source.kind](source, key, encoding, problems)
    except DataError as error:
        if problems.on_error == "stop":
            raise
        problems.bad(source.path, str(error).removeprefix(str(source.path)).strip(" :,"))
    except LookupError as error:
        if "unknown encoding" not in str(error):
            raise
        raise DataError(f"encoding {encoding!r} is not one of Python's codecs (utf-8, gb18030, latin-1, …)") from None


class _Stream:
    """A file read through its decompression, with the bytes of the file read so far."""

    def __init__(self, path: Path) -> None:
        self._raw: IO[bytes] = path.open("rb")
        compression = compression_of(path)
        self.stream: Any = self._raw
        if compression == ".gz":
            self.stream = gzip.open(self._raw)  # noqa: SIM115
        elif compression == ".xz":
            self.stream = lzma.open(self._raw)  # noqa: SIM115
        elif compression == ".bz2":
            self.stream = bz2.open(self._raw)  # noqa: SIM115
        elif compression == ".zst":
            import pyarrow as pa

            self.stream = io.BufferedReader(pa.CompressedInputStream(self._raw, "zstd"), CHUNK)

    @property
    def done(self) -> int:
        return 0 if self._raw.closed else self._raw.tell()

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self._raw.close()


def _fault(text: Any, what: str) -> str:
    """Return why a value is no text that can be encoded; "" if it is."""
    if not isinstance(text, str):
        return f"{what} is {type(text).__name__}, not text"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return (
            f"{what} has {text[error.start]!r} at character {error.start}: half of a surrogate pair is not a character"
        )
    return ""


def _text(source: Source, key: str | None, encoding: str, problems: Problems) -> Iterator[Found]:
    path = source.path
    known = source.named or Path(path.name.removesuffix(compression_of(path) or "")).suffix.lower() in TEXT_ENDINGS
    try:
        with _Stream(path) as stream:
            raw = stream.stream.read()
    except BROKEN as error:
        problems.bad(path, f"cannot be read ({error})")
        return
    refuse = problems.bad if known else problems.skip
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff") and len(raw) % 2 == 0 and encoding == "utf-8":
        refuse(path, "is text in UTF-16: give --encoding utf-16")
        return
    if b"\0" in raw and not encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        refuse(path, "is binary: it holds NUL bytes")
        return
    try:
        text = raw.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        refuse(
            path, f"is not {encoding.upper()} text ({error.reason} at byte {error.start}); is it of another --encoding?"
        )
        return
    if text.strip():
        yield text, path.stat().st_size
    else:
        problems.skip(path, "is empty")


class _Picker:
    """Takes the text out of the records of one file.

    Args:
        source: The file.
        key: Key of the text; None: found in the first record.
        problems: Receives records that hold no text.
    """

    def __init__(self, source: Source, key: str | None, problems: Problems) -> None:
        self.path, self.key, self.problems, self.given = source.path, key, problems, key is not None

    def pick(self, record: Any, unit: str, place: int) -> str | None:
        """Return the text of a record; None if the record is left out."""
        if isinstance(record, str) and not self.given:
            value: Any = record
        elif not isinstance(record, dict):
            self.problems.bad(self.path, f"is {_name(record)}, not a JSON object", unit=unit, place=place)
            return None
        else:
            if self.key is None:
                self.key = choose_key({name: isinstance(value, str) for name, value in record.items()}) or TEXT
                if self.key != TEXT:
                    self.problems.chose_key(self.path, self.key)
            value = lookup(record, self.key)
            if value is _MISSING:
                keys = ", ".join(map(str, record)) or "none"
                reason = f"has no key {self.key!r}; its keys are {keys}"
                self.problems.bad(
                    self.path, reason if self.given else f"{reason} (name one: --text-key)", unit=unit, place=place
                )
                return None
        if value is None:
            self.problems.skip(self.path, "has no text (null)", unit=unit, place=place)
            return None
        fault = _fault(value, f"key {self.key!r}" if isinstance(record, dict) else "it")
        if fault:
            self.problems.bad(self.path, fault, unit=unit, place=place)
            return None
        if not value.strip():
            self.problems.skip(self.path, "is empty", unit=unit, place=place)
            return None
        return str(value)


_MISSING = object()


def _name(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def lookup(record: dict[str, Any], key: str) -> Any:
    """Return the value of a key, or of the nested key `a.b`; `_MISSING` if there is none."""
    value: Any = record
    if key in record:
        return record[key]
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return _MISSING
        value = value[part]
    return value


def _lines(source: Source, key: str | None, encoding: str, problems: Problems) -> Iterator[Found]:
    picker = _Picker(source, key, problems)
    number = 0
    try:
        with _Stream(source.path) as stream:
            if encoding != "utf-8":
                lines: Any = io.TextIOWrapper(stream.stream, encoding=encoding, newline="\n")
            else:
                lines = stream.stream
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                done = stream.done
                try:
                    record = json.loads(line)
                except UnicodeDecodeError as error:
                    reason = f"is not UTF-8 ({error.reason} at byte {error.start}); is it of another --encoding?"
                    problems.bad(source.path, reason, unit="line", place=number)
                    continue
                except (ValueError, RecursionError) as error:
                    reason = f"is not JSON ({error})".replace("line 1 ", "")
                    problems.bad(source.path, reason, unit="line", place=number)
                    continue
                text = picker.pick(record, "line", number)
                if text is not None:
                    yield text, done
    except UnicodeDecodeError as error:
        raise DataError(f"{source.path}, after line {number}: not {encoding.upper()} ({error.reason})") from None
    except BROKEN as error:
        problems.bad(source.path, f"cannot be read after line {number} ({error})")


def _json(source: Source, key: str | None, encoding: str, problems: Problems) -> Iterator[Found]:
    """An array of objects or texts, JSON lines under the name .json, or one object that is a document."""
    path = source.path
    try:
        with _Stream(path) as stream:
            reader = io.TextIOWrapper(stream.stream, encoding="utf-8-sig" if encoding == "utf-8" else encoding)
            start = _skip_space(reader)
            if start != "[":
                yield from _json_lines(source, start, reader, key, encoding, problems)
                return
            picker = _Picker(source, key, problems)
            for number, record in enumerate(_elements(reader, path), 1):
                text = picker.pick(record, "record", number)
                if text is not None:
                    yield text, stream.done
    except UnicodeDecodeError as error:
        (problems.bad if source.named else problems.skip)(path, f"is not {encoding.upper()} text ({error.reason})")
    except BROKEN as error:
        problems.bad(path, f"cannot be read ({error})")


def _skip_space(reader: io.TextIOWrapper) -> str:
    """Read up to the first character that is no space, and return it."""
    while True:
        character = reader.read(1)
        if not character.isspace():
            return character


def _json_lines(
    source: Source, start: str, reader: io.TextIOWrapper, key: str | None, encoding: str, problems: Problems
) -> Iterator[Found]:
    """A .json file that is no array: JSON lines if its first line is a value of its own, otherwise one value."""
    first = start + reader.readline()
    rest = reader.readline()
    while rest and not rest.strip():
        rest = reader.readline()
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        lines = False
    else:
        lines = bool(rest)
    if lines:
        yield from _lines(source, key, encoding, problems)
        return
    whole = first + rest + reader.read()
    if not whole.strip():
        problems.skip(source.path, "is empty")
        return
    try:
        record = json.loads(whole)
    except (ValueError, RecursionError) as error:
        (problems.bad if source.named else problems.skip)(source.path, f"is not JSON ({error})")
        return
    is_document = isinstance(record, dict) and isinstance(lookup(record, key or TEXT), str)
    if not is_document and not source.named:
        problems.skip(source.path, f"is JSON without records: no array of objects, no key {key or TEXT!r}")
        return
    text = _Picker(source, key, problems).pick(record, "record", 1)
    if text is not None:
        yield text, source.path.stat().st_size


def _elements(reader: io.TextIOWrapper, path: Path) -> Iterator[Any]:
    """Yield the elements of a JSON array whose bracket was read, holding one of them and a chunk at a time."""
    decoder, held, at, number = json.JSONDecoder(), "", 0, 0
    wanted = CHUNK
    while True:
        at = _SPACE.match(held, at).end()  # type: ignore[union-attr]  # it also matches nothing
        if at < len(held) and held[at] == "]":
            if (held[at + 1 :] + reader.read()).strip():
                raise DataError(f"{path}: text follows the end of the JSON array after record {number}")
            return
        try:
            value, end = decoder.raw_decode(held, at)
            complete = end < len(held)  # 12 could go on as 123
        except (ValueError, RecursionError) as error:
            complete, fault = False, str(error)
        else:
            fault = "it does not end"
        if complete:
            number += 1
            at = end
            yield value
            continue
        more = reader.read(wanted)
        if not more:
            raise DataError(f"{path}: the JSON array is broken at record {number + 1} ({fault})")
        held, at = held[at:] + more, 0
        wanted = max(CHUNK, len(held))  # long records are decoded again a few times only
