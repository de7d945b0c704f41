"""What a module imports, read from its source."""

import ast
from pathlib import Path


def imported(path: Path) -> set[str]:
    """Return the names that a module imports, as `package.module` or `package.module.name`.

    Imports inside functions count; those that only type checkers see (`if TYPE_CHECKING`) do not.
    """
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        nodes += ast.iter_child_nodes(node)
    return found
