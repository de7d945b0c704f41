from pathlib import Path

import pytest

from raylr.cli.data import data
from raylr.trainables import Corpus


def test_a_corpus_is_made_with_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(f"sentence number {i} of a text\n" * 40)
    data(tmp_path, out=tmp_path / "corpus", vocab_size=300, validation_fraction=0.2)
    out = capsys.readouterr().out
    assert "40 of 40 files tokenised (100%)" in out
    assert out.splitlines()[-1].startswith(f"{tmp_path / 'corpus'}: ")
    assert Corpus.open(tmp_path / "corpus").vocab_size == 300
