"""Where commands read and write: folders and files of this machine, or at an address (`s3://`, `gs://`, `hdfs://`).

A parameter that names a folder or a file says what is done with it, and `resolve` puts the working copy in the place of
an address before the command is called. What says nothing is for file systems alone:

    study: Annotated[Path, Use.READ]     a folder or a file, as it is now; a folder may be written into
    out: Annotated[Path, Use.WRITE]      a file that is written
    tokenizer: Path                      on a file system

Strings that say nothing are left alone: they are no places, or addresses that raylr's functions resolve.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from inspect import BoundArguments
from pathlib import Path
from typing import Any, get_type_hints

from raylr.store.places import local_folder, opened, written


class Use(Enum):
    """What a command does with a place."""

    READ = "read"
    WRITE = "write"


def resolve(command: Callable[..., Any], bound: BoundArguments) -> None:
    """Replace places in the arguments of a command by folders and files of this machine.

    Args:
        command: A command of raylr's.
        bound: Its arguments, which are changed.

    Raises:
        StudyError: For an address that cannot be used, or where only a file system will do.
        StorageError: If the storage does not answer.
    """
    hints = get_type_hints(command, include_extras=True)
    for name, value in bound.arguments.items():
        use = use_of(hints[name])
        if isinstance(value, list | tuple):
            bound.arguments[name] = type(value)(_here(one, use) for one in value)
        else:
            bound.arguments[name] = _here(value, use)


def use_of(hint: Any) -> Use | None:
    """Return what the annotation of a parameter says about places; None if nothing."""
    return next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Use)), None)


def _here(value: Any, use: Use | None) -> Any:
    if isinstance(value, Path):
        if use is None:
            return local_folder(value, "what this command reads or writes here")
        return opened(value) if use is Use.READ else written(value)
    if isinstance(value, str) and use is not None:
        return str(opened(value)) if ":/" in value else value  # not the name of a law, nor wandb:ENTITY/PROJECT
    return value
