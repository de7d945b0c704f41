import gzip
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from raylr.errors import InputError
from raylr.trainables.data.build import build_corpus
from raylr.trainables.data.corpus import MANIFEST, Corpus


def documents(corpus: Corpus) -> dict[str, list[str]]:
    """The texts of both sides, decoded."""
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path))
    out = {}
    for side, ids in (("train", corpus.train), ("validation", corpus.validation)):
        texts, rest = [], ids.tolist()
        while rest:
            end = rest.index(corpus.eos_id)
            texts.append(tokenizer.decode(rest[:end]))
            rest = rest[end + 1 :]
        out[side] = texts
    return out


def test_every_document_is_there_once_on_one_side(texts: Path, corpus: Corpus) -> None:
    found = documents(corpus)
    assert sorted(found["train"] + found["validation"]) == sorted(p.read_text() for p in texts.iterdir())
    assert corpus.manifest["documents"] == {side: len(found[side]) for side in ("train", "validation")}
    assert corpus.manifest["bytes"]["train"] == sum(len(t.encode()) for t in found["train"])
    assert min(len(found["train"]), len(found["validation"])) > 0
    assert corpus.vocab_size == 400


def test_formats_order_and_names_do_not_matter(texts: Path, corpus: Corpus, tmp_path: Path) -> None:
    all_texts = [p.read_text() for p in sorted(texts.iterdir(), reverse=True)]
    lines = "".join(json.dumps({"body": t}) + "\n" for t in all_texts[:20])
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as stream:
        stream.write(lines)
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"body": t}) + "\n\n" for t in all_texts[20:40]))
    pq.write_table(pa.table({"id": range(20), "body": all_texts[40:]}), tmp_path / "c.parquet")
    sources = [tmp_path / name for name in ("c.parquet", "a.jsonl.gz", "b.jsonl")]
    again = build_corpus(sources, tmp_path / "out", vocab_size=400, validation_fraction=0.1, text_field="body")
    assert again.fingerprint == corpus.fingerprint
    assert again.manifest["sha256"] == corpus.manifest["sha256"]


def test_identical_documents_are_never_on_both_sides(texts: Path, tmp_path: Path) -> None:
    for i, path in enumerate(sorted(texts.iterdir())):
        for copy in range(1 + i % 3):
            shutil.copy(path, tmp_path / f"{i}-{copy}.py")
    found = documents(build_corpus([tmp_path], tmp_path / ".out", vocab_size=300, validation_fraction=0.3))
    assert len(found["train"]) + len(found["validation"]) == 120
    assert not set(found["train"]) & set(found["validation"])


def test_one_large_file_keeps_its_end_for_validation(
    texts: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = "\n".join(path.read_text() for path in sorted(texts.iterdir()))
    file = tmp_path / "all.txt"
    file.write_text(whole)
    built = []
    for piece in (10**9, 1000):  # the tokenizer may get the text in pieces, and it changes nothing
        monkeypatch.setattr("raylr.trainables.data.build.PIECE", piece)
        out = tmp_path / str(piece)
        built.append(build_corpus([file], out, tokenizer=corpus.tokenizer_path, validation_fraction=0.1))
    assert built[0].fingerprint == built[1].fingerprint
    found = documents(built[0])
    assert found["train"][0] + found["validation"][0] == whole
    assert len(found["validation"][0]) == pytest.approx(0.1 * len(whole), rel=0.02)
    assert found["validation"][0].startswith("\n")
    assert built[0].manifest["split"] == "ends of documents"
    assert corpus.manifest["split"] == "documents"


def test_a_large_file_beside_a_small_one_is_cut(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("Read me.\nNow.\n" * 5)
    (tmp_path / "all.txt").write_text("\n".join(path.read_text() for path in sorted(texts.iterdir())))
    for seed in range(4):
        built = build_corpus([tmp_path], tmp_path.with_name(f"c{seed}"), vocab_size=300, seed=seed)
        share = built.validation_tokens / (built.validation_tokens + built.train_tokens)
        assert share == pytest.approx(0.05, rel=0.2)


def test_a_given_tokenizer_is_used(texts: Path, corpus: Corpus, tmp_path: Path) -> None:
    again = build_corpus([texts], tmp_path / "x", tokenizer=corpus.tokenizer_path, validation_fraction=0.1)
    assert again.train.tolist() == corpus.train.tolist()
    with pytest.raises(InputError, match="vocab_size=300 is below the 400 tokens"):
        build_corpus([texts], tmp_path / "y", tokenizer=corpus.tokenizer_path, vocab_size=300)
    with pytest.raises(InputError, match="no end-of-document token"):
        build_corpus([texts], tmp_path / "y", tokenizer=corpus.tokenizer_path, eos_token="<end>")


def test_an_existing_corpus_is_kept_and_others_are_not_overwritten(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "c"
    first = build_corpus([texts], out, vocab_size=300)
    stamp = (out / MANIFEST).stat().st_mtime_ns
    assert build_corpus([texts], out, vocab_size=300) == first
    assert (out / MANIFEST).stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="built from other text or settings"):
        build_corpus([texts], out, vocab_size=310)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="is not a tokenised corpus"):
        build_corpus([texts], tmp_path / "mine", vocab_size=300)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "mine"]


def test_a_failed_build_leaves_nothing(texts: Path, tmp_path: Path) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        if phase == "tokenise" and done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_corpus([texts], tmp_path / "c", vocab_size=300, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_bad_sources(texts: Path, tmp_path: Path) -> None:
    binary, lines, table = tmp_path / "b.txt", tmp_path / "l.jsonl", tmp_path / "t.parquet"
    binary.write_bytes(b"\xff\xfe\x00")
    lines.write_text('{"text": "a"}\n{"txt": "b"}\n')
    pq.write_table(pa.table({"body": ["a"]}), table)
    for source, message in (
        (tmp_path / "none", "no such file or folder"),
        (binary, "is not UTF-8 text"),
        (lines, "line 2: not a JSON object with a field 'text'"),
        (table, "has no column 'text'; its columns are body"),
    ):
        with pytest.raises(InputError, match=message):
            build_corpus([texts, source], tmp_path / "out", vocab_size=300)
    (tmp_path / "short.txt").write_text("a")
    with pytest.raises(InputError, match=r"1 different document\(s\) with 1 characters are too little text"):
        build_corpus([tmp_path / "short.txt"], tmp_path / "out", vocab_size=300)
    with pytest.raises(InputError, match="the text yields a vocabulary of"):
        build_corpus([texts], tmp_path / "out", vocab_size=50_000)
    with pytest.raises(InputError, match="too small"):
        build_corpus([texts], tmp_path / "out", vocab_size=200)
    with pytest.raises(InputError, match="give vocab_size"):
        build_corpus([texts], tmp_path / "out")


def test_binary_files_in_a_folder_are_passed_over(texts: Path, tmp_path: Path, corpus: Corpus) -> None:
    folder = tmp_path / "f"
    shutil.copytree(texts, folder)
    (folder / "picture.png").write_bytes(b"\x89PNG\xff")
    (folder / ".hidden").write_text("secret")
    got = build_corpus([folder], tmp_path / "out", vocab_size=400, validation_fraction=0.1)
    assert got.fingerprint == corpus.fingerprint
