"""What probes measured along runs, as the run table has it: names of columns, and one record for each number.

A column is QUANTITY, QUANTITY/MODULE or QUANTITY/MODULE/…, one number over all layers, or the same with /layers at its
end, a JSON list with one entry for each layer (itself a list for a quantity that each expert has).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylr.analysis.units import format_lr

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

MATRICES = ("embedding", "attention", "dense", "router", "experts_in", "experts_out", "lm_head")
"""Roles of the matrices, which the paper's Figure 7 shows."""
LAST = 0.5
"""Share of a run's steps, its last, over which an update RMS is averaged: its final level is of interest."""
Rows = Sequence[Mapping[str, Any]]


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
    for layer, value in enumerate(list_of(cell)):
        for expert, one in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(one, int | float) and math.isfinite(one):
                yield layer, expert, float(one)


def list_of(cell: Any) -> list[Any]:
    """Return the list of a cell; [] for one that is empty or damaged."""
    if not isinstance(cell, str):
        return list(cell) if isinstance(cell, list) else []
    try:
        found = json.loads(cell)
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def settled(rows: Rows, column: str) -> float | None:
    """Return the median of a column over the last part of a run (`LAST`); None if nothing was measured there.

    Example:
        >>> settled([{"tokens": 1, "grad_norm_max": 9.0}, {"tokens": 3, "grad_norm_max": 1.0}], "grad_norm_max")
        1.0
    """
    end = max(float(row["tokens"]) for row in rows)
    found = [
        float(value)
        for row in rows
        if float(row["tokens"]) >= (1 - LAST) * end
        if isinstance(value := row.get(column), int | float) and math.isfinite(value)
    ]
    return float(np.median(found)) if found else None


def last(rows: Rows, column: str) -> float | None:
    """Return the last number of a column; None if there is none."""
    found = [row[column] for row in rows if isinstance(row.get(column), int | float) and math.isfinite(row[column])]
    return float(found[-1]) if found else None


def update_rms(rows: Rows) -> dict[str, float]:
    """Return role → where its update RMS stays, of the matrices that a run has."""
    found = {role: settled(rows, f"update_rms/{role}") for role in MATRICES}
    return {role: value for role, value in found.items() if value is not None}


def summaries(runs: Mapping[str, Rows]) -> list[str]:
    """Return a sentence for each run: where its update RMS stays, its attention logits, routers and spikes.

    Args:
        runs: Trial → its rows by tokens.
    """
    return [text for trial, rows in runs.items() if (text := _summary(trial, rows))]


def _summary(trial: str, rows: Rows) -> str:
    updates = update_rms(rows)
    parts = []
    if updates:
        low, high = min(updates, key=updates.__getitem__), max(updates, key=updates.__getitem__)
        parts.append(f"update RMS {updates[low]:.2f} ({low}) to {updates[high]:.2f} ({high})")
    for column, text in (
        ("attention_logit_max", "largest attention logit {:.3g}"),
        ("router_load_max", "busiest expert {:.2f} times the mean"),
        ("dead_experts", "{:.0f} experts without a token"),
        ("loss_spikes", "{:.0f} loss spikes"),
        ("grad_norm_spikes", "{:.0f} gradient-norm spikes"),
    ):
        if (value := last(rows, column)) is not None:
            parts.append(text.format(value))
    size, lr = rows[0].get("size"), rows[0].get("lr")
    name = trial if size is None or lr is None else f"{size} at LR {format_lr(lr)}"
    return f"{name}{norm_words(rows[0])}: {', '.join(parts)}." if parts else ""


def norm_words(row: Mapping[str, Any]) -> str:
    """Return ", QK norm" or ", no QK norm" for a row; "" where it is not known."""
    norm = row.get("qk_norm")
    return (", QK norm" if norm else ", no QK norm") if isinstance(norm, bool) else ""
