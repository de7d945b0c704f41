"""The packages of trainables import each other in one direction: data and models know nothing of training."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "trainables"
MAY_IMPORT = {
    "data": {"data"},
    "models": {"models"},
    "training": {"data", "models", "training"},
    "export": {"models", "training", "export"},
}


def imports(path: Path) -> set[str]:
    """Packages of trainables that a module imports, also inside functions, but not only for type checkers."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        nodes += ast.iter_child_nodes(node)
    return {name.split(".")[2] for name in found if name.startswith("raylr.trainables.")}


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_packages_import_in_one_direction(package: str) -> None:
    modules = sorted((ROOT / package).glob("*.py"))
    assert len(modules) > 2
    wrong = {module.name: imports(module) - MAY_IMPORT[package] for module in modules}
    assert not {name: names for name, names in wrong.items() if names}


def test_every_package_has_its_place() -> None:
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(MAY_IMPORT)
