"""Specs as YAML files."""

from __future__ import annotations

import json
from pathlib import Path

import pydantic
import yaml

from raylr.errors import SpecError
from raylr.spec.fields import FOLDER, kind_of
from raylr.spec.messages import explain
from raylr.spec.study import StudySpec
from raylr.spec.yamlfile import read_yaml


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
    except UnicodeEncodeError as error:  # YAML and JSON can name half of a pair of UTF-16, which no file can hold
        raise SpecError(f"{path}: U+{ord(error.object[error.start]):04X} in a key is not a character") from None
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
