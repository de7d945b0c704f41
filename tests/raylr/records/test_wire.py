import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.records.wire import double, fields, parts


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        list(fields(data))


def test_values_of_all_kinds() -> None:
    message = b"\x08\x96\x01" + b"\x12\x02hi" + b"\x1d" + struct.pack("<f", 0.5) + b"\x21" + struct.pack("<d", 0.1)
    found = list(fields(message))
    assert [(number, value) for number, _, value in found[:2]] == [(1, 150), (2, b"hi")]
    assert [double(value) for _, _, value in found[2:]] == [0.5, 0.1]
    assert list(parts(message, 2)) == [b"hi"]
    with pytest.raises(ValueError, match="longer than its message"):
        list(fields(message[:5]))
