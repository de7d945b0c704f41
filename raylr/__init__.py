"""raylr: which learning rate for a pre-training run you can afford only once, from runs a hundred times cheaper."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raylr.spec import StudySpec, load_spec
    from raylr.study import FittingStudy, StudyResult

_HOME = {"FittingStudy": "study", "StudyResult": "study", "StudySpec": "spec", "load_spec": "spec"}

__all__ = ["FittingStudy", "StudyResult", "StudySpec", "load_spec"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"raylr.{_HOME[name]}"), name)
    raise AttributeError(f"module 'raylr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
