"""Functions that a spec names as package.module:function. No torch here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raylr.errors import InputError

NAME = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
"""Pattern of such a name."""


def load_function(key: str, name: str, folder: str | Path) -> Callable[..., Any]:
    """Return the function (or class) that "package.module:function" names, imported with `folder` on the path.

    Args:
        key: Key of the spec that names it, for messages.
        name: Module and name.
        folder: Folder that the module is imported from, if it is not installed.

    Raises:
        InputError: If it is not there or its module cannot be imported.

    Example:
        >>> load_function("trainable", "math:sqrt", ".")(4.0)
        2.0
    """
    module_name, _, attribute = name.partition(":")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a script that ends itself when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{key}: {module_name} cannot be imported from {folder} ({reason})") from error
    found: Callable[..., Any] | None = getattr(module, attribute, None)
    if not callable(found):
        raise InputError(f"{key}: the module {module_name} has no function {attribute}")
    return found
