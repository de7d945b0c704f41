"""Types of the spec's fields, and checks of plain data before pydantic sees it.

A spec comes from YAML or from Python as plain data. The checks here refuse what pydantic would accept or stumble over:
numbers beyond 64 bits, NaN and infinity, `yes` as the number 1, keys that are no text, structures without end.
"""

from __future__ import annotations

import math
import re
import stat
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo

from raylr.analysis.units import parse_count
from raylr.errors import StudyError
from raylr.remote.storage import address_of

FOLDER = "folder"
"""Key of the validation context: the folder that relative paths start from."""
LONGEST_NAME = 64
"""Characters of a name: with three bytes each and a prefix it still fits into the 255 bytes of a file's name."""
DEEPEST = 12
"""Levels of nesting in a spec; the deepest that is meant (a nested configuration in `hf`) has six."""
MOST_VALUES = 20_000
"""Values in a spec. YAML's anchors can make billions out of a few lines."""
LARGEST_INTEGER = 2**63 - 1
LARGEST_COUNT = 10**18
"""Tokens of the largest run: 10,000 times all text that there is, and still exact in 64 bits."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Section(BaseModel):
    """Base of the spec's sections: unknown keys, NaN and infinity are errors, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def range_of(data: Any, kind: type[Section], example: str) -> Any:
    """Return the keys `low` and `high` of a range that may be written as a list of two values.

    Args:
        data: What the spec has.
        kind: The section that it becomes.
        example: A range in words, for the message.

    Raises:
        ValueError: If it is neither a section nor a list of two values.
    """
    if isinstance(data, list | tuple):
        if len(data) != 2:
            raise ValueError(f"a range has two ends, [low, high], got {len(data)} values")
        return {"low": data[0], "high": data[1]}
    if not isinstance(data, dict | kind):
        raise ValueError(f"a range is {example}, got {shorten(data)}")
    return data


def _count(value: object) -> int:
    try:
        number = parse_count(value)
    except OverflowError:
        number = math.inf
    if not 0.5 <= number <= LARGEST_COUNT:
        raise ValueError(f"{shorten(value)} is not a count of tokens between 1 and {LARGEST_COUNT:.0e}")
    return round(number)


def _absolute(path: Path, info: ValidationInfo) -> Path:
    return absolute(path, info)


def absolute(path: Path, info: ValidationInfo) -> Path:
    """Return a path without `~`, `..` and symbolic links, from the spec's folder (or from the working directory)."""
    folder = Path((info.context or {}).get(FOLDER, "."))
    try:
        return (folder / path.expanduser()).resolve()
    except (RuntimeError, OSError, ValueError) as error:  # ~name of no user, links in a circle, a null character
        raise ValueError(f"{str(path)!r} is not a path: {error}") from None


def kind_of(path: Path) -> Literal["folder", "file", "nothing"]:
    """Return what is at a path; "nothing" too for a path that no file system can have or that may not be looked at."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return "nothing"
    return "folder" if stat.S_ISDIR(mode) else "file"


def _a_path(value: object) -> object:
    if isinstance(value, str) and not value.strip():
        raise ValueError("the path is empty")
    if isinstance(value, str) and _ADDRESS.match(value.strip()):
        raise ValueError(f"{_shown(value)} is an address; name a path on a file system that all nodes share")
    return value


def _shown(address: str) -> str:
    """Return an address for a message; of one that may hold credentials only its scheme."""
    try:
        return shorten(address_of(address) or address)
    except StudyError:
        return f"{address.strip().partition(':')[0]}://…"


def _name(value: str) -> str:
    if any(character.isspace() for character in value):
        raise ValueError(f"the name {shorten(value)} has a space or a line break in it; use - or _")
    return _study_name(value)


def _study_name(value: str) -> str:
    reason = ""
    if not value.strip():
        reason = "is empty"
    elif value.strip() != value or not value.isprintable():
        reason = "has spaces around it or characters that cannot be printed"
    elif any(character in value for character in "/\\"):
        reason = "has a slash in it, but it becomes part of the names of files"
    elif value in (".", ".."):
        reason = "is the name of a folder"
    elif len(value) > LONGEST_NAME:
        reason = f"has {len(value)} characters, at most {LONGEST_NAME} are possible"
    if reason:
        raise ValueError(f"the name {shorten(value)} {reason}; use letters, digits, - and _")
    return value


Tokens = Annotated[int, BeforeValidator(_count)]
"""A count of tokens, as 500_000, 5e5, 500k or 0.5M."""
FilePath = Annotated[Path, BeforeValidator(_a_path), AfterValidator(_absolute)]
"""A path; relative ones start from the spec's folder. It is absolute afterwards."""
SizeName = Annotated[str, AfterValidator(_name)]
"""Name of a size or of the target: printable, without spaces and slashes."""
StudyName = Annotated[str, AfterValidator(_study_name)]
"""Name of a study: printable, without slashes."""


def check_plain(value: Any, where: str = "") -> None:
    """Check that data is plain, finite and not endless, before it is read as a spec.

    Args:
        value: Data from YAML or Python: mappings with keys of text, lists, text, numbers, true, false, null.
        where: Key of the data, for the message.

    Raises:
        ValueError: In one sentence that names the key.
    """
    for seen, (key, part, depth) in enumerate(_walk(value, where, 0)):
        if seen > MOST_VALUES:
            raise ValueError(f"the spec has more than {MOST_VALUES} values")
        if depth > DEEPEST:
            raise ValueError(f"{shorten(key, 60)}: the spec is nested more than {DEEPEST} levels deep")
        reason = _not_plain(part)
        if reason:
            raise ValueError(f"{key}: {reason}" if key else reason)


def _walk(value: Any, where: str, depth: int) -> Iterator[tuple[str, Any, int]]:
    yield where, value, depth
    if depth > DEEPEST:
        return
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _walk(part, f"{where}.{key}" if where else str(key), depth + 1)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _walk(part, f"{where}.{index}" if where else str(index), depth + 1)


def _not_plain(value: Any) -> str:
    """Return why a spec cannot have a single value; "" if it can."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                kind = "true or false" if isinstance(key, bool) else "a number" if isinstance(key, int | float) else ""
                return f"the key {shorten(key)} is {f'read as {kind}' if kind else 'no text'}; write it in quotes"
        return ""
    if isinstance(value, bool) or value is None or isinstance(value, str | list | tuple | Path | BaseModel):
        return ""
    if isinstance(value, int):
        return f"{shorten(value)} does not fit into 64 bits" if abs(value) > LARGEST_INTEGER else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value} is not a finite number"
    return f"{shorten(value)} is read as a {type(value).__name__}; write it in quotes if it is meant as text"


def check_booleans(model: type[BaseModel], data: Any, where: str = "") -> None:
    """Refuse true and false (YAML's yes, no, on, off) where a number or a text belongs; pydantic reads them as 1 and 0.

    Args:
        model: Class that the data is for.
        data: Plain data.
        where: Key of the data, for the message.

    Raises:
        ValueError: Naming the key.
    """
    if not isinstance(data, Mapping):
        return
    for key, value in data.items():
        field = model.model_fields.get(key)
        if field is None:
            continue
        at = f"{where}.{key}" if where else str(key)
        for inner in models_in(field.annotation):
            check_booleans(inner, value, at)
        parts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(part, bool) for part in parts) and not {bool, Any} & set(leaves_of(field.annotation)):
            raise ValueError(f"{at}: true and false (yes, no, on, off) are not values of this key")


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the pydantic models that an annotation mentions."""
    return [leaf for leaf in leaves_of(annotation) if isinstance(leaf, type) and issubclass(leaf, BaseModel)]


def leaves_of(annotation: Any) -> list[Any]:
    """Return the types that an annotation is made of: `dict[str, int] | None` gives str, int, NoneType."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation]
    arguments = typing.get_args(annotation)
    return [leaf for part in arguments for leaf in leaves_of(part)] if arguments else [annotation]


def shorten(value: object, length: int = 80) -> str:
    """Return a value as it is written in Python, cut to `length` characters and one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # integers of more than 4300 digits, structures that contain themselves
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= length else f"{text[: length - 1]}…"


def leaves(key: str, mine: Any, theirs: Any) -> list[tuple[str, Any, Any]]:
    """Return key, value and value of each place at which two plain structures differ."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return [leaf for k in {**mine, **theirs} for leaf in leaves(f"{key}.{k}", mine.get(k), theirs.get(k))]
    return [] if mine == theirs else [(key, mine, theirs)]


def rounded(tokens: float, step: int) -> int:
    """Return the whole number of steps nearest to `tokens`, at least one."""
    return max(1, round(tokens / step)) * step
