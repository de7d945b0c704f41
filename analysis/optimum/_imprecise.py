"""Losses that are known less well than others, such as those of runs cut short: none of them is the best one tried
where what was measured says that it is not.

Heights, cautions and ties are counted from the lowest loss. One that is low because little is known of it cannot serve
for that: the answer would stay there, and its own expected loss would lie above one that was measured elsewhere.
"""

import math

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.optimum._recommend import NEGLIGIBLE, TIED

Array = NDArray[np.float64]

ENOUGH = 4
"""Losses that determine level, optimum, curvature and skew, as for `ok`."""
CONTRADICTING = (
    "a loss that was not measured but estimated, with its standard error, lies below what the losses elsewhere allow: "
    "train to its end the run at "
)


def informative(y: Array, s: Array | None) -> NDArray[np.bool_]:
    """Which losses `y` (n,) with the standard errors `s` say anything: inf means that nothing is known of a loss, but
    a run that diverged has none."""
    return np.ones(y.size, dtype=bool) if s is None else np.isfinite(s) | ~np.isfinite(y)


def outweighed(h: Array, error: Array, expected: Array) -> bool:
    """Return whether the lowest loss says nothing beside those that are known better, or is expected to be higher than
    one of them.

    It says nothing if its error is larger than all differences between `ENOUGH` of them. The other one is taken at what
    was measured or at what is expected there, whichever is higher: a model that explains a wrong low loss by noise
    expects less at its neighbours than was measured, and a measured one may have been lucky.

    Args:
        h: Heights of the losses, in units, the lowest first, (n,).
        error: Their standard errors, (n,).
        expected: Height that the model expects at each, (n,).
    """
    better = error < error[0]
    if not better.any():
        return False
    if better.sum() >= ENOUGH and error[0] > float(np.ptp(h[better])):
        return True
    upper = np.maximum(h, expected) + TIED * error
    return bool(expected[0] - float(upper[better].min()) > NEGLIGIBLE)


def contradicts(loss: float, error: float, expected: float, stderr: float) -> bool:
    """Return whether a loss lies below what is expected there by more than both errors explain.

    Args:
        loss: The loss.
        error: Its standard error.
        expected: The loss that is expected there. NaN and inf: nothing is expected, and nothing is contradicted.
        stderr: Standard error of `expected`.
    """
    return math.isfinite(expected) and expected - loss > TIED * math.hypot(error, stderr)
