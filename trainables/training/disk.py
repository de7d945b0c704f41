"""Disks that cannot take a checkpoint."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raylr.errors import StorageError


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Write a checkpoint into a folder in the block. If that fails nothing of it stays, which would keep a full disk
    full.

    Raises:
        StorageError: If the disk is to blame.
    """
    try:
        yield
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if reason := _disk_problem(error):
            raise StorageError(f"cannot write a checkpoint into {folder.parent}: {reason}") from error
        raise


def _disk_problem(error: BaseException) -> str:
    """Why a disk could not take a file; "" for any other error. torch's RuntimeError only says that its writer
    failed."""
    torchs = isinstance(error, RuntimeError) and ("inline_container" in str(error) or "StreamWriter" in str(error))
    if torchs or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return "the disk is full; make room and run the same command again"
    return (error.strerror or str(error)) if isinstance(error, OSError) else ""
