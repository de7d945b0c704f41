"""Names, imports and links in the README and in docs/ exist."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), ROOT / "recipes" / "README.md"]
)
HISTORY = ("lab-notebook.md",)
"""Pages about the past: they may name what no longer exists."""
CURRENT = [page for page in PAGES if page.name not in HISTORY]
NAME = re.compile(r"(?<![\w/.])raylr(?:\.[A-Za-z_]\w*)+")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`((?:analysis|searchers|trainables|raylr|tests|benchmarks|examples|docs|recipes)/[\w./-]+\.\w+)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILES = ("raylr.json",)
"""Names of files that look like names of modules."""


def resolve(name: str) -> None:
    """Import the longest part of a dotted name that is a module, and read the rest as attributes of it."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("raylr"):
                raise
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return
    raise AssertionError(f"{name} cannot be imported")


def names(text: str) -> list[str]:
    """Return the dotted names of raylr in a page, also those that a Python block imports."""
    found = set(NAME.findall(text)) - set(FILES)
    for block in BLOCK.findall(text):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("raylr"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return sorted(found)


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_names_exist(page: Path) -> None:
    for name in names(page.read_text(encoding="utf-8")):
        resolve(name)


def test_a_name_that_does_not_exist_is_found() -> None:
    assert names("`raylr.nowhere` and raylr.json") == ["raylr.nowhere"]
    for name in ("raylr.nowhere", "raylr.analysis.fit_nothing"):
        with pytest.raises(AttributeError):
            resolve(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_exist(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in link and not link.startswith(("#", "mailto:")):
            assert (page.parent / link.partition("#")[0]).exists(), link


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_files_named_in_code_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in FILE.findall(text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_functions_of_the_tables_exist(page: Path) -> None:
    """Functions of `raylr.analysis` are named without their package: `fit_lr_law(...)`."""
    analysis = importlib.import_module("raylr.analysis")
    for name in re.findall(r"`((?:fit|compare|pooled|presets)[_.][a-z_]+)[(`]", page.read_text(encoding="utf-8")):
        resolve(f"{analysis.__name__}.{name}")
