from pathlib import Path

import pytest
from tiny_runs import BATCH, Curve, curve, curves, keeping, run

from raylr.errors import InputError
from raylr.trainables.data.corpus import Corpus
from raylr.trainables.training import metrics
from raylr.trainables.training.universal import convert


def losses(rows: Curve) -> list[float]:
    return [row[name] for row in rows for name in (metrics.LOSS, metrics.TRAIN_LOSS)]


@pytest.mark.slow
def test_runs_go_on_with_another_number_of_workers(corpus: Corpus, tmp_path: Path) -> None:
    """To rounding: a lost optimizer state would change the next loss by more than 1e-3."""
    alone = {"zero_stage": 1}
    want = curve(run(corpus.path, **alone, report=keeping(tmp_path / "one", 6 * BATCH), checkpoint_reports=True))
    convert(tmp_path / "one", tmp_path / "any")
    going_on, whole = curves(
        corpus.path,
        2,
        {"zero_stage": 2, "resume_from": str(tmp_path / "any")},
        {"zero_stage": 2, "run_dir": str(tmp_path / "two"), "checkpoint_seconds": 0},
    )
    assert going_on[:2] == want[:2]
    assert losses(going_on) == pytest.approx(losses(want), abs=2e-5)
    convert(tmp_path / "two" / "step-0000000011", tmp_path / "back" / "step-0000000011")
    back = curve(run(corpus.path, **alone, run_dir=tmp_path / "back"))
    assert losses(back) == pytest.approx(losses(whole), abs=2e-5)
    with pytest.raises(InputError, match="made with workers=2, zero_stage=2, expert_parallel=1"):
        run(corpus.path, **alone, run_dir=tmp_path / "two")
    with pytest.raises(InputError, match="loads with zero_stage=1 or 2"):
        run(corpus.path, zero_stage=0, resume_from=tmp_path / "any")
    with pytest.raises(InputError, match="exists: give another folder"):
        convert(tmp_path / "one", tmp_path / "any")


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_what_cannot_be_converted(corpus: Corpus, tmp_path: Path, stage: int) -> None:
    run(corpus.path, steps=4, zero_stage=stage, report=keeping(tmp_path / "kept", BATCH), checkpoint_reports=True)
    with pytest.raises(InputError, match=f"is of zero_stage={stage} and expert_parallel=1: only checkpoints of ZeRO 1"):
        convert(tmp_path / "kept", tmp_path / "any")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
