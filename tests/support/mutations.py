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
    2**63 - 1,
    2**53 + 1,
    2**32,
    1e308,
    1e-320,
    5e-324,
    1e-300,
    0.1,
    float("nan"),
    float("inf"),
    float("-inf"),
    -0.0,
)
TEXTS = (
    "", " ", "nan", "inf", "1e999", "-1", "0x10", "1_000", "٣", "½", "1,5", "NaN", "null", "true", "~", "=cmd()",
    "a\0b", "\ud800", "\u202e", "é", "🦙" * 50, "../../etc", "/dev/zero", "{lr}", "%s%n", "'; DROP", "x" * 10_000,
    "!!python/object/apply:os.system [true]", "&a [*a]", "1" * 5000, "124M", "1.5B", "3k", "-0", "5e-324", "1e-320",
    "Infinity", "-nan", "1e5", "1E+3", "−1", "５", "1 000", "1:30", "0o17", "2026-01-01", "2026-01-01T00:00:00+14:00",
    "on", "No", "?", "e\u0301", "\u0301", "م\u064f\u202e3", "\u200b", "\ufeff", "\u2028", "\x85", "\x1b[31m",
    "a\nb", "a\r\nb",

    "*a", "!!float nan", "!!binary aGk=", "!!timestamp 2026-01-01", "!!set {a}", "<<", "__class__",
    "[bold]x[/bold]", "[/]",
    "NA", "N/A", "#REF!", "9" * 400, "0." + "0" * 400 + "1",
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
    """Change one to three places of a tree, mostly one: drop, duplicate, retype, nest, swap, reorder, rename, empty."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        spots = places(value)
        if not spots:
            return dice.choice(VALUES)
        holder, key = dice.choice(spots)
        kind = dice.randrange(14)
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
        elif kind in (6, 7) and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            factor = dice.choice((-1, 0, 1e-9, 1e9, 1e300, 0.3, 2, 1.01))
            holder[key] *= factor if abs(holder[key]) < 1e300 else round(factor)  # no float is so large
        elif kind == 8:
            other, name = dice.choice(spots)
            if name in other if isinstance(other, dict) else name < len(other):
                holder[key], other[name] = copy.deepcopy(other[name]), copy.deepcopy(holder[key])
        elif kind == 9 and isinstance(holder[key], list | dict):
            holder[key] = type(holder[key])()
        elif kind == 10 and isinstance(holder, dict):
            items = list(holder.items())
            dice.shuffle(items)
            holder.clear()
            holder.update(items)
        elif kind == 10:
            dice.shuffle(holder)
        elif kind == 11 and isinstance(holder, dict):
            other = dice.choice(list(holder))
            holder[key], holder[other] = holder[other], holder[key]
        elif kind == 12:
            holder[key] = [holder[key]] if dice.random() < 0.5 else {"value": holder[key]}
        else:
            holder[key] = copy.deepcopy(dice.choice(VALUES))
    return value


def of_text(text: str, dice: random.Random) -> str:
    """Change a text: drop, repeat or swap lines, change cells and characters, cut it."""
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
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


def oddly_encoded(text: str, dice: random.Random) -> bytes:
    """Mostly UTF-8; sometimes another encoding, other ends of lines, or a byte order mark, as other systems write."""
    if dice.random() < 0.9:
        return encoded(text)
    kind = dice.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-7", "\r\n", "\r"))
    if kind[0] == "\r":
        return encoded(text.replace("\n", kind))
    return text.encode(kind, "replace")


def as_json(value: Any) -> str:
    return json.dumps(value, default=str)


def as_yaml(value: Any) -> str:
    """A tree that is too deep for the writer of YAML is written as JSON, which YAML holds."""
    try:
        return str(yaml.safe_dump(value, allow_unicode=True))
    except RecursionError:
        return as_json(value)


def with_yaml_features(text: str, dice: random.Random) -> str:
    """A YAML text with one of what plain JSON has not: a key given twice, an alias, a merge, a tag, two documents."""
    lines = text.split("\n")
    spot = dice.randrange(len(lines))
    name, colon, rest = lines[spot].partition(":")
    indent = name[: len(name) - len(name.lstrip())]
    kind = dice.randrange(8)
    if kind == 0 and colon:
        lines.insert(spot, f"{name}: {dice.choice(TEXTS[:12])!r}")
    elif kind == 1 and colon:
        lines[spot] = f"{name}: &a{rest}"
        lines.append(f"{dice.choice(('name', 'lr', 'other', 'sizes'))}: *a")
    elif kind == 2:
        lines.insert(spot, f"{indent}<<: {dice.choice(('{x: 1}', '[{x: 1}, {x: 2}]', '*a', '3', '{<<: {y: 2}}'))}")
    elif kind == 3 and colon:
        tag = dice.choice(("str", "int", "float", "null", "binary", "timestamp", "set", "mine", "omap"))
        lines[spot] = f"{name}: !!{tag}{rest}"
    elif kind == 4:
        lines.insert(spot, dice.choice(("---", "...", "%YAML 1.2", "%TAG ! tag:x,2000:")))
    elif kind == 5:
        key = dice.choice(("[a, b]", "{a: b}", "2026-01-01", "1.5", "null", "x"))
        lines.insert(spot, f"{indent}? {key}\n{indent}: 1")
    elif kind == 6 and colon:
        lines[spot] = f"{name}: {dice.choice(('|', '>-'))}\n{indent}    {rest.strip()}"
    else:
        lines[spot] = lines[spot].replace(" ", "\t", dice.choice((1, 4)))
    return "\n".join(lines)


def with_json_features(text: str, dice: random.Random) -> str:
    """A JSON text with one of what a writer of JSON does not write: a name given twice, two values, a deep tail."""
    kind = dice.randrange(6)
    names = [part for part in text.split('"')[1::2] if part]
    name = dice.choice(names) if names else "a"
    if kind == 0:
        return text.replace("{", f'{{"{name}": {as_json(dice.choice(NUMBERS[:4]))}, ', 1)
    if kind == 1:
        return text[::-1].replace("}", f'}}{as_json(dice.choice(VALUES))[::-1]} :"{name}" ,', 1)[::-1]
    if kind == 2:
        return text + dice.choice(("\n", "", " ", ",")) + text
    if kind == 3:
        return text.replace(name, dice.choice((r"\u0000", r"\ud800", r"\udc00\ud800", r"\u202e", name + r"\u0301")), 1)
    if kind == 4:
        return text.replace(":", ": " + "[" * (levels := dice.choice((50, 5_000, 100_000))) + "]" * levels + ",", 1)
    old, new = dice.choice(("0", "1", "e", "{", "}", ":")), dice.choice(("", "00", "+1", "1.", ".5", "'", "//"))
    return text.replace(old, new, 1)


def alternately(of_tree: Callable[[Any], str], tree: Any, dice: random.Random) -> str:
    """A mutated tree as text, or a tree as a mutated text, or both."""
    roll = dice.random()
    text = of_tree(of_value(tree, dice) if roll < 0.75 else tree)
    if roll > 0.88:
        return (with_yaml_features if of_tree is as_yaml else with_json_features)(text, dice)
    return of_text(text, dice) if roll > 0.6 else text
