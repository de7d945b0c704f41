"""Working copies: folders of this machine that stand for folders at an address.

    <cache>/copies/<name>-<hash of the address>/      as the folder would be on a file system

Everything is written to the storage first and then here, and read from here. `fetch` brings a copy up to date with the
storage, which decides; checkpoints and corpora are fetched when they are needed (`fetch_folder`). What lies in a
hidden folder of a copy (`.writing-…`) stays on this machine.

The cache is `RAYLR_CACHE`, else `raylr` in `XDG_CACHE_HOME` or `~/.cache`. It may be deleted while nothing runs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from filelock import FileLock

from raylr.errors import StorageError, StudyError
from raylr.remote.lease import BEAT_SECONDS, Lease, living_claim
from raylr.remote.storage import Entry, Storage, address_of
from raylr.remote.undisturbed import each

CACHE = "RAYLR_CACHE"
"""Environment variable that names the folder of the cache."""
_FILE = re.compile(r"file:(?://(?P<host>[^/]*))?(?P<path>/.*)", re.DOTALL | re.IGNORECASE)
"""A folder of this machine as an address; as a `Path` it has lost a slash, and with it what its host is."""
_SHOWN = 60
"""Characters of an address's last part in the name of its copy: file systems take 255 bytes."""
_RETRIES = 5
"""Times that a fetch begins anew because an object vanished under it: its writer merges fragments."""
_copies: dict[Path, WorkingCopy] = {}
"""The working copies that this process uses, by their folder."""


def local_path(place: Path | str) -> Path:
    """Return the folder of this machine in which a folder is read and written: itself, or its working copy.

    Args:
        place: A folder, with or without `file://` before it, or an address. Nothing is made, nor fetched.

    Raises:
        StudyError: For an address that `address_of` refuses.
    """
    address = address_of(place)
    if address is None:
        found = _FILE.match(str(place))
        if not found:
            return Path(place)
        if found["host"] not in (None, "", "localhost"):
            raise StudyError("file://…: file:// names folders of this machine; write file:///FOLDER")
        return Path("/" + found["path"].lstrip("/"))
    for root, copy in _copies.items():  # a folder of one that is known lies in its copy
        if copy.storage.contains(address):
            return root / urlsplit(address).path[len(urlsplit(copy.address).path) + 1 :]
    name = PurePosixPath(urlsplit(address).path).name or urlsplit(address).netloc
    root = cache_folder() / "copies" / f"{name[:_SHOWN]}-{hashlib.sha256(address.encode()).hexdigest()[:16]}"
    if root not in _copies:
        _copies[root] = WorkingCopy(address, root)
    return root


def local_corpus(place: Path | str, manifest: str) -> Path:
    """Return the folder of this machine in which a corpus is read; one at an address is fetched, if it is not here.

    Args:
        place: The corpus's folder, or its address.
        manifest: The file that is written last and differs between any two corpora.
    """
    if (address := address_of(place)) is not None and not any(c.storage.contains(address) for c in _copies.values()):
        parts = urlsplit(address)
        parent, _, last = parts.path.rpartition("/")
        folder = local_path(urlunsplit(parts._replace(path=parent))) / last
    else:
        folder = local_path(place)
    if (found := copy_of(folder)) is not None:
        copy, name = found
        with suppress(FileNotFoundError):  # it is not there yet
            there = copy.storage.get(f"{name}/{manifest}")

            def whole(path: Path) -> bool:
                file = path / manifest
                return file.is_file() and file.read_bytes() == there

            copy.fetch_folder(name, whole)
    return folder


def put_corpus(folder: Path, manifest: str) -> None:
    """Write a corpus that was made in a working copy to its address, unless it is there; its manifest comes last."""
    if (found := copy_of(folder)) is None:
        return
    copy, name = found
    made = (folder / manifest).read_bytes()
    with suppress(FileNotFoundError):
        if copy.storage.get(f"{name}/{manifest}") == made:
            return
    copy.put_folder(folder, name, but=(manifest,))
    copy.put(f"{name}/{manifest}", made)


def cache_folder() -> Path:
    """Return the folder of raylr's cache on this machine; it need not exist."""
    if named := os.environ.get(CACHE):
        return Path(named).resolve()
    return (Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raylr").resolve()


def copy_of(path: Path) -> tuple[WorkingCopy, str] | None:
    """Return the working copy that a path lies in, and its name there; None if it lies in none, or is kept here."""
    if not _copies:
        return None
    path = Path.cwd() / path
    for root, copy in _copies.items():
        if path.is_relative_to(root):
            name = path.relative_to(root)
            return None if any(part.startswith(".") for part in name.parts[:-1]) else (copy, name.as_posix())
    return None


def place_of(path: Path) -> str:
    """Return where a folder is for other machines: its address, if it is in a working copy, else the folder itself."""
    found = copy_of(path)
    if found is None:
        return str(path)
    copy, name = found
    return copy.storage.place("" if name == "." else name)


def ray_storage(folder: Path | str) -> tuple[str, Any]:
    """Return `storage_path` and `storage_filesystem` with which Ray keeps files of its own in a folder."""
    path = local_path(folder).absolute()
    if (found := copy_of(path)) is None:
        return str(path), None
    copy, name = found
    return copy.storage.path("" if name == "." else name), copy.storage.file_system


def name_of(path: Path) -> str:
    """Return the last part of a folder's path, or of its address."""
    return PurePosixPath(urlsplit(place_of(path)).path).name if copy_of(path) is not None else path.name


def with_addresses(text: str) -> str:
    """Return a text in which the folders of working copies are replaced by their addresses, for people."""
    for root, copy in _copies.items():
        text = text.replace(str(root), copy.storage.shown(""))
    return text


@contextmanager
def leased(
    path: Path, busy: str, timeout: float = 0.0, note: Callable[[str], None] = lambda text: None
) -> Iterator[None]:
    """Hold the lease of a lock file for the block, if it lies in a working copy. Its own lock must be held.

    Args:
        path: The lock file.
        busy: Message if another process has it.
        timeout: Seconds to wait for it.
        note: Receives a line when the wait begins.

    Raises:
        StudyLockedError: If another process has it (`Lease.acquire`).
    """
    found = copy_of(path)
    if found is None:
        yield
        return
    copy, name = found
    lease = Lease(copy.storage, name, copy.identity)
    try:
        lease.acquire(busy, timeout, note)
        copy.leases[name] = lease
        yield
    finally:
        copy.leases.pop(name, None)
        lease.release()


def is_leased(path: Path) -> bool:
    """Return whether a living process holds the lease of a lock file. It may take a few beats to know."""
    found = copy_of(path)
    return found is not None and living_claim(found[0].storage, found[1], patience=2.5 * BEAT_SECONDS) is not None


class WorkingCopy:
    """A folder of this machine that stands for one at an address. `local_path` makes them.

    Args:
        address: The address.
        root: The folder here; made when something is fetched or written.
    """

    def __init__(self, address: str, root: Path) -> None:
        self.address, self.root, self.storage = address, root, Storage(address)
        self.leases: dict[str, Lease] = {}
        """Those that this process holds, by the name of their lock file."""

    @cached_property
    def identity(self) -> str:
        """Names this copy on this machine, as it has run since it was started, and on no other."""
        try:
            machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            machine = uuid.uuid4().hex  # no claim is ever known to be that of a process that has ended
        file = self.root / ".copy"
        with self.locked():
            if not file.exists():
                file.write_text(uuid.uuid4().hex)
            return f"{machine}:{file.read_text()}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the copy, which several processes of this machine use: nothing is fetched while something is written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(
                f"cannot make {self.root}, the working copy of {self.address}: {error.strerror}; {CACHE} names another "
                "folder for the cache"
            ) from error
        with FileLock(self.root / ".copy.lock"):
            yield

    # -- from the storage --

    def fetch(
        self, folders: Collection[str], *, below: str = "", again: bool = False, marks: Collection[str] = ()
    ) -> None:
        """Bring the files of the folder itself, and all of the given folders in it, up to date.

        Files of these folders are never changed once they are written, so that those which are here are not fetched
        again. Pages (`.html`) are not fetched.

        Args:
            folders: Names of folders.
            below: A folder of this one, which is brought up to date in its place.
            again: Fetch also what is here, so that what is damaged at the storage is damaged here.
            marks: Files of which the folder must have one; of another folder nothing is fetched.
        """
        with self.locked():
            for attempt in range(_RETRIES):
                try:
                    self._fetch(folders, below, again, marks)
                except FileNotFoundError as error:
                    if attempt + 1 == _RETRIES:
                        raise StorageError(f"{self.address} changes too fast to be read: {error}") from error
                else:
                    return

    def _fetch(self, folders: Collection[str], below: str, again: bool, marks: Collection[str]) -> None:
        root, begin = self.root / below, f"{below}/" if below else ""
        top = [entry for entry in self.storage.listed(below) if not PurePosixPath(entry.name).name.startswith(".")]
        names = {entry.name.removeprefix(begin) for entry in top}
        known = not marks or bool(names & set(marks))
        files = [entry for entry in top if known and not entry.folder and not entry.name.endswith(".html")]
        fresh = []
        for name in sorted(set(folders) & names) if known else ():
            fresh += [entry for entry in self.storage.listed(begin + name, recursive=True) if not _local(entry)]
        wanted = {entry.name for entry in files + fresh}
        self._download([*files, *(entry for entry in fresh if again or not self._has(entry))], self.root)
        here = [path for path in root.iterdir() if path.is_file()] if root.is_dir() else []
        here += [path for name in folders for path in (root / name).rglob("*") if path.is_file()]
        for path in here:
            kept = path.name.startswith(".") or path.suffix == ".html"
            if not kept and path.relative_to(self.root).as_posix() not in wanted:
                path.unlink(missing_ok=True)

    def fetch_file(self, name: str) -> None:
        """Fetch one file, also if it is here. Raises FileNotFoundError if the storage does not have it."""
        with self.locked():
            self._download([Entry(name, 0, False)], self.root)

    def fetch_folder(self, name: str, whole: Callable[[Path], bool]) -> None:
        """Fetch a folder that is written once, if the storage has it and the one here is not whole.

        Args:
            name: Name of the folder.
            whole: Says whether the folder here is whole.
        """
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock"):  # others of this machine wait for one fetch
            if whole(target):
                return
            entries = [entry for entry in self.storage.listed(name, recursive=True) if not _local(entry)]
            if not entries:
                return
            work = target.parent / f".fetched-{uuid.uuid4().hex[:8]}"
            try:
                self._download(entries, work, below=name)
                shutil.rmtree(target, ignore_errors=True)
                work.rename(target)
            except FileNotFoundError:  # it was removed meanwhile
                return
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def _has(self, entry: Entry) -> bool:
        path = self.root / entry.name
        return path.is_file() and path.stat().st_size == entry.size

    def _download(self, entries: Collection[Entry], into: Path, *, below: str = "") -> None:
        """Write each object to its file, whole or not at all."""

        def one(entry: Entry) -> None:
            name = entry.name.removeprefix(f"{below}/") if below else entry.name
            target = into / name
            work = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                self.storage.download(entry.name, work)
                if entry.written is not None:
                    os.utime(work, ns=(entry.written, entry.written))
                work.replace(target)
            finally:
                work.unlink(missing_ok=True)

        if entries:
            each(one, entries)

    # -- to the storage --

    def put(self, name: str, content: Any) -> None:
        """Write an object. Raises StorageError also if a lease that it lies under was lost."""
        for lock, lease in list(self.leases.items()):
            folder = PurePosixPath(lock).parent.as_posix()
            if folder == "." or name.startswith(f"{folder}/"):
                lease.require()
        self.storage.put(name, content)

    def put_folder(self, folder: Path, name: str, *, but: Collection[str] = ()) -> None:
        """Write the files of a folder as the folder `name`, but those called `but`."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in but]

        def one(path: Path) -> None:
            self.put(f"{name}/{path.relative_to(folder).as_posix()}", content_of(path))

        each(one, files)

    def delete_folder(self, name: str, *, first: str = "") -> None:
        """Delete everything in a folder of the storage.

        Args:
            name: The folder.
            first: The file without which the folder counts as unfinished.
        """
        names = [entry.name for entry in self.storage.listed(name, recursive=True) if not entry.folder]
        for file in sorted(names, key=lambda one: not first or not one.endswith(f"/{first}")):
            self.storage.delete(file)


def content_of(path: Path) -> Any:
    """Return the content of a file as a buffer that is mapped, not read."""
    import pyarrow as pa

    if not path.stat().st_size:
        return b""
    with pa.memory_map(str(path)) as source:
        return source.read_buffer()


def _local(entry: Entry) -> bool:
    """Whether an entry is not one of the files that are fetched."""
    return entry.folder or any(part.startswith(".") for part in PurePosixPath(entry.name).parts)
