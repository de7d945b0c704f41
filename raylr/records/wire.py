"""Protocol buffers and record files without their libraries: the few lines that TensorBoard's and W&B's files need.

The libraries read them too, with a hundred times the code (and tensorboard keeps 10,000 points of a curve unless
configured otherwise; wandb has had no reader of its files since 0.30).

References:
    https://protobuf.dev/programming-guides/encoding, TensorFlow's TFRecord format, LevelDB's log format.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

BLOCK = 32 * 1024
"""Bytes of a block of LevelDB's log format."""
_CRC32C = 0x82F63B78


class TornError(ValueError):
    """A message or record ends too early, or cannot be read."""


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Return the fields of a message as (number, value): integers, or the bytes of strings, messages and floats.

    Raises:
        TornError: If the bytes are no message.

    Example:
        >>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69])))
        [(1, 150), (2, b'hi')]
    """
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if not number:
            raise TornError("a field without a number")
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise TornError(f"a field of kind {kind}")
        if at + size > end:
            raise TornError("a field goes beyond its message")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise TornError("a number goes beyond its message")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def parts(message: bytes, number: int) -> Iterator[bytes]:
    """Return the values of all fields of one number that are texts or messages. Raises TornError as `fields`."""
    return (value for found, value in fields(message) if found == number and isinstance(value, bytes))


def text(value: int | bytes) -> str:
    """Return a string field."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def real(value: int | bytes) -> float:
    """Return a float or double field."""
    if not isinstance(value, bytes) or len(value) not in (4, 8):
        raise TornError("a field that should be a number is not a number")
    return float(struct.unpack("<f" if len(value) == 4 else "<d", value)[0])


def tf_records(data: bytes, offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield the whole records of an event file, each with the place where it ends.

    Args:
        data: Bytes of the file, from the beginning of a record on.
        offset: Where in the file they begin.

    Raises:
        TornError: If it never was an event file, or is damaged.
    """
    at = 0
    while at + 12 <= len(data):
        head = data[at : at + 8]
        size, checksum = struct.unpack("<QI", data[at : at + 12])
        if checksum != _masked(head):
            first = at + offset == 0
            raise TornError("not an event file, or one that was damaged" if first else f"damage at {at + offset}")
        if at + 16 + size > len(data):
            return
        record, at = data[at + 12 : at + 12 + size], at + 16 + size
        yield record, at


def level_records(data: bytes, offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield the whole records of a W&B file (7 bytes of header, then LevelDB's log), each with the place where it ends.

    Args:
        data: Bytes of the file, from its beginning or that of a record on.
        offset: Where in the file they begin.

    Raises:
        TornError: If it is no such file, or is damaged.
    """
    if offset == 0 and data[:4] != b":W&B"[: len(data)]:
        raise TornError("not a W&B file")
    at, whole = 0 if offset else 7, b""
    while at + 7 <= len(data):
        left = BLOCK - (offset + at) % BLOCK
        if left < 7:
            at += left
            continue
        checksum, size, kind = struct.unpack("<IHB", data[at : at + 7])
        if not kind and not size:  # the rest of a block
            at += left
            continue
        part = data[at + 7 : at + 7 + size]
        if len(part) < size:
            return
        if zlib.crc32(part, zlib.crc32(bytes([kind]))) & 0xFFFFFFFF != checksum:
            raise TornError(f"damage at byte {offset + at}")
        at += 7 + size
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):
            yield whole, at


def taking(
    records: Callable[[bytes, int], Iterator[tuple[bytes, int]]],
) -> Callable[[bytes, int], tuple[list[bytes], int]]:
    """Return a function that splits the bytes of a growing file into its whole records, as `tail.Tail` takes it.

    Args:
        records: `tf_records` or `level_records`.

    Returns:
        It takes new bytes and their offset, and returns the records and how many bytes they take. Nothing behind a
        damage can be found: then they take all.
    """

    def take(data: bytes, offset: int) -> tuple[list[bytes], int]:
        found, used = [], 0
        try:
            for record, end in records(data, offset):
                found.append(record)
                used = end
        except TornError:
            used = len(data)
        return found, used

    return take


def _masked(data: bytes) -> int:
    """Return TFRecord's masked CRC-32C of a few bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_CRC32C if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
