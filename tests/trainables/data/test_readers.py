import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylr.errors import InputError
from raylr.trainables.data.corpus import Corpus
from raylr.trainables.data.readers import documents, import_corpus


@pytest.fixture(scope="module")
def ids() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, 400, rng.integers(3, 40)).tolist() for _ in range(80)]


def write_megatron(prefix: Path, ids: list[list[int]], code: int = 8, per_document: int = 1) -> None:
    """As Megatron-LM's IndexedDatasetBuilder writes it."""
    dtype = np.dtype({8: "<u2", 4: "<i4"}[code])
    prefix.with_name(prefix.name + ".bin").write_bytes(b"".join(np.array(d, dtype).tobytes() for d in ids))
    lengths = np.array([len(d) for d in ids], "<i4")
    pointers = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype("<i8") * dtype.itemsize
    bounds = np.arange(0, len(ids) + 1, per_document).astype("<i8")
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(ids), len(bounds))
    prefix.with_name(prefix.name + ".idx").write_bytes(head + lengths.tobytes() + pointers.tobytes() + bounds.tobytes())


def read(path: Path) -> list[list[int]]:
    return [d.tolist() for d in documents(path, "input_ids")]


@pytest.mark.parametrize("code", [8, 4])
def test_megatron(tmp_path: Path, ids: list[list[int]], code: int) -> None:
    write_megatron(tmp_path / "data.text", ids, code)
    for name in ("data.text", "data.text.bin", "data.text.idx"):
        assert read(tmp_path / name) == ids
    write_megatron(tmp_path / "pairs", ids, code, per_document=2)
    assert read(tmp_path / "pairs") == [a + b for a, b in zip(ids[::2], ids[1::2], strict=True)]


def test_tables(tmp_path: Path, ids: list[list[int]]) -> None:
    table = pa.table({"input_ids": ids, "n": range(len(ids))})
    pq.write_table(table, tmp_path / "a.parquet")
    folder = tmp_path / "saved"
    folder.mkdir()
    for name, make, rows in (("s.arrow", pa.ipc.new_stream, table[:50]), ("f.arrow", pa.ipc.new_file, table[50:])):
        with pa.OSFile(str(folder / name), "wb") as sink, make(sink, table.schema) as writer:
            writer.write_table(rows)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "s.arrow"}, {"filename": "f.arrow"}]}))
    assert read(tmp_path / "a.parquet") == ids
    assert read(folder) == ids


def test_a_corpus_of_them_all_is_one_corpus(tmp_path: Path, ids: list[list[int]], corpus: Corpus) -> None:
    write_megatron(tmp_path / "m", ids)
    pq.write_table(pa.table({"input_ids": [[*d, 0] for d in ids]}), tmp_path / "p.parquet")
    made = [
        import_corpus(
            tmp_path / name, tmp_path / out, tokenizer=corpus.tokenizer_path, eos_id=0, validation_fraction=0.2
        )
        for name, out in (("m.bin", "one"), ("p.parquet", "two"))
    ]
    assert made[0].fingerprint == made[1].fingerprint
    assert made[0].train_tokens + made[0].validation_tokens == sum(len(d) + 1 for d in ids)
    together = np.concatenate([made[0].train, made[0].validation]).tolist()
    assert sorted(together) == sorted([one for d in ids for one in (*d, 0)])


def test_what_cannot_be_read(tmp_path: Path, ids: list[list[int]], corpus: Corpus) -> None:
    write_megatron(tmp_path / "m", ids)
    (tmp_path / "m.bin").write_bytes(b"12")
    (tmp_path / "x.idx").write_bytes(b"nothing")
    (tmp_path / "x.bin").write_bytes(b"nothing")
    pq.write_table(pa.table({"text": ["a"], "input_ids": ["b"]}), tmp_path / "t.parquet")
    pq.write_table(pa.table({"input_ids": [[1, 400]]}), tmp_path / "big.parquet")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("m", "its index requires"),
        ("x", "is not a Megatron index"),
        ("t.parquet", "is string, not lists of token ids"),
        ("big.parquet", "document 0 has the id 400, the tokenizer has 400 tokens"),
        ("empty", "has no .arrow or .parquet files"),
        ("none", "no such file or folder"),
    ):
        with pytest.raises(InputError, match=message):
            import_corpus(tmp_path / name, tmp_path / "out", tokenizer=corpus.tokenizer_path, eos_id=0)
    with pytest.raises(InputError, match="has no column 'ids'; its columns are text, input_ids"):
        list(documents(tmp_path / "t.parquet", "ids"))
    assert not (tmp_path / "out").exists()
