import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wandb_files import framed, message, varint

from raylr.records import wire


@given(st.lists(st.binary(max_size=70_000).map(lambda b: b or b"x"), max_size=4))
def test_records_come_back(records: list[bytes]) -> None:
    data = framed(records)
    found = list(wire.level_records(data))
    assert [record for record, _ in found] == records
    for i, (_, end) in enumerate(found):  # from the end of each record on, the rest is found
        assert [record for record, _ in wire.level_records(data[end:], end)] == records[i + 1 :]
    assert wire.taking(wire.level_records)(data, 0) == (records, found[-1][1] if found else 0)


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_torn(data: bytes) -> None:
    with contextlib.suppress(wire.TornError):
        assert all(number > 0 for number, _ in wire.fields(data))


@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_torn(data: bytes) -> None:
    for read in (wire.tf_records, wire.level_records):
        with contextlib.suppress(wire.TornError):
            assert all(isinstance(record, bytes) for record, _ in read(data, 0))


def test_fields_of_a_message() -> None:
    data = message(1, b"tag") + varint(2 << 3) + varint(300) + bytes([3 << 3 | 5]) + b"\0\0\x80?"
    found = list(wire.fields(data))
    assert found[:2] == [(1, b"tag"), (2, 300)]
    assert wire.real(found[2][1]) == 1.0
    with pytest.raises(wire.TornError):
        wire.real(300)


def test_parts_are_the_fields_of_one_number() -> None:
    data = message(1, b"one") + message(2, b"two") + message(1, b"three")
    assert list(wire.parts(data, 1)) == [b"one", b"three"]
    with pytest.raises(wire.TornError, match="beyond its message"):
        list(wire.parts(data[:-1], 1))
