"""Damage: what is found. `tests/faults` has what is measured again, full disks and removed folders."""

import pyarrow.parquet as pq
import pytest

from raylr.cli.app import main
from raylr.errors import DamagedError, StudyError
from raylr.store.check import check_study


def damage(table):
    """Flip a bit of the newest fragment of a table."""
    path = sorted(table.folder.iterdir())[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)
    return path


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
    path = damage(finished.evaluations)
    with pytest.raises(SystemExit) as end:
        main(["check", str(finished.directory)])
    assert end.value.code == 1
    assert path.name in "".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as end:
        main(["check", str(finished.directory), "--set-aside"])
    assert end.value.code == 1
    assert "measures again what" in " ".join(capsys.readouterr().out.split())


def test_fragments_are_plain_parquet(finished):
    (path,) = finished.evaluations.fragments()
    assert pq.read_table(path, page_checksum_verification=True).num_rows == len(finished.evaluations)
