"""Adapters of the policies to Ray Tune: searchers and a trial scheduler.

Importing this package (as `from raylr.searchers import QuadraticSearch` does) registers `search_alg="raylr"` with Tune.
"""

from ray.tune.search import SEARCH_ALG_IMPORT


def _quadratic_search() -> type:
    from raylr.searchers.tune.quadratic_search import QuadraticSearch

    return QuadraticSearch


SEARCH_ALG_IMPORT["raylr"] = _quadratic_search
