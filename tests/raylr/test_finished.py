import math
from pathlib import Path

import pyarrow as pa
import pytest

import raylr
from raylr.errors import DataError, InputError
from raylr.finished import cells_of, fit_runs, is_runs, read_finished, shared_settings
from raylr.imports.options import parse_options
from raylr.imports.sources import read_runs
from raylr.store.runsfolder import RunsFolder

LRS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def grid(folder: Path) -> Path:
    rows = [
        f"{n},{d},{b},{lr},{2 + 10 * n**-0.1 + 0.05 * math.log(lr / (1e-3 * (n / 1e8) ** -0.3)) ** 2}"
        for n in (1e8, 4e8) for d in (2e9, 8e9) for b in (65536,) for lr in LRS
    ]  # fmt: skip
    (folder / "grid.csv").write_text("params,tokens,batch_tokens,lr,loss\n" + "\n".join(rows) + "\n")
    return folder / "grid.csv"


def test_a_file_and_a_folder_of_its_runs_are_the_same(tmp_path: Path) -> None:
    file = grid(tmp_path)
    RunsFolder(tmp_path / "runs").add(read_runs([file]).runs)
    direct, stored = raylr.load_runs(file), raylr.load_runs(tmp_path / "runs")
    assert isinstance(direct, pa.Table)
    assert direct.sort_by("run").equals(stored.sort_by("run"))
    assert direct.num_rows == 20
    laws = [fit_runs(read_finished(place)).families[0].law for place in (file, tmp_path / "runs")]
    assert laws[0] is not None
    assert laws[1] is not None
    assert laws[0].alpha == pytest.approx(laws[1].alpha)
    assert laws[0].conditions.batch_tokens == 65536


def test_budgets_that_hardly_differ_are_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("lr,loss,tokens\n1e-3,3,2000000000\n2e-3,3.1,2001000000\n4e-3,3.2,8000000000\n")
    cells = cells_of(raylr.load_runs(tmp_path / "a.csv"))
    assert [cell.lr.size for cell in cells] == [2, 1]


def test_what_is_a_table_of_runs(tmp_path: Path) -> None:
    file = grid(tmp_path)
    assert is_runs(file)
    assert is_runs("wandb:team/project")
    assert not is_runs(tmp_path / "law.json")
    assert not is_runs(tmp_path / "none")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "spec.yaml").write_text("")
    assert not is_runs(tmp_path / "study")


def test_options_do_not_go_with_a_folder(tmp_path: Path) -> None:
    RunsFolder(tmp_path / "runs").add(read_runs([grid(tmp_path)]).runs)
    with pytest.raises(InputError, match="given to `raylr import`"):
        read_finished(tmp_path / "runs", parse_options(unit="params=1e9"))
    with pytest.raises(DataError, match="there is no"):
        read_finished(tmp_path / "none")


def test_settings_that_all_runs_share() -> None:
    rows = [{"params": 1, "target_tokens": t, "batch_kind": "tokens"} for t in (5, 6)]
    assert shared_settings(rows, {"tokens"}) == ({"params": 1}, "tokens")
    with pytest.raises(InputError, match="several values of tokens"):
        shared_settings(rows, set())
    with pytest.raises(InputError, match="have no batch"):
        shared_settings(rows, {"tokens", "batch"})


def test_no_run_that_has_ended_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("lr,loss,state\n1e-3,3,running\n")
    with pytest.raises(DataError, match="no run has ended"):
        cells_of(raylr.load_runs(tmp_path / "a.csv"))
    with pytest.raises(DataError, match=r"a\.csv: no run has ended"):
        fit_runs(read_finished(tmp_path / "a.csv"))
