from pathlib import Path

import pytest
from object_store import Bucket

from raylr.errors import StorageError, StudyError
from raylr.remote import copies, storage
from raylr.remote.copies import copy_of, local_path, name_of, place_of, ray_storage, with_addresses
from raylr.remote.storage import Entry, Storage
from raylr.store.files import fetch, held, names_in, remove_file, remove_inside, write_atomic


def whole(path: Path) -> bool:
    return (path / "last").is_file()


def test_a_folder_of_a_file_system_is_itself(tmp_path: Path) -> None:
    assert (
        local_path(tmp_path) == local_path(f"file://{tmp_path}") == local_path(Path(f"file://{tmp_path}")) == tmp_path
    )
    assert copy_of(tmp_path) is None
    assert place_of(tmp_path) == str(tmp_path)
    assert ray_storage(tmp_path) == (str(tmp_path), None)


def test_a_file_address_names_this_machine(tmp_path: Path) -> None:
    for place in ("file:///data/a b", "FILE:/data/a b", "file://localhost/data/a b", Path("file:///data/a b")):
        assert local_path(place) == Path("/data/a b")
    with pytest.raises(StudyError, match="file:// names folders of this machine"):
        local_path("file://other/data")


def test_what_is_written_here_is_there_first(bucket: Bucket) -> None:
    here = local_path(bucket.address("runs/a"))
    here.mkdir(parents=True)
    assert here == local_path(Path(bucket.address("runs/a")))
    assert local_path(bucket.address("runs/a/x")) == here / "x"  # a folder of a known one lies in its copy
    assert place_of(here / "x") == bucket.address("runs/a/x")
    assert with_addresses(f"{here}/x is damaged") == f"{bucket.address('runs/a')}/x is damaged"
    write_atomic(here / "law.json", "{}")
    assert bucket.get("runs/a/law.json") == (here / "law.json").read_bytes() == b"{}"
    (here / ".writing").mkdir()
    write_atomic(here / ".writing" / "x", "kept here")
    assert bucket.names() == ["runs/a/law.json"]
    remove_file(here / "law.json")
    assert bucket.names() == []
    assert not (here / "law.json").exists()


def test_other_machines_learn_where_the_store_is(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    here = local_path(bucket.full_address("runs/a"))
    for folder in (here, here / "checkpoints" / "run"):
        assert place_of(folder).endswith(bucket.full_address("").partition("?")[2])
        assert local_path(place_of(folder)) == folder
    assert name_of(here / "checkpoints" / "run") == "run"
    assert name_of(here) == "a"
    assert with_addresses(f"in {here}/x") == f"in {bucket.address('runs/a')}/x"


def test_folders_in_a_folder_are_fetched_by_themselves(bucket: Bucket) -> None:
    """A working copy of a bucket, as of a table in it, holds the studies below; of other folders nothing comes."""
    for name in ("sweep.csv", "a/spec.yaml", "a/t/1", "a/t/old", "b/spec.yaml", "other/large"):
        bucket.put(name, name.encode())
    here = local_path(f"s3://{bucket.name}")
    assert local_path(bucket.address("a")) == here / "a"

    def files() -> set[str]:
        found = (path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file())
        return {name for name in found if not name.startswith(".")}

    fetch(here / "a", ["t"])
    assert files() == {"a/spec.yaml", "a/t/1", "a/t/old"}
    bucket.delete("a/t/old")
    fetch(here / "a", ["t"])
    fetch(here / "other", ["t"])
    fetch(here, ["t"])
    assert files() == {"a/spec.yaml", "a/t/1"}
    assert names_in(here) == {"sweep.csv", "a", "b", "other"}
    write_atomic(here / "a" / "law.json", "{}")
    assert bucket.get("a/law.json") == b"{}"


def test_what_cannot_be_written_there_is_not_written_here(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    here = local_path(bucket.address("a"))
    here.mkdir(parents=True)
    write_atomic(here / "x", "old")
    monkeypatch.setattr(storage, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(Storage, "file_system", property(lambda self: (_ for _ in ()).throw(OSError("away"))))
    with pytest.raises(StorageError, match="has not answered"):
        write_atomic(here / "x", "new")
    assert (here / "x").read_text() == "old"


def test_folders_are_removed_there_and_here(bucket: Bucket) -> None:
    here = local_path(bucket.address("a"))
    for name in ("a/runs/one/x", "a/runs/one/deep/y", "a/runs/two/x"):
        bucket.put(name, b"1")
    (here / "runs" / "one").mkdir(parents=True)
    assert names_in(here / "runs") == {"one", "two"}
    remove_inside(here / "runs", "one")
    assert bucket.names() == ["a/runs/two/x"]
    assert not (here / "runs" / "one").exists()
    with pytest.raises(StudyError):
        remove_inside(here / "runs", "../runs")


def test_a_fetch_brings_what_is_there_and_removes_what_is_not(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("spec.yaml", "table/1.parquet", "table/sub/2.parquet", "other/x", "report.html", "table/.lock/t"):
        bucket.put(f"a/{name}", name.encode())
    here = local_path(bucket.address("a"))
    copy = copy_of(here)[0]  # type: ignore[index]

    def files() -> set[str]:
        found = (path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file())
        return {name for name in found if not name.startswith(".")}

    copy.fetch(["table", "none"])
    assert files() == {"spec.yaml", "table/1.parquet", "table/sub/2.parquet"}
    (here / "checkpoints" / "run").mkdir(parents=True)
    (here / "checkpoints" / "run" / "x").write_text("of a run that is going on here")
    bucket.put("a/spec.yaml", b"changed")
    bucket.delete("a/table/1.parquet")
    bucket.put("a/table/sub/2.parquet", b"Xable/sub/2.parquet")  # never happens, but by damage: only `again` sees it
    copy.fetch(["table"])
    assert files() == {"spec.yaml", "table/sub/2.parquet", "checkpoints/run/x"}
    assert (here / "spec.yaml").read_text() == "changed"
    assert (here / "table/sub/2.parquet").read_text() == "table/sub/2.parquet"
    copy.fetch(["table"], again=True)
    assert (here / "table/sub/2.parquet").read_text() == "Xable/sub/2.parquet"
    written = next(entry.written for entry in copy.storage.listed("table/sub"))
    assert (here / "table/sub/2.parquet").stat().st_mtime_ns == pytest.approx(written, abs=1e6)


def test_a_fetch_that_breaks_midway_leaves_nothing_half(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("folder/a", "folder/b", "folder/last", "t/1"):
        bucket.put(f"a/{name}", b"x" * 1000)
    here = local_path(bucket.address("a"))
    copy = copy_of(here)[0]  # type: ignore[index]
    real = Storage.download

    def broken(self: Storage, name: str, file: Path) -> None:
        if name.endswith(("/b", "/1")):
            file.write_bytes(b"xx")
            raise StorageError("the connection broke")
        real(self, name, file)

    monkeypatch.setattr(Storage, "download", broken)
    with pytest.raises(StorageError):
        copy.fetch_folder("folder", whole)
    with pytest.raises(StorageError):
        copy.fetch(["t"])
    assert [path.name for path in here.rglob("*") if path.is_file() and path.name[0] != "."] == []
    assert not [path for path in here.rglob("*") if path.name.endswith(".tmp") or path.name.startswith(".fetched")]
    monkeypatch.undo()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{bucket.server}")
    copy.fetch_folder("folder", whole)
    assert sorted(path.name for path in (here / "folder").iterdir()) == ["a", "b", "last"]
    copy.fetch_folder("none", whole)
    assert not (here / "none").exists()


def test_a_table_that_is_merged_during_the_fetch_is_read_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("a/t/1", b"1")
    here = local_path(bucket.address("a"))
    copy = copy_of(here)[0]  # type: ignore[index]
    real, seen = Storage.listed, []

    def merged(self: Storage, folder: str = "", *, recursive: bool = False) -> list[Entry]:
        found = real(self, folder, recursive=recursive)
        if folder == "t" and not seen:
            seen.append(1)
            bucket.put("a/t/2", b"12")
            bucket.delete("a/t/1")
        return found

    monkeypatch.setattr(Storage, "listed", merged)
    copy.fetch(["t"])
    assert [path.name for path in (here / "t").iterdir()] == ["2"]


def test_nobody_holds_a_lock_that_is_not_there(bucket: Bucket) -> None:
    assert not held(local_path(bucket.address("a")) / ".lock")


def test_the_cache_that_cannot_be_made_is_one_sentence(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with bucket.machine(tmp_path / "file"), pytest.raises(StorageError, match=f"{copies.CACHE} names another"):
        copy_of(local_path(bucket.address("a")))[0].fetch([])  # type: ignore[index]


def test_a_folder_is_removed_with_its_last_file_first(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    for name in ("x", "deep/y", "last"):
        (made / name).write_text(name)
    (made / "empty").touch()
    copy = copy_of(local_path(bucket.address("a")))[0]  # type: ignore[index]
    copy.put_folder(made, "f", but=("last",))
    assert sorted(bucket.names()) == ["a/f/deep/y", "a/f/empty", "a/f/x"]
    copy.put("f/last", b"last")
    gone: list[str] = []
    real = Storage.delete
    monkeypatch.setattr(Storage, "delete", lambda self, name, **more: (gone.append(name), real(self, name, **more))[1])
    copy.delete_folder("f", first="last")
    assert gone[0] == "f/last"
    assert bucket.names() == []
