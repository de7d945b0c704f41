"""Scalars in TensorBoard's event files, read while they are written.

A file is a sequence of records: length (u64), checksum of the length (u32), data, checksum of the data (u32); the data
is a protocol buffer `Event`. References: TensorFlow's record_writer.h, event.proto, summary.proto.
"""

from __future__ import annotations

import struct

from raylr.records.text import Record
from raylr.records.wire import BYTES, FIXED32, VARINT, double, fields, parts

FILES = "**/*tfevents*"
"""Pattern of the names of event files."""
_LONGEST = 1 << 28
"""Bytes of a record; a longer one is a sign of damage."""
_STEP, _SUMMARY = 2, 5
_VALUE, _TAG, _SIMPLE, _TENSOR = 1, 1, 2, 8
_CONTENT, _FLOATS, _DOUBLES = 4, 5, 6


def whole_events(data: bytes, offset: int) -> tuple[list[bytes], int]:
    """Split bytes of an event file into its whole records."""
    found: list[bytes] = []
    at = 0
    while at + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        if length > _LONGEST:  # damaged: nothing behind it can be found
            return found, len(data)
        if at + 16 + length > len(data):
            break
        found.append(data[at + 12 : at + 12 + length])
        at += 16 + length
    return found, at


def event_record(event: bytes) -> Record | None:
    """Return an event's scalars by tag, with its step as `step`; None if it holds none or is damaged."""
    step = 0
    scalars: Record = {}
    try:
        for number, kind, value in fields(event):
            if number == _STEP and kind == VARINT and isinstance(value, int):
                step = value
            elif number == _SUMMARY and isinstance(value, bytes):
                for one in parts(value, _VALUE):
                    scalars |= _scalar(one)
    except (ValueError, struct.error):
        return None
    return {"step": step, **scalars} if scalars else None


def _scalar(message: bytes) -> Record:
    tag, number = "", None
    for field, kind, value in fields(message):
        if not isinstance(value, bytes):
            continue
        if field == _TAG and kind == BYTES:
            tag = value.decode("utf-8", "replace")
        elif field == _SIMPLE and kind == FIXED32:
            number = double(value)
        elif field == _TENSOR and kind == BYTES:
            number = _tensor(value)
    return {} if number is None else {tag: number}


def _tensor(message: bytes) -> float | None:
    """Return the number in a tensor of one float or double; None for any other."""
    for field, _, value in fields(message):
        if isinstance(value, bytes) and field in (_CONTENT, _FLOATS, _DOUBLES) and len(value) in (4, 8):
            return double(value)
    return None
