"""Are the counts counts? Sizes in billions beside tokens in units are refused with the option that says so. LRs above 1
get a remark."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import log10
from typing import TYPE_CHECKING

from raylr.analysis.units import format_count
from raylr.errors import DataError

if TYPE_CHECKING:
    from raylr.imports.run import ImportedRun

SMALL, LARGE = 1e5, 1e8
"""A model of fewer than 1e5 parameters trained on more than 1e8 tokens is a count in another unit, and the reverse: no
study has a thousand tokens and more a parameter at such a size, nor a hundredth of a token at such a model."""
JUMP = 1e6
"""Neighbouring counts further apart than this factor are in two units."""
UNITS = {"1e9": (1e9, "billions"), "1e6": (1e6, "millions"), "1e3": (1e3, "thousands")}


def check_units(runs: Sequence[ImportedRun], where: str) -> None:
    """Raise DataError where sizes and token counts cannot both be counts; the message names `--unit`."""
    params = sorted({run.params for run in runs if run.params})
    tokens = sorted({run.target_tokens for run in runs if run.target_tokens})
    for name, values in (("params", params), ("tokens", tokens)):
        for low, high in itertools.pairwise(values):
            if high / low > JUMP:
                raise DataError(
                    f"{where}: {name} are in two units, {low:g} and {high:g} with nothing between them; write all of "
                    "them as counts, such as 1e9"
                )
    if params and tokens:
        for name, small, large, other in (
            ("params", params, tokens, "tokens"), ("tokens", tokens, params, "params"),
        ):  # fmt: skip
            if small[-1] < SMALL and large[0] > LARGE:
                unit, words = _unit(name, small[-1], large[-1])
                raise DataError(
                    f"{where}: {name} go from {small[0]:g} to {small[-1]:g} where {other} go up to "
                    f"{format_count(large[-1])}: probably {words}. Say so with --unit {name}={unit}"
                )
        if params[-1] < 1000 and tokens[-1] < 1e5:
            raise DataError(
                f"{where}: params go up to {params[-1]:g} and tokens up to {tokens[-1]:g}: counts in another unit, "
                "probably billions. Say so with --unit params=1e9,tokens=1e9"
            )


def lr_notes(runs: Sequence[ImportedRun]) -> list[str]:
    """Return a remark where every LR is above 1: Adam moves a weight by about the LR in a step, so that no model trains
    there, and few other optimizers use such LRs."""
    lrs = [run.lr for run in runs]
    if min(lrs) <= 1:
        return []
    return [f"the LRs, {min(lrs):.3g} to {max(lrs):.3g}, are above 1: they may be in another unit, such as 1e-4"]


def _unit(name: str, value: float, other: float) -> tuple[str, str]:
    """Return the unit in which a count lies closest to 20 tokens a parameter, and its name."""
    sign = 1 if name == "tokens" else -1
    ratio = {unit: sign * (log10(value * scale) - log10(other)) for unit, (scale, _) in UNITS.items()}
    unit = min(ratio, key=lambda one: abs(ratio[one] - log10(20)))
    return unit, UNITS[unit][1]
