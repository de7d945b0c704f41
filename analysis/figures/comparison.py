"""Arms beside each other, after the paper's Figures 3, 4 and 6: loss curves and final losses, and what each cost.

Each function takes a `Comparison` and returns a matplotlib figure. An arm has the same colour in all pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from raylr.analysis.comparison import NOTHING, Arm, Comparison, mean_curve
from raylr.analysis.figures._drawing import GREY, Colour, labels_of, new_figure, size_colours, styled
from raylr.analysis.units import format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 0.25
"""Share of a curve's points, from its start, that may lie above the picture: the burn-in, which is no news."""


@styled
def arm_losses(found: Comparison, target: str, tokens: float) -> Figure:
    """Draw the arms' loss curves over tokens, mean and range over seeds (Figure 6), and their final losses beside them.

    Args:
        found: The comparison.
        target: Name of the target.
        tokens: Its tokens.
    """
    figure, (curves, finals) = new_figure(1, 2, width=5.2, height=3.9)
    labels = labels_of([arm.name for arm in found.arms])
    floor, tops = math.inf, []
    for arm, colour in zip(found.arms, size_colours(len(found.arms)), strict=True):
        grid, mean, low, high = mean_curve(arm)
        if grid.size:
            curves.plot(grid, mean, "-", lw=1.4, color=colour, label=labels[arm.name])
            curves.fill_between(grid, low, high, color=colour, alpha=0.18, lw=0)
            floor = min(floor, float(low.min()))
            tops.append(float(high[int(_SHOWN * grid.size)]))
    if tops and max(tops) > floor:
        span = max(tops) - floor
        curves.set_ylim(floor - 0.08 * span, max(tops) + 0.08 * span)
    curves.set_xlabel("tokens")
    curves.set_ylabel("validation loss (nats)")
    curves.xaxis.set_major_formatter(lambda value, _: format_count(value) if value else "0")
    curves.set_title(f"Training at {labels_of([target])[target]}, mean and range over seeds")
    if tops:
        curves.legend(loc="upper right")
    else:
        curves.text(0.5, 0.5, "no curve is known", transform=curves.transAxes, ha="center", color=GREY)
    _draw_finals(finals, found, labels, tokens)
    return figure


@styled
def arm_costs(found: Comparison) -> Figure:
    """Draw what finding each arm's hyperparameters took, in tokens and in FLOPs, beside one run at the target."""
    figure, axes = new_figure(1, 2, width=5.2, height=0.6 + 0.5 * max(3, len(found.arms)))
    labels = labels_of([arm.name for arm in found.arms])
    colours = size_colours(len(found.arms))
    for ax, quantity, name in zip(axes, ("tokens", "flops"), ("tokens", "FLOPs"), strict=True):
        for place, (arm, colour) in enumerate(zip(found.arms, colours, strict=True)):
            cost = getattr(arm.search or NOTHING, quantity)
            known = arm.search is not None and math.isfinite(cost)
            ax.barh(place, cost if known else 0, color=colour, height=0.6)
            text = _amount(cost, quantity) if known else "not known"
            ax.annotate(f" {text}", (cost if known else 0, place), va="center", fontsize=8)
        runs = [getattr(arm.training, quantity) for arm in found.arms if arm.training is not None]
        one = [cost for cost in runs if math.isfinite(cost)]
        if one:
            ax.axvline(max(one), color=GREY, ls="--", lw=1)
        ax.set_yticks(range(len(found.arms)), [labels[arm.name] for arm in found.arms])
        ax.invert_yaxis()
        ax.margins(x=0.3)
        ax.xaxis.set_major_formatter(_ticks(quantity))
        dashed = f" (dashed: one run at the target, {_amount(max(one), quantity)})" if one else ""
        ax.set_xlabel(f"{name}{dashed}")
        ax.set_title(f"{name} of the search")
        ax.grid(axis="y", visible=False)
    return figure


def _draw_finals(ax: Axes, found: Comparison, labels: dict[str, str], tokens: float) -> None:
    arms: Sequence[Arm] = found.arms
    colours: list[Colour] = size_colours(len(arms))
    for place, (arm, colour) in enumerate(zip(arms, colours, strict=True)):
        losses = arm.losses[np.isfinite(arm.losses)]
        aside = 0.06 * (np.arange(losses.size) - (losses.size - 1) / 2)
        ax.plot(place + aside, losses, "o", ms=5, color=colour, alpha=0.7)
        if losses.size:
            ax.plot([place - 0.25, place + 0.25], [arm.mean] * 2, "-", lw=2, color=colour)
            ax.annotate(f"{arm.mean:.4f}", (place + 0.27, arm.mean), va="center", fontsize=8)
        if arm.diverged:
            text = f"{arm.diverged} of {len(arm.runs)}\ndiverged"
            ax.annotate(text, (place, 1), xycoords=("data", "axes fraction"), ha="center", va="top", fontsize=8)
    ax.set_xticks(range(len(arms)), [labels[arm.name] for arm in arms])
    ax.set_xlim(-0.5, max(len(arms), 1) - 0.1)
    ax.margins(y=0.15)
    ax.set_ylabel(f"loss at {format_count(tokens)} tokens (nats)")
    ax.set_title("Final losses, a point a seed, the line their mean")
    ax.grid(axis="x", visible=False)


def _ticks(quantity: str) -> Callable[[float, float], str]:
    return lambda value, _: _amount(value, quantity) if value else "0"


def _amount(value: float, quantity: str) -> str:
    return format_count(value) if quantity == "tokens" else f"{value:.2g}"
