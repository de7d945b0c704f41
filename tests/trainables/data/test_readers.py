from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_ids import write_megatron

from raylr.errors import InputError
from raylr.trainables.data.problems import Problems
from raylr.trainables.data.readers import has_ids, id_documents
from raylr.trainables.data.sources import find_sources

IDS = [np.random.default_rng(i).integers(1, 400, 3 + i % 37).tolist() for i in range(80)]


def read(path: Path, problems: Problems | None = None) -> list[list[int]]:
    problems = problems or Problems()
    files = find_sources([path], Problems()).files
    return [ids.tolist() for source in files for ids, _ in id_documents(source, "input_ids", problems)]


@pytest.mark.parametrize("code", [8, 4])
def test_megatron(tmp_path: Path, code: int) -> None:
    write_megatron(tmp_path / "data.text", IDS, code)
    for name in ("data.text", "data.text.bin", "data.text.idx", "."):
        assert read(tmp_path / name) == IDS
    write_megatron(tmp_path / "pairs", IDS, code, per_document=2)
    assert read(tmp_path / "pairs") == [a + b for a, b in zip(IDS[::2], IDS[1::2], strict=True)]


def test_megatron_without_tokens_in_a_document(tmp_path: Path) -> None:
    write_megatron(tmp_path / "m", [[1, 2], [], [3]])
    problems = Problems()
    assert read(tmp_path / "m", problems) == [[1, 2], [3]]
    assert [(one.reason, one.places) for one in problems.all] == [("is empty", [2])]


def patch(file: Path, at: int, raw: bytes) -> None:
    data = bytearray(file.read_bytes())
    data[at : at + len(raw)] = raw
    file.write_bytes(bytes(data))


def test_megatron_counts_are_checked_against_the_index(tmp_path: Path) -> None:
    """Each damage would otherwise lose or change documents without a word."""
    head, n = 9 + 8 + 1 + 8 + 8, len(IDS)
    for name, damage, message in (
        ("short.bin", lambda f: f.with_suffix(".bin").write_bytes(b"12"), "its index requires"),
        ("magic", lambda f: patch(f, 0, b"X"), "is not a Megatron index"),
        ("version", lambda f: patch(f, 9, b"\2"), "version 2 with type code 8"),
        ("cut", lambda f: f.write_bytes(f.read_bytes()[:-9]), "is cut off"),
        ("header", lambda f: f.write_bytes(f.read_bytes()[:20]), "is cut off"),
        ("pointer", lambda f: patch(f, head + 4 * n + 8, b"\1"), "do not lie one behind the other"),
        ("first", lambda f: patch(f, head + 12 * n, b"\5"), "do not cover its 80 sequences"),
        ("last", lambda f: patch(f, head + 12 * n + 8 * n, b"\5"), "do not cover its 80 sequences"),
    ):
        index = write_megatron(tmp_path / name.removesuffix(".bin"), IDS)
        damage(index)
        with pytest.raises(InputError, match=message):
            read(index)


def test_tables(tmp_path: Path) -> None:
    table = pa.table({"input_ids": IDS, "n": range(len(IDS))})
    pq.write_table(table, tmp_path / "a.parquet")
    folder = tmp_path / "saved"
    folder.mkdir()
    for name, make, rows in (("f.arrow", pa.ipc.new_stream, table[:50]), ("s.arrow", pa.ipc.new_file, table[50:])):
        with pa.OSFile(str(folder / name), "wb") as sink, make(sink, table.schema) as writer:
            writer.write_table(rows)
    assert read(tmp_path / "a.parquet") == IDS
    assert read(folder) == IDS


def test_rows_without_ids_are_listed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"input_ids": [[1, 2], None, [], [3, None], [4]]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="row 4: has a null among its ids"):
        read(tmp_path / "a.parquet")
    problems = Problems("skip")
    assert read(tmp_path / "a.parquet", problems) == [[1, 2], [4]]
    assert [(one.reason, one.places) for one in problems.all] == [
        ("has a null among its ids", [4]),
        ("has no ids", [2, 3]),
    ]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "input_ids": ["b"]}), tmp_path / "t.parquet")
    (tmp_path / "torn.arrow").write_bytes(b"ARROW1\0\0 and more")
    (tmp_path / "t.txt").write_text("a")
    pq.write_table(pa.table({"ids": [[1]]}), tmp_path / "ids.parquet")
    for name, message in (
        ("t.parquet", "is string, not lists of token ids"),
        ("ids.parquet", "has no column 'input_ids'; its columns are ids"),
        ("torn.arrow", "cannot be read as Arrow"),
        ("t.txt", "token ids are read from Megatron"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)


def test_which_files_hold_ids(tmp_path: Path) -> None:
    write_megatron(tmp_path / "m", IDS)
    pq.write_table(pa.table({"input_ids": IDS}), tmp_path / "ids.parquet")
    pq.write_table(pa.table({"input_ids": IDS, "text": ["a"] * 80}), tmp_path / "both.parquet")
    pq.write_table(pa.table({"tokens": IDS}), tmp_path / "tokens.parquet")
    (tmp_path / "t.txt").write_text("a")
    found = {source.path.name: source for source in find_sources([tmp_path], Problems()).files}
    assert {name for name, source in found.items() if has_ids(source, None)} == {"m.idx", "ids.parquet"}
    assert has_ids(found["tokens.parquet"], "tokens")
    assert has_ids(found["both.parquet"], "input_ids")
