from pathlib import Path

import pytest

from raylr.errors import StudyError
from raylr.quickstart import quickstart_spec
from raylr.store.folder import open_folder
from raylr.store.places import local_folder, refuse_copy
from raylr.store.runsfolder import RunsFolder
from raylr.study import FittingStudy


def test_an_address_of_another_kind_does_not_become_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("abfss://a@b/c", Path("abfss://a@b/c")):
        for use in (RunsFolder, open_folder, lambda folder: FittingStudy(quickstart_spec(), folder)):
            with pytest.raises(StudyError, match="raylr writes to file systems and to addresses of s3, gs") as error:
                use(place)  # type: ignore[arg-type]
            assert "abfss://…@b/c" in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("written", "folder"),
    [
        ("file:///data/a b", "/data/a b"),
        ("runs/a", "runs/a"),
        ("/data", "/data"),
        ("a:b/c", "a:b/c"),
        ("C:/runs", "C:/runs"),
    ],
)
def test_folders_of_a_file_system(written: str, folder: str) -> None:
    assert local_folder(written, "x") == local_folder(Path(written), "x") == Path(folder)


def test_no_study_starts_in_rays_copy_of_a_jobs_files(tmp_path: Path) -> None:
    copy = tmp_path / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    study = FittingStudy(quickstart_spec(), copy / "runs" / "a")  # reading is allowed
    for start in (study.run, lambda: RunsFolder(copy / "runs").add([])):
        with pytest.raises(StudyError, match="give a folder on storage that all nodes share"):
            start()
    assert list(tmp_path.iterdir()) == []
    refuse_copy(tmp_path)
