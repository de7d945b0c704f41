"""Why a trial failed, in one sentence about "it", for any exception.

What a function raises may be impossible to pickle, to make again in another process, or to show; it may have a
megabyte of text, or end the thread that it runs in without a message. `one_sentence` turns all of it into a
`TrainingError` of one sentence, with the traceback as its cause, in the process of the trial. `reason_of` reads the
sentence in the driver, or what Ray says of a process that is gone.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raylr.errors import RaylrError, TrainingError, shortened
from raylr.execution.executor import Config, Trainable
from raylr.execution.ray_private import ended_by_tune

LONGEST = 300
"""Characters of a sentence about an exception that raylr did not raise."""
LONGEST_TRACEBACK = 100_000
"""Characters of a traceback that are kept; of a longer one both ends."""
_ACTOR = re.compile(r"The actor (?:is dead|died) because ([^\n]*)")
"""How Ray 2.60 says that the process of a trial is gone."""
_OWN = f"{TrainingError.__module__}.{TrainingError.__name__}: "


class Traceback(Exception):  # it only carries a text
    """The traceback of an exception of the function, as text."""


def one_sentence(trainable: Trainable) -> Trainable:
    """Return a trainable that raises nothing but TrainingErrors of one sentence, which Ray can send to the driver."""

    def train(config: Config) -> Any:
        try:
            return trainable(config)
        except BaseException as error:
            if ended_by_tune(error):
                raise
            sentence, cause = sentence_of(error), Traceback(_traceback_of(error))
        raise TrainingError(sentence) from cause  # not within `except`: nothing of the exception is sent along

    return train


def sentence_of(error: BaseException) -> str:
    """Return an exception as one line: the message of an error of raylr's own, else type and first line, shortened."""
    if isinstance(error, RaylrError):
        return _line(str(error))
    lines = [one for one in map(_line, _last_of(error).splitlines()) if one]
    if len(lines) > 1 and lines[0].endswith(":"):  # a message that begins with an empty line
        lines[0] = f"{lines[0]} {lines[1]}"
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 60]} … {text[-50:]}"


def _last_of(error: BaseException) -> str:
    """What a traceback ends with: the exception itself, without those of a group."""
    return _formatted(traceback.format_exception_only, error)[-1]


def _formatted(form: Callable[[BaseException], list[str]], error: BaseException) -> list[str]:
    """Apply a function of `traceback`; where it cannot, the exception has its type alone.

    Formatting reads attributes of the exception, which a user's class may compute. `traceback` guards `__str__` alone;
    `__cause__`, a group's `exceptions` or a field of a SyntaxError may raise any error or have another type, and the
    sentence about the failure must not be lost to that.
    """
    try:
        return form(error)
    except Exception:
        return [type(error).__name__]


def _traceback_of(error: BaseException) -> str:
    text = "".join(_formatted(traceback.format_exception, error))
    if len(text) > LONGEST_TRACEBACK:
        text = f"{text[: LONGEST_TRACEBACK // 2]}\n…\n{text[-LONGEST_TRACEBACK // 2 :]}"
    return text.encode(errors="backslashreplace").decode()  # half a surrogate pair cannot be sent


def _line(text: str) -> str:
    """A text as one line that changes nothing on a terminal."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def reason_of(trial: Any) -> str:
    """Return why a trial of Tune failed."""
    text = (_local_error(trial) or str(trial.get_error() or "")).strip()
    last = _line(text.splitlines()[-1]) if text else ""
    if last.startswith(_OWN):
        return last.removeprefix(_OWN)
    if "ray.exceptions.OutOfMemoryError" in text or "running low on memory" in text:
        return "its machine ran out of memory, so that Ray ended its process (fewer trials side by side need less)"
    if found := _ACTOR.search(text):
        ended = found.group(1)
        if "its node has died" in ended or "node has crashed" in ended:
            return "its node was lost"
        if "receives a SIGTERM" in ended:
            return "its process was ended by SIGTERM"
        if "worker process has died" in ended:
            return "its process was killed or crashed; the machine may have run out of memory"
    if "is unavailable" in text or "temporarily unavailable" in text:
        return "its process or its node is gone"
    return shortened(last) or "unknown error"


def _local_error(trial: Any) -> str:
    """The driver's own copy of a trial's error: `get_error` reads the storage's, which is written some time later."""
    try:
        return Path(trial.error_file).read_text(errors="replace")
    except (OSError, TypeError):
        return ""
