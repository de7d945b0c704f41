"""What probes measured, over training: update RMS by role (the paper's Figure 7), attention logits, router load, and
how activations move with data (Figure 10).

Each function takes rows of the run table (or what `raylr.analysis.stability` made of them) and returns a figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raylr.analysis.figures._drawing import GREY, labels_of, new_figure, size_colours, styled
from raylr.analysis.probes import MATRICES, QUANTITIES, Rows, list_of
from raylr.analysis.stability import Moved
from raylr.analysis.units import format_count, format_lr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    kind = {True: ", QK norm", False: ", no QK norm"}.get(first.get("qk_norm"), "")  # type: ignore[arg-type]
    known = first.get("size") is not None and first.get("lr") is not None
    return (f"{first['size']} at {format_lr(first['lr'])}" if known else trial) + kind


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(COLUMNS, max(count, 1))
    figure, axes = new_figure(math.ceil(max(count, 1) / columns), columns, width=3.3, height=2.7)
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, axes


def _tokens(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_xlabel("tokens")
    ax.xaxis.set_major_formatter(lambda value, _: format_count(value))
    ax.xaxis.set_minor_formatter(lambda value, _: "")


@styled
def update_rms(runs: Mapping[str, Rows]) -> Figure:
    """Draw the update RMS of every matrix' role over tokens, a panel for each run (paper, Figure 7).

    The dotted line is where it is for gradients that are noise, √((1 − β₁)/(1 + β₁)) at β₁ = 0.9.

    Args:
        runs: Trial → its rows by tokens.
    """
    there = {trial: rows for trial, rows in runs.items() if any("update_rms/embedding" in row for row in rows)}
    labels = labels_of([_name(trial, rows) for trial, rows in there.items()])
    figure, axes = _panels(len(there))
    colours = dict(zip(MATRICES, size_colours(len(MATRICES)), strict=True))
    for ax, (trial, rows) in zip(axes, there.items(), strict=False):
        for role in MATRICES:
            points = [(row["tokens"], row[f"update_rms/{role}"]) for row in rows if _is(row.get(f"update_rms/{role}"))]
            if points:
                ax.plot(*zip(*points, strict=True), "-", color=colours[role], lw=1.2, label=role)
        ax.axhline(NOISE, color=GREY, ls=":", lw=1.0)
        ax.set_ylim(0, 1.02)
        ax.set_title(labels[_name(trial, rows)], fontsize=9)
        _tokens(ax)
    axes[0].set_ylabel("update RMS")
    if there:
        handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    return figure


@styled
def by_layer(runs: Mapping[str, Rows], quantities: Sequence[str]) -> Figure:
    """Draw quantities over tokens, a row for each and a column for each run, a line for each layer.

    Args:
        runs: Trial → its rows by tokens.
        quantities: Such as "attention_logit_max", whose columns have lists over layers.
    """
    there = {trial: rows for trial, rows in runs.items() if any(_is(row.get(quantities[0])) for row in rows)}
    labels = labels_of([_name(trial, rows) for trial, rows in there.items()])
    figure, axes = new_figure(len(quantities), max(len(there), 1), width=2.6, height=2.3)
    for line, quantity in enumerate(quantities):
        mine = axes[line * max(len(there), 1) :][: len(there)]
        for ax, (trial, rows) in zip(mine, there.items(), strict=True):
            lists = [(row["tokens"], list_of(row.get(f"{quantity}/layers"))) for row in rows]
            layers = max((len(values) for _, values in lists), default=0)
            for layer, colour in enumerate(size_colours(layers)):
                points = [(at, values[layer]) for at, values in lists if layer < len(values) and _is(values[layer])]
                if points:
                    ax.plot(*zip(*points, strict=True), "-", color=colour, lw=1.2, label=f"layer {layer}")
            if line == 0:
                ax.set_title(labels[_name(trial, rows)], fontsize=9)
            _tokens(ax)
        if mine:
            mine[0].set_ylabel(QUANTITIES[quantity])
            top = max(ax.get_ylim()[1] for ax in mine)
            for ax in mine:
                ax.set_ylim(min(0, *(other.get_ylim()[0] for other in mine)), top)
    if there:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=8)
    return figure


@styled
def movement(measured: Mapping[str, Sequence[Moved]], *, data: str = "tokens", size: str = "parameters") -> Figure:
    """Draw the standard deviation of x_t − x_0 over data, a row for each kind of run (paper, Figure 10).

    A line is a run; its colour is the size.

    Args:
        measured: Kind of run → what was measured.
        data: What D counts.
        size: What the size counts.
    """
    names = [name for name in SHOWN if any(one.name == name for many in measured.values() for one in many)]
    names = names or list(dict.fromkeys(one.name for many in measured.values() for one in many))[:4]
    labels = labels_of(measured)
    sizes = list(dict.fromkeys(map(format_count, sorted({one.size for many in measured.values() for one in many}))))
    colours = dict(zip(sizes, size_colours(len(sizes)), strict=True))  # QK norm's few weights make no other size
    figure, axes = new_figure(len(measured), len(names), width=2.9, height=2.4)
    for line, (kind, many) in enumerate(measured.items()):
        for place, name in enumerate(names):
            ax = axes[line * len(names) + place]
            runs: dict[str, list[Moved]] = {}
            for one in many:
                if one.name == name and one.value > 0:
                    runs.setdefault(one.run, []).append(one)
            for run in runs.values():
                x, y = np.array(sorted((one.progress, one.value) for one in run)).T
                ax.plot(x, y, "-", color=colours[format_count(run[0].size)], lw=1.1)
            if not runs:
                ax.text(0.5, 0.5, "not observed", transform=ax.transAxes, ha="center", color=GREY)
            ax.set_yscale("log")
            _tokens(ax)
            ax.set_xlabel(data)
            if line == 0:
                ax.set_title(name.replace("_", " "), fontsize=9)
        axes[line * len(names)].set_ylabel(f"{labels[kind]}\nstd of x_t − x_0")
    for value in sizes:
        axes[0].plot([], [], "-", color=colours[value], label=value)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=8, title=size)
    return figure


def _is(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
