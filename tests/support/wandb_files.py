"""W&B's offline files from records: 7 bytes of header, then LevelDB's log format."""

import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

BLOCK = 32 * 1024


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def items(values: Mapping[str, Any]) -> bytes:
    """The items of a history or a config: key 1, or nested key 2 as wandb writes history; value 16 as JSON."""
    parts = [message(1, message(1, k.encode()) + message(16, json.dumps(v).encode())) for k, v in values.items()]
    return b"".join(parts)


def run_file(run: str, config: Mapping[str, Any], history: Iterable[Mapping[str, Any]], code: int | None = 0) -> bytes:
    """An offline run; `code` is its exit code, None for one that has not ended."""
    records = [message(17, message(1, run.encode()) + message(4, items(config)))]
    records += [message(2, items(row)) for row in history]
    records += [] if code is None else [message(18, varint(1 << 3) + varint(code))]
    return framed(records)


def framed(records: Iterable[bytes]) -> bytes:
    out = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for record in records:
        begun = False
        while True:
            left = BLOCK - len(out) % BLOCK
            if left < 7:
                out += b"\0" * left
                continue
            part, record = record[: left - 7], record[left - 7 :]
            kind = {(False, False): 1, (False, True): 2, (True, True): 3, (True, False): 4}[(begun, bool(record))]
            out += struct.pack("<IHB", zlib.crc32(part, zlib.crc32(bytes([kind]))), len(part), kind) + part
            begun = True
            if not record:
                break
    return bytes(out)
