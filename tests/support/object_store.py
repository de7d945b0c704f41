"""An object store for tests: moto's S3 in this process, buckets of it, and machines with a cache of their own."""

import logging
import os
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from raylr.remote import copies


def start_store() -> ThreadedMotoServer:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    return server


class Bucket:
    """A new bucket. What it holds is read and changed here without raylr."""

    def __init__(self, server: str) -> None:
        self.server, self.name = server, f"bucket-{uuid.uuid4().hex[:8]}"
        request = urllib.request.Request(f"http://{server}/{self.name}", method="PUT")
        urllib.request.urlopen(request).close()
        self._files: Any = fs.FileSystem.from_uri(self.full_address(""))[0]

    def address(self, folder: str) -> str:
        """The address of a folder of it; the store is named by AWS_ENDPOINT_URL."""
        return f"s3://{self.name}/{folder}"

    def full_address(self, folder: str) -> str:
        """The address with the store in it, for processes that were started without AWS_ENDPOINT_URL."""
        return f"{self.address(folder)}?endpoint_override={self.server}&scheme=http"

    def names(self, folder: str = "") -> list[str]:
        """The objects in a folder of it."""
        found = self._files.get_file_info(
            fs.FileSelector(f"{self.name}/{folder}".rstrip("/"), allow_not_found=True, recursive=True)
        )
        return [info.path[len(self.name) + 1 :] for info in found if info.is_file]

    def get(self, name: str) -> bytes:
        with self._files.open_input_stream(f"{self.name}/{name}") as stream:
            return bytes(stream.read())

    def put(self, name: str, content: bytes) -> None:
        with self._files.open_output_stream(f"{self.name}/{name}") as stream:
            stream.write(content)

    def delete(self, name: str) -> None:
        self._files.delete_file(f"{self.name}/{name}")

    @contextmanager
    def machine(self, cache: Path) -> Iterator[None]:
        """What happens in the block happens on a machine with this cache."""
        before = dict(copies._copies)
        copies._copies.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(copies.CACHE, str(cache))
            yield
        copies._copies.clear()
        copies._copies.update(before)


def environment(cache: Path, server: str) -> dict[str, str]:
    """The environment of a process on a machine with this cache."""
    return os.environ | {copies.CACHE: str(cache), "AWS_ENDPOINT_URL": f"http://{server}"}
