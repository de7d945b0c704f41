"""History in W&B's offline files (`run-*.wandb`), read while they are written.

A file is a header of 7 bytes and blocks of 32 KiB that hold records in LevelDB's log format: checksum (u32), length
(u16), type (u8: 1 whole, 2 first, 3 middle, 4 last part), data. A record is a protocol buffer `Record` of wandb.
"""

from __future__ import annotations

import json
import struct

from raylr.records.text import Record, flat
from raylr.records.wire import parts

FILES = "**/*.wandb"
"""Pattern of the names of W&B's files."""
HEADER, BLOCK, HEAD = 7, 32_768, 7
_WHOLE, _FIRST, _LAST = 1, 2, 4
_HISTORY, _ITEM, _KEY, _NESTED_KEY, _VALUE = 2, 1, 1, 2, 16


def whole_records(data: bytes, offset: int) -> tuple[list[bytes], int]:
    """Split bytes of a W&B file, which start at `offset` of it, into its whole records."""
    at = used = HEADER if offset == 0 else 0
    if len(data) < at:
        return [], 0
    found: list[bytes] = []
    pending = b""
    while True:
        left = BLOCK - (offset + at) % BLOCK
        if left < HEAD:  # the end of a block is padded
            at += left
            continue
        if at + HEAD > len(data):
            return found, used
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if at + HEAD + length > len(data):
            return found, used
        part = data[at + HEAD : at + HEAD + length]
        at += HEAD + length
        pending = part if kind in (_WHOLE, _FIRST) else pending + part
        if kind in (_WHOLE, _LAST):
            found.append(pending)
            used = at


def history_record(record: bytes) -> Record | None:
    """Return what one call of `wandb.log` logged, with the step as `_step`; None for a record of another kind."""
    try:
        items = {}
        for history in parts(record, _HISTORY):
            for item in parts(history, _ITEM):
                key = [part.decode() for part in parts(item, _NESTED_KEY)] or [b"".join(parts(item, _KEY)).decode()]
                items["/".join(key)] = json.loads(b"".join(parts(item, _VALUE)))
        return flat(items) if items else None
    except ValueError:
        return None
