"""Turning what is known beforehand (a law, a preset, earlier results) into the prior of a cell. No Ray."""

from __future__ import annotations

import math
from typing import Any

from raylr.searchers._cells import SCATTER, Cell
from raylr.searchers._posterior import ShapePrior

UNKNOWN_SD = 0.7
"""Standard deviation of ln lr around a law that says nothing about its own error: a factor of two."""


def prior_for(prior: Any, cell: Cell) -> ShapePrior:
    """Prior of `cell`. ValueError where `prior` is none of the accepted kinds or the cell lacks what it needs."""
    if prior is None:
        return ShapePrior()
    if isinstance(prior, ShapePrior):
        return prior
    from raylr.analysis import LRLaw, presets

    if isinstance(prior, str):
        prior = presets.get(prior)
    if not isinstance(prior, LRLaw):
        raise ValueError(f"prior must be an LRLaw, the name of a preset or a ShapePrior, not {type(prior).__name__}")
    if cell.params is None or cell.tokens is None:
        where = f"cell {cell.name!r} has none" if cell.name else "pass cells=[Cell(name, config, params, tokens)]"
        raise ValueError(f"an LR law needs the parameters and tokens of each cell: {where}")
    said = prior.predict(cell.params, cell.tokens)
    sd = UNKNOWN_SD
    if math.isfinite(said.lr_low) and math.isfinite(said.lr_high) and said.lr_low > 0:
        sd = min(2.0, math.hypot(math.log(said.lr_high / said.lr_low) / (2 * 1.645), SCATTER))
    if not (math.isfinite(said.lr) and said.lr > 0):
        raise ValueError(
            f"the law gives no lr at {cell.params:g} parameters and {cell.tokens:g} tokens: {said.message}"
        )
    return ShapePrior(center=math.log(said.lr), center_sd=sd)
