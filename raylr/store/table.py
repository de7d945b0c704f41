"""`Table`: rows as append-only Parquet fragments that a kill cannot tear and a flipped bit cannot change unnoticed.

A table is a folder of fragments, `<number>-<checksum of the content>.parquet`. Each is written under a temporary name,
flushed to the disk and renamed, so that readers see whole fragments only, and never changed afterwards. `compact`
merges fragments into one that names those it replaces, then deletes them; a kill in between leaves both, and reading
leaves out what is replaced. Rows are identified by key columns: of several rows with one key, reading keeps the first.

Reading makes, changes and locks nothing. Several processes may append to one table.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raylr.errors import DamagedError, DataError, StorageError, StudyError
from raylr.remote.copies import copy_of
from raylr.store.columns import concatenate, first_of_each, key_set, to_table
from raylr.store.files import digest, remove_file, storage_errors, write_atomic

FORMAT = 2
"""Version of the fragments' format; fragments of format 1 had no checksums."""
FLUSH_SECONDS = 3.0
"""Rows given to `put` are on disk after this time at the latest, if `flush_due` is called now and then. A kill loses no
more; it is a few times the cost of a report and far below the time between two evaluations of a real run."""
MERGE_AT = 32
"""Small fragments from which a writer merges them, and merged ones, and so on: a table of n appends has fewer than 32
files for each factor 32 in n, and each row is written again as often. Listing the folder, which each append does, and
opening a fragment (about a millisecond) so cost about the same for a table of any length."""
_RETRIES = 5
"""Times that a reader looks again when a fragment vanishes under it, because another process merges fragments."""
_NAME = re.compile(r"(\d{8,})-([0-9a-f]{16})\.parquet")
_OLD_NAME = re.compile(r"\d{8}-[0-9a-f]{8}\.parquet")
_META = b"raylr"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is wrong with a table's files."""

    path: Path
    message: str


@dataclass(frozen=True, kw_only=True)
class _Fragment:
    path: Path
    rows: pa.Table
    replaces: frozenset[str]
    first: int
    """Lowest number of the fragments whose rows it holds; its own number if it was never merged."""


class Table:
    """An append-only table in one folder. Making the object reads and writes nothing.

    Args:
        folder: The table's folder; made with the first write.
        schema: Columns that are always there, with their types. Further columns of appended rows are kept as they
            come.
        key: The columns that identify a row.
        owner: Identity of what the table belongs to, such as a study's spec. Fragments of another owner are refused
            when they are read. "": fragments of any owner are read.

    Example:
        >>> import pyarrow as pa, tempfile
        >>> table = Table(Path(tempfile.mkdtemp()) / "runs", pa.schema([("run", pa.string())]), ("run",))
        >>> table.append([{"run": "a", "loss": 2.5}, {"run": "b", "loss": 2.25}])
        2
        >>> table.append([{"run": "a", "loss": 2.5}])
        0
        >>> table.read().to_pylist()
        [{'run': 'a', 'loss': 2.5}, {'run': 'b', 'loss': 2.25}]
    """

    def __init__(self, folder: Path, schema: pa.Schema, key: Sequence[str], *, owner: str = "") -> None:
        self.folder, self.schema, self.key, self.owner = Path(folder), schema, tuple(key), owner
        self._known: set[tuple[Any, ...]] | None = None
        self._buffer: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._since = 0.0
        self._merges: dict[str, int] = {}
        """Name of a fragment that this object has merged → how often its rows were."""
        self._made = False

    # -- writing --

    def append(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Write the rows whose key is new, after what `put` left, and return how many of them were new.

        When this returns, the rows survive a kill of the process and a crash of the machine.

        Raises:
            DataError: If a value does not fit its column.
            DamagedError, StudyError: As `read`.
            StorageError: If they cannot be written; they are kept in memory and the next flush tries again.
        """
        count = self.put(rows)
        self.flush()
        return count

    def put(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Take rows to be written by the next `flush`, and return how many of them are new."""
        count = 0
        for row in rows:
            key = self._key(row)
            if key in self._keys() or key in self._buffer:
                continue
            if not self._buffer:
                self._since = time.monotonic()
            self._buffer[key] = dict(row)
            count += 1
        self.flush_due()
        return count

    def flush_due(self) -> None:
        """`flush` if the oldest row that is not on disk yet has waited for `FLUSH_SECONDS`."""
        if self._buffer and time.monotonic() - self._since >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that `put` took as one fragment. Raises StorageError; the rows are kept in memory then."""
        taken, self._buffer = self._buffer, {}  # at once: another thread may put rows or flush, when Ray is gone
        if not taken:
            return
        try:
            self._write(to_table(list(taken.values()), self.schema, str(self.folder)))
        except BaseException:
            self._buffer = taken | self._buffer
            raise
        self._keys().update(taken)
        self._merge_many()

    def compact(self) -> None:
        """Write everything as one fragment. Raises DamagedError, StudyError and StorageError; nothing is lost then.

        A fragment that is missing is not noticed any more afterwards: what it held must have been measured again.
        """
        self.flush()
        names = self._names()
        if len(names) > 1 or any(self._open(path, list(self.key)).first for path in names):
            self._merge(names, first=0)

    # -- reading --

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the table.

        Args:
            columns: Names of the columns wanted, in this order; None: all.

        Returns:
            One row per key, in the order in which they were written. Rows that wait for a flush are not among them.

        Raises:
            DamagedError: If a fragment is torn or was changed; the message names the file.
            StudyError: If a fragment belongs to another owner, or to an earlier version of raylr.
            StorageError: If a file cannot be read.
        """
        wanted = None if columns is None else list(dict.fromkeys([*columns, *self.key]))
        schema = self.schema if wanted is None else pa.schema([f for f in self.schema if f.name in wanted])
        fragments = self._load(wanted)
        table = first_of_each(concatenate([fragment.rows for fragment in fragments], schema), self.key)
        if columns is None:
            return table
        missing = [name for name in columns if name not in table.column_names]
        for name in missing:
            table = table.append_column(name, pa.nulls(table.num_rows))
        return table.select(list(columns))

    def __len__(self) -> int:
        if not self.key:
            return sum(fragment.rows.num_rows for fragment in self._load(None))
        return int(self.read(columns=self.key).num_rows)

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self._keys()

    def fragments(self) -> list[Path]:
        """Return the fragments that hold the table's rows, in the order in which they were written."""
        return [fragment.path for fragment in self._load(list(self.key))]

    def version(self) -> tuple[str, ...]:
        """Return the names of the table's files, which change whenever rows are added or merged; nothing is opened."""
        return tuple(path.name for path in self._names())

    def checksum(self) -> str:
        """Return a checksum of the table's keys: it changes with every row that is added, and not by compacting."""
        keys = sorted(json.dumps(key) for key in key_set(self.read(columns=self.key), self.key))
        return digest("\n".join(keys).encode())

    def problems(self) -> list[Problem]:
        """Return what is wrong with the table's files, without raising: damaged, foreign and missing fragments."""
        found, held = [], list[tuple[int, int]]()
        replaced: set[str] = set()
        for path in reversed(self._names()):
            if path.name in replaced:
                continue
            number = _number(path)
            try:
                fragment = self._open(path, list(self.key))
            except (StorageError, StudyError) as error:
                found.append(Problem(path=path, message=str(error)))
                held.append((number, number))
            else:
                replaced |= fragment.replaces
                held.append((min(fragment.first, number), number))
        free = 0
        for first, last in sorted(held):  # a number may be any: of a file that somebody renamed, too
            if first > free:
                which = f"fragment {free}" if first == free + 1 else f"fragments {free} to {first - 1}"
                message = f"{which} of {self.folder} {'is' if first == free + 1 else 'are'} missing"
                found.append(Problem(path=self.folder / f"{free:08d}-….parquet", message=message))
            free = max(free, last + 1)
        return found

    # -- inside --

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        try:
            return tuple(row[name] for name in self.key)
        except KeyError as error:
            raise DataError(f"a row for {self.folder} has no {error}, which identifies it") from None

    def _keys(self) -> set[tuple[Any, ...]]:
        if self._known is None:
            self._known = key_set(self.read(columns=self.key), self.key)
        return self._known

    def _names(self) -> list[Path]:
        with storage_errors(self.folder, "read"):
            try:
                found = [path for path in self.folder.iterdir() if path.suffix == ".parquet" and path.name[0] != "."]
            except FileNotFoundError:
                return []
        return sorted(found, key=lambda path: (_number(path), path.name))

    def _load(self, columns: list[str] | None) -> list[_Fragment]:
        for attempt in range(_RETRIES):
            fragments: list[_Fragment] = []
            replaced: set[str] = set()
            try:
                for path in reversed(self._names()):  # a merged fragment is newer than those it replaces
                    if path.name not in replaced:
                        fragments.append(self._open(path, columns))
                        replaced |= fragments[-1].replaces
                return fragments[::-1]
            except StorageError as error:
                if attempt + 1 == _RETRIES or not isinstance(error.__cause__, FileNotFoundError):
                    raise
        raise AssertionError("unreachable")

    def _open(self, path: Path, columns: list[str] | None) -> _Fragment:
        if _OLD_NAME.fullmatch(path.name):
            raise StudyError(f"{path} was written by an earlier version of raylr, without checksums; it is not read")
        matched = _NAME.fullmatch(path.name)
        with storage_errors(path, "read"):
            data = path.read_bytes()
            whole = matched is not None and digest(data) == matched.group(2)
            if matched is not None and not whole and (found := copy_of(path)) is not None:
                found[0].fetch_file(found[1])  # the damage may be that of the working copy alone
                data = path.read_bytes()
                whole = digest(data) == matched.group(2)
        try:
            if not whole:
                raise pa.ArrowInvalid("its content is not what was written")
            file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
            about = json.loads((file.schema_arrow.metadata or {})[_META])
            if int(about["format"]) > FORMAT:
                raise StudyError(
                    f"{path} was written by a later version of raylr (format {about['format']}, this version reads "
                    f"{FORMAT}); update raylr"
                )
            rows = file.read(columns=columns, use_threads=False)
            replaces, first, owner = frozenset(about["replaces"]), int(about["first"]), str(about["owner"])
        except StudyError:
            raise
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedError(
                f"{path} is damaged ({error}); `raylr check` on the study's folder lists what it held, and that "
                "is measured again once the file is moved away"
            ) from error
        if self.owner and owner != self.owner:
            raise StudyError(f"{path} holds results of another spec; this table takes those of its own study alone")
        return _Fragment(path=path, rows=rows.replace_schema_metadata(None), replaces=replaces, first=first)

    def _merge_many(self) -> None:
        """Merge the fragments that were merged equally often once there are `MERGE_AT` of them."""
        times = 0
        while True:
            alike = [path for path in self._names() if self._merges.get(path.name, 0) == times]
            if len(alike) < MERGE_AT:
                return
            merged = self._merge(alike)
            times += 1
            self._merges = {n: m for n, m in self._merges.items() if m != times - 1} | {merged.name: times}

    def _merge(self, paths: Sequence[Path], *, first: int | None = None) -> Path:
        """Write the rows of these fragments as one that stands for those from number `first` on, then delete them;
        return the new one."""
        replaced: set[str] = set()
        live: list[_Fragment] = []
        for path in reversed(paths):
            if path.name not in replaced:
                live.append(self._open(path, None))
                replaced |= live[-1].replaces
        rows = first_of_each(concatenate([fragment.rows for fragment in reversed(live)], self.schema), self.key)
        first = min(one.first for one in live) if first is None else first
        merged = self._write(rows, replaces=[path.name for path in paths], first=first)
        for path in paths:
            remove_file(path)
        return merged

    def _write(self, rows: pa.Table, *, replaces: Sequence[str] = (), first: int | None = None) -> Path:
        names = self._names()
        number = _number(names[-1]) + 1 if names else 0
        about = {
            "format": FORMAT,
            "owner": self.owner,
            "replaces": list(replaces),
            "first": number if first is None else first,
        }
        rows = rows.replace_schema_metadata({_META: json.dumps(about).encode()})
        floats = [field.name for field in rows.schema if pa.types.is_floating(field.type)]
        sink = pa.BufferOutputStream()
        pq.write_table(
            rows,
            sink,
            compression="zstd",
            use_dictionary=[field.name for field in rows.schema if field.name not in floats],
            use_byte_stream_split=floats,  # exponents together, mantissas together: both compress better
            write_statistics=False,
            write_page_checksum=True,
        )
        data = sink.getvalue().to_pybytes()
        path = self.folder / f"{number:08d}-{digest(data)}.parquet"
        if not self._made:  # later a missing folder is an error: somebody removed it
            with storage_errors(self.folder, "make"):
                self.folder.mkdir(parents=True, exist_ok=True)
            self._made = True
        write_atomic(path, data)
        return path


def _number(path: Path) -> int:
    matched = re.match(r"\d+", path.name)
    return int(matched.group()) if matched else 0
