"""`Storage`: a folder of an object store or of HDFS, through pyarrow. Whole objects are put, read, listed and deleted.

An object is there whole or not at all: stores show an object when its upload is complete, and HDFS renames. What a
storage does not answer at once is requested again for `RETRY_SECONDS`; what can never succeed (no such bucket, no
access) is one error at once. Credentials come from where the storage's own tools take them, and never from an address.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from raylr.errors import StorageError, StudyError
from raylr.remote.undisturbed import undisturbed

SCHEMES = ("s3", "gs", "hdfs")
DEFAULT_HOST = "default"
"""Host of HDFS that stands for the cluster of core-site.xml, as in pyarrow; `hdfs:///folder` has it, too."""
RETRY_SECONDS = 60.0
"""How long requests to a storage that does not answer are repeated: a restart of a gateway or a change of routes takes
less."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_NO_HADOOP = "Hadoop's native client is not installed here (JAVA_HOME, HADOOP_HOME, CLASSPATH)"
_NEVER = {
    "NO_SUCH_BUCKET": "there is no such bucket; make it first",
    "ACCESS_DENIED": "",
    "INVALID_ACCESS_KEY_ID": "",
    "SIGNATURE_DOES_NOT_MATCH": "",
    "INVALID_CLIENT_TOKEN_ID": "",
    "UNRECOGNIZED_CLIENT": "",
    "EXPIRED_TOKEN": "",
    "ExpiredToken": "",
    "InvalidToken": "",
    "PERMISSION_DENIED": "",
    "UNAUTHENTICATED": "",
    "HTTP status 301": "the bucket is in another region; name it by AWS_REGION or ?region= in the address",
    "Unable to load lib": _NO_HADOOP,
    "attempt to load libhdfs failed": _NO_HADOOP,
}
"""What pyarrow's message holds when asking again is useless → what to do; "": `_CREDENTIALS`."""
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, or the node's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, gcloud's own, or the node's account",
    "hdfs": "a Kerberos ticket, or HADOOP_USER_NAME",
}
_OPTIONS = {
    "s3": ("region", "scheme", "endpoint_override"),
    "gs": ("scheme", "endpoint_override", "project_id", "retry_limit_seconds"),
    "hdfs": ("user", "replication", "buffer_size", "default_block_size", "kerb_ticket"),
}
"""Options that an address may have behind "?": those of pyarrow that say where the storage is, and no secrets."""
_DEFAULTS = {
    "s3": {"allow_delayed_open": "true"},  # one request for a small object in place of three
    "gs": {"retry_limit_seconds": "15"},  # in place of 15 minutes, for which nothing could be interrupted
    "hdfs": {},
}
"""Options that pyarrow is given, of which older versions do not know the first."""
_NUMBERS = ("replication", "buffer_size", "default_block_size")
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Schemes whose `name@host` is a container of an account."""
_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]+):/{1,2}(?P<host>[^/?]*)(?P<path>[^?]*)(?:\?(?P<options>.*))?",
    re.DOTALL | re.IGNORECASE,
)
"""An address; its scheme has two letters or more, since C:/ is a drive."""
_HOST = re.compile(r"[A-Za-z0-9._-]*(?::\d{1,5})?")
_PASSWORD = re.compile(r":(?!\d{1,5}$)")
"""A colon that no port is behind: that of user:password, whose slashes may have ended the host early."""
_REQUEST = re.compile(r"\s*\(Request ID: [^)]*\)")
T = TypeVar("T")


def address_of(place: PurePath | str) -> str | None:
    """Return the address of a folder of an object store or of HDFS; None for a folder of a file system.

    Args:
        place: A folder as the user named it. A `Path` of an address, which has lost a slash, is one too.

    Raises:
        StudyError: If it is an address of another kind, has no bucket, holds credentials, or is one that stores and
            file systems read differently. What may be a secret is not in the message.

    Example:
        >>> address_of(Path("s3://bucket/runs/a")), address_of("runs/a"), address_of("file:///runs/a")
        ('s3://bucket/runs/a', None, None)
    """
    text = str(place).strip()
    found = _ADDRESS.match(text)
    if not found or found["scheme"].lower() == "file":
        return None
    scheme, options = found["scheme"].lower(), re.sub(r":/(?!/)", "://", found["options"] or "")
    host, path = found["host"], found["path"]
    named = "@" in host and scheme not in _CONTAINERS
    if named or _PASSWORD.search(host) or (":" in host and scheme in ("s3", "gs")) or "@" in options:
        source = _CREDENTIALS.get(scheme, "the environment")
        raise StudyError(f"{scheme}://…: no credentials in an address; they come from {source}")
    if ".." in path.split("/") or "#" in text or not text.isprintable():
        raise StudyError(f"{scheme}://…: an address is written without '..', '#' and characters that cannot be printed")
    if scheme not in SCHEMES:
        raise StudyError(
            f"{scheme}://{host}{path}: raylr writes to file systems and to addresses of {', '.join(SCHEMES)}; give a "
            "folder on storage that all nodes share, such as NFS, Lustre or a mount of the store"
        )
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if scheme == "hdfs":
        host = host or DEFAULT_HOST
        if not parts:
            raise StudyError(f"hdfs://{host}: the address names no folder; write hdfs://HOST:PORT/FOLDER")
    elif not host:
        raise StudyError(f"{scheme}://: the address names no bucket; write {scheme}://BUCKET/FOLDER")
    address = "/".join((f"{scheme}://{host}", *parts))
    if not _HOST.fullmatch(host):
        raise StudyError(f"{address}: {host!r} names no {'host' if scheme == 'hdfs' else 'bucket'}")
    if {key for key, _ in parse_qsl(options, keep_blank_values=True)} - set(_OPTIONS[scheme]):
        raise StudyError(
            f"{address}?…: the options of an address are {', '.join(_OPTIONS[scheme])}; credentials come from "
            f"{_CREDENTIALS[scheme]}"
        )
    return f"{address}?{options}" if options else address


@dataclass(frozen=True)
class Entry:
    """What a listing says of an object or a folder."""

    name: str
    """Below the folder of the storage, with slashes."""
    size: int
    folder: bool
    written: int | None = None
    """When it was written by the storage's clock, nanoseconds since 1970."""


class Storage:
    """A folder at an address. Making the object connects to nothing.

    Args:
        address: As `address_of` returns it.

    Every method raises StorageError with one sentence if the storage refuses, or does not answer for `RETRY_SECONDS`.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """pyarrow's file system and the path of the folder in it."""
        from pyarrow import fs

        # pyarrow reads an address as a URI, with %20 for a space; the stores' own tools take a path as it is.
        parts = urlsplit(self.address)._replace(path="/")
        options = dict(parse_qsl(parts.query))
        try:
            if parts.scheme == "hdfs" and parts.netloc == DEFAULT_HOST:  # which from_uri does not know
                values = {key: int(value) if key in _NUMBERS else value for key, value in options.items()}
                return fs.HadoopFileSystem("default", 0, **values), urlsplit(self.address).path
            try:
                opened = fs.FileSystem.from_uri(
                    urlunsplit(parts._replace(query=urlencode(_DEFAULTS[parts.scheme] | options)))
                )
            except ValueError:
                opened = fs.FileSystem.from_uri(urlunsplit(parts))
        except (ValueError, NotImplementedError) as error:  # pyarrow's Invalid and NotImplemented
            raise StudyError(f"{self.shown('')}: {_short(error)}") from error
        return opened[0], f"{str(opened[1]).rstrip('/')}{urlsplit(self.address).path}"

    @property
    def file_system(self) -> Any:
        """pyarrow's file system, which holds no credentials but where to find them. Ray takes it, too."""
        return self._ask("open", "", lambda: self._opened)[0]

    def path(self, name: str = "") -> str:
        """Return the path of an object in pyarrow's file system."""
        root = self._opened[1].rstrip("/")
        return f"{root}/{name}" if name else root

    def place(self, name: str) -> str:
        """Return the address of an object, for other machines: with the options of this one."""
        parts = urlsplit(self.address)
        return urlunsplit(parts._replace(path=f"{parts.path}/{name}" if name else parts.path))

    def shown(self, name: str) -> str:
        """Return the address of an object, for messages."""
        return self.place(name).partition("?")[0]

    def contains(self, address: str) -> bool:
        """Return whether an address lies below this folder."""
        own, other = urlsplit(self.address), urlsplit(address)
        same = (own.scheme, own.netloc, own.query) == (other.scheme, other.netloc, other.query)
        return same and f"{other.path}/".startswith(f"{own.path}/")

    def put(self, name: str, content: Any, *, retry: bool = True) -> None:
        """Write an object whole or not at all; what interrupts the main thread meanwhile is raised when it is written.

        pyarrow completes a stream that is left with what it has. The content is therefore given to it in one piece, and
        in a thread, where no Ctrl-C and no SIGTERM can come between opening and closing it. Their exceptions wait for
        the end of the write: one that went on behind them could replace what is written next.

        Args:
            name: The object.
            content: bytes or a pyarrow buffer.
            retry: Whether to try again for a while.
        """

        def write() -> None:
            files, hdfs = self.file_system, self.file_system.type_name == "hdfs"
            target = self.path(name)
            work = f"{target}.{uuid.uuid4().hex[:8]}.tmp" if hdfs else target
            if hdfs:
                files.create_dir(target.rpartition("/")[0], recursive=True)
            stream = files.open_output_stream(work)
            stream.write(content)
            stream.close()
            if hdfs:
                if files.get_file_info(target).is_file:
                    files.delete_file(target)  # HDFS does not rename onto a file
                files.move(work, target)

        self._ask("write", name, lambda: undisturbed(write), retry=retry)

    def get(self, name: str) -> bytes:
        """Return the content of an object. Raises FileNotFoundError if it is not there."""

        def read() -> bytes:
            with self.file_system.open_input_stream(self.path(name)) as stream:
                return bytes(stream.read())

        return self._ask("read", name, read)

    def download(self, name: str, file: Path) -> None:
        """Write the content of an object to a file. Raises FileNotFoundError if the object is not there."""

        def read() -> None:
            with self.file_system.open_input_stream(self.path(name)) as stream, file.open("wb") as sink:
                while piece := stream.read(8 << 20):
                    sink.write(piece)

        self._ask("read", name, read)

    def is_file(self) -> bool:
        """Return whether the address is that of an object, and not of a folder."""
        from pyarrow import fs

        def look() -> bool:
            return bool(self.file_system.get_file_info(self.path()).type == fs.FileType.File)

        return self._ask("read", "", look)

    def listed(self, folder: str = "", *, recursive: bool = False) -> list[Entry]:
        """Return what is in a folder; nothing if there is none."""
        from pyarrow import fs

        def look() -> list[Entry]:
            selector = fs.FileSelector(self.path(folder), recursive=recursive)
            skip = len(self.path()) + 1
            try:
                found = self.file_system.get_file_info(selector)
            except FileNotFoundError:  # a missing bucket is another error
                return []
            return [
                Entry(info.path[skip:], info.size or 0, info.type == fs.FileType.Directory, info.mtime_ns)
                for info in found
            ]

        return self._ask("list", folder, look)

    def delete(self, name: str, *, retry: bool = True) -> None:
        """Delete an object; one that is not there is no error."""

        def remove() -> None:
            try:
                self.file_system.delete_file(self.path(name))
            except FileNotFoundError:
                return

        self._ask("delete", name, remove, retry=retry)

    def _ask(self, action: str, name: str, do: Callable[[], T], *, retry: bool = True) -> T:
        """Return what `do` returns; ask again while the storage does not answer."""
        begun, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                return do()
            except (FileNotFoundError, StudyError, StorageError):
                raise
            except OSError as error:
                if advice := self._hopeless(error):
                    raise StorageError(f"cannot {action} {self.shown(name)}: {advice} ({_short(error)})") from error
                waited = time.monotonic() - begun
                if not retry or waited + pause > RETRY_SECONDS:
                    raise StorageError(
                        f"cannot {action} {self.shown(name)}: the storage has not answered for {waited:.0f} s "
                        f"({_short(error)}); what is stored there is kept, and the same command continues"
                    ) from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _hopeless(self, error: OSError) -> str:
        """Return what to do about an error that asking again does not help against; "" for any other."""
        scheme = urlsplit(self.address).scheme
        access = f"access is denied; credentials come from {_CREDENTIALS[scheme]}"
        for sign, advice in _NEVER.items():
            if sign in str(error):
                return advice or access
        return access if isinstance(error, PermissionError) else ""


def _short(error: BaseException) -> str:
    """The first line of an error, without the number of the request."""
    lines = _REQUEST.sub("", str(error)).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
