import fcntl

import pytest

from raylr.errors import StorageError, StudyError, StudyLockedError
from raylr.store.files import exclusive, inside, remove_inside, write_atomic


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "law.json"
    write_atomic(file, "old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*law\.json: the disk is full"):
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["law.json"]


def test_a_removed_folder_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"cannot write .*gone/law\.json: its folder is not there"):
        write_atomic(tmp_path / "gone" / "law.json", "new")


def test_a_lock_keeps_others_out_and_is_free_again(tmp_path):
    path = tmp_path / ".lock"
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StudyLockedError, match="busy"), exclusive(path, "busy"):
            pass
    with exclusive(path, "busy"):
        pass
    with exclusive(path, "busy"):
        pass


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "/etc", "a/b", "a\\b", "a\0b"])
def test_a_name_from_a_table_never_leads_outside(tmp_path, name):
    (tmp_path / "study" / "a" / "b").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    with pytest.raises(StudyError, match="does not name a folder directly inside"):
        remove_inside(tmp_path / "study", name)
    assert (tmp_path / "other").is_dir()
    assert (tmp_path / "study" / "a" / "b").is_dir()


def test_a_link_never_leads_outside(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "study" / "run").symlink_to(tmp_path / "precious")
    with pytest.raises(StudyError):
        inside(tmp_path / "study", "run")
    assert (tmp_path / "precious").is_dir()


def test_a_folder_inside_is_removed(tmp_path):
    (tmp_path / "run").mkdir()
    remove_inside(tmp_path, "run")
    remove_inside(tmp_path, "run")
    assert not list(tmp_path.iterdir())
