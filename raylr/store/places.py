"""Where raylr may write: file systems, not object stores, and not the copy that Ray makes of a job's files."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from raylr.errors import StudyError

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/")  # two letters or more, since C:/ is a drive; pathlib makes // one /
_COPY = ("runtime_resources", "working_dir_files")
"""Folders of Ray's session in which it keeps the working directories of jobs (read in Ray 2.60's runtime_env)."""


def local_folder(place: Path | str) -> Path:
    """Return a folder of a file system; `file://` may be written before it.

    Args:
        place: The folder as the user named it; it need not exist.

    Raises:
        StudyError: If it is the address of an object store, which would otherwise become a folder of that name here.

    Example:
        >>> from raylr.store.places import local_folder
        >>> str(local_folder("file:///data/runs"))
        '/data/runs'
    """
    text = str(place)
    found = _ADDRESS.match(text)
    if found:
        name = text[found.end() :].lstrip("/")
        if found.group(1) != "file":
            raise StudyError(
                f"{found.group(1)}://{name}: raylr writes to file systems; give a folder on storage that all nodes "
                "share, such as NFS, Lustre or a mount of the store"
            )
        text = f"/{name}"
    return Path(text)


def refuse_copy(folder: Path) -> None:
    """Raise StudyError if a folder lies in the copy of a job's working directory that Ray makes on a node.

    Ray deletes the copy, and makes another one as soon as a file of the original changes: a study there would be lost.
    """
    if _COPY in pairwise(folder.resolve().parts):
        raise StudyError(
            f"{folder} is in Ray's copy of the job's working directory, which Ray deletes, and makes anew when a file "
            "of the original has changed; give a folder on storage that all nodes share (--out, in Python directory=)"
        )
