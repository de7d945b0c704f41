"""Token ids in the formats of other programs."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_megatron(prefix: Path, ids: Sequence[Sequence[int]], code: int = 8, per_document: int = 1) -> Path:
    """Write `prefix`.bin and `prefix`.idx as Megatron-LM's IndexedDatasetBuilder does, and return the index."""
    dtype = np.dtype({8: "<u2", 4: "<i4"}[code])
    prefix.with_name(prefix.name + ".bin").write_bytes(b"".join(np.array(d, dtype).tobytes() for d in ids))
    lengths = np.array([len(d) for d in ids], "<i4")
    pointers = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype("<i8") * dtype.itemsize
    bounds = np.arange(0, len(ids) + 1, per_document).astype("<i8")
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(ids), len(bounds))
    index = prefix.with_name(prefix.name + ".idx")
    index.write_bytes(head + lengths.tobytes() + pointers.tobytes() + bounds.tobytes())
    return index
