"""Mutations of valid inputs: of values (dicts, lists, numbers, text), of text, and of bytes."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import yaml

NUMBERS = (
    0,
    -1,
    1,
    10**18,
    10**30,
    10**400,
    2**63,
    -(2**63),
    1e308,
    5e-324,
    float("nan"),
    float("inf"),
    float("-inf"),
    -0.0,
)
TEXTS = (
    "", " ", "nan", "inf", "1e999", "-1", "0x10", "1_000", "٣", "½", "1,5", "NaN", "null", "true", "~", "=cmd()",
    "a\0b", "\ud800", "\u202e", "é", "🦙" * 50, "../../etc", "/dev/zero", "{lr}", "%s%n", "'; DROP", "x" * 10_000,
    "!!python/object/apply:os.system [true]", "&a [*a]", "1" * 5000,
)  # fmt: skip
VALUES: tuple[Any, ...] = (*NUMBERS, *TEXTS, None, True, False, [], {}, [[]], {"a": {}}, ["a", 1, None], {"": ""})


def deep(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    found = []
    stack = [value]
    while stack:
        one = stack.pop()
        for key in list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ():
            found.append((one, key))
            stack.append(one[key])
    return found


def of_value(value: Any, dice: random.Random) -> Any:
    """Change one to three places of a tree: drop, duplicate, retype, nest, swap, rename."""
    value = copy.deepcopy(value)
    for _ in range(dice.randint(1, 3)):
        spots = places(value)
        if not spots:
            return dice.choice(VALUES)
        holder, key = dice.choice(spots)
        kind = dice.randrange(9)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = deep(dice.choice((3, 30, 200)))
        elif kind == 2:
            other, name = dice.choice(spots)
            if name in other if isinstance(other, dict) else name < len(other):
                holder[key] = copy.deepcopy(other[name])
        elif kind == 3 and isinstance(holder, dict):
            holder[str(dice.choice(TEXTS))] = holder.pop(key)
        elif kind == 4 and isinstance(holder, list):
            holder.extend(copy.deepcopy(holder[key]) for _ in range(dice.choice((1, 5, 500))))
        elif kind == 5:
            holder[key] = str(holder[key])
        elif kind == 6 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = holder[key] * dice.choice((-1, 0, 1e-9, 1e9, 1e300, 0.3))
        else:
            holder[key] = copy.deepcopy(dice.choice(VALUES))
    return value


def of_text(text: str, dice: random.Random) -> str:
    """Change a text: drop, repeat or swap lines, change cells and characters, cut it."""
    for _ in range(dice.randint(1, 3)):
        lines = text.split("\n")
        spot, kind = dice.randrange(len(lines)), dice.randrange(9)
        if kind == 0:
            del lines[spot]
        elif kind == 1:
            lines[spot:spot] = [lines[spot]] * dice.choice((1, 3, 50))
        elif kind == 2:
            other = dice.randrange(len(lines))
            lines[spot], lines[other] = lines[other], lines[spot]
        elif kind in (3, 4, 5):
            sign = dice.choice(",:; \t")
            cells = lines[spot].split(sign)
            cells[dice.randrange(len(cells))] = str(dice.choice(VALUES))
            lines[spot] = sign.join(cells)
        elif kind == 6:
            lines[spot] += dice.choice((",", ",,,,", '"', "\r", "\0", "\ufeff", "#", " {", "]", "\t", ": &a *a"))
        elif kind == 7:
            lines = lines[: spot + 1]
        else:
            lines.insert(spot, str(dice.choice(TEXTS)))
        text = "\n".join(lines)
    return text


def of_bytes(data: bytes, dice: random.Random) -> bytes:
    """Change bytes: flip, cut, insert, repeat, set lengths to extremes."""
    out = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        if not out:
            return bytes(out)
        spot, kind = dice.randrange(len(out)), dice.randrange(6)
        if kind == 0:
            out[spot] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del out[spot : spot + dice.choice((1, 4, 64, 10_000))]
        elif kind == 2:
            out[spot:spot] = dice.randbytes(dice.choice((1, 4, 64)))
        elif kind == 3:
            out[spot : spot + 4] = dice.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0"))
        elif kind == 4:
            out[spot:spot] = out[spot : spot + dice.choice((4, 64))]
        else:
            out[spot:] = b""
    return bytes(out)


def encoded(text: str) -> bytes:
    """UTF-8, with lone surrogates as the bytes that no decoder takes."""
    return text.encode("utf-8", "surrogatepass")


def as_json(value: Any) -> str:
    return json.dumps(value, default=str)


def as_yaml(value: Any) -> str:
    """A tree that is too deep for the writer of YAML is written as JSON, which YAML holds."""
    try:
        return str(yaml.safe_dump(value, allow_unicode=True))
    except RecursionError:
        return as_json(value)


def alternately(of_tree: Callable[[Any], str], tree: Any, dice: random.Random) -> str:
    """A mutated tree as text, and in a third of the cases the text mutated too."""
    text = of_tree(of_value(tree, dice))
    return of_text(text, dice) if dice.random() < 0.34 else text
