"""Where raylr may write: not into the copy that Ray makes of a job's files, and some things to file systems alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from raylr.errors import StudyError
from raylr.remote.copies import local_path
from raylr.remote.storage import address_of

_COPY = ("runtime_resources", "working_dir_files")
"""Folders of Ray's session in which it keeps the working directories of jobs (read in Ray 2.60's runtime_env)."""


def local_folder(place: Path | str, what: str) -> Path:
    """Return a folder of a file system; `file://` may be written before it.

    Args:
        place: The folder as the user named it; it need not exist.
        what: What is to be kept there, for the message.

    Raises:
        StudyError: If it is the address of an object store or of HDFS.

    Example:
        >>> from raylr.store.places import local_folder
        >>> str(local_folder("file:///data/runs", "a table"))
        '/data/runs'
    """
    if (address := address_of(place)) is not None:
        raise StudyError(
            f"{address}: {what} is kept on a file system; give a folder on storage that all nodes share, such as NFS, "
            "Lustre or a mount of the store"
        )
    return local_path(place)


def refuse_copy(folder: Path) -> None:
    """Raise StudyError if a folder lies in the copy of a job's working directory that Ray makes on a node.

    Ray deletes the copy, and makes another one as soon as a file of the original changes: a study there would be lost.
    """
    if _COPY in pairwise(folder.resolve().parts):
        raise StudyError(
            f"{folder} is in Ray's copy of the job's working directory, which Ray deletes, and makes anew when a file "
            "of the original has changed; give a folder on storage that all nodes share (--out, in Python directory=)"
        )
