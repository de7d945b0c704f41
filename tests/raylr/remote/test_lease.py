import json
import subprocess
import sys
import threading
import time

import pytest
from object_store import Bucket

from raylr.errors import StorageError, StudyLockedError
from raylr.remote import lease
from raylr.remote.lease import Lease, living_claim
from raylr.remote.storage import Storage

BUSY = "another process is running the study"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.8)


@pytest.fixture
def there(bucket: Bucket) -> Storage:
    return Storage(bucket.address("study"))


def taken(there: Storage, copy: str) -> Lease:
    found = Lease(there, ".lock", copy)
    found.acquire(BUSY)
    return found


def killed(holder: Lease) -> None:
    """Its process is gone: nothing is renewed and nothing withdrawn."""
    holder._ended.set()
    assert holder._thread is not None
    holder._thread.join()


def test_a_second_process_is_refused_until_the_first_gives_it_back(there: Storage) -> None:
    first = taken(there, "a")
    with pytest.raises(StudyLockedError, match=rf"{BUSY} \(process \d+ on "):
        taken(there, "b")
    assert living_claim(there, ".lock")
    first.require()
    first.release()
    assert there.listed(".lock") == []
    assert living_claim(there, ".lock") is None
    taken(there, "b").release()


def test_the_lease_of_a_process_that_was_killed_is_taken_over_after_its_time(there: Storage) -> None:
    killed(taken(there, "a"))
    said: list[str] = []
    begun = time.monotonic()
    second = Lease(there, ".lock", "b")
    second.acquire(BUSY, note=said.append)
    assert time.monotonic() - begun > lease.LEASE_SECONDS
    assert len(said) == 1
    assert "held the lease of" in said[0]
    second.release()


def test_the_time_is_that_which_the_holder_names(there: Storage) -> None:
    claim = {"count": 1, "seconds": 0.3, "copy": "a", "holder": "process 1 on there"}
    there.put(".lock/x.json", json.dumps(claim).encode())
    there.put(".lock/y.json", b"\xff not a claim")  # lives as long as one of our own
    begun = time.monotonic()
    taken(there, "b").release()
    assert time.monotonic() - begun > lease.LEASE_SECONDS
    assert there.listed(".lock") == []


def test_a_claim_of_the_same_working_copy_is_that_of_a_process_which_has_ended(
    there: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(taken(there, "a"))
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1e9)
    taken(there, "a").release()
    assert there.listed(".lock") == []


def test_a_holder_that_was_away_for_too_long_writes_nothing_more(
    there: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(lease, "now", lambda: time.monotonic() + clock[0])
    holder = taken(there, "a")
    holder.require()
    clock[0] = 10.0  # the machine slept
    with pytest.raises(StorageError, match=r"the lease of s3://.* was lost"):
        holder.require()
    clock[0] = 0.0
    with pytest.raises(StorageError):  # also when the clock is set back
        holder.require()
    killed(holder)


def test_a_holder_whose_claim_was_taken_away_notices(there: Storage) -> None:
    holder = taken(there, "a")
    assert holder._thread is not None
    while holder._thread.is_alive():  # a count that was on its way makes the claim again
        for entry in there.listed(".lock"):
            there.delete(entry.name)
        holder._thread.join(0.05)
    with pytest.raises(StorageError, match="was lost"):
        holder.require()
    assert there.listed(".lock") == []  # and does not make it again


def test_of_many_that_come_at_once_one_at_a_time_has_it(there: Storage) -> None:
    inside, most, done = 0, 0, []
    lock = threading.Lock()

    def run(name: str) -> None:
        nonlocal inside, most
        mine = Lease(there, ".lock", name)
        mine.acquire(BUSY, timeout=-1)
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.02)
        with lock:
            inside -= 1
        mine.release()
        done.append(name)

    threads = [threading.Thread(target=run, args=(str(i),)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert sorted(done) == ["0", "1", "2"]


ENDS = """
import sys, threading
from raylr.remote import lease
from raylr.remote.storage import Storage
lease.BEAT_SECONDS = 0.0  # its thread is always in a request
held = lease.Lease(Storage(sys.argv[1]), ".lock", "a")
held.acquire("busy")
if sys.argv[2] == "daemon":
    other = lease.Lease(Storage(sys.argv[1]), ".other", "a")
    begun = threading.Event()
    def hold():
        other.acquire("busy")
        begun.set()
        threading.Event().wait()
    threading.Thread(target=hold, daemon=True).start()
    begun.wait()
print("held", flush=True)
"""


@pytest.mark.parametrize("holder", ["main", "daemon"])
def test_a_program_that_ends_without_giving_it_back_ends_clean(bucket: Bucket, holder: str) -> None:
    """Whoever holds it: its thread is not in C++ when Python goes, and its claim is withdrawn."""
    words = [sys.executable, "-c", ENDS, bucket.full_address("study"), holder]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "held\n", "")
    assert bucket.names() == []


def test_an_interrupt_while_it_is_taken_leaves_no_claim(there: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Lease) -> set[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lease, "_claims", interrupted)
    with pytest.raises(KeyboardInterrupt):
        taken(there, "a")
    assert there.listed(".lock") == []
