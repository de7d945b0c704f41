"""Laws as JSON text: strict on reading, so that a file that was changed or torn is one sentence and never a wrong law.

NaN and infinity are written as the strings "nan", "inf" and "-inf", since JSON has no numbers for them; they are read
back only in fields that hold numbers.
"""

import json
import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

from raylr.errors import InputError, LawError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
_NOT_FINITE = ("nan", "inf", "-inf")
LARGEST_TEXT = 1_000_000
"""Characters; a law has a few thousand."""


def dump(law: Any, kind: str, schema: int) -> str:
    """Return a law (a dataclass) as JSON text with its kind and the number of its schema."""
    return json.dumps({"kind": kind, "schema": schema} | _plain(asdict(law)), indent=2, allow_nan=False)


def load(cls: type[T], text: str, kind: str, schema: int) -> T:
    """Return the law of `dump`'s text.

    Raises:
        LawError: the text is not JSON, has another kind or schema, lacks a field or has one too many, or holds a value
            that no law has.
    """
    if len(text) > LARGEST_TEXT:
        raise LawError(f"not a law: the text has {len(text)} characters")
    try:
        data = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise LawError(f"not a law: the text is not JSON ({_sentence(error)})") from None
    if not isinstance(data, dict) or "kind" not in data:
        raise LawError(f'not a law: a JSON object with "kind": "{kind}" is needed')
    if data.pop("kind") != kind:
        raise LawError(f'a law of another kind: "kind": "{kind}" is needed')
    found = data.pop("schema", None)
    if found == WITHOUT_DECAY and not isinstance(found, bool) and schema == WITHOUT_DECAY + 1:
        data, found = _with_decay(data), schema
    if isinstance(found, bool) or found != schema:
        raise LawError(f"the law has schema {str(found)[:40]}, this version of raylr reads {schema}: fit it again")
    known = {field.name for field in fields(cls)}
    for names, words in ((known - set(data), "lacks"), (set(data) - known, "has an unknown field")):
        if names:
            raise LawError(f"not a law of schema {schema}: it {words} {sorted(names)[0][:40]!r}")
    return _typed(cls, data)


WITHOUT_DECAY = 4
"""Schema in which a law's conditions did not say how the LR was decayed."""
_OF_DECAY = ("decay_shape", "decay_fraction", "final_lr_ratio")


def _with_decay(data: dict[str, Any]) -> dict[str, Any]:
    """Return a law of schema `WITHOUT_DECAY` as one of the next: a law of runs at a constant LR is of the stable loss,
    and how another one's LR was decayed is not known."""
    conditions = data.get("conditions")
    if not isinstance(conditions, dict) or set(_OF_DECAY) & set(conditions):
        return data
    stable = conditions.get("objective") is None and conditions.get("schedule") == "constant"
    more = dict.fromkeys(_OF_DECAY) | ({"objective": "stable"} if stable else {})
    return {**data, "conditions": {**conditions, **more}}


def _typed(cls: type[T], data: dict[str, Any]) -> T:
    """Return the dataclass with every value checked against its type, as strict as JSON allows."""
    from pydantic import TypeAdapter, ValidationError

    try:
        law: T = TypeAdapter(cls).validate_json(json.dumps(_restored(data)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the law"
        raise LawError(f"not a law: {where[:60]}: {_sentence(first['msg'])}") from None
    except (InputError, RecursionError, OverflowError, ValueError) as error:
        raise LawError(f"not a law: {_sentence(error)}") from None
    written = _plain(asdict(law))
    for name, value in data.items():  # what nested objects have too much or too little, and numbers that overflow
        if written[name] != value:
            raise LawError(f"not a law: {name} is not as raylr writes it")
    return law


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _sentence(error: object) -> str:
    return " ".join(str(error).split()).removeprefix("Value error, ")[:300]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _restored(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_restored(part) for part in value]
    return float(value) if isinstance(value, str) and value in _NOT_FINITE else value
