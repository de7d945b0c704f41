"""Where raylr may write: not into the copy that Ray makes of a job's files, and some things to file systems alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from raylr.errors import StudyError
from raylr.remote.copies import copy_of, local_path
from raylr.remote.storage import Storage, address_of
from raylr.store.files import fetch, storage_errors

_COPY = ("runtime_resources", "working_dir_files")
"""Folders of Ray's session in which it keeps the working directories of jobs (read in Ray 2.60's runtime_env)."""
_WHOLE = ("complete.json", "config.json")
"""Files by which a folder is known to be a checkpoint, or a Hugging Face model."""


def opened(place: Path | str) -> Path:
    """Return the folder or the file of this machine in which a place is read, and written if it is a folder.

    Of an address it is the working copy. A file is fetched; of a folder of raylr's own, its files and tables. What
    reads checkpoints and corpora fetches them; a checkpoint lies in the copy of its study.

    Args:
        place: A folder or a file as the user named it; it need not exist.

    Raises:
        StudyError: For an address that `address_of` refuses.
        StorageError: If the storage does not answer.
    """
    if (address := address_of(place)) is None:
        return local_path(place)
    from raylr.store.folder import CHECKPOINTS, SPEC_FILE, TABLES

    base, sign, options = address.partition("?")
    study = next((base.rpartition(mark)[0] for mark in (f"/{CHECKPOINTS}/", "/waiting/") if mark in base), "")
    if study and Storage(f"{study}/{SPEC_FILE}{sign}{options}").is_file():
        fetch(local_path(f"{study}{sign}{options}"), TABLES)
    elif Storage(address).is_file():
        file = written(address)
        if (found := copy_of(file)) is not None:
            found[0].fetch_file(found[1])
        return file
    elif any(entry.name in _WHOLE or entry.name.startswith("step-") for entry in Storage(address).listed()):
        return written(address)  # it is fetched as a whole, beside others, by what reads it
    folder = local_path(address)
    fetch(folder, TABLES)
    return folder


def written(place: Path | str) -> Path:
    """Return the file of this machine that stands for a file which is written, with the folder in which it lies.

    Args:
        place: A file as the user named it. On a file system its folder must exist.

    Raises:
        StudyError: For an address that `address_of` refuses.
    """
    if (address := address_of(place)) is None:
        return local_path(place)
    base, sign, options = address.partition("?")
    folder, _, name = base.rpartition("/")
    if folder.endswith(":/"):
        raise StudyError(f"{base} names no file")
    there = local_path(f"{folder}{sign}{options}")
    with storage_errors(there, "make"):
        there.mkdir(parents=True, exist_ok=True)
    return there / name


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
