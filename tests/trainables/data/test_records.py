import bz2
import gzip
import io
import json
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.errors import InputError
from raylr.trainables.data.problems import OnError, Problems
from raylr.trainables.data.records import documents
from raylr.trainables.data.sources import find_sources

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda raw: pa.compress(raw, codec="zstd", asbytes=True),
}


def read(path: Path, key: str | None = None, encoding: str = "utf-8", on_error: OnError = "stop") -> list[str]:
    problems = Problems(on_error)
    return [text for s in find_sources([path], problems).files for text, _ in documents(s, key, encoding, problems)]


@pytest.mark.parametrize("ending", COMPRESS)
def test_compressed_files(tmp_path: Path, ending: str) -> None:
    rows = ["一 one", "two\nlines", "three"]
    lines = "".join(json.dumps({"text": row}, ensure_ascii=False) + "\n\n" for row in rows).encode()
    (tmp_path / f"a.jsonl{ending}").write_bytes(COMPRESS[ending](lines))
    (tmp_path / f"b.txt{ending}").write_bytes(COMPRESS[ending]("文 a text".encode()))
    (tmp_path / f"c.json{ending}").write_bytes(COMPRESS[ending](json.dumps([{"text": row} for row in rows]).encode()))
    assert read(tmp_path / f"a.jsonl{ending}") == rows
    assert read(tmp_path / f"b.txt{ending}") == ["文 a text"]
    assert read(tmp_path / f"c.json{ending}") == rows
    if ending:
        whole = (tmp_path / f"a.jsonl{ending}").read_bytes()
        (tmp_path / f"torn.jsonl{ending}").write_bytes(whole[:-6])
        with pytest.raises(InputError, match=r"torn\.jsonl.*cannot be read after line"):
            read(tmp_path / f"torn.jsonl{ending}")
        (tmp_path / f"two.jsonl{ending}").write_bytes(whole + whole)  # concatenated, as tools for them write
        assert read(tmp_path / f"two.jsonl{ending}") == rows + rows


def test_nested_keys(tmp_path: Path) -> None:
    rows = [{"meta": {"id": 1}, "doc": {"body": {"text": f"text {i}"}}} for i in range(3)]
    expected = [f"text {i}" for i in range(3)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "b.json").write_text(json.dumps(rows, indent=2))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    for name in ("a.jsonl", "b.json", "c.parquet"):
        assert read(tmp_path / name, "doc.body.text") == expected
        with pytest.raises(InputError, match=r"'doc\.body\.txt'"):
            read(tmp_path / name, "doc.body.txt")
    (tmp_path / "d.jsonl").write_text('{"a.b": "with a point", "a": {"b": "nested"}}')
    assert read(tmp_path / "d.jsonl", "a.b") == ["with a point"]


def test_the_only_text_is_taken_and_stated(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "x", "n": 1}\n{"content": "y", "n": 2}')
    problems = Problems()
    source = find_sources([tmp_path / "a.jsonl"], problems).files[0]
    assert [text for text, _ in documents(source, None, "utf-8", problems)] == ["x", "y"]
    assert problems.notes() == [
        "the text is that of key 'content', the only one with text, in 1 file(s) such as a.jsonl"
    ]
    (tmp_path / "b.jsonl").write_text('{"content": "x", "title": "t"}')
    with pytest.raises(
        InputError, match=r"line 1: has no key 'text'; its keys are content, title \(name one: --text-key\)"
    ):
        read(tmp_path / "b.jsonl")


def test_json_that_is_no_array(tmp_path: Path) -> None:
    (tmp_path / "lines.json").write_text('{"text": "a"}\n\n{"text": "b"}\n')
    (tmp_path / "one.json").write_text('{\n "text": "a document"\n}')
    (tmp_path / "texts.json").write_text('["a", "b"]')
    assert read(tmp_path / "lines.json") == ["a", "b"]
    assert read(tmp_path / "one.json") == ["a document"]
    assert read(tmp_path / "texts.json") == ["a", "b"]
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "config.json").write_text('{"layers": 2}')
    (folder / "a.txt").write_text("a")
    assert read(folder) == ["a"]
    with pytest.raises(InputError, match="has no key 'text'; its keys are layers"):
        read(folder / "config.json")


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_arrays_are_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("raylr.trainables.data.records.CHUNK", chunk)
    rows = ["[", "]", ',"', "\\u4e2d", "中" * 50, "a" * 300]
    (tmp_path / "a.json").write_text(json.dumps([{"text": row} for row in rows], indent=1))
    assert read(tmp_path / "a.json") == rows
    for text, message in (
        ('[{"text": "a"}, {"text"', "the JSON array is broken at record 2"),
        ('[{"text": "a"}] x', "text follows the end of the JSON array after record 1"),
        ('[{"text": "a"}, 12]', "record 2: is a int, not a JSON object"),
    ):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(InputError, match=message):
            read(tmp_path / "b.json")


def test_every_arrow_type_of_text(tmp_path: Path) -> None:
    texts = ["学", "b", "学"]
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())):
        raw = [text.encode() for text in texts] if kind == pa.binary() else texts
        table = pa.table({"body": pa.array(raw, kind), "n": [1, 2, 3]})
        for name, make in (("s.arrow", pa.ipc.new_stream), ("f.arrow", pa.ipc.new_file)):
            with pa.OSFile(str(tmp_path / name), "wb") as sink, make(sink, table.schema) as writer:
                writer.write_table(table)
            assert read(tmp_path / name, "body") == texts
        pq.write_table(table, tmp_path / "t.parquet")
        assert read(tmp_path / "t.parquet") == texts
    with pytest.raises(InputError, match="column 'n' is int64, not text"):
        read(tmp_path / "t.parquet", "n")


def test_encodings(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("学习率".encode("gb18030"))
    (tmp_path / "b.txt").write_bytes("学习率".encode("utf-16"))
    (tmp_path / "c.txt").write_bytes("学习率".encode("utf-8-sig"))
    assert read(tmp_path / "a.txt", encoding="gb18030") == ["学习率"]
    assert read(tmp_path / "b.txt", encoding="utf-16") == ["学习率"]
    assert read(tmp_path / "c.txt") == ["学习率"]
    for name, encoding, message in (
        ("a.txt", "utf-8", "is not UTF-8 text .*another --encoding"),
        ("b.txt", "utf-8", "is text in UTF-16: give --encoding utf-16"),
        ("c.txt", "utf-9", "encoding 'utf-9' is not one of Python's codecs"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path / name, encoding=encoding)


ROWS = st.lists(st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=12)), max_size=8)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=9)
FORMATS = ("jsonl", "json", "parquet", "arrow")


def encoded(rows: list[str | None], format_: str) -> bytes:
    """A file of rows."""
    records = [{"id": str(i), "text": row} for i, row in enumerate(rows)]
    if format_ == "jsonl":
        return "".join(json.dumps(record) + "\n" for record in records).encode()
    if format_ == "json":
        return json.dumps(records, ensure_ascii=False).encode()
    table = pa.table({"id": [r["id"] for r in records], "text": pa.array(rows, pa.string())})
    sink = io.BytesIO()
    if format_ == "parquet":
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


@settings(max_examples=60)
@given(st.lists(st.tuples(ROWS, st.sampled_from(FORMATS), st.sampled_from(sorted(COMPRESS))), min_size=1, max_size=4))
def test_every_record_of_a_folder_is_a_document_or_is_listed(files: list[tuple[list[str | None], str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        expected: list[str] = []
        total = 0
        for number, (rows, format_, ending) in enumerate(files):
            ending = "" if format_ in ("parquet", "arrow") else ending
            raw = encoded(rows, format_)
            (Path(name) / f"f{number}.{format_}{ending}").write_bytes(COMPRESS[ending](raw))
            expected += [row for row in rows if row is not None and row.strip()]
            total += len(rows)
        problems = Problems()
        sources = find_sources([name], problems)
        found = [text for source in sources.files for text, _ in documents(source, "text", "utf-8", problems)]
        assert sorted(found) == sorted(expected)
        counted = sum(one.count for one in problems.all if one.unit != "file")
        assert len(found) + counted == total
        assert all(one.path.name.endswith(("jsonl", *COMPRESS)) for one in problems.all if one.unit == "file")


@settings(max_examples=150)
@given(
    st.lists(WORDS, min_size=1, max_size=6),
    st.sampled_from([*FORMATS, "txt"]),
    st.sampled_from(sorted(COMPRESS)),
    st.integers(0, 2**31),
    st.binary(max_size=3),
    st.integers(0, 4),
)  # fmt: skip
def test_mutated_files_are_read_or_refused(
    rows: list[str], format_: str, ending: str, at: int, insert: bytes, delete: int
) -> None:
    """No input makes it crash, and with "skip" nothing is lost without being listed."""
    ending = "" if format_ in ("parquet", "arrow") else ending
    raw = bytearray(COMPRESS[ending]("\n".join(rows).encode() if format_ == "txt" else encoded(list(rows), format_)))
    place = at % (len(raw) + 1)
    raw[place : place + delete] = insert
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / f"a.{format_}{ending}"
        file.write_bytes(bytes(raw))
        try:
            read(file, "text")
        except InputError as error:
            assert str(file) in str(error)  # noqa: PT017
        problems = Problems("skip")
        source = find_sources([file], problems).files[0]
        found = [text for text, _ in documents(source, "text", "utf-8", problems)]
        assert len(found) == len(rows) or problems.all or format_ in ("jsonl", "json", "txt")
        for text in found:
            text.encode()
