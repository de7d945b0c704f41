"""Files that grow while they are read: what was appended since the last look, whole lines or whole records only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from raylr.records.text import ESCAPES

Take = Callable[[bytes, int], tuple[list[bytes], int]]
"""Takes the new bytes of a file and the offset of the first of them; returns the whole records and how many bytes
they take. The rest is offered again with what is appended to it."""
CHUNK = 1 << 24
"""Most bytes that are read at once."""


class Tail:
    """Reads a file piece by piece. A file that became shorter, or was replaced by another, is read from its start.

    Args:
        path: The file; it need not exist yet.
        take: Splits bytes into records.
    """

    def __init__(self, path: Path, take: Take) -> None:
        self.path, self._take = path, take
        self._offset, self._inode = 0, -1

    def new(self) -> Iterator[bytes]:
        """Yield the records that were completed since the last call."""
        try:
            with self.path.open("rb") as file:
                about = os.fstat(file.fileno())
                if about.st_ino != self._inode or about.st_size < self._offset:
                    self._offset, self._inode = 0, about.st_ino
                while True:
                    file.seek(self._offset)
                    data = file.read(CHUNK)
                    records, used = self._take(data, self._offset)
                    self._offset += used
                    yield from records
                    if len(data) < CHUNK or not used:
                        return
        except (FileNotFoundError, IsADirectoryError):
            return


def whole_lines(data: bytes, offset: int) -> tuple[list[bytes], int]:
    """Split bytes into the lines that have ended. A carriage return ends a line too, as progress bars use it.

    Example:
        >>> whole_lines(b"one\\ntwo\\rthr", 0)
        ([b'one', b'two'], 8)
    """
    end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
    return [line for line in data[:end].replace(b"\r", b"\n").split(b"\n") if line.strip()], end


def last_lines(path: Path, count: int = 20) -> str:
    """Return the last lines of a text file without colours and overwritten progress bars; "" if there is none.

    Args:
        path: The file; it need not exist.
        count: Most lines, each cut to 300 characters.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 300 * 4 * count))
            data = file.read()
    except OSError:
        return ""
    lines = [line.rpartition("\r")[2] for line in plain(data).replace("\r\n", "\n").rstrip("\r\n").split("\n")]
    return "\n".join(line[:300] for line in lines[-count:])


def plain(line: bytes) -> str:
    """Return a line as text, without the escape sequences that colour it."""
    return ESCAPES.sub("", line.decode("utf-8", "replace"))
