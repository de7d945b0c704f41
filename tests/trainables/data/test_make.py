from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_ids import write_megatron

from raylr.errors import InputError
from raylr.trainables.data.corpus import Corpus
from raylr.trainables.data.make import make_corpus

IDS = [[1 + i % 300, 2, 3 + i] for i in range(90)]


def test_text_or_ids(texts: Path, corpus: Corpus, tmp_path: Path) -> None:
    text = make_corpus([texts], tmp_path / "text", tokenizer=corpus.tokenizer_path, validation_fraction=0.1)
    assert text.fingerprint == corpus.fingerprint
    write_megatron(tmp_path / "m", IDS)
    ids = make_corpus([tmp_path / "m"], tmp_path / "ids", tokenizer=corpus.tokenizer_path, validation_fraction=0.3)
    assert ids.train_tokens + ids.validation_tokens == 4 * len(IDS)
    with pytest.raises(InputError, match="holds token ids: give the tokenizer that made them"):
        make_corpus([tmp_path / "m"], tmp_path / "x", vocab_size=400)
    with pytest.raises(InputError, match=r"m\.idx holds token ids and .*00\.py does not"):
        make_corpus([tmp_path / "m", texts], tmp_path / "x", tokenizer=corpus.tokenizer_path)


def test_a_table_with_both(corpus: Corpus, texts: Path, tmp_path: Path) -> None:
    """The text is meant, unless the user names the column of ids."""
    all_texts = [path.read_text() for path in sorted(texts.iterdir())]
    pq.write_table(pa.table({"text": all_texts, "input_ids": IDS[:60]}), tmp_path / "both.parquet")
    arguments = {"tokenizer": corpus.tokenizer_path, "validation_fraction": 0.1}
    assert make_corpus([tmp_path], tmp_path.with_name("both-1"), **arguments).fingerprint == corpus.fingerprint
    ids = make_corpus([tmp_path], tmp_path.with_name("both-2"), ids_column="input_ids", **arguments)
    assert ids.train_tokens + ids.validation_tokens == 4 * 60
    with pytest.raises(InputError, match="no file has a column 'tokens'"):
        make_corpus([tmp_path], tmp_path.with_name("both-3"), ids_column="tokens", **arguments)
