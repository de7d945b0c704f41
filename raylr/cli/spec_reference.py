"""`python -m raylr.cli.spec_reference [FILE]`: write the reference of the spec, docs/spec.md, from its models.

Descriptions are the docstrings of the classes and of their fields, so that code and reference cannot differ; a test
compares the file with what this makes.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
import textwrap
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

HEAD = """\
# The spec of a study

A spec is a YAML file: what a study trains, and how. `raylr init` writes one to start from, and `raylr search SPEC.yaml`
runs it. This page is made from the code by `make docs`; edit the docstrings, not the page.

Counts of tokens may be written as 500_000, 5e5, 500k or 0.5M. Relative paths start from the folder of the spec. Unknown
keys, keys given twice, and values that cannot work are refused before anything is trained, in one sentence that names
the key.
"""


def reference() -> str:
    """Return the reference as Markdown."""
    from raylr.evaluation.spec import ScoresSpec
    from raylr.external.read import ReadSpec
    from raylr.spec.batches import LawSpec
    from raylr.spec.decay import DecaySpec
    from raylr.spec.external import CommandSpec, ExternalSize, ExternalTrain, TrainableSpec
    from raylr.spec.modules import ModulesSpec
    from raylr.spec.sections import CorpusSpec, LRRange, ResourceSpec, SearchSpec, TargetSpec
    from raylr.spec.study import StudySpec
    from raylr.spec.transfer import AxisRange, TransferSpec, TransferTarget
    from raylr.trainables.models.spec import HFSpec, ModelSpec, ModuleSpec
    from raylr.trainables.training.parametrized import ParametrizationSpec
    from raylr.trainables.training.spec import OptimizerSpec, TrainSpec

    sections: dict[str, type[BaseModel]] = {
        "Top level": StudySpec,
        "`corpus`": CorpusSpec,
        "`model`, `sizes` and `target.model`": ModelSpec,
        "`model: {hf: …}`": HFSpec,
        "`model: {module: …}`": ModuleSpec,
        "`train`": TrainSpec,
        "`train.optimizer`": OptimizerSpec,
        "`train.parametrization`": ParametrizationSpec,
        "`command`": CommandSpec,
        "`command.read`": ReadSpec,
        "`trainable`": TrainableSpec,
        "`sizes` and `target.model` with `command` or `trainable`": ExternalSize,
        "`train` with `command` or `trainable`": ExternalTrain,
        "`lr`": LRRange,
        "`search`": SearchSpec,
        "`law`": LawSpec,
        "`decay`": DecaySpec,
        "`target`": TargetSpec,
        "`transfer`": TransferSpec,
        "`transfer.init_std`, `transfer.weight_decay`, `modules.range`, `modules.axes`": AxisRange,
        "`transfer.targets`": TransferTarget,
        "`modules`": ModulesSpec,
        "`resources`": ResourceSpec,
        "`scores`": ScoresSpec,
    }
    return "\n".join([HEAD, *(_section(title, model) for title, model in sections.items())])


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Return field → the docstring below it, of a class and the classes that it inherits fields from."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        if not (issubclass(parent, BaseModel) and parent is not BaseModel):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(parent)))
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for line, below in itertools.pairwise(body):
            if not (isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)):
                continue
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                found[line.target.id] = inspect.cleandoc(str(below.value.value))
    return found


def _section(title: str, model: type[BaseModel]) -> str:
    docs = field_docs(model)
    lines = [f"## {title}", "", prose(inspect.getdoc(model) or ""), "", "| key | type | default | meaning |"]
    lines.append("|---|---|---|---|")
    for name, field in model.model_fields.items():
        cells = (f"`{name}`", _type_text(field.annotation), _default(field), prose(docs.get(name, "")))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, ""])


def prose(text: str) -> str:
    """Return the text of a docstring without the parts that are for programmers, on one line."""
    for part in ("\nRaises:", "\nArgs:", "\nExample:", " Raises ValueError", " Raises InputError", " Raises SpecError"):
        text = text.partition(part)[0]
    return " ".join(text.split())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "–"
    if isinstance(value, BaseModel):
        return "its defaults"
    if value in ((), {}, []):
        return "none"
    return f"`{_value(value)}`"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(_value(part) for part in value)}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _type_text(annotation: Any) -> str:
    """Return a type in the words of a person who writes YAML."""
    plain = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path", Any: "value"}
    if annotation in plain:
        return plain[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_text(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_text(part) for part in arguments if part is not type(None))
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in arguments)
    if origin is tuple and arguments[-1] is not ...:
        return f"list of {len(arguments)} {_plural(arguments[0])}"
    if origin in (tuple, list):
        return f"list of {_plural(arguments[0])}"
    if origin is dict:
        return f"name: {_type_text(arguments[1])}"
    return "section" if isinstance(annotation, type) and issubclass(annotation, BaseModel) else str(annotation)


def _plural(annotation: Any) -> str:
    text = _type_text(annotation)
    return f"{text}s" if text in ("integer", "number", "path", "section") else text


def main(arguments: list[str] | None = None) -> None:
    """Write the reference to the file named, or print it."""
    words = sys.argv[1:] if arguments is None else arguments
    if words:
        Path(words[0]).write_text(reference(), encoding="utf-8")
    else:
        print(reference(), end="")


if __name__ == "__main__":
    main()
