"""How the columns of probes are named and written. No torch here.

QUANTITY/MODULE is one number, over all layers, and QUANTITY/MODULE/layers the same for each layer, as a JSON list from
the first layer to the last (null where a layer has no such tensor). So a row has as many columns for a network of 4
layers as for one of 94, and each of them is a number or a cell that any reader of CSV and JSON takes apart. A quantity
of the whole network has no MODULE. `probe_note/PROBE` says, once, what a probe could not see.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from raylr.analysis.probes import LAYERS, NOTE

__all__ = ["NOTE", "cell", "with_layers"]
DIGITS = 4
"""Significant digits in lists."""


def with_layers(name: str, value: float, layers: Mapping[int, Any]) -> dict[str, Any]:
    """Return the column of a quantity and, if it has layers, the list of their values.

    Args:
        name: QUANTITY/MODULE or QUANTITY.
        value: Over all layers.
        layers: Index of the layer → its value, or its values.

    Example:
        >>> with_layers("grad_rms/router", 0.5, {1: 0.123456})
        {'grad_rms/router': 0.5, 'grad_rms/router/layers': [None, 0.123456]}
    """
    out: dict[str, Any] = {name: value}
    if layers:
        out[f"{name}/{LAYERS}"] = [layers.get(layer) for layer in range(max(layers) + 1)]
    return out


def cell(value: Any) -> float | str:
    """Return what the row holds of a value: a number, or a text; a list becomes JSON, in which NaN is null.

    Example:
        >>> cell([0.123456, float("nan")])
        '[0.1235, null]'
    """
    if isinstance(value, str):
        return value
    return json.dumps(_short(value)) if isinstance(value, Sequence) else float(value)


def _short(value: Any) -> Any:
    if isinstance(value, Sequence):
        return [_short(one) for one in value]
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")
