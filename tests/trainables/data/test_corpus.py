import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.errors import InputError
from raylr.trainables.data.corpus import Corpus, Windows, shuffled


@given(st.integers(1, 3000), st.integers(-(2**40), 2**40))
def test_shuffle_is_a_permutation(n: int, seed: int) -> None:
    assert sorted(shuffled(np.arange(n), n, seed).tolist()) == list(range(n))


@given(st.integers(1, 10**12), st.integers(0, 100))
def test_shuffle_is_the_same_for_any_part_of_it(n: int, seed: int) -> None:
    some = np.unique(np.linspace(0, n - 1, 7, dtype=np.int64))
    together = shuffled(some, n, seed).tolist()
    assert [int(shuffled([one], n, seed)[0]) for one in some] == together
    assert all(0 <= x < n for x in together)


def test_shuffles_differ_and_look_random() -> None:
    n = 10_000
    one, other = shuffled(np.arange(n), n, 1), shuffled(np.arange(n), n, 2)
    assert (one == other).mean() < 0.01
    assert abs(np.corrcoef(np.arange(n), one)[0, 1]) < 0.04
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.04


@settings(deadline=None)
@given(st.integers(5, 150), st.integers(1, 16), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_reads_every_window_once(n: int, seq_len: int, size: int, seed: int) -> None:
    ids = np.arange(n, dtype=np.uint16)
    if (n - 1) // seq_len == 0:
        return
    windows = Windows(ids, seq_len, seed)
    batches = [windows.batch(at, size) for at in range(0, windows.count * size, size)]
    rows = np.concatenate(batches)
    assert (rows[:, 1:] == rows[:, :-1] + 1).all()
    for epoch in range(size):
        starts = rows[epoch * windows.count : (epoch + 1) * windows.count, 0]
        assert sorted(starts.tolist()) == [w * seq_len for w in range(windows.count)]


def test_position_alone_decides() -> None:
    windows = Windows(np.arange(1000, dtype=np.uint16), 10, 3)
    whole = windows.batch(0, 300)
    assert (windows.batch(137, 40) == whole[137:177]).all()
    assert (windows.batch(0, 99)[:, 0] != windows.batch(99, 99)[:, 0]).any()
    assert (Windows(windows.ids, 10).batch(0, 3)[:, 0] == [0, 10, 20]).all()


def test_too_few_ids() -> None:
    with pytest.raises(InputError, match="do not fill one sequence of 10"):
        Windows(np.arange(10, dtype=np.uint16), 10)


def test_open_checks_lengths(corpus: Corpus, tmp_path: Path) -> None:
    copy = tmp_path / "c"
    shutil.copytree(corpus.path, copy)
    assert Corpus.open(copy).fingerprint == corpus.fingerprint
    with (copy / "train.bin").open("ab") as stream:
        stream.write(b"12")
    with pytest.raises(InputError, match="build the corpus again"):
        Corpus.open(copy)
    with pytest.raises(InputError, match="is not a tokenised corpus"):
        Corpus.open(tmp_path)


def test_open_checks_the_tokenizer(corpus: Corpus, tmp_path: Path) -> None:
    copy = tmp_path / "c"
    shutil.copytree(corpus.path, copy)
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text().replace("def", "fed"))
    with pytest.raises(InputError, match="is not the tokenizer that made this corpus"):
        Corpus.open(copy)


def test_ids_are_memory_mapped(corpus: Corpus) -> None:
    assert isinstance(corpus.train, np.memmap)
    assert corpus.train.dtype == np.uint16
    assert (
        len(corpus.train)
        == corpus.train_tokens
        == json.loads((corpus.path / "manifest.json").read_text())["tokens"]["train"]
    )
    assert int(corpus.train.max()) < corpus.vocab_size
