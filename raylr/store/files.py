"""Files of a study: written whole or not at all, locked against a second process, never outside their folder.

Where the folder is a working copy of one at an address (`raylr.remote.copies`), everything that is written or removed
here is written or removed there first, and a lock is a lease there, too.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from raylr.errors import StorageError, StudyError, StudyLockedError
from raylr.remote.copies import copy_of, is_leased, leased

_FULL = (errno.ENOSPC, errno.EDQUOT)
MARKS = ("spec.yaml", "study.json", "runs.json", "evals", "coordinates")
"""Files and folders by which a folder is known to be one of raylr's: of a study, of imported runs, of scores, of a
coordinate check. Of another folder at an address nothing is fetched, however large it is."""
READER_SECONDS = 0.2
"""A process that holds a lock for less than this only looked at it."""


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace a file whole or not at all; when this returns, the content survives a crash of the machine.

    Args:
        path: The file. Its folder must exist.
        content: Text (written as UTF-8) or bytes.

    Raises:
        StorageError: If the disk is full, the folder was removed or may not be written; the old content is kept.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with storage_errors(path), _written_there(path, data):
        try:
            with temporary.open("wb") as sink:
                sink.write(data)
                sink.flush()
                os.fsync(sink.fileno())
            temporary.replace(path)
            _flush_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _written_there(path: Path, data: bytes) -> Iterator[None]:
    """Write the file at the address, if there is one; what cannot be written there is not written here in the block."""
    found = copy_of(path)
    if found is None:
        yield
        return
    copy, name = found
    with copy.locked():
        copy.put(name, data)
        yield


def remove_file(path: Path) -> None:
    """Remove a file; one that is not there is no error. Raises StorageError if it cannot be removed."""
    if (found := copy_of(path)) is not None:
        found[0].storage.delete(found[1])
    with storage_errors(path, "remove"):
        path.unlink(missing_ok=True)


def fetch(folder: Path, folders: Collection[str], *, again: bool = False) -> None:
    """Bring a working copy up to date (`WorkingCopy.fetch`), if it is of a folder of raylr's own; nothing is done for
    any other folder."""
    if (found := copy_of(folder)) is not None:
        copy, name = found
        copy.fetch(folders, below="" if name == "." else name, again=again, marks=MARKS)


def names_in(folder: Path) -> set[str]:
    """Return the names of what is in a folder, hidden ones left out, at the address if it is a working copy."""
    if (found := copy_of(folder)) is not None:
        copy, name = found
        names = {entry.name.rpartition("/")[2] for entry in copy.storage.listed("" if name == "." else name)}
    else:
        with storage_errors(folder, "read"):
            names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if not name.startswith(".")}


@contextmanager
def storage_errors(path: Path, action: str = "write") -> Iterator[None]:
    """Turn an OSError in the block into a StorageError whose one sentence names `path`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            reason = "the disk is full; make room and run the same command again"
        elif isinstance(error, FileNotFoundError) and path.is_symlink():
            reason = f"it is a link to {path.readlink()}, which is not there"
        elif isinstance(error, FileNotFoundError):
            reason = "its folder is not there; was it removed or is the storage disconnected?"
        else:
            reason = error.strerror or " ".join(str(error).split())
        raise StorageError(f"cannot {action} {path}: {reason}") from error


@contextmanager
def exclusive(
    path: Path, message: str, *, timeout: float = 0.0, note: Callable[[str], None] = lambda text: None
) -> Iterator[None]:
    """Hold the lock file `path` for the block. The lock goes with the process, however that ends; the lease at an
    address ends by itself (`raylr.remote.lease`).

    Args:
        path: The lock file; it is made if it is missing and stays there.
        message: Sentence of the error if another process holds the lock.
        timeout: Seconds to wait for the other process; -1 waits without end. It is `READER_SECONDS` at least, since one
            that only tests whether the lock is held (`held`) has it for some microseconds.
        note: Called with a sentence while the lease of a silent process is waited for.

    Raises:
        StudyLockedError: If another process holds the lock after `timeout`.
        StorageError: If the lock file cannot be made.
    """
    lock = filelock.FileLock(path, timeout=timeout if timeout < 0 else max(timeout, READER_SECONDS))
    with storage_errors(path, "lock"):
        try:
            lock.acquire(poll_interval=READER_SECONDS / 4)
        except filelock.Timeout:
            raise StudyLockedError(message) from None
    try:
        with leased(path, message, timeout, note):
            yield
    finally:
        lock.release()


def held(path: Path) -> bool:
    """Return whether a process holds the lock file `path`; nothing is written, so that a reader may call it.

    A lock file that cannot be opened counts as free: where a study runs, its owner can read it. At an address, a
    process of another machine is known by its lease.
    """
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except OSError:
        pass
    return is_leased(path)


def inside(folder: Path, name: str) -> Path:
    """Return `folder / name`, checked to be a direct child of `folder`.

    Names of folders that are read from a table pass through here before anything is opened or deleted.

    Raises:
        StudyError: If the name is empty, absolute, has a separator, or leads elsewhere ("..", a symbolic link).
    """
    folder = Path(folder)
    path = folder / name
    plain = bool(name) and name not in (".", "..") and not any(sign in name for sign in ("/", "\\", "\0"))
    if not plain or path.resolve().parent != folder.resolve():
        raise StudyError(f"{name!r} does not name a folder directly inside {folder}; nothing was touched")
    return path


def remove_inside(folder: Path, name: str) -> None:
    """Remove the folder `name` directly inside `folder`, if it is there. Raises StudyError as `inside`."""
    path = inside(folder, name)
    if (found := copy_of(path)) is not None:
        found[0].delete_folder(found[1])
    shutil.rmtree(path, ignore_errors=True)


def digest(content: bytes) -> str:
    """Return the checksum that names of fragments carry: 16 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
