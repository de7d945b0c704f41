"""A study of raylr as a source: the runs of its search, each at the budgets that it reached."""

from pathlib import Path

import pytest
from made_study import spec_of, study_of

from raylr.analysis.runs import RunEnd
from raylr.errors import DataError
from raylr.finished import cells_of, is_runs, read_finished
from raylr.imports.options import ImportOptions
from raylr.imports.sources import read_runs
from raylr.store.runsfolder import RunsFolder


@pytest.fixture
def folder(texts: Path, tmp_path: Path) -> Path:
    study_of(spec_of(texts, target=None), tmp_path / "study").run()
    return tmp_path / "study"


def test_the_runs_of_a_study(folder: Path, tmp_path: Path) -> None:
    found = read_runs([folder])
    assert not is_runs(folder)  # `raylr fit` shows a study as one
    assert {run.size for run in found.runs} == {"S", "M"}
    assert {run.batch_kind for run in found.runs} == {"tokens"}
    assert {run.conditions["schedule"] for run in found.runs} == {"constant"}
    assert {(run.conditions["optimizer"], run.conditions["beta2"]) for run in found.runs} == {("adamw", 0.95)}
    assert {run.end for run in found.runs} <= {RunEnd.COMPLETED, RunEnd.TRUNCATED, RunEnd.DIVERGED, RunEnd.PAUSED}
    budgets = {(run.size, run.target_tokens) for run in found.runs}
    assert len(budgets) == 4
    runs = RunsFolder(tmp_path / "runs")
    assert runs.add(found.runs).new == len(found.runs)
    assert runs.add(read_runs([folder]).runs).new == 0
    assert len(cells_of(read_finished(tmp_path / "runs").table)) == 4


def test_keys_of_the_models_keep_runs_apart(folder: Path) -> None:
    found = read_runs([folder], ImportOptions(by=("qk_norm", "hidden_size")))
    assert {run.by["qk_norm"] for run in found.runs} == {"true"}
    assert len({(run.size, run.by["hidden_size"]) for run in found.runs}) == 2
    with pytest.raises(DataError, match=r"--by colour: .* no such key; they have .*qk_norm"):
        read_runs([folder], ImportOptions(by=("colour",)))


def test_a_study_without_runs_is_refused(texts: Path, tmp_path: Path) -> None:
    study = study_of(spec_of(texts), tmp_path / "study")
    with study.folder.locked():
        pass
    with pytest.raises(DataError, match="no run that has ended"):
        read_runs([tmp_path / "study"])


def test_a_transfer_study_is_no_source_of_runs_for_a_law(carried) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="its runs differ in init std too"):
        read_runs([carried[0].directory])
