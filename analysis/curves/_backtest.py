"""How wrong the model of `_progress` would have been before: fitted on a first part of the runs, tried on the rest.

A miss is the loss at the end less what the first part predicted for it, over the runs that compete, in units of what
the best run gained in an e-fold of tokens at the end of that part, per e-fold ahead: -0.5 is a run that fell by half a
gain more than predicted in each e-fold. Runs share it nearly whole, so each first part counts once. The fit's own
standard error foresees misses of some size; what goes beyond it is what the model does not know of itself.
"""

import math

import numpy as np

from raylr.analysis._checks import Array
from raylr.analysis.curves import _progress

SHARES = (0.35, 0.5, 0.7)
"""Ends of the first parts, as shares of the tokens."""
PRIOR_MISS = 0.2
"""Root mean square miss beyond the foreseen before any is seen, worth one of them: a fifth of the gain."""
LEAST = 5
"""Fewest points of the best run's first part."""

Runs = dict[float, tuple[Array, Array, Array]]
"""ln lr -> ln(tokens / last tokens), loss and variance of its noise, each (n,), as `_progress.binned` gives them."""


def misses(runs: Runs, least_runs: int, least_points: int) -> tuple[Array, Array]:
    """The miss of each first part that is long enough to be fitted (at most one of each of `SHARES`,), and the standard
    error with which it was foreseen."""
    out = []
    for share in SHARES:
        cut = math.log(share)
        parts = {one: (x[x <= cut], y[x <= cut], v[x <= cut]) for one, (x, y, v) in runs.items() if x[-1] > cut}
        parts = {one: part for one, part in parts.items() if part[0].size >= least_points}
        if len(parts) < least_runs:
            continue
        best = min(parts, key=lambda one: float(parts[one][1][-1]))
        if parts[best][0].size < LEAST:
            continue
        points = _progress.assemble({one - best: (x - cut, y, v) for one, (x, y, v) in parts.items()})
        post = _progress.posterior(points) if points.slope > 0 else None
        if post is None or not post.weight.size:
            continue
        ends = np.array([[one - best, runs[one][0][-1] - cut, runs[one][1][-1]] for one in parts])
        rival = ends[ends[:, 2] <= ends[:, 2].min() + points.slope]
        each = []
        for z, x, y in rival:
            there = np.array([z])
            curve = _progress.curve(post, there, x, _progress.amplitude(points, there, x))
            each.append([(y - curve.mean[0]) / (points.slope * x), curve.stderr[0] / (points.slope * x)])
        out.append(np.mean(each, axis=0))
    missed, foreseen = np.array(out).reshape(-1, 2).T
    return missed, foreseen


def size(missed: Array, foreseen: Array) -> float:
    """Root mean square miss beyond the foreseen, with `PRIOR_MISS` as one more."""
    beyond = np.maximum(missed**2 - foreseen**2, 0.0)
    return math.sqrt((PRIOR_MISS**2 + float(beyond.sum())) / (1 + missed.size))
