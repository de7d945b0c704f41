"""Protocol buffers without a schema: the fields of a message by number, as TensorBoard and W&B files hold them.

References:
    https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""


def fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield (number, wire type, value) of each field of a message.

    Args:
        message: The encoded message.

    Yields:
        Varints as unsigned integers; everything else as its bytes.

    Raises:
        ValueError: If the message is torn or no protocol buffer.

    Example:
        >>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69])))
        [(1, 0, 150), (2, 2, b'hi')]
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield key >> 3, kind, value
            continue
        if kind == BYTES:
            length, at = _varint(message, at)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} is none that is in use")
        if at + length > len(message):
            raise ValueError("a field is longer than its message")
        yield key >> 3, kind, message[at : at + length]
        at += length


def parts(message: bytes, number: int) -> Iterator[bytes]:
    """Yield the values of all fields of one number that are texts or messages."""
    return (value for found, _, value in fields(message) if found == number and isinstance(value, bytes))


def double(value: bytes) -> float:
    """Return a float (4 bytes) or double (8 bytes)."""
    return float(struct.unpack("<f" if len(value) == 4 else "<d", value)[0])


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a number is torn")
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
