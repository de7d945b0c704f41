"""What probes measured along runs, as the run table has it: names of columns, and one record for each number.

A column is QUANTITY, QUANTITY/MODULE or QUANTITY/MODULE/…, one number over all layers, or the same with /layers at its
end, a JSON list with one entry for each layer (itself a list for a quantity that each expert has).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LAYERS = "layers"
"""Ends the name of a column with a list."""
NOTE = "probe_note"
"""Begins the names of columns in which a probe says what it could not see."""
QUANTITIES: dict[str, str] = {
    "update_rms": "RMS of AdamW's normalised update",
    "update_ratio": "RMS of a step over RMS of the weights",
    "grad_rms": "RMS of the gradients",
    "attention_logit_max": "largest attention logit",
    "attention_entropy": "attention entropy (nats)",
    "router_load": "tokens of an expert over the mean's",
    "router_load_max": "tokens of the busiest expert over the mean's",
    "router_entropy": "router entropy (nats)",
    "router_margin": "router margin (nats)",
    "dead_experts": "experts without a token",
    "activation_rms": "RMS of activations",
    "activation_change": "std of x_t − x_0",
    "loss_spikes": "loss spikes so far",
    "grad_norm_spikes": "gradient-norm spikes so far",
    "grad_norm_max": "largest gradient norm since the last row",
}
"""Quantity → what it is, for people; the probes' docstrings define them."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One number that a probe measured."""

    trial: str
    tokens: int
    step: int | None
    quantity: str
    module: str
    """Role, block or observable; "" for one of the whole network."""
    layer: int | None
    """None: over all layers."""
    expert: int | None
    value: float


def columns_of(names: Iterable[str]) -> list[str]:
    """Return the names that are columns of probes' numbers.

    Example:
        >>> columns_of(["loss", "update_rms/router", "update_rms/router/layers", "probe_note/router"])
        ['update_rms/router', 'update_rms/router/layers']
    """
    return [name for name in names if name.partition("/")[0] in QUANTITIES]


def parts_of(column: str) -> tuple[str, str, bool]:
    """Return quantity and module of a column, and whether it is a list over layers.

    Example:
        >>> parts_of("activation_change/logits"), parts_of("router_load/layers")
        (('activation_change', 'logits', False), ('router_load', '', True))
    """
    quantity, *rest = column.split("/")
    layered = bool(rest) and rest[-1] == LAYERS
    return quantity, "/".join(rest[:-1] if layered else rest), layered


def tidy(rows: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Return every number of the probes in some rows, in their order.

    Args:
        rows: Rows of the run table. Cells that are empty, and what is not finite, are left out.

    Example:
        >>> rows = [{"trial": "a", "tokens": 100, "grad_rms/router": 0.5, "grad_rms/router/layers": "[null, 1]"}]
        >>> [(record.layer, record.value) for record in tidy(rows)]
        [(None, 0.5), (1, 1.0)]
    """
    return [record for row in rows for record in _of_row(row)]


def _of_row(row: Mapping[str, Any]) -> Iterator[Record]:
    step = row.get("step")
    for name in columns_of(row):
        quantity, module, layered = parts_of(name)
        for layer, expert, value in _numbers(row[name], layered=layered):
            yield Record(
                trial=str(row.get("trial", "")),
                tokens=int(row["tokens"]),
                step=None if step is None else int(step),
                quantity=quantity,
                module=module,
                layer=layer,
                expert=expert,
                value=value,
            )


def _numbers(cell: Any, *, layered: bool) -> Iterator[tuple[int | None, int | None, float]]:
    if not layered:
        if isinstance(cell, int | float) and math.isfinite(cell):
            yield None, None, float(cell)
        return
    for layer, value in enumerate(_list(cell)):
        for expert, one in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(one, int | float) and math.isfinite(one):
                yield layer, expert, float(one)


def _list(cell: Any) -> list[Any]:
    """Return the list of a cell; [] for one that is empty or damaged."""
    if not isinstance(cell, str):
        return list(cell) if isinstance(cell, list) else []
    try:
        found = json.loads(cell)
    except ValueError:
        return []
    return found if isinstance(found, list) else []
