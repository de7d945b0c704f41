"""Public docstrings have one form, and their examples run.

Public is what the packages' `__init__.pyi` export. A function has the sections Args, Returns, Raises (if it raises) and
Example. A class that holds data documents each field; another class has Args for the parameters of its constructor.
"""

import ast
import dataclasses
import doctest
import enum
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import optuna
import pydantic
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("analysis", "searchers", "trainables", "raylr", "raylr/spec")
MODULES = (
    "raylr.searchers.optuna.sampler",
    "raylr.searchers.optuna.pruner",
    "raylr.trainables.training.groups",
)
"""Modules with examples that no `__init__.pyi` exports."""
EXAMPLES = ("LRLaw", "Conditions", "ModelSpec", "TrainSpec", "StudySpec", "FittingStudy", "QuadraticSearch",
            "SurfaceSearch", "SegmentSearch", "QuadraticPolicy", "SurfacePolicy", "StoppingRule")  # fmt: skip
"""Classes that a user makes, with an example."""


def exports() -> dict[str, Any]:
    """Return the public functions and classes by their full names."""
    found: dict[str, Any] = {}
    for package in PACKAGES:
        name = "raylr" if package == "raylr" else f"raylr.{package.removeprefix('raylr/')}"
        module = importlib.import_module(name)
        for node in ast.walk(ast.parse((ROOT / package / "__init__.pyi").read_text(encoding="utf-8"))):
            for alias in node.names if isinstance(node, ast.ImportFrom) else ():
                thing = getattr(module, alias.name)
                if inspect.isclass(thing) or inspect.isfunction(thing):
                    found[f"{thing.__module__}.{thing.__qualname__}"] = thing
    return found


LATER = {"PowerLawScheduler"}
"""Objects whose docstrings do not have this form yet."""
PUBLIC = {name: thing for name, thing in exports().items() if thing.__name__ not in LATER}
FUNCTIONS = [name for name, thing in PUBLIC.items() if inspect.isfunction(thing)]
CLASSES = [name for name, thing in PUBLIC.items() if inspect.isclass(thing)]


def section(text: str, name: str) -> str:
    """Return the body of a section of a docstring, "" if it has none."""
    found = re.search(rf"^{name}:\n((?:(?: .*)?\n?)*)", text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def raises(thing: Any) -> bool:
    """Whether the source of a function has a `raise` of its own."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    return any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(tree))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_all_sections(name: str) -> None:
    function = PUBLIC[name]
    text, signature = inspect.getdoc(function) or "", inspect.signature(function)
    args = section(text, "Args")
    for parameter in signature.parameters:
        assert re.search(rf"(^|\n) *(.*, )?`?\*{{0,2}}{parameter}`?(, .*)?:", args), f"Args lack {parameter}"
    assert section(text, "Returns") or signature.return_annotation in (None, "None"), "no Returns"
    assert section(text, "Raises") or not raises(function), "no Raises"
    assert ">>> " in section(text, "Example"), "no Example"


def documented(kind: type) -> set[str]:
    """Return the fields of a class that a string follows, with those of its bases in raylr."""
    found: set[str] = set()
    for base in kind.__mro__:
        if not base.__module__.startswith("raylr"):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for node, after in itertools.pairwise(body):
            if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(after, ast.Expr):
                targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def fields_of(kind: type) -> list[str]:
    """Return the public fields of a class that holds data; empty for other classes."""
    if issubclass(kind, pydantic.BaseModel):
        return list(kind.model_fields)
    if issubclass(kind, enum.Enum):
        return list(kind.__members__)
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind) if field.init and not field.name.startswith("_")]
    return list(getattr(kind, "_fields", ()))


@pytest.mark.parametrize("name", CLASSES)
def test_classes_document_their_fields_and_arguments(name: str) -> None:
    kind = PUBLIC[name]
    text = inspect.getdoc(kind) or ""
    assert text.partition("\n")[0].endswith((".", ":")), "the first line is not a sentence"
    args, known = section(text, "Args"), documented(kind)
    expected = fields_of(kind)
    if not expected and "__init__" in vars(kind) and Protocol not in kind.__mro__:
        expected = [
            parameter.name
            for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]  # type: ignore[misc]
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
    for field in expected:
        if field not in known:
            assert re.search(rf"(^|\n|`| ){field}\b", args), f"{field} is not documented"
    if kind.__name__ in EXAMPLES:
        assert ">>> " in section(text, "Example"), "no Example"


MANY = 3
"""Functions with more arguments than this need the section Args, in private modules, too."""
ELSEWHERE = re.compile(r"\b[Aa]s (?:in )?`[\w.]+`|See the class\.")
"""A reference to the place where the arguments are documented: of methods that a base class or a protocol defines."""


def functions_of(node: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """Yield the public functions and methods in a tree: name, definition, docstring (with its class's, of __init__)."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from functions_of(child, f"{name}.{child.name}")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(child) or ""
            if child.name == "__init__":
                assert isinstance(node, ast.ClassDef)
                text += ast.get_docstring(node) or ""
            elif child.name.startswith("_"):
                continue
            yield f"{name}.{child.name}", child, text


@pytest.mark.parametrize("package", ["analysis", "searchers", "trainables", "raylr"])
def test_functions_with_many_arguments_document_them(package: str) -> None:
    """Functions have the section Args, commands of the command line the section Parameters that cyclopts reads."""
    lacking = []
    for path in sorted((ROOT / package).rglob("*.py")):
        if any(folder.is_symlink() for folder in path.parents):
            continue
        for name, function, text in functions_of(ast.parse(path.read_text(encoding="utf-8")), path.stem):
            args = function.args
            names = [one.arg for one in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
            names = [one for one in names if one not in ("self", "cls")]
            if len(names) > MANY and not ELSEWHERE.search(text):
                documented = section(text, "Args") or text.partition("\nParameters\n---")[2]
                missing = [one for one in names if not re.search(rf"\b{one}\b", documented)]
                if missing:
                    lacking.append(f"{path.relative_to(ROOT)}: {name} lacks {', '.join(missing)}")
    assert lacking == []


@pytest.mark.parametrize("package", ["analysis", "searchers", "trainables", "raylr"])
def test_what_mypy_ignores_has_a_reason(package: str) -> None:
    lacking = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if not any(folder.is_symlink() for folder in path.parents)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r"# type: ignore\[[\w-]+\]$", line)
    ]
    assert lacking == []


DIALECT = re.compile(r"\b(told|whatever|whoever)\b", re.IGNORECASE)
"""Words with plainer ones: reported or distinguished, any or everything, the process or the user that acts."""
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "recipes").glob("*.md")])


@pytest.mark.parametrize("folder", ["analysis", "searchers", "trainables", "raylr", "benchmarks", "examples", "pages"])
def test_texts_use_plain_words(folder: str) -> None:
    """In code, comments and docs; the lab notebook is history."""
    paths = PAGES if folder == "pages" else sorted((ROOT / folder).rglob("*.py"))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in paths
        if path.name != "lab-notebook.md" and not any(one.is_symlink() for one in path.parents)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if DIALECT.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "module",
    sorted({thing.__module__ for thing in PUBLIC.values()} | set(MODULES)),
)
def test_examples_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    outcome = doctest.testmod(importlib.import_module(module))
    assert not outcome.failed
