"""Planned learning rates in a domain with steps. No Ray, no state."""

from __future__ import annotations

import math

from raylr.searchers._config import LRDomain
from raylr.searchers.policies.failures import SAME
from raylr.searchers.policies.policy import SettingSearch


def keep_apart(search: SettingSearch, domain: LRDomain) -> None:
    """Move planned lrs that round to a tried value to a neighbour, or finish the search where all are taken.

    Args:
        search: The search in one setting; changed in place.
        domain: Its range, with steps.
    """
    tried = {float(domain.value(r.log_lr)): r.log_lr for r in search.runs if r.measured or r.diverged}
    suggested = {float(domain.value(p.log_lr)) for p in search.runs if p.running}
    kept: list[float] = []
    for log_lr in search.queue:
        value = float(domain.value(log_lr))
        replicate = any(abs(r.log_lr - log_lr) < SAME for r in search.runs)
        if not replicate and (value in tried or value in suggested):
            free = [v for v in domain.neighbours(log_lr) if v not in tried and v not in suggested]
            if not free:
                continue
            value = min(free, key=lambda v: abs(math.log(v) - log_lr))
            log_lr = math.log(value)
        suggested.add(value)
        kept.append(log_lr)
    search.queue[:] = kept
    if not kept and search.pending() == 0:
        search.finished = True  # every value around the optimum has been tried
