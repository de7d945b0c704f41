"""The probe `spikes`: training losses and gradient norms far above those before them.

A value is a spike where it is at least `SIGMAS` standard deviations above the mean of the last `WINDOW` values, as in
the spike score of OLMo 2 (arXiv 2501.00656), which also counts values far below. A run is marked by its counts.

| column | what |
|---|---|
| loss_spikes, grad_norm_spikes | how many there were since the run began |
| grad_norm_max | largest gradient norm, before clipping, since the last report |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from raylr.trainables.training.probes import Columns, Event, StepEvent

SIGMAS = 7.0
"""Standard deviations (OLMo 2)."""
WINDOW = 1000
"""Steps that a value is compared with (OLMo 2)."""
LEAST = 100
"""Steps before a value is judged: the standard deviation of so many is known to 7 %."""
SERIES = ("loss", "grad_norm")
KEY = "spikes"
"""Key of the run's memory."""


class SpikeProbe:
    """Looks at every step; nothing is computed on a device (`probes.Probe`)."""

    def __call__(self, event: Event) -> Columns | None:
        """Take a step; return the counts after a validation."""
        memory = event.memory.setdefault(KEY, {"grad_norm_max": 0.0, **{name: new_series() for name in SERIES}})
        if isinstance(event, StepEvent):
            memory["grad_norm_max"] = max(memory["grad_norm_max"], event.grad_norm)
            take(memory["loss"], event.train_loss)
            take(memory["grad_norm"], event.grad_norm)
            return None
        found = {f"{name}_spikes": memory[name]["spikes"] for name in SERIES}
        largest, memory["grad_norm_max"] = memory["grad_norm_max"], 0.0
        return found | {"grad_norm_max": largest}


def new_series() -> dict[str, Any]:
    """Return the memory of a series of which nothing was seen."""
    return {"spikes": 0, "last": [], "next": 0, "sum": 0.0, "squares": 0.0}


def take(series: dict[str, Any], value: float) -> bool:
    """Add a value to a series; return whether it is a spike.

    Args:
        series: As `new_series` returns it. Sums are of differences from the first value, which keeps them precise.
        value: The value; one that is not finite is no spike (the run has diverged) and is not added.

    Example:
        >>> series = new_series()
        >>> [take(series, 2.0 + 0.01 * (step % 3)) for step in range(200)].count(True)
        0
        >>> take(series, 2.5), series["spikes"]
        (True, 1)
    """
    if not math.isfinite(value):
        return False
    origin = series.setdefault("origin", value)
    shifted, last = value - origin, series["last"]
    spike = len(last) >= LEAST and _far(series, len(last), shifted)
    series["spikes"] += spike
    if len(last) < WINDOW:
        last.append(shifted)
    else:
        old, last[series["next"]] = last[series["next"]], shifted
        series["next"] = (series["next"] + 1) % WINDOW
        series["sum"] -= old
        series["squares"] -= old * old
    series["sum"] += shifted
    series["squares"] += shifted * shifted
    return spike


def _far(series: Mapping[str, Any], count: int, value: float) -> bool:
    mean = series["sum"] / count
    variance = max(series["squares"] / count - mean * mean, 0.0)
    return bool(value > mean + SIGMAS * math.sqrt(variance) and value > mean)
