"""Reading what Tune reports of a trial: its loss, how it ended, and the keys that were reported instead. No Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from raylr.analysis.curves.schedule import LR_KEYS
from raylr.analysis.runs import RunEnd
from raylr.searchers._config import as_float, has, lookup

LOSS, LOSS_STDERR, DECISION = "raylr/loss", "raylr/loss_stderr", "raylr/decision"
"""Keys under which `PowerLawScheduler` hands over the loss at the target, its standard error, and how the run ended
(a `RunEnd`)."""
MEASURED = "raylr/measured"
"""The metric as it was last reported, where it was replaced by the extrapolated one."""
BOOKKEEPING = frozenset({
    "checkpoint_dir_name", "date", "done", "experiment_tag", "hostname", "iterations_since_restore", "node_ip", "pid",
    "should_checkpoint", "time_since_restore", "time_this_iter_s", "time_total_s", "timestamp", "training_iteration",
    "trial_id",
})  # fmt: skip
"""Keys that Tune adds to every report."""


def reported(result: Mapping[str, Any]) -> str:
    """The keys that the trainable itself reported, for messages."""
    keys = sorted(str(key) for key in result if key not in BOOKKEEPING and not str(key).startswith("config"))
    return ", ".join(keys) or "nothing"


def loss_in(result: Mapping[str, Any], metric: str, sign: float) -> float | None:
    """Return the loss of a report (smaller is better), NaN where it is no number, None where it is not there.

    Args:
        result: The report.
        metric: Its key.
        sign: -1 where the metric is maximised.
    """
    if not has(result, metric):
        return None
    value = as_float(lookup(result, metric))
    return math.nan if value is None else sign * value


def current_lr_in(result: Mapping[str, Any], key: str | None = None) -> float | None:
    """Return the LR of the schedule at a report; None where it has none.

    Args:
        result: The report.
        key: Its key; None looks for the usual ones (`LR_KEYS`).
    """
    for name in LR_KEYS if key is None else (key,):
        value = as_float(lookup(result, name)) if has(result, name) else None
        if value is not None and math.isfinite(value) and value >= 0:
            return value
    return None


def end_in(result: Mapping[str, Any]) -> RunEnd | None:
    """Return how the scheduler reported that a run ended, or None if it reported no end."""
    try:
        return RunEnd(str(lookup(result, DECISION)))
    except ValueError:
        return None
