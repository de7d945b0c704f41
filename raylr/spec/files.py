"""Specs as YAML files."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pydantic
import yaml

from raylr.errors import SpecError
from raylr.spec.fields import FOLDER, kind_of, shorten
from raylr.spec.messages import explain
from raylr.spec.study import StudySpec

LARGEST_FILE = 1_000_000
"""Bytes of a spec; a larger file is another one."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a key that is given twice (YAML itself takes the last one)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name in seen and name != "<<":
                raise _DuplicateKeyError(f"the key {name} is given twice, again in line {key.start_mark.line + 1}")
            seen.add(name if isinstance(key, yaml.ScalarNode) else f"\0{key.start_mark.index}")
        return super().construct_mapping(node, deep=deep)


class _DuplicateKeyError(Exception):
    """A mapping has a key twice."""


def load_spec(path: Path | str, *, check_files: bool = True) -> StudySpec:
    """Read and check a spec.

    Args:
        path: A YAML file. Relative paths in it start from its folder.
        check_files: Whether the files that the spec names must exist and its models must be countable. False to read
            the results of a study whose corpus was moved since.

    Returns:
        The spec, with absolute paths and with the vocabulary of its corpus in `model`.

    Raises:
        SpecError: In one sentence that names the file, the key, and what would be right.

    Example:
        >>> from raylr.quickstart import QUICKSTART_YAML
        >>> characters = Path("study.yaml").write_text(QUICKSTART_YAML)
        >>> load_spec("study.yaml").token_budgets
        [249856, 499712]
    """
    path = Path(path)
    data = read_yaml(path)
    try:
        spec = StudySpec.model_validate(data, context={FOLDER: path.parent})
    except pydantic.ValidationError as error:
        raise SpecError(f"{path}: {explain(error, StudySpec)}") from None
    if check_files:
        for sentence in missing_files(spec):
            raise SpecError(f"{path}: {sentence}")
        try:
            spec.check_models()
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from None
    return spec


def missing_files(spec: StudySpec) -> list[str]:
    """Return a sentence for each file or folder that a spec names and that is not there.

    Args:
        spec: The spec.

    Returns:
        Sentences such as `corpus.path: there is no …`.

    Example:
        >>> from raylr.quickstart import quickstart_spec
        >>> missing_files(quickstart_spec())
        []
    """
    named = [("corpus.path", spec.corpus.path), ("corpus.tokenizer", spec.corpus.tokenizer)]
    named += [("corpus.files", file) for file in spec.corpus.files]
    named += [("scores.data", spec.scores.data)] if spec.scores else []
    if spec.command:
        named += [("command.folder", spec.command.folder)]
        named += [(f"command.files.{name}", file) for name, file in spec.command.files.items()]
    return [f"{key}: there is no {file}" for key, file in named if file is not None and kind_of(file) == "nothing"]


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; SpecError says what is wrong with the file."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise SpecError(f"{path} is larger than {LARGEST_FILE:,} bytes and no spec")
        data = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except FileNotFoundError:
        raise SpecError(f"there is no spec at {path}; `raylr init {path}` writes one to start from") from None
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path} is not text in UTF-8, so it is no spec") from None
    except _DuplicateKeyError as error:
        raise SpecError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SpecError(f"{path} is nested too deep for a spec") from None
    except (ValueError, OverflowError, AttributeError, TypeError, KeyError) as error:  # PyYAML's own, of odd scalars
        raise SpecError(f"{path} has a value that YAML cannot read: {shorten(str(error), 200)}") from None
    if data is None:
        raise SpecError(f"{path} is empty; `raylr init` writes a spec to start from")
    if not isinstance(data, dict):
        raise SpecError(f"{path} holds no mapping; a spec is keys and values, `raylr init` writes one to start from")
    return data


def dump_spec(spec: StudySpec) -> str:
    """Return a spec as YAML text, from which `load_spec` makes an equal spec.

    Args:
        spec: The spec.

    Returns:
        The text; all values are written, also the defaults.

    Example:
        >>> from raylr.quickstart import quickstart_spec
        >>> characters = Path("study.yaml").write_text(dump_spec(quickstart_spec()))
        >>> load_spec("study.yaml") == quickstart_spec()
        True
    """
    return yaml.safe_dump(json.loads(spec.model_dump_json()), sort_keys=False, allow_unicode=True)
