"""Damage: what is found, and what is measured again."""

import shutil

import pyarrow.parquet as pq
import pytest
from made_study import same_study, spec_of, study_of
from serial_executor import SerialExecutor

from raylr.cli.app import main
from raylr.errors import DamagedError, StorageError, StudyError
from raylr.store.check import check_study, set_aside


def damage(table, how):
    """Damage the newest fragment of a table."""
    path = sorted(table.folder.iterdir())[-1]
    if how == "gone":
        path.unlink()
    elif how == "torn":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 4
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "how", "ended"),
    [
        ("evaluations", "gone", False), ("evaluations", "torn", True), ("evaluations", "flipped", False),
        ("trials", "gone", True), ("trials", "torn", False), ("trials", "flipped", True),
        ("evaluations", "gone", True), ("trials", "gone", False),
    ],
)  # fmt: skip
def test_what_a_damaged_fragment_held_is_measured_again(texts, tmp_path, whole, name, how, ended):
    """Each table has several fragments when it is damaged (of a study that was killed), or one (of a finished one)."""

    def die(job, tokens):
        if job.role == "check" and not ended:
            raise KeyboardInterrupt

    spec, folder = spec_of(texts), tmp_path / "study"
    study = study_of(spec, folder, SerialExecutor(die))
    try:
        study.run()
    except KeyboardInterrupt:
        assert not ended
    path = damage(getattr(study, name), how)
    if how != "gone":
        with pytest.raises(DamagedError, match=path.name):
            study_of(spec, folder).run()
        assert not check_study(folder).whole
        (moved,) = set_aside(folder)
        assert moved.parent == folder / "damaged"
    if name == "evaluations":
        assert not check_study(folder).whole
    executor = SerialExecutor()
    study = study_of(spec, folder, executor)
    study.run()
    assert executor.trained
    assert check_study(folder).whole
    same_study(study, whole[0])


def test_a_row_never_names_a_folder_outside_the_study(finished, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    table = finished.trials
    row = next(row for row in table.read().to_pylist() if row["role"] == "search")
    for name in ("../../precious", str(precious), ".."):
        table.append([row | {"trial": name, "evaluations": 0}])
    with pytest.raises(StudyError, match="does not name a folder directly inside"):
        finished.run()
    assert precious.is_dir()
    assert (finished.directory / "spec.yaml").is_file()
    assert not check_study(finished.directory).whole


def test_an_end_that_is_none_is_damage(finished):
    table = finished.trials
    row = table.read().to_pylist()[0]
    table.append([row | {"tokens": row["tokens"] + 1, "end": "frozen"}])
    with pytest.raises(DamagedError, match="has the end 'frozen'"):
        finished.finished_runs()
    assert not check_study(finished.directory).whole


def test_settings_that_are_not_those_of_the_run_are_found(finished):
    table = finished.trials
    row = table.read().to_pylist()[0]
    table.append([row | {"tokens": row["tokens"] + 1, "config": '{"lr": 1}', "evaluations": 0}])
    assert "does not match the settings" in next(
        p.message for p in check_study(finished.directory).parts if not p.whole
    )


def test_the_command_says_what_is_whole(finished, capsys):
    with pytest.raises(SystemExit) as end:
        main(["check", str(finished.directory)])
    assert not end.value.code
    assert "is whole." in capsys.readouterr().out
    path = damage(finished.evaluations, "flipped")
    with pytest.raises(SystemExit) as end:
        main(["check", str(finished.directory)])
    assert end.value.code == 1
    assert path.name in "".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as end:
        main(["check", str(finished.directory), "--set-aside"])
    assert end.value.code == 1
    assert "measures again what" in " ".join(capsys.readouterr().out.split())


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(texts, tmp_path, whole, monkeypatch):
    import os

    sync, left = os.fsync, 12

    def full(handle):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StorageError, match=r"cannot write .*study/.*: the disk is full"):
            study_of(spec_of(texts), tmp_path / "study").run()
    study = study_of(spec_of(texts), tmp_path / "study")
    study.run()
    same_study(study, whole[0])


def test_a_folder_that_is_removed_on_the_way_is_not_made_again(texts, tmp_path):
    folder = tmp_path / "study"

    def remove(job, tokens):
        if job.size == "M" and folder.exists():
            shutil.rmtree(folder)

    with pytest.raises(StorageError, match="its folder is not there"):
        study_of(spec_of(texts), folder, SerialExecutor(remove)).run()
    assert not folder.exists()


def test_fragments_are_plain_parquet(finished):
    (path,) = finished.evaluations.fragments()
    assert pq.read_table(path, page_checksum_verification=True).num_rows == len(finished.evaluations)
