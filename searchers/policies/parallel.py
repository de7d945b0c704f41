"""The next learning rate at once, even while other runs are still going: for samplers that must answer and cannot
wait. No Ray, no Optuna, no state."""

from __future__ import annotations

import math
from itertools import pairwise

from raylr.analysis.optimum.acquisition import APART
from raylr.searchers._config import LRDomain
from raylr.searchers.policies.cell_search import CellSearch, readable
from raylr.searchers.policies.failures import SAME
from raylr.searchers.policies.types import RunState

GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)
"""Multiples of it, modulo 1, lie far apart: so do the lrs of trials with different numbers."""
MOST_MODELLED = 16
"""Workers whose lrs are chosen by the model while none of theirs is written down; more of them halve the gaps."""


def ask_now(search: CellSearch, domain: LRDomain, unknown: int = 0, *, number: int | None = None) -> float | int:
    """Return the next lr, apart from all that are being tried.

    Args:
        search: The search of the setting, with all runs, running ones included; changed in place.
        domain: The range; the result lies in it.
        unknown: Number of workers that requested an lr before and whose lrs are not known yet. Their lrs follow from
            the same results, so they can be computed: they are the next suggestions.
        number: Number of the trial, by which trials that know the same results differ a little; None: no difference.

    Returns:
        An allowed value of the domain.
    """
    for place in range(unknown):
        search.runs.append(RunState(math.log(_next(search, domain, modelled=place < MOST_MODELLED))))
    found = _next(search, domain, modelled=unknown < MOST_MODELLED)
    if number is None or domain.quantised or domain.low >= domain.high:
        return found
    shift = 0.5 * APART * (GOLDEN * (number + 1) % 1.0 - 0.5)
    shifted = math.log(found) + shift
    inside = math.log(domain.low) <= shifted <= math.log(domain.high)
    return domain.within(readable(shifted if inside else math.log(found) - shift))


def _next(search: CellSearch, domain: LRDomain, *, modelled: bool) -> float | int:
    if domain.low >= domain.high:
        return domain.within(math.log(domain.low))
    proposed = search.ask() if modelled else _widest_gap(search, domain)
    if domain.quantised:
        return _free_value(search, domain, proposed)
    if any(abs(proposed - r.log_lr) <= (APART / 2 if r.running else SAME) for r in search.runs):
        proposed = _widest_gap(search, domain)  # the model has no more places for so many workers
    return domain.within(proposed)


def _widest_gap(search: CellSearch, domain: LRDomain) -> float:
    """The middle of the widest gap between the lrs tried so far and the ends of the range, in ln lr."""
    low, high = math.log(domain.low), math.log(domain.high)
    taken = sorted({low, high, *(r.log_lr for r in search.runs if low < r.log_lr < high)})
    width, left = max((b - a, -a) for a, b in pairwise(taken))
    return -left + width / 2


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
