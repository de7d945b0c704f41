"""`Lease`: one process at a time, on a storage that has neither locks nor conditional writes (pyarrow offers none).

    FOLDER/<token>.json     a claim: who, from which working copy, a count that its holder raises every `BEAT_SECONDS`

Each claimant writes a claim of its own and then lists the folder. It holds the lease if it sees no other claim;
otherwise it withdraws and looks again after a random pause. As a listing shows every write that was complete when it
began (S3, Google Cloud Storage and HDFS promise that), of two claimants at most one sees itself alone.

No two clocks are compared. A claim lives as long as its count changes: a process that finds one watches it, for
`LEASE_SECONDS` at most, and deletes it if nothing has changed. A holder whose own clock says that its last count is
older than that has lost the lease: it writes nothing more (`require`). What is left is a write that began before.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from raylr.errors import StorageError, StudyLockedError
from raylr.remote.storage import RETRY_SECONDS, Storage

BEAT_SECONDS = 5.0
"""Seconds between two counts of a holder. A second driver is refused, and `raylr status` answers, after that time."""
LEASE_SECONDS = RETRY_SECONDS + 6 * BEAT_SECONDS
"""Seconds without a new count after which a claim is dead. Requests to a storage that does not answer are repeated for
`RETRY_SECONDS`, and its holder must still have the lease then; the rest is for counts that are late on a busy
machine."""
_POLLS = 4
"""Looks at a claim in `BEAT_SECONDS`."""
_SILENCE = 2
"""Beats without a new count after which the user gets a message why nothing happens."""
_GLANCE_SECONDS = 0.5
"""Seconds between two looks of the counting thread at whether its holder still runs: the end of the program waits so
long at most, and for one request."""


class Lease:
    """A lease on a folder of a storage.

    Args:
        storage: Where.
        folder: Name of the folder that holds the claims.
        copy: Names the working copy of this process. The process that claims holds the working copy's own lock: a
            claim from the same copy is that of a process which has ended, and is deleted at once.
    """

    def __init__(self, storage: Storage, folder: str, copy: str) -> None:
        self.storage, self.folder, self._copy = storage, folder, copy
        self._token, self._count, self._last = "", 0, 0.0
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, busy: str, timeout: float = 0.0, note: Callable[[str], None] = lambda text: None) -> None:
        """Take the lease.

        Args:
            busy: Sentence of the error if another process has it.
            timeout: Seconds to wait while a living process has it; -1 waits without end. A dead one is waited for
                in any case.
            note: Called with a sentence if that takes longer than a living one would need to be known.

        Raises:
            StudyLockedError: If another process has it.
            StorageError: If the storage does not answer.
        """
        try:
            self._claim(busy, timeout, note)
            # No daemon: Python ends those while they are in pyarrow's C++, which then aborts the process. This one sees
            # that its holder has ended, and Python waits for it.
            self._thread = threading.Thread(
                target=self._beat, args=(threading.current_thread(),), name=f"lease {self.folder}", daemon=False
            )
            self._thread.start()
        except BaseException:  # an interrupt, too, leaves no claim that others would wait for
            self.release()
            raise

    def release(self) -> None:
        """Give the lease back; one that is not held is left alone."""
        self._ended.set()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join()  # a count that came after the withdrawal would be a new claim
        self._withdraw()

    def require(self) -> None:
        """Raise StorageError if the lease was lost."""
        if self._lost.is_set() or now() - self._last > LEASE_SECONDS:
            self._lost.set()
            raise StorageError(
                f"the lease of {self.storage.shown(self.folder)} was lost, because it could not be renewed for "
                f"{LEASE_SECONDS:.0f} s: another process may be running the study now. What is stored is kept; the "
                "same command continues"
            )

    def _claim(self, busy: str, timeout: float, note: Callable[[str], None]) -> None:
        begun = time.monotonic()
        while True:
            holder = living_claim(self.storage, self.folder, dead_copy=self._copy, bury=True, note=note)
            if holder is None:
                self._token = f"{uuid.uuid4().hex}.json"
                self._renew(retry=True)
                if self._claims() == {self._token}:
                    return
                self._withdraw()
            elif timeout >= 0 and time.monotonic() - begun >= timeout:
                raise StudyLockedError(f"{busy} ({holder})")
            time.sleep(random.uniform(0.1, 0.5))

    def _beat(self, holder: threading.Thread) -> None:
        """Raise the count until the lease is given back or lost, or the thread that holds it has ended."""
        while self._waited(holder) and not self._lost.is_set():
            with suppress(StorageError):  # until `require` says that it was too long
                if now() - self._last > LEASE_SECONDS or self._token not in self._claims():
                    self._lost.set()
                    return
                self._renew(retry=False)
        if not self._ended.is_set() and not self._lost.is_set():
            self._withdraw()  # its holder has ended and writes nothing more

    def _waited(self, holder: threading.Thread) -> bool:
        """Wait for the time of the next count; return whether there is to be one."""
        due = time.monotonic() + BEAT_SECONDS
        while not self._ended.is_set() and _runs(holder):
            left = due - time.monotonic()
            if left <= 0:
                return True
            self._ended.wait(min(left, _GLANCE_SECONDS))
        return False

    def _renew(self, *, retry: bool) -> None:
        begun = now()  # the count may reach the storage at any time after that
        self._count += 1
        claim = {"count": self._count, "seconds": LEASE_SECONDS, "copy": self._copy, "holder": _holder()}
        self.storage.put(f"{self.folder}/{self._token}", json.dumps(claim).encode(), retry=retry)
        self._last = begun

    def _claims(self) -> set[str]:
        return {entry.name.rpartition("/")[2] for entry in self.storage.listed(self.folder) if not entry.folder}

    def _withdraw(self) -> None:
        token, self._token = self._token, ""
        if token:
            with suppress(StorageError):  # then it dies
                self.storage.delete(f"{self.folder}/{token}", retry=False)


def living_claim(
    storage: Storage,
    folder: str,
    *,
    dead_copy: str = "",
    bury: bool = False,
    patience: float | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> str | None:
    """Watch the claims in a folder until one is known to live or all are known to be dead.

    Args:
        storage: Where.
        folder: The folder of claims.
        dead_copy: A working copy whose claims are dead.
        bury: Whether to delete dead claims.
        patience: Seconds after which a claim that has not changed counts as dead; None: those that it names itself.
        note: Called with a sentence, once, if a claim has not changed for some time.

    Returns:
        The holder of a claim that lives, in words; None if there is none.
    """
    seen: dict[str, tuple[bytes, float]] = {}
    noted = False
    while True:
        waiting = False
        for entry in storage.listed(folder):
            if entry.folder:
                continue
            try:
                content = storage.get(entry.name)
            except FileNotFoundError:  # withdrawn
                continue
            claim = _read(content)
            before, since = seen.setdefault(entry.name, (content, time.monotonic()))
            if content != before:
                return str(claim.get("holder", "an unknown process"))
            if claim.get("copy") == dead_copy or time.monotonic() - since > (patience or _seconds(claim)):
                if bury:
                    storage.delete(entry.name)
            else:
                waiting = True
                if not noted and time.monotonic() - since > _SILENCE * BEAT_SECONDS:
                    noted = True
                    note(
                        f"{claim.get('holder', 'An unknown process')} held the lease of {storage.shown(folder)} and is "
                        f"silent; it is taken over after {patience or _seconds(claim):.0f} s without a sign of life."
                    )
        if not waiting:
            return None
        time.sleep(BEAT_SECONDS / _POLLS)


def now() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _runs(holder: threading.Thread) -> bool:
    """Whether a thread still runs: Python does not wait for a daemon when the main thread has ended."""
    return holder.is_alive() and (not holder.daemon or threading.main_thread().is_alive())


def _read(content: bytes) -> dict[str, Any]:
    try:
        claim = json.loads(content)
    except (ValueError, RecursionError):
        claim = None
    return claim if isinstance(claim, dict) else {}


def _seconds(claim: dict[str, Any]) -> float:
    """How long a claim lives without a new count, as its holder says; no more than a day."""
    found = claim.get("seconds")
    return min(float(found), 86_400.0) if isinstance(found, int | float) and found > 0 else LEASE_SECONDS


def _holder() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
