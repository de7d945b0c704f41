"""What probes measured, over training: update RMS by role (the paper's Figure 7), attention logits, router load, and
how activations move with data (Figure 10).

Each function takes rows of the run table (or what `raylr.analysis.stability` made of them) and returns a figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raylr.analysis.figures.colours import categories, ordered
from raylr.analysis.figures.description import Axis, Figure, Line, Mark, Panel, Rule, finite
from raylr.analysis.probes import MATRICES, QUANTITIES, Rows, list_of, norm_words
from raylr.analysis.stability import Moved
from raylr.analysis.units import format_count, format_lr

NOISE = math.sqrt((1 - 0.9) / (1 + 0.9))
"""Update RMS where gradients are noise without memory, for β₁ = 0.9."""
COLUMNS = 4
SHOWN = ("embeddings", "attention_logits/last", "attention_logits_normed/last", "logits")


def figures(runs: Mapping[str, Rows]) -> dict[str, Figure]:
    """Return the figures of what was measured, by name.

    Args:
        runs: Trial → its rows by tokens.
    """
    columns = {name for rows in runs.values() for row in rows for name, value in row.items() if value is not None}
    found = {}
    if any(name.startswith("update_rms/") for name in columns):
        found["update_rms"] = update_rms(runs)
    if {"attention_logit_max", "attention_entropy"} <= columns:
        found["attention"] = by_layer(runs, ("attention_logit_max", "attention_entropy"))
    if "router_load_max" in columns:
        found["router"] = by_layer(runs, ("router_load_max", "router_entropy"))
    return found


def _name(trial: str, rows: Rows) -> str:
    first = rows[0]
    known = first.get("size") is not None and first.get("lr") is not None
    return (f"{first['size']} at {format_lr(first['lr'])}" if known else trial) + norm_words(first)


def _tokens(label: str = "tokens") -> Axis:
    return Axis(label, scale="log", unit="count")


def update_rms(runs: Mapping[str, Rows]) -> Figure:
    """Describe the update RMS of every matrix' role over tokens, a panel for each run (paper, Figure 7).

    The dotted line is where it is for gradients that are noise, √((1 − β₁)/(1 + β₁)) at β₁ = 0.9.

    Args:
        runs: Trial → its rows by tokens.
    """
    there = {trial: rows for trial, rows in runs.items() if any("update_rms/embedding" in row for row in rows)}
    colours = dict(zip(MATRICES, categories(len(MATRICES)), strict=True))
    panels, last = [], []
    for place, (trial, rows) in enumerate(there.items()):
        marks: list[Mark] = [Rule(axis="y", at=NOISE, style="dotted", label="gradients that are noise")]
        for role in MATRICES:
            points = [(row["tokens"], row[f"update_rms/{role}"]) for row in rows if _is(row.get(f"update_rms/{role}"))]
            if points:
                x, y = (list(part) for part in zip(*points, strict=True))
                last.append(y[-1])
                hover = f"{_name(trial, rows)}, {role}"
                marks.append(Line(x=x, y=y, colour=colours[role], label=role, hover=hover, width=1.2))
        panels.append(Panel(title=_name(trial, rows), x=_tokens(), marks=marks,
                            y=Axis("update RMS" if place % COLUMNS == 0 else "", low=0.0, high=1.02)))  # fmt: skip
    statement = "No update RMS was measured."
    if last:
        statement = (
            f"At the ends of {len(there)} run{'s' if len(there) > 1 else ''} the update RMS of the matrices lies "
            f"between {min(last):.2f} and {max(last):.2f}, in the middle at {np.median(last):.2f}."
        )
    return Figure(
        title="Update RMS over training",
        statement=statement,
        caption="After Figure 7 of the paper: a line a role of matrices; the dotted line is where the update RMS is "
        f"for gradients that are noise without memory, {NOISE:.2f}.",
        panels=panels or [Panel(x=_tokens(), y=Axis("update RMS"), marks=[], note="not measured")],
        columns=COLUMNS,
        width=3.3,
        height=2.7,
        names=[_name(trial, rows) for trial, rows in there.items()],
    )


def by_layer(runs: Mapping[str, Rows], quantities: Sequence[str]) -> Figure:
    """Describe quantities over tokens, a row for each and a column for each run, a line for each layer.

    Args:
        runs: Trial → its rows by tokens.
        quantities: Such as "attention_logit_max", whose columns have lists over layers.
    """
    there = {trial: rows for trial, rows in runs.items() if any(_is(row.get(quantities[0])) for row in rows)}
    panels = []
    ends = {name: [row[name] for rows in there.values() for row in rows if _is(row.get(name))] for name in quantities}
    for quantity in quantities:
        lists = {trial: [(row["tokens"], list_of(row.get(f"{quantity}/layers"))) for row in rows]
                 for trial, rows in there.items()}  # fmt: skip
        every = finite([v for rows in lists.values() for _, values in rows for v in values if _is(v)])
        low, high = (min(0.0, float(every.min())), 1.05 * float(every.max())) if every.size else (None, None)
        for place, (trial, rows) in enumerate(there.items()):
            layers = max((len(values) for _, values in lists[trial]), default=0)
            marks: list[Mark] = []
            for layer, colour in enumerate(ordered(layers)):
                points = [(at, values[layer]) for at, values in lists[trial]
                          if layer < len(values) and _is(values[layer])]  # fmt: skip
                if points:
                    x, y = (list(part) for part in zip(*points, strict=True))
                    hover = f"{_name(trial, rows)}, layer {layer}"
                    marks.append(Line(x=x, y=y, colour=colour, label=f"layer {layer}", hover=hover, width=1.2))
            panels.append(Panel(title=_name(trial, rows), x=_tokens(), marks=marks,
                                y=Axis(QUANTITIES[quantity] if place == 0 else "", low=low, high=high),
                                note="" if marks else "not measured"))  # fmt: skip
    parts = [f"{QUANTITIES[name]} reaches {max(values):.3g}" for name, values in ends.items() if values]
    text = "; ".join(parts) or "Not measured"
    return Figure(
        title=" and ".join(QUANTITIES[name] for name in quantities),
        statement=f"{text[0].upper()}{text[1:]}.",
        caption="A panel a quantity and a run, a line a layer.",
        panels=panels or [Panel(x=_tokens(), y=Axis(""), marks=[], note="not measured")],
        columns=max(len(there), 1),
        width=2.8,
        height=2.4,
        names=[_name(trial, rows) for trial, rows in there.items()],
    )


def movement(measured: Mapping[str, Sequence[Moved]], *, data: str = "tokens", size: str = "parameters") -> Figure:
    """Describe the standard deviation of x_t − x_0 over data, a row for each kind of run (paper, Figure 10).

    A line is a run; its colour is the size.

    Args:
        measured: Kind of run → what was measured.
        data: What D counts.
        size: What the size counts.
    """
    names = [name for name in SHOWN if any(one.name == name for many in measured.values() for one in many)]
    names = names or list(dict.fromkeys(one.name for many in measured.values() for one in many))[:4]
    sizes = list(dict.fromkeys(map(format_count, sorted({one.size for many in measured.values() for one in many}))))
    colours = dict(zip(sizes, ordered(len(sizes)), strict=True))  # QK norm's few weights make no other size
    panels, growths = [], []
    for kind, many in measured.items():
        for place, name in enumerate(names):
            runs: dict[str, list[Moved]] = {}
            for one in many:
                if one.name == name and one.value > 0:
                    runs.setdefault(one.run, []).append(one)
            marks: list[Mark] = []
            for run in runs.values():
                ways = sorted((one.progress, one.value) for one in run)
                x, y = (list(part) for part in zip(*ways, strict=True))
                shown = format_count(run[0].size)
                growths.append((y[-1] / y[0], name, kind))
                marks.append(Line(x=x, y=y, colour=colours[shown], label=f"{shown} {size}", width=1.1,
                                  hover=f"{kind}, {run[0].run}"))  # fmt: skip
            panels.append(
                Panel(title=name.replace("_", " "), x=_tokens(data), marks=marks, note="" if marks else "not observed",
                      y=Axis(f"{kind}\nstd of x_t − x_0" if place == 0 else "", scale="log"))
            )  # fmt: skip
    statement = "No activation was observed."
    if growths:
        growth, name, kind = max(growths)
        statement = f"What moves most is {name.replace('_', ' ')}, by a factor of {growth:.3g} along a run ({kind})."
    return Figure(
        title="How activations move",
        statement=statement,
        caption=f"After Figure 10 of the paper: the standard deviation of x_t − x_0 over {data}, a line a run.",
        panels=panels,
        columns=max(len(names), 1),
        width=3.0,
        height=2.5,
        names=list(measured),
    )


def _is(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
