"""`tests/data/offline.wandb` holds the run, history and exit records of a file that wandb 0.31.0 wrote."""

import sys
from pathlib import Path

import pytest
from wandb_files import run_file

from raylr.analysis.runs import RunEnd
from raylr.errors import DataError
from raylr.imports.sources import read_runs

REAL = Path(__file__).parents[2] / "data" / "offline.wandb"
CONFIG = {"learning_rate": 1e-3, "n_params": 484800, "batch_tokens": 4096, "optimizer": {"name": "adamw"}}


def history(steps: int) -> list[dict[str, float]]:
    return [{"_step": step, "val/loss": 4 - 0.1 * step, "lr": 1e-3 * min(1, step / 3)} for step in range(1, steps + 1)]


def write(folder: Path, run: str, content: bytes) -> Path:
    place = folder / f"offline-run-1-{run}"
    place.mkdir()
    (place / f"run-{run}.wandb").write_bytes(content)
    return place / f"run-{run}.wandb"


def test_a_file_that_wandb_wrote() -> None:
    (run,) = read_runs([REAL]).runs
    assert (run.lr, run.params, run.batch, run.batch_kind, run.tokens) == (3e-4, 484800, 4096, "tokens", 40960)
    assert (run.end, run.conditions["optimizer"], run.run) == (RunEnd.COMPLETED, "adamw", "uuyzjsaz")
    assert run.loss == pytest.approx(3.9725, abs=1e-3)


def test_finished_running_and_failed_runs(tmp_path: Path) -> None:
    for run, code in (("a", 0), ("b", None), ("c", 1)):
        write(tmp_path, run, run_file(run, CONFIG | {"learning_rate": 1e-3}, history(10), code))
    assert [run.end for run in read_runs([tmp_path]).runs] == [RunEnd.COMPLETED, RunEnd.PAUSED, RunEnd.FAILED]


def test_a_step_of_the_trainer_comes_before_the_count_of_rows(tmp_path: Path) -> None:
    rows = [{"_step": i, "step": 10 * i, "trial_id": "t1", "val/loss": 4 - 0.1 * i} for i in (1, 2, 3)]
    write(tmp_path, "a", run_file("a", CONFIG, rows))
    (run,) = read_runs([tmp_path]).runs
    assert (run.tokens, run.run) == (30 * 4096, "a")


def test_long_files_and_cut_ones(tmp_path: Path) -> None:
    content = run_file("a", CONFIG | {"notes": "x" * 70_000}, history(2000))
    file = write(tmp_path, "a", content)
    assert len(read_runs([tmp_path]).runs[0].curve) == 2000
    file.write_bytes(content[: len(content) // 2 + 50_000])
    (run,) = read_runs([tmp_path]).runs
    assert 1 < len(run.curve) < 2000
    assert run.end is RunEnd.PAUSED


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    content = bytearray(run_file("a", CONFIG, history(10)))
    content[200] ^= 1
    write(tmp_path, "a", bytes(content))
    with pytest.raises(DataError, match="damage at byte"):
        read_runs([tmp_path])


def test_without_the_client_the_api_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(DataError, match=r"pip install 'raylr\[wandb\]'"):
        read_runs(["wandb:team/project"])
