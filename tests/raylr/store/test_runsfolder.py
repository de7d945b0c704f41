import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.runs import RunEnd
from raylr.errors import DamagedError, StudyError
from raylr.imports.run import ImportedRun, Point
from raylr.store.runsfolder import RunsFolder, in_memory, rows_of
from raylr.store.runtable import RUNS_FILE

RUN = ImportedRun(where="a", lr=1e-3, loss=3.0, end=RunEnd.COMPLETED, params=1e8, tokens=2e9, target_tokens=2e9)


def test_runs_are_recognised_and_not_added_twice(tmp_path: Path) -> None:
    folder = RunsFolder(tmp_path / "runs")
    runs = [replace(RUN, lr=lr) for lr in (1e-3, 2e-3)]
    assert folder.add(runs).new == 2
    added = folder.add([*runs, replace(RUN, lr=4e-3)])
    assert (added.new, added.known, added.notes) == (1, 2, [])
    assert sorted(row["lr"] for row in folder.trials()) == [1e-3, 2e-3, 4e-3]


def test_a_run_without_a_name_and_another_loss_is_a_repetition(tmp_path: Path) -> None:
    folder = RunsFolder(tmp_path / "runs")
    assert folder.add([RUN, replace(RUN, loss=3.1)]).new == 2
    assert folder.add([replace(RUN, loss=3.1), RUN, replace(RUN, loss=3.2)]).new == 1


def test_a_named_run_with_another_loss_is_said(tmp_path: Path) -> None:
    folder = RunsFolder(tmp_path / "runs")
    named = replace(RUN, run="r1")
    folder.add([named])
    added = folder.add([replace(named, loss=2.5)])
    assert added.new == 0
    assert "r" in added.notes[0]
    assert "with another loss, which is kept" in added.notes[0]


def test_a_run_that_went_on_counts_as_it_is_now(tmp_path: Path) -> None:
    folder = RunsFolder(tmp_path / "runs")
    curve = [Point(tokens=1e9 * i, loss=4.0 - i) for i in (1, 2)]
    named = replace(RUN, run="r1", curve=curve)
    folder.add([replace(named, end=RunEnd.PAUSED, tokens=1e9, curve=curve[:1])])
    assert folder.add([named]).new == 1
    (row,) = folder.trials()
    assert (row["end"], row["tokens"]) == ("completed", 2_000_000_000)
    assert len(folder.evaluations()) == 2


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("")
    with pytest.raises(StudyError, match="not empty and holds no imported runs"):
        RunsFolder(tmp_path).add([RUN])
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / RUNS_FILE).write_text("{")
    with pytest.raises(DamagedError, match="damaged"):
        RunsFolder(tmp_path / "runs").trials()
    (tmp_path / "runs" / RUNS_FILE).write_text('{"format": 99, "raylr": "9"}')
    with pytest.raises(StudyError, match="another version of raylr, 9"):
        RunsFolder(tmp_path / "runs").trials()
    with pytest.raises(StudyError, match="is a file"):
        RunsFolder(tmp_path / "spec.yaml").check()


RUNS = st.lists(
    st.builds(
        replace, st.just(RUN), lr=st.sampled_from([1e-3, 2e-3]), loss=st.sampled_from([3.0, 3.5, math.nan]),
        seed=st.sampled_from([None, 0, 1]), run=st.sampled_from([None, "a", "b"]),
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(RUNS, st.randoms(use_true_random=False))
def test_importing_again_in_any_order_adds_nothing(runs: list[ImportedRun], random: object) -> None:
    once, _ = in_memory(runs)
    shuffled = list(runs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    _, again, _ = rows_of(shuffled, once)
    assert {row["trial"] for row in again} <= {row["trial"] for row in once}
