"""A mapping from a YAML file, with one sentence for everything that can be wrong with it."""

from __future__ import annotations

from collections.abc import Hashable
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from raylr.errors import SpecError
from raylr.spec.fields import shorten

LARGEST_FILE = 1_000_000
"""Bytes of a spec; a larger file is another one."""


SHARE = "share/raylr"
"""Folder of an environment that holds the examples and recipes."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a key that is given twice (YAML itself takes the last one), and half of a
    pair of UTF-16, which YAML can name and no file can hold."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            half = ord(error.object[error.start])
            raise _RefusedError(f"U+{half:04X} in line {node.start_mark.line + 1} is not a character") from None
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name in seen and name != "<<":
                raise _RefusedError(f"the key {name} is given twice, again in line {key.start_mark.line + 1}")
            seen.add(name if isinstance(key, yaml.ScalarNode) else f"\0{key.start_mark.index}")
        return super().construct_mapping(node, deep=deep)


class _RefusedError(Exception):
    """A mapping has a key twice, or a text what is not a character."""


def installed(path: Path, package: str = "raylr") -> Path | None:
    """Return the file of an example or a recipe that the installed wheel holds, for a path such as
    `examples/decay.yaml`, which is there in the folder of the sources alone; None if it holds none."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return None
    name = f"/{SHARE}/{path.as_posix()}"
    found = [one.locate() for one in files if f"/{one.as_posix()}".endswith(name)]
    return next((Path(str(one)).resolve() for one in found if Path(str(one)).is_file()), None)


def _problem(error: yaml.YAMLError) -> str:
    """Return what PyYAML found, and where: its own message names a "<unicode string>" and quotes the line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    what = f"{error.context or ''} {error.problem}"
    if "'\\t'" in what:
        what = "there is a tab, and YAML allows only spaces before a key or value"
    return " ".join(f"line {mark.line + 1}, column {mark.column + 1}: {what}".split())


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; SpecError says what is wrong with the file."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise SpecError(f"{path} is larger than {LARGEST_FILE:,} bytes and no spec")
        data = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except FileNotFoundError:
        there = installed(path)
        hint = f"this installation has it at {there}" if there else f"`raylr init {path}` writes one to start from"
        raise SpecError(f"there is no spec at {path}; {hint}") from None
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path} is not text in UTF-8, so it is not a spec") from None
    except _RefusedError as error:
        raise SpecError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is not YAML: {_problem(error)}") from None
    except RecursionError:
        raise SpecError(f"{path} is nested too deep for a spec") from None
    except (ValueError, OverflowError, AttributeError, TypeError, KeyError) as error:  # PyYAML's own, of odd scalars
        raise SpecError(f"{path} has a value that YAML cannot read: {shorten(str(error), 200)}") from None
    if data is None:
        raise SpecError(f"{path} is empty; `raylr init` writes a spec to start from")
    if not isinstance(data, dict):
        raise SpecError(f"{path} holds no mapping; a spec is keys and values, `raylr init` writes one to start from")
    return data
