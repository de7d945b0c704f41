from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_runs import BATCH, run

from raylr.errors import CheckpointError, InputError
from raylr.trainables import averaged_loss
from raylr.trainables.data.build import build_corpus
from raylr.trainables.data.corpus import Corpus


@pytest.fixture(scope="module")
def folder(corpus: Corpus) -> Iterator[Path]:
    yield corpus.path
    import deepspeed

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()


@pytest.mark.slow
def test_the_loss_of_an_average(folder: Path, tmp_path: Path) -> None:
    at = [BATCH * step for step in (6, 8, 10)]
    rows = run(folder, steps=10, eval_at=at, keep_dir=tmp_path / "kept", keep_at=at)
    kept = sorted((tmp_path / "kept").glob("step-*"))
    for row, one in zip(rows, kept, strict=True):  # of one checkpoint alone it is what the run measured
        assert averaged_loss([one], folder) == pytest.approx(row["loss"], abs=1e-6)
    assert averaged_loss(kept, folder, weights=[0, 2, 0]) == pytest.approx(rows[1]["loss"], abs=1e-6)
    between = averaged_loss(kept, folder)
    assert between == averaged_loss(kept[::-1], folder, weights=[3, 3, 3]) != rows[1]["loss"]
    assert min(row["loss"] for row in rows) - 0.1 < between < max(row["loss"] for row in rows)

    run(folder, steps=6, eval_at=at[:1], keep_dir=tmp_path / "other", keep_at=at[:1], lr=1e-4)
    with pytest.raises(CheckpointError, match="another run"):
        averaged_loss([kept[0], *(tmp_path / "other").glob("step-*")], folder)
    (tmp_path / "text.txt").write_text(" ".join(str(number) for number in range(5000)))
    build_corpus([tmp_path / "text.txt"], tmp_path / "corpus", vocab_size=300)
    with pytest.raises(InputError, match="another text"):
        averaged_loss(kept, tmp_path / "corpus")
    (kept[2] / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        averaged_loss(kept, folder)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_weights_that_are_no_shares(weights: list[float], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weights must be 2 numbers"):
        averaged_loss([tmp_path, tmp_path], tmp_path, weights=weights)
    with pytest.raises(InputError, match="at least one"):
        averaged_loss([], tmp_path)
