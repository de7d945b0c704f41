import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from object_store import Bucket

from raylr.errors import StorageError, StudyError
from raylr.remote import storage
from raylr.remote.storage import Storage, address_of

NAME = st.text("abcXYZ019-_ .é", min_size=1, max_size=8).map(str.strip).filter(lambda name: name.strip(". "))


@given(st.sampled_from(("s3", "gs", "hdfs")), st.lists(NAME, min_size=1, max_size=4))
def test_an_address_survives_being_a_path(scheme: str, parts: list[str]) -> None:
    address = f"{scheme}://bucket/{'/'.join(parts)}"
    assert address_of(address) == address_of(Path(address)) == address_of(f"{address}/") == address
    assert address_of(f" {scheme.upper()}://bucket//{'//'.join(parts)}// ") == address


@given(
    st.sampled_from(("s3", "S3", "gs", "hdfs", "https", "abfss", "file", "c")),
    st.sampled_from((":/", "://", ":///", ":", "//", ":\\\\")),
    st.text("ab9-_./:@%?&=#[]\\\n\t\0 é\u202e\ud800~+;,", max_size=30),
)
@example("s3", "://", "[b/x")
@example("hdfs", "://", "h:99999999/x")
@example("hdfs", ":///", "runs/a")
def test_whatever_is_written_is_an_address_no_address_or_one_sentence(scheme: str, sign: str, text: str) -> None:
    place = f"{scheme}{sign}{text}"
    found, said = None, ""
    try:
        found = address_of(place)
    except StudyError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 500
    if said:
        return
    if found is None:
        assert scheme in ("file", "c") or not sign.startswith(":/")
        return
    assert address_of(found) == address_of(Path(found)) == found  # it is written in one way
    assert found.startswith(("s3://", "gs://", "hdfs://"))
    there = Storage(found)
    assert there.contains(found)
    assert there.shown("x").endswith("/x")
    assert ".." not in found.partition("?")[0].split("/")
    assert "@" not in urlsplit(found).netloc
    found.encode()


@pytest.mark.parametrize("place", ["runs/a", "/data/a b", "a:b/c", "C:/runs", "file:///data", "file:/data", ".", "s3"])
def test_a_folder_is_no_address(place: str) -> None:
    assert address_of(place) is None is address_of(Path(place))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("abfss://a@b/c", "abfss://…@b/c: raylr writes to file systems"),
        ("https://a.org/x?sig=hidden", "https://a.org/x: raylr writes to file systems"),
        ("ftp://x/y", "raylr writes to file systems"),
        ("s3://", "names no bucket"),
        ("gs:///x", "names no bucket"),
        ("hdfs://host:9000/", "names no folder"),
        ("s3://a b/x", "'a b' names no bucket"),
        ("s3://b/../x", "without '..'"),
        ("s3://b/x#1", "without '..', '#'"),
        ("s3://b/a\nb", "cannot be printed"),
        ("s3://b/x?colour=hidden", "the options of an address are region, scheme, endpoint_override"),
    ],
)
def test_other_addresses_are_refused(place: str, said: str) -> None:
    with pytest.raises(StudyError, match=re.escape(said)) as error:
        address_of(place)
    assert "hidden" not in str(error.value)
    assert "\n" not in str(error.value)


SECRET = st.text("abcXYZ019/+=-_", min_size=8, max_size=40)


@given(st.sampled_from(("s3", "gs", "hdfs", "https", "abfss")), SECRET, st.booleans())
def test_credentials_in_an_address_are_refused_and_not_shown(scheme: str, secret: str, as_path: bool) -> None:
    """Also those with a slash, which ends the host early."""
    secret = f"hid{secret}"
    for place in (
        f"{scheme}://KEY:{secret}@b/c", f"{scheme}://b/c?secret_key={secret}", f"{scheme}://b/c?X-Amz-Signature={secret}",
        f"{scheme}://b/c?{secret}", f"{scheme}://b/c?endpoint_override=http://key:{secret}@host",
    ):  # fmt: skip
        with pytest.raises(StudyError) as error:
            address_of(Path(place) if as_path else place)
        assert "hid" not in str(error.value)


@pytest.mark.parametrize(
    "place", ["s3://key:hidden@b/c", "gs://hidden@b/c", "https://me:hidden@b/c", "s3://key:hi/dden"]
)
def test_what_to_do_about_credentials_is_said(place: str) -> None:
    with pytest.raises(StudyError, match="no credentials in an address; they come from") as error:
        address_of(place)
    assert "hi" not in str(error.value).replace("this", "")


@pytest.mark.parametrize(
    ("address", "uri", "path"),
    [
        ("gs://b/runs/a b", "gs://b/?retry_limit_seconds=15", "b/runs/a b"),
        ("gs://b/runs/a?retry_limit_seconds=9", "gs://b/?retry_limit_seconds=9", "b/runs/a"),
        ("hdfs://name:9000/runs/a?user=me", "hdfs://name:9000/?user=me", "/runs/a"),
        ("hdfs:///runs/a?user=me&replication=2", ("default", 0, {"user": "me", "replication": 2}), "/runs/a"),
        ("s3://b/100%25 x?region=eu", "s3://b/?allow_delayed_open=true&region=eu", "b/100%25 x"),
    ],
)
def test_what_pyarrow_is_given(address: str, uri: Any, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its documentation has it; neither Google's storage nor HDFS can be run here."""
    given_to: list[Any] = []

    class FileSystem:
        @staticmethod
        def from_uri(uri: str) -> tuple[Any, str]:
            given_to.append(uri)
            return object(), "/" if uri.startswith("hdfs") else urlsplit(uri).netloc

    def hadoop(host: str, port: int, **options: Any) -> Any:
        given_to.append((host, port, options))

    monkeypatch.setattr("pyarrow.fs.FileSystem", FileSystem)
    monkeypatch.setattr("pyarrow.fs.HadoopFileSystem", hadoop)
    there = Storage(address_of(address) or "")
    assert there.path("x") == f"{path}/x"
    assert given_to == [uri]
    assert "?" not in there.shown("x")


def test_names_are_taken_as_they_are(bucket: Bucket) -> None:
    for name in ("a b", "100%25", "é+&=;,", "a:b@c"):
        there = Storage(address_of(bucket.address(f"odd/{name}")) or "")
        there.put("x/y", b"1")
        assert bucket.names(f"odd/{name}") == [f"odd/{name}/x/y"]
        assert [entry.name for entry in there.listed("x")] == ["x/y"]


def test_objects_are_put_read_listed_and_deleted(bucket: Bucket, tmp_path: Path) -> None:
    there = Storage(bucket.address("a/b"))
    assert there.listed() == there.listed("x", recursive=True) == []
    there.put("one", b"1")
    there.put("x/y/two", b"22")
    there.put("x/empty", b"")
    assert sorted(bucket.names()) == ["a/b/one", "a/b/x/empty", "a/b/x/y/two"]
    assert {(entry.name, entry.folder) for entry in there.listed()} == {("one", False), ("x", True)}
    whole = [entry for entry in there.listed("x", recursive=True) if not entry.folder]
    assert {(entry.name, entry.size) for entry in whole} == {("x/y/two", 2), ("x/empty", 0)}
    assert all(abs((entry.written or 0) / 1e9 - time.time()) < 3600 for entry in whole)
    assert there.get("x/y/two") == b"22"
    there.download("x/y/two", tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == b"22"
    for read in (there.get, lambda name: there.download(name, tmp_path / "none")):
        with pytest.raises(FileNotFoundError):
            read("none")
    there.delete("one")
    there.delete("one")
    assert "a/b/one" not in bucket.names()


def test_the_store_may_be_named_in_the_address(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    there = Storage(address_of(Path(bucket.full_address("a"))) or "")
    there.put("one", b"1")
    assert bucket.names() == ["a/one"]
    assert there.shown("one") == bucket.address("a/one")


def test_what_can_never_succeed_is_one_sentence_at_once(bucket: Bucket) -> None:
    begun = time.monotonic()
    there = Storage("s3://no-such-bucket/a")
    for use in (there.listed, lambda: there.get("x"), lambda: there.put("x", b"")):
        with pytest.raises((StorageError, FileNotFoundError), match=r"no such bucket|not exist"):
            use()
    assert time.monotonic() - begun < 5 * storage._LONGEST_PAUSE  # nothing waited for the end of a retry


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError("AWS Error ACCESS_DENIED during PutObject operation"), "access is denied; credentials come from AWS_"),
        (PermissionError("no"), "access is denied"),
        (OSError("AWS Error UNKNOWN (HTTP status 301) during HeadObject"), "another region"),
    ],
)
def test_no_access_is_one_sentence_at_once(raised: OSError, said: str) -> None:
    there, asked = Storage("s3://bucket/a"), []

    def refused() -> None:
        asked.append(1)
        raise raised

    with pytest.raises(StorageError, match=said) as error:
        there._ask("write", "x", refused)
    assert len(asked) == 1
    assert "s3://bucket/a/x" in str(error.value)
    assert "\n" not in str(error.value)


class Away:
    """A storage that does not answer the first times, and a clock that goes on by the pauses alone."""

    def __init__(self, times: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.clock = times, 0.0
        monkeypatch.setattr(storage.time, "monotonic", lambda: self.clock)
        monkeypatch.setattr(storage.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def __call__(self) -> str:
        self.left -= 1
        if self.left >= 0:
            raise OSError("AWS Error NETWORK_CONNECTION (Request ID: 7) during PutObject operation: curlCode: 7\nmore")
        return "written"


def test_a_storage_that_comes_back_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    away = Away(8, monkeypatch)
    assert Storage("s3://bucket/a")._ask("write", "x", away) == "written"
    assert 10 < away.clock < storage.RETRY_SECONDS


def test_a_storage_that_stays_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    away = Away(float("inf"), monkeypatch)
    with pytest.raises(StorageError, match="has not answered for") as error:
        Storage("s3://bucket/a")._ask("write", "x", away)
    assert storage.RETRY_SECONDS - storage._LONGEST_PAUSE <= away.clock <= storage.RETRY_SECONDS
    assert "Request ID" not in str(error.value)
    assert "more" not in str(error.value).split("(")[1]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C is Python's own, whatever Ray Tune has made of it in this process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Slow:
    """A file system whose writes take a while; the main thread is interrupted in each, as often as is said."""

    type_name = "s3"

    def __init__(self, opened: Any, signals: int) -> None:
        self.opened, self.signals = opened, signals

    def open_output_stream(self, name: str) -> Any:
        stream = self.opened.open_output_stream(name)
        for _ in range(self.signals):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        return stream


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("signals", [1, 3])
def test_an_interrupt_waits_for_the_object_that_is_being_written(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, signals: int
) -> None:
    there = Storage(bucket.address("a"))
    there.put("x", b"old")
    opened = there.file_system
    monkeypatch.setattr(Storage, "file_system", Slow(opened, signals))
    with pytest.raises(KeyboardInterrupt):
        there.put("x", b"new")
    assert bucket.get("a/x") == b"new"  # nothing is on its way that could replace what is written next
    monkeypatch.setattr(Storage, "file_system", opened)
    there.put("x", b"newest")
    assert bucket.get("a/x") == b"newest"


def test_another_thread_writes_by_itself(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never interrupted, and it may be one that ends after Python has closed its pools."""
    there, writers = Storage(bucket.address("a")), []

    class Seen(Slow):
        def open_output_stream(self, name: str) -> Any:
            writers.append(threading.current_thread())
            return super().open_output_stream(name)

    monkeypatch.setattr(Storage, "file_system", Seen(there.file_system, 0))
    one = threading.Thread(target=there.put, args=("x", b"1"))
    one.start()
    one.join()
    assert bucket.get("a/x") == b"1"
    there.put("x", b"2")
    assert writers[0] is one
    assert writers[1] not in (one, threading.main_thread())
