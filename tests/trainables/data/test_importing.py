from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_ids import write_megatron
from pyarrow import table
from tokenizers import Tokenizer, processors

from raylr.errors import InputError
from raylr.trainables.data.corpus import Corpus
from raylr.trainables.data.importing import import_corpus
from raylr.trainables.data.problems import read_skipped

IDS = [np.random.default_rng(i).integers(1, 400, 3 + i % 37).tolist() for i in range(80)]


def test_a_corpus_of_them_all_is_one_corpus(tmp_path: Path, corpus: Corpus) -> None:
    write_megatron(tmp_path / "m", IDS)
    pq.write_table(table({"input_ids": [[*d, 0] for d in IDS]}), tmp_path / "p.parquet")
    made = [
        import_corpus(
            tmp_path / name, tmp_path / out, tokenizer=corpus.tokenizer_path, eos_id=0, validation_fraction=0.2
        )
        for name, out in (("m.bin", "one"), ("p.parquet", "two"))
    ]
    assert made[0].fingerprint == made[1].fingerprint
    assert made[0].train_tokens + made[0].validation_tokens == sum(len(d) + 1 for d in IDS)
    together = np.concatenate([made[0].train, made[0].validation]).tolist()
    assert sorted(together) == sorted([one for d in IDS for one in (*d, 0)])
    again = import_corpus(
        tmp_path / "p.parquet", tmp_path / "one", tokenizer=corpus.tokenizer_path, validation_fraction=0.2
    )
    assert again == made[0]  # the same ids: the corpus that is there is kept
    with pytest.raises(InputError, match="built from other ids or settings"):
        import_corpus(tmp_path / "p.parquet", tmp_path / "one", tokenizer=corpus.tokenizer_path, seed=1)


def test_one_document_is_cut(tmp_path: Path, corpus: Corpus) -> None:
    ids = np.random.default_rng(0).integers(1, 400, 20_000).tolist()
    write_megatron(tmp_path / "m", [ids])
    with pytest.raises(InputError, match=r"too few or too uneven.*--validation-within"):
        import_corpus(tmp_path / "m", tmp_path / "no", tokenizer=corpus.tokenizer_path, validation_within=False)
    built = import_corpus(tmp_path / "m", tmp_path / "out", tokenizer=corpus.tokenizer_path, validation_fraction=0.1)
    gap = built.manifest["gap_tokens"]
    assert gap == pytest.approx(200, abs=2)
    assert built.train.tolist() == ids[:18_000]
    assert built.validation.tolist() == [*ids[18_000 + gap :], 0]
    assert [(one.unit, one.count) for one in read_skipped(built.path)] == [("token", gap)]
    assert "are left out" in built.manifest["notes"][0]


def test_splits_of_the_source_do_not_leak(tmp_path: Path, corpus: Corpus) -> None:
    for name, rows in {"train": IDS[:60], "valid": IDS[50:70], "test": IDS[70:]}.items():
        pq.write_table(table({"input_ids": rows}), tmp_path / f"{name}.parquet")
    built = import_corpus(tmp_path, tmp_path.with_name("out-ids"), tokenizer=corpus.tokenizer_path)
    assert built.train.tolist() == [one for d in IDS[:50] for one in (*d, 0)]
    assert built.validation.tolist() == [one for d in IDS[50:70] for one in (*d, 0)]
    assert [(one.path.name, one.count) for one in read_skipped(built.path)] == [
        ("test.parquet", 1),
        ("train.parquet", 10),
    ]


@pytest.mark.parametrize("in_ids", [False, True])
def test_the_tokenizer_adds_what_the_ids_have(tmp_path: Path, corpus: Corpus, in_ids: bool) -> None:
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path))
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single=["<s>", "$A"], special_tokens=[("<s>", 400)])
    tokenizer.save(str(tmp_path / "t.json"))
    write_megatron(tmp_path / "m", [[400, *d] for d in IDS] if in_ids else IDS)
    built = import_corpus(tmp_path / "m", tmp_path / "out", tokenizer=tmp_path / "t.json", validation_fraction=0.2)
    prefix = [400] if in_ids else []
    assert list(built.prefix) == prefix
    saved = Tokenizer.from_file(str(built.tokenizer_path))
    assert saved.encode("a b").ids == [*prefix, *saved.encode("a b", add_special_tokens=False).ids]
    assert bool(built.manifest["notes"]) is not in_ids


def test_what_cannot_be_imported(tmp_path: Path, corpus: Corpus) -> None:
    pq.write_table(table({"input_ids": [[1, 400]]}), tmp_path / "big.parquet")
    pq.write_table(table({"input_ids": [[1, -2]]}), tmp_path / "below.parquet")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("big.parquet", "document 1 has the id 400, the tokenizer has 400 tokens"),
        ("below.parquet", "document 1 has the id -2"),
        ("empty", "no files with documents in "),
        ("none", "there is no "),
    ):
        with pytest.raises(InputError, match=message):
            import_corpus(tmp_path / name, tmp_path / "out", tokenizer=corpus.tokenizer_path, eos_id=0)
    with pytest.raises(InputError, match="eos_id=900"):
        import_corpus(tmp_path / "big.parquet", tmp_path / "out", tokenizer=corpus.tokenizer_path, eos_id=900)
    assert not (tmp_path / "out").exists()
