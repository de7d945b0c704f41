"""The packages of trainables import each other in one direction: data and models do not depend on training."""

from pathlib import Path

import pytest
from imports import imported

ROOT = Path(__file__).parents[2] / "trainables"
MAY_IMPORT = {
    "data": {"data"},
    "models": {"models"},
    "training": {"data", "models", "training"},
    "coordinates": {"data", "models", "training", "coordinates"},
    "export": {"data", "models", "training", "export"},
}


def imports(path: Path) -> set[str]:
    """Packages of trainables that a module imports."""
    within = {name.split(".")[2] for name in imported(path) if name.startswith("raylr.trainables.")}
    return {name for name in within if (ROOT / name).is_dir()}


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_packages_import_in_one_direction(package: str) -> None:
    modules = sorted((ROOT / package).glob("*.py"))
    assert len(modules) > 2
    wrong = {module.name: imports(module) - MAY_IMPORT[package] for module in modules}
    assert not {name: names for name, names in wrong.items() if names}


def test_every_package_has_its_place() -> None:
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(MAY_IMPORT)
