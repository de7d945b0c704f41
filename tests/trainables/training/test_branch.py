import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_runs import BATCH, run, train_spec

from raylr.errors import CheckpointError, DataError, SpecError
from raylr.trainables.data.build import build_corpus
from raylr.trainables.data.corpus import Corpus, Windows
from raylr.trainables.training import metrics
from raylr.trainables.training.branch import TrainingTexts, trunk_of

POINTS = {"eval_at": [BATCH * step for step in (8, 10, 12)]}
DECAY = {"schedule": "wsd", "decay_fraction": 0.3}


@pytest.fixture(scope="module")
def folder(corpus: Corpus) -> Iterator[Path]:
    yield corpus.path
    import deepspeed

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()


@pytest.fixture(scope="module")
def trunk(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kept checkpoints of a run at a constant LR, at 4 and at 8 steps."""
    kept = tmp_path_factory.mktemp("trunk") / "kept"
    run(folder, steps=10, eval_at=[BATCH * 10], keep_dir=kept, keep_at=[BATCH * 4, BATCH * 8])
    return kept


def shown(rows: list[dict[str, object]]) -> list[tuple[object, ...]]:
    return [(row[metrics.TOKENS], row[metrics.LOSS], row[metrics.CURRENT_LR]) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"decay_shape": "sqrt", "final_lr_ratio": 0.1}], ids=["linear", "sqrt to 0.1"])
def test_a_branch_measures_what_the_whole_run_measures(folder: Path, trunk: Path, more: dict[str, object]) -> None:
    whole = run(folder, **POINTS, **DECAY, **more)  # type: ignore[arg-type]
    branch = run(folder, trunk_dir=trunk, **POINTS, **DECAY, **more)  # type: ignore[arg-type]
    assert shown(branch) == shown(whole)[1:]  # bit for bit; the loss at the branch itself is the trunk's
    assert [row[metrics.TRUNK_TOKENS] for row in branch] == [8 * BATCH, 8 * BATCH]
    assert branch[-1][metrics.FLOPS] == pytest.approx(whole[-1][metrics.FLOPS] * 4 / 12)
    assert metrics.TRUNK_TOKENS not in whole[-1]


@pytest.mark.slow
def test_a_branch_resumes_from_its_own_checkpoint(folder: Path, trunk: Path, tmp_path: Path) -> None:
    whole = run(folder, trunk_dir=trunk, **POINTS, **DECAY)
    run(folder, trunk_dir=trunk, run_dir=tmp_path / "own", stop_at=BATCH * 10, **POINTS, **DECAY)
    rest = run(folder, trunk_dir=trunk, run_dir=tmp_path / "own", **POINTS, **DECAY)
    assert shown(rest) == shown(whole)
    assert [row[metrics.TRUNK_TOKENS] for row in rest] == [8 * BATCH, 8 * BATCH]


@pytest.mark.slow
def test_a_branch_without_its_checkpoint_trains_what_is_missing(folder: Path, trunk: Path, tmp_path: Path) -> None:
    whole = run(folder, **POINTS, **DECAY)
    some = tmp_path / "some"
    shutil.copytree(trunk, some)
    (some / f"step-{8:010d}" / "state.json").write_text("damaged")
    for kept, begun in ((some, 4 * BATCH), (tmp_path / "none", 0)):
        rows = run(folder, trunk_dir=kept, **POINTS, **DECAY)
        assert shown(rows) == shown(whole)
        assert rows[-1][metrics.TRUNK_TOKENS] == begun


@pytest.mark.slow
def test_the_trunk_of_another_run_is_refused(folder: Path, trunk: Path) -> None:
    with pytest.raises(CheckpointError, match=r"of another run .*lr: 0\.003, not 0\.006"):
        run(folder, lr=6e-3, trunk_dir=trunk, **POINTS, **DECAY)


@pytest.mark.slow
def test_a_decay_trains_on_its_own_text(folder: Path, trunk: Path, texts: Path, tmp_path: Path) -> None:
    other = tmp_path / "text.txt"
    other.write_text("\n".join(f"{n} squared is {n * n}." for n in range(4000)))
    corpus = Corpus.open(folder)
    decay = build_corpus([other], tmp_path / "decay", tokenizer=corpus.tokenizer_path, validation_fraction=0.1)
    rows = run(folder, trunk_dir=trunk, decay_corpus=decay.path, **POINTS, **DECAY)
    plain = run(folder, trunk_dir=trunk, **POINTS, **DECAY)
    assert rows[0][metrics.LOSS] != plain[0][metrics.LOSS]
    batches = TrainingTexts(corpus, decay, train_spec(**DECAY), 12 * BATCH)
    assert (batches.batch(7) == TrainingTexts(corpus, None, train_spec(), 12 * BATCH).batch(7)).all()
    assert (batches.batch(8) == Windows(decay.train, 32, 0).batch(0, BATCH // 32)).all()


def test_texts_that_do_not_fit_a_decay_are_refused(corpus: Corpus, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="decay_corpus is for the schedule wsd"):
        TrainingTexts(corpus, corpus, train_spec(), 10 * BATCH)
    foreign = build_corpus([texts], tmp_path / "foreign", vocab_size=300, validation_fraction=0.1)
    with pytest.raises(DataError, match="tokenised by another tokenizer"):
        TrainingTexts(corpus, foreign, train_spec(schedule="wsd"), 10 * BATCH)
    with pytest.raises(DataError, match="above those of"):
        TrainingTexts(corpus, corpus, train_spec(schedule="wsd", repeat_data=False), 10**9 // BATCH * BATCH)


def test_the_trunk_of_a_run_has_its_settings_at_a_constant_lr() -> None:
    train = train_spec(schedule="wsd", decay_fraction=0.1)
    assert trunk_of(train) == train_spec(schedule="constant", decay_fraction=0.1)
