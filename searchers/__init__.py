"""Drop-in parts for Ray Tune and Optuna: `QuadraticSearch`, a searcher, and `PowerLawScheduler`, a trial scheduler.

Importing this package registers `search_alg="raylr"` with Tune.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ray.tune.search import SEARCH_ALG_IMPORT

if TYPE_CHECKING:
    from raylr.searchers._cells import Cell
    from raylr.searchers._policy import Recommendation
    from raylr.searchers._posterior import ShapePrior
    from raylr.searchers.power_law_scheduler import PowerLawScheduler
    from raylr.searchers.quadratic_search import QuadraticSearch
    from raylr.searchers.segment_search import SegmentSearch
    from raylr.searchers.surface_search import SurfaceSearch

_HOME = {
    "Cell": "_cells",
    "PowerLawScheduler": "power_law_scheduler",
    "QuadraticSearch": "quadratic_search",
    "Recommendation": "_policy",
    "SegmentSearch": "segment_search",
    "ShapePrior": "_posterior",
    "SurfaceSearch": "surface_search",
}

__all__ = [
    "Cell",
    "PowerLawScheduler",
    "QuadraticSearch",
    "Recommendation",
    "SegmentSearch",
    "ShapePrior",
    "SurfaceSearch",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"raylr.searchers.{_HOME[name]}"), name)
    raise AttributeError(f"module 'raylr.searchers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def _quadratic_search() -> type:
    from raylr.searchers.quadratic_search import QuadraticSearch

    return QuadraticSearch


SEARCH_ALG_IMPORT["raylr"] = _quadratic_search
