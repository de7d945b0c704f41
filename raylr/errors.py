"""Errors that every part of raylr raises. Any other exception is a bug and ends in a traceback.

    RaylrError                 something that a user can act on, in one sentence           exit status 1
    ├─ InputError              the input is wrong (also a ValueError)                      exit status 2
    │  ├─ SpecError            the study's spec
    │  ├─ DataError            text, corpora, questions, tables of runs
    │  ├─ StudyError           the study's folder: missing, of another spec, not empty
    │  │  └─ StudyLockedError  another process is running the study
    │  ├─ LawError             a law's file or name
    │  └─ CheckpointError      a checkpoint: missing, incomplete, of another run, not trusted
    ├─ StorageError            reading or writing failed: full disk, removed folder (also an OSError)
    │  └─ DamagedError         a file of raylr's own was changed or torn
    ├─ TrainingError           runs failed for another reason than divergence (also a RuntimeError)
    └─ EvaluationError         an evaluation failed (also a RuntimeError)

The command line prints the sentence and exits with `exit_status`; see `raylr.cli`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import ClassVar

EXIT_BAD_INPUT = 2
"""Exit status of the command line for bad input, as of getopt and most Unix tools."""
EXIT_FAILURE = 1
"""Exit status of the command line when something failed that was not the input."""
LONGEST_WORD = 300
"""A longer word of a message, as out of a file that holds something else, is shown by its ends."""
LONGEST_MESSAGE = 1800
"""A longer message, as with a list of hundreds of values, is shown by its ends."""


_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_SECRET = re.compile(r"(?i)([?&][\w.-]*(?:token|key|secret|password|signature|credential)[\w.-]*=)[^&\s]+")


def without_credentials(text: str) -> str:
    """Return a text in which the addresses hold no names, passwords and tokens.

    Example:
        >>> without_credentials("postgresql://me:word@host/db and http://host/?api_key=1&a=2")
        'postgresql://…@host/db and http://host/?api_key=…&a=2'
    """
    return _SECRET.sub(r"\1…", _USER.sub("…", text))


def shortened(message: str) -> str:
    """Return a message as it is shown: without credentials, and of words and lists that are too long to read the ends
    alone."""
    words = re.sub(
        rf"\S{{{LONGEST_WORD},}}", lambda word: f"{word[0][:150]}…{word[0][-30:]}", without_credentials(message)
    )
    return words if len(words) <= LONGEST_MESSAGE else f"{words[:1200]} … {words[-500:]}"


def first_line(error: Exception) -> str:
    """Return the first line of an error of a library, at most 200 characters, or its type where it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


class RaylrError(Exception):
    """Base of all errors that are not bugs; the message is one sentence for the user."""

    exit_status: ClassVar[int] = EXIT_FAILURE

    def __str__(self) -> str:
        return shortened(super().__str__())


class InputError(RaylrError, ValueError):
    """The input is wrong: the message states what is wrong, where, and what would be right."""

    exit_status: ClassVar[int] = EXIT_BAD_INPUT


class SpecError(InputError):
    """The spec of a study is wrong."""


class DataError(InputError):
    """A text, a corpus, a set of questions or a table of runs is wrong."""


class StudyError(InputError):
    """The folder of a study is missing, holds another study, or is not empty."""


class StudyLockedError(StudyError):
    """Another process is running the study."""


class LawError(InputError):
    """A law cannot be read, or there is no law of that name."""


class CheckpointError(InputError):
    """A checkpoint is missing, incomplete, of another run, or not trusted."""


class StorageError(RaylrError, OSError):
    """Reading or writing failed: the message names the file."""


class DamagedError(StorageError):
    """A file that raylr wrote was torn or changed since: the message names it and lists what is still intact."""


class TrainingError(RaylrError, RuntimeError):
    """Runs failed for another reason than divergence; what was measured is kept."""


class EvaluationError(RaylrError, RuntimeError):
    """An evaluation failed; what was scored is kept."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the known name closest to `name`, or the known names if none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
