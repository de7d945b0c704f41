"""The next learning rate at once, whatever is still running: for samplers that are asked and cannot wait. No Ray, no
Optuna, no state."""

from __future__ import annotations

import math
from itertools import pairwise

from raylr.searchers._config import LRDomain
from raylr.searchers.policies.cell_search import APART, CellSearch
from raylr.searchers.policies.failures import SAME
from raylr.searchers.policies.types import RunState

MOST_UNKNOWN = 64
"""Most workers whose learning rates are worked out because they have not been written down yet."""


def ask_now(search: CellSearch, domain: LRDomain, unknown: int = 0) -> float | int:
    """Return the next lr, apart from all that are being tried.

    Args:
        search: The search of the setting, with all runs, running ones included; changed in place.
        domain: The range; the result lies in it.
        unknown: Number of workers that asked before and whose lrs are not known yet. They are answered from the same
            results, so what they were given can be worked out: it is what would be asked for next.

    Returns:
        An allowed value of the domain.
    """
    for _ in range(min(unknown, MOST_UNKNOWN)):
        search.runs.append(RunState(math.log(_next(search, domain))))
    return _next(search, domain)


def _next(search: CellSearch, domain: LRDomain) -> float | int:
    if domain.low >= domain.high:
        return domain.within(math.log(domain.low))
    proposed = search.ask()
    running = [r.log_lr for r in search.runs if r.running]
    if domain.quantised:
        return _free_value(search, domain, proposed)
    if all(abs(proposed - x) > APART / 2 for x in running):
        return domain.within(proposed)
    # More workers than the model has places for: halve the widest gap between all lrs tried.
    low, high = math.log(domain.low), math.log(domain.high)
    taken = sorted({low, high, *(x for r in search.runs if low < (x := r.log_lr) < high)})
    width, left = max((b - a, -a) for a, b in pairwise(taken))
    return domain.within(-left + width / 2)


def _free_value(search: CellSearch, domain: LRDomain, proposed: float) -> float | int:
    """The allowed value nearest to `proposed` that no run has, or `proposed`'s own where there is none nearby."""
    replicate = any(abs(r.log_lr - proposed) < SAME and not r.running for r in search.runs)
    taken = {float(domain.within(r.log_lr)) for r in search.runs}
    value = domain.within(proposed)
    if replicate or float(value) not in taken:
        return value
    for distance in range(1, len(taken) + 2):
        near = [v for v in domain.neighbours(proposed, distance) if v not in taken]
        if near:
            return domain.within(math.log(min(near, key=lambda v: abs(math.log(v) - proposed))))
    return value
