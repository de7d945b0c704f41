"""The import graph: dependencies point one way, without circles.

    errors ◀── analysis ◀── policies ◀── Tune and Optuna adapters ◀── raylr
                  ▲                                                     │
                  └────────────── trainables ◀──────────────────────────┘

Imports that only type checkers see (`if TYPE_CHECKING`) do not count; imports inside functions do.
"""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from imports import imported

ROOT = Path(__file__).parents[1]
LOWER = ("raylr.analysis", "raylr.searchers", "raylr.trainables")
FORBIDDEN = {
    "raylr.analysis": ("raylr.searchers", "raylr.trainables", "ray", "torch", "deepspeed", "optuna", "pathlib", "os"),
    "raylr.searchers.policies": (
        "raylr.searchers.tune",
        "raylr.searchers.optuna",
        "raylr.trainables",
        "ray",
        "optuna",
        "torch",
    ),
    "raylr.searchers": ("raylr.trainables", "torch"),
    "raylr.trainables": ("raylr.searchers", "optuna"),
    "raylr.remote": (*LOWER, "ray", "torch"),
}
"""Package → what nothing in it may import. Of `raylr` they may import each other, `raylr.errors`, and `raylr.remote`,
which imports `raylr.errors` alone."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "raylr" else ("raylr", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Module → names that it imports."""
    files = [path for top in ("analysis", "searchers", "trainables") for path in (ROOT / top).rglob("*.py")]
    files += [
        path
        for path in (ROOT / "raylr").rglob("*.py")
        if path.relative_to(ROOT / "raylr").parts[0] not in ("analysis", "searchers", "trainables")
    ]
    return {module_name(path): imported(path) for path in files}


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_no_package_imports_a_higher_one(graph: dict[str, set[str]]) -> None:
    wrong = []
    for module, names in graph.items():
        for package, forbidden in FORBIDDEN.items():
            if inside(module, package):
                wrong += [
                    f"{module} imports {name}"
                    for name in names
                    if any(inside(name, bad) for bad in forbidden) and name != "os.PathLike"
                ]
        if any(inside(module, package) for package in (*LOWER, "raylr.remote")):
            allowed = (*LOWER, "raylr.errors", "raylr.remote")
            own = [name for name in names if inside(name, "raylr")]
            wrong += [f"{module} imports {name}" for name in own if not any(inside(name, good) for good in allowed)]
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_there_is_no_circle(graph: dict[str, set[str]]) -> None:
    """Strongly connected components of the graph of modules (Tarjan 1972), all of one module each."""
    edges = {
        module: {
            target
            for name in names
            for target in (name, name.rpartition(".")[0])
            if target in graph and target != module
        }
        for module, names in graph.items()
    }
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in edges[module]:
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            component = [stack.pop()]
            while component[-1] != module:
                component.append(stack.pop())
            if len(component) > 1:
                circles.append(sorted(component))

    for module in edges:
        if module not in index:
            visit(module)
    assert not circles, circles


def test_modules_are_small_enough_to_read(graph: dict[str, set[str]]) -> None:
    """Nothing above 400 lines; names are kept here so that a new long module is noticed."""
    lengths = defaultdict(int)
    for top in ("analysis", "searchers", "trainables", "raylr"):
        for path in (ROOT / top).rglob("*.py"):
            lengths[module_name(path)] = len(path.read_text().splitlines())
    assert {module for module, lines in lengths.items() if lines > 400} == set()


def test_importing_raylr_is_light() -> None:
    code = "import sys, raylr, raylr.analysis, raylr.searchers.policies.priors\nprint(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"ray", "torch", "deepspeed", "optuna", "pandas", "matplotlib", "transformers"} & set(loaded)
