"""Reading the last result of a trial: its loss where it counts, or what else it says. No Ray, no state."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from raylr.analysis.curves.curve import OWN, Curve
from raylr.analysis.optimum.posterior import HUGE
from raylr.searchers._config import has, lookup, number
from raylr.searchers.policies.cell_search import Run

logger = logging.getLogger(__name__)

LOSS, LOSS_STDERR, DECISION = "raylr/loss", "raylr/loss_stderr", "raylr/decision"
"""Keys under which `PowerLawScheduler` hands over the extrapolated loss, its standard error and what it decided."""
BOOKKEEPING = frozenset({
    "checkpoint_dir_name", "date", "done", "experiment_tag", "hostname", "iterations_since_restore", "node_ip", "pid",
    "should_checkpoint", "time_since_restore", "time_this_iter_s", "time_total_s", "timestamp", "training_iteration",
    "trial_id",
})  # fmt: skip
"""Keys that Tune adds to every report."""
UNKNOWN = 0.05
"""Relative standard error of the loss of a run that was cut short and whose curve cannot be extrapolated."""


def reported(result: Mapping[str, Any]) -> str:
    """The keys that the trainable itself reported, for messages."""
    keys = sorted(str(key) for key in result if key not in BOOKKEEPING and not str(key).startswith("config"))
    return ", ".join(keys) or "nothing"


def take_value(run: Run, value: Any, *, failed: bool, sign: float) -> None:
    """The loss of a run; anything but a finite number has diverged. `sign` -1: `value` is a score to be maximised."""
    if failed or not number(value) or abs(value) >= HUGE:
        run.state, run.loss = "diverged", math.nan
    else:
        run.state, run.loss = "done", sign * float(value)


def take_result(
    run: Run, result: Mapping[str, Any] | None, *, error: bool, metric: str, sign: float, trial: str
) -> None:
    """The last result of a trial; None without an error (a trial that never reported) says nothing about its lr."""
    if error:
        take_value(run, None, failed=True, sign=sign)
        return
    if result is None:
        run.state = "void"
        return
    found = lookup(result, LOSS)
    if found is None and not has(result, metric):
        logger.error("trial %s never reported %r; it reported %s", trial, metric, reported(result))
        run.state = "void"
        return
    value = found if found is not None else lookup(result, metric)
    take_value(run, value, failed=lookup(result, DECISION) == "diverged", sign=sign)
    stderr = lookup(result, LOSS_STDERR)
    if run.state == "done" and found is not None and number(stderr) and stderr >= 0:
        run.stderr = OWN * float(stderr)


def take_curve(run: Run, curve: Curve | None, result: Mapping[str, Any] | None, target: float | None) -> None:
    """A run that ended before its cell's tokens, for whatever reason: its loss there, with a standard error."""
    said = lookup(result or {}, LOSS) is not None
    if run.state != "done" or said or curve is None or not curve.tokens or not target:
        return
    if curve.tokens[-1] < 0.99 * target:
        run.loss, stderr = curve.extrapolate(target)
        run.stderr = min(OWN * stderr, UNKNOWN * abs(run.loss))
