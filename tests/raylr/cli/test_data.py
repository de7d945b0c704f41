from pathlib import Path

import pytest
from made_ids import write_megatron

from raylr.cli.data import data
from raylr.trainables import Corpus


def test_a_corpus_is_made_with_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(f"sentence number {i} of a text\n" * 40)
    (tmp_path / "b.jsonl").write_text('{"txt": "a document"}\n{"txt": ""}\n{"txt": 3}\n')
    (tmp_path / "picture").write_bytes(b"\0\1")
    arguments = {"out": tmp_path / "corpus", "vocab_size": 300, "validation_fraction": 0.2}
    data(tmp_path, on_error="skip", **arguments)
    out = capsys.readouterr().out
    assert "46k of 46k bytes tokenised (100%)" in out
    assert [line for line in out.splitlines() if not line.startswith(" 0:0")] == [
        f"Left out, all of it listed in {tmp_path / 'corpus' / 'skipped.jsonl'}:",
        "  1 line: is empty (b.jsonl:2)",
        "  1 line: key 'txt' is int, not text (b.jsonl:3)",
        "  1 file: is binary: it holds NUL bytes (picture)",
        "Note: the text is that of key 'txt', the only one with text, in 1 file(s) such as b.jsonl.",
        f"{tmp_path / 'corpus'}: 32 and 9 documents, 9k training and 2.89k validation tokens, vocabulary 300",
    ]
    assert Corpus.open(tmp_path / "corpus").vocab_size == 300
    data(tmp_path, on_error="skip", **arguments)  # the corpus inside of the folder is no text
    assert "32 and 9 documents" in capsys.readouterr().out


def test_token_ids_from_the_command_line(tmp_path: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    write_megatron(tmp_path / "ids_text_document", [[1 + i, 2, 3] for i in range(60)])
    data(tmp_path, out=tmp_path.with_name("ids"), tokenizer=corpus.tokenizer_path, validation_fraction=0.2)
    out = capsys.readouterr().out
    assert "360 of 360 bytes copied (100%)" in out
    assert out.splitlines()[-1].endswith("49 and 11 documents, 196 training and 44 validation tokens, vocabulary 400")
    made = Corpus.open(tmp_path.with_name("ids"))
    assert made.train_tokens + made.validation_tokens == 60 * 4
