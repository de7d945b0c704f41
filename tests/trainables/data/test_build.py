import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, processors

from raylr.errors import InputError
from raylr.trainables.data.build import build_corpus
from raylr.trainables.data.corpus import MANIFEST, Corpus
from raylr.trainables.data.problems import read_skipped


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
    again = build_corpus(sources, tmp_path / "out", vocab_size=400, validation_fraction=0.1, text_key="body")
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
    train, validation = found["train"][0], found["validation"][0]
    assert whole.startswith(train)
    assert whole.endswith(validation)
    gap = len(whole) - len(train) - len(validation)
    assert gap == built[0].manifest["gap_characters"] == pytest.approx(0.01 * len(whole), rel=0.2)
    assert len(validation) == pytest.approx(0.09 * len(whole), rel=0.05)
    assert validation.startswith("\n")
    assert built[0].manifest["split"] == "ends of documents"
    assert built[0].manifest["notes"] == [
        "validation is the last 10.0% of each document (whole documents are too few or too uneven for validation); "
        f"{gap:,} characters before it are left out"
    ]
    with pytest.raises(InputError, match=r"1 different document\(s\) are too few .*--validation-within"):
        build_corpus([file], tmp_path / "no", tokenizer=corpus.tokenizer_path, validation_within=False)
    assert corpus.manifest["split"] == "documents"


def test_a_large_file_beside_a_small_one_is_cut(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("Read me.\nNow.\n" * 5)
    (tmp_path / "all.txt").write_text("\n".join(path.read_text() for path in sorted(texts.iterdir())))
    for seed in range(4):
        built = build_corpus([tmp_path], tmp_path.with_name(f"c{seed}"), vocab_size=300, seed=seed)
        share = built.validation_tokens / (built.validation_tokens + built.train_tokens)
        assert share == pytest.approx(0.045, rel=0.2)


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
    binary.write_bytes(b"\xff\xfea")
    lines.write_text('{"text": "a"}\n{"txt": "b"}\n')
    pq.write_table(pa.table({"body": ["a"], "title": ["b"]}), table)
    for source, message in (
        (tmp_path / "none", "there is no "),
        (binary, "is not UTF-8 text"),
        (lines, "line 2: has no key 'text'; its keys are txt"),
        (table, r"has no column 'text' and not exactly one .*; its columns are body \(string\), title"),
    ):
        with pytest.raises(InputError, match=message):
            build_corpus([texts, source], tmp_path / "out", vocab_size=300)
    (tmp_path / "short.txt").write_text("a")
    with pytest.raises(InputError, match=r"short\.txt: 1 different document\(s\) with 1 characters are too"):
        build_corpus([tmp_path / "short.txt"], tmp_path / "out", vocab_size=300)
    with pytest.raises(InputError, match="the text yields a vocabulary of"):
        build_corpus([texts], tmp_path / "out", vocab_size=50_000)
    with pytest.raises(InputError, match="too small"):
        build_corpus([texts], tmp_path / "out", vocab_size=200)
    with pytest.raises(InputError, match="give vocab_size"):
        build_corpus([texts], tmp_path / "out")


def test_binary_files_in_a_folder_are_left_out_and_listed(texts: Path, tmp_path: Path, corpus: Corpus) -> None:
    folder = tmp_path / "f"
    shutil.copytree(texts, folder)
    (folder / "picture.png").write_bytes(b"\x89PNG\xff\0")
    (folder / ".hidden").write_text("secret")
    (folder / "empty.txt").write_text(" \n")
    got = build_corpus([folder], tmp_path / "out", vocab_size=400, validation_fraction=0.1)
    assert got.fingerprint == corpus.fingerprint
    listed = {(skipped.path.name, skipped.reason) for skipped in read_skipped(got.path)}
    assert listed == {
        ("picture.png", "is binary: it holds NUL bytes"),
        (".hidden", "hidden"),
        ("empty.txt", "is empty"),
    }
    assert sum(got.manifest["skipped"].values()) == 3


def test_special_tokens_inside_a_text_are_text(texts: Path, tmp_path: Path) -> None:
    """A document that talks about <|endoftext|> does not end there."""
    spoken = "The token <|endoftext|> ends a document; </s> does in other vocabularies.\n" * 20
    lines = [json.dumps({"text": f"{i} {spoken}"}) for i in range(60)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    built = build_corpus([tmp_path / "a.jsonl"], tmp_path / "out", vocab_size=300, validation_fraction=0.2)
    found = documents(built)
    assert len(found["train"] + found["validation"]) == 60
    assert built.manifest["eos_in_texts"] == 0
    assert all(text.endswith(spoken) for text in found["train"])


def with_bos(corpus: Corpus, file: Path, *, eos_behind: bool = False) -> Path:
    """The corpus' tokenizer with a BOS that it puts in front of every text."""
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path))
    tokenizer.add_special_tokens(["<s>"])
    bos = tokenizer.token_to_id("<s>")
    template = ["<s>", "$A", "<|endoftext|>"] if eos_behind else ["<s>", "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", bos), ("<|endoftext|>", corpus.eos_id)]
    )
    tokenizer.save(str(file))
    return file


@pytest.mark.parametrize("eos_behind", [False, True])
def test_bos_as_the_tokenizer_has_it(texts: Path, corpus: Corpus, tmp_path: Path, eos_behind: bool) -> None:
    file = with_bos(corpus, tmp_path / "t.json", eos_behind=eos_behind)
    built = build_corpus([texts], tmp_path / "out", tokenizer=file, validation_fraction=0.1)
    bos = 400
    assert built.vocab_size == 401
    assert built.prefix == (bos,)
    ids = np.concatenate([built.train, built.validation])
    documents = sum(built.manifest["documents"].values())
    assert (ids == bos).sum() == (ids == built.eos_id).sum() == documents == 60
    assert built.train[0] == bos
    after = np.flatnonzero(built.train == built.eos_id)[:-1] + 1
    assert (built.train[after] == bos).all()
    saved = Tokenizer.from_file(str(built.tokenizer_path))
    assert saved.encode("a b").ids == [bos, *saved.encode("a b", add_special_tokens=False).ids]


def test_the_splits_of_the_source_are_kept_and_do_not_leak(texts: Path, tmp_path: Path) -> None:
    all_texts = [path.read_text() for path in sorted(texts.iterdir())]
    leaked = all_texts[50].replace("\n", "\r\n") + "\n"  # the same text in another spelling of white space
    splits = {"train": [*all_texts[:40], leaked, all_texts[45]], "validation": all_texts[40:52], "test": all_texts[52:]}
    for name, rows in splits.items():
        pq.write_table(pa.table({"text": rows}), tmp_path / f"{name}-00000-of-00001.parquet")
    built = build_corpus([tmp_path], tmp_path.with_name("out-splits"), vocab_size=300)
    found = documents(built)
    assert sorted(found["train"]) == sorted(all_texts[:40])
    assert sorted(found["validation"]) == sorted(all_texts[40:52])
    assert built.manifest["split"] == "the source's own"
    listed = {(one.path.name[:5], one.unit): (one.count, one.places) for one in read_skipped(built.path)}
    assert listed == {("train", "document"): (2, [41, 42]), ("test-", "file"): (1, [])}


def test_a_bad_line_stops_or_is_listed(texts: Path, tmp_path: Path) -> None:
    good = [json.dumps({"text": path.read_text()}) for path in sorted(texts.iterdir())]
    lines = [
        *good[:10],
        '{"text": "a',
        '{"text": 3}',
        '{"text": "\\ud800"}',
        '{"text": null}',
        '{"text": ""}',
        *good[10:],
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"a\.jsonl, line 11: is not JSON .*--on-error skip"):
        build_corpus([file], tmp_path / "out", vocab_size=300)
    built = build_corpus([file], tmp_path / "out", vocab_size=300, validation_fraction=0.2, on_error="skip")
    assert sum(built.manifest["documents"].values()) == 60
    assert sorted(one.places[0] for one in read_skipped(built.path)) == [11, 12, 13, 14, 15]


def test_copies_do_not_cross_a_cut_document(texts: Path, corpus: Corpus, tmp_path: Path) -> None:
    text = "\n".join(path.read_text() for path in sorted(texts.iterdir()))
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt").write_text(text.replace("\n", "\n\n"))
    built = build_corpus([tmp_path], tmp_path.with_name("out-copy"), tokenizer=corpus.tokenizer_path)
    assert built.manifest["documents"] == {"validation": 1, "train": 1}
    assert {(one.path.name, one.unit) for one in read_skipped(built.path)} == {
        ("a.txt", "character"),
        ("b.txt", "document"),
    }


def test_chinese_and_mixed_text(tmp_path: Path) -> None:
    rows = [f"第{i}篇:学习率的选择 decides the loss,损失取决于它。{'规模定律' * (i % 7)}🙂\n" * 5 for i in range(80)]
    (tmp_path / "gb.jsonl").write_bytes(
        "\n".join(json.dumps({"内容": r}, ensure_ascii=False) for r in rows).encode("gb18030")
    )
    built = build_corpus([tmp_path / "gb.jsonl"], tmp_path / "out", vocab_size=320, encoding="gb18030", text_key="内容",
                         validation_fraction=0.2)  # fmt: skip
    found = documents(built)
    assert sorted(found["train"] + found["validation"]) == sorted(rows)
    with pytest.raises(InputError, match="not UTF-8"):
        build_corpus([tmp_path / "gb.jsonl"], tmp_path / "no", vocab_size=320)
