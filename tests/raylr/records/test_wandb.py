"""W&B's files, made here from the description of their format: wandb itself is not installed where the tests run."""

import json
import struct
import zlib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.records.tail import Tail
from raylr.records.wandb import BLOCK, HEAD, HEADER, history_record, whole_records


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def history(**values: object) -> bytes:
    items = (field(2, key.encode()) + field(16, json.dumps(value).encode()) for key, value in values.items())
    return field(2, b"".join(field(1, item) for item in items))


def file_of(records: list[bytes]) -> bytes:
    out = b":W&B\xee\xbe\x00"
    assert len(out) == HEADER
    for record in records:
        first = True
        while first or record:
            left = BLOCK - len(out) % BLOCK
            if left < HEAD:
                out += bytes(left)
                left = BLOCK
            part, record = record[: left - HEAD], record[left - HEAD :]
            kind = (1 if not record else 2) if first else (4 if not record else 3)
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
    return out


@settings(max_examples=20)
@given(st.lists(st.integers(0, 70_000), max_size=6), st.lists(st.integers(0, 200_000), max_size=6))
def test_records_of_any_length_are_found_while_the_file_grows(tmp_path_factory, sizes, cuts) -> None:
    records = [history(loss=i, text="x" * size) for i, size in enumerate(sizes)]
    data, path = file_of(records), tmp_path_factory.mktemp("wandb") / "run.wandb"
    tail, found = Tail(path, whole_records), []
    for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        path.write_bytes(data[:cut])
        found += tail.new()
    assert found == records


def test_history_is_flat_and_other_records_are_none() -> None:
    assert history_record(history(_step=3, loss=2.5)) == {"_step": 3, "loss": 2.5}
    nested = field(2, field(1, field(2, b"eval") + field(2, b"loss") + field(16, b"1.5")))
    assert history_record(nested) == {"eval/loss": 1.5}
    assert history_record(field(17, b"run")) is None
    assert history_record(b"\xff\xff") is None


def test_a_file_that_is_only_a_header_has_no_records(tmp_path: Path) -> None:
    path = tmp_path / "run.wandb"
    path.write_bytes(b":W&B")
    assert list(Tail(path, whole_records).new()) == []
