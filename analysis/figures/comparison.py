"""Arms beside each other, after the paper's Figures 3, 4 and 6: loss curves and final losses, and what each cost.

An arm has the same colour in all figures.
"""

from __future__ import annotations

import math

import numpy as np

from raylr.analysis.comparison import NOTHING, Arm, Comparison, mean_curve
from raylr.analysis.figures.colours import Colour, categories
from raylr.analysis.figures.description import Axis, Band, Boxes, Figure, Line, Mark, Panel, Points, Rule, finite
from raylr.analysis.units import format_count

_LONGEST = 12
"""Characters of an arm's name that a tick has room for."""
_SHOWN = 0.25
"""Share of a curve's points, from its start, that may lie above the panel: the burn-in, which is no news."""


def arm_losses(found: Comparison, target: str, tokens: float) -> Figure:
    """Describe the arms' loss curves over tokens, mean and range over seeds (Figure 6), and their final losses.

    Args:
        found: The comparison.
        target: Name of the target; "" without one.
        tokens: Its tokens.
    """
    marks: list[Mark] = []
    floor, tops = math.inf, []
    colours = _colours(found)
    for arm in found.arms:
        grid, mean, low, high = mean_curve(arm)
        if grid.size:
            colour = colours[arm.name]
            marks.append(Line(x=grid, y=mean, colour=colour, label=arm.name, hover=f"{arm.name}, mean over seeds"))
            marks.append(Band(x=grid, low=low, high=high, colour=colour, group=arm.name))
            floor = min(floor, float(low.min()))
            tops.append(float(high[int(_SHOWN * grid.size)]))
    low_end = high_end = None
    if tops and max(tops) > floor:
        span = max(tops) - floor
        low_end, high_end = floor - 0.08 * span, max(tops) + 0.08 * span
    curves = Panel(
        title=f"training at {target}" if target else "training",
        x=Axis("tokens", unit="count", low=0.0),
        y=Axis("validation loss (nats)", low=low_end, high=high_end),
        marks=marks,
    )
    known = [arm for arm in found.arms if math.isfinite(arm.mean)]
    statement = "No arm has a final loss."
    if known:
        best = min(known, key=lambda arm: arm.mean)
        rest = "; ".join(f"{arm.name} {arm.mean:.4f}" for arm in known if arm is not best)
        statement = f"The lowest mean loss is that of {best.name}, {best.mean:.4f}" + (f" ({rest})." if rest else ".")
    caption = "After Figure 6 of the paper. "
    if marks:
        caption += "Left: mean and range of the loss over seeds. Right: the final losses, "
    else:
        caption += "The final losses; no run has a curve. They are "
    caption += "a point a seed, the bar their mean."
    return Figure(
        title=f"Losses at {target}" if target else "Losses",
        statement=statement,
        caption=caption,
        panels=[curves, _finals(found, tokens)] if marks else [_finals(found, tokens)],
        width=5.2 if marks else 6.4,
        height=3.9,
        names=[*(arm.name for arm in found.arms), *([target] if target else [])],
    )


def arm_costs(found: Comparison) -> Figure:
    """Describe what finding each arm's hyperparameters took, in tokens and in FLOPs, beside one run at the target.

    Args:
        found: The comparison.
    """
    colours = _colours(found)
    panels = [_costs(found, quantity, name, colours) for quantity, name in (("tokens", "tokens"), ("flops", "FLOPs"))]
    known = [(arm.name, arm.search.tokens) for arm in found.arms if arm.search is not None]
    statement = "What the searches cost is not known."
    if known:
        spent = ", ".join(f"{name} {format_count(tokens)}" for name, tokens in known)
        statement = f"Tokens of the search: {spent}."
    caption = "What finding each arm's hyperparameters took; an arm without a bar has no known cost."
    if any(arm.training is not None for arm in found.arms):
        caption += " Dashed: one run at the target."
    return Figure(
        title="What the searches cost",
        statement=statement,
        caption=caption,
        panels=panels,
        width=5.2,
        height=0.9 + 0.5 * max(3, len(found.arms)),
        names=[arm.name for arm in found.arms],
    )


def _colours(found: Comparison) -> dict[str, Colour]:
    return dict(zip((arm.name for arm in found.arms), categories(len(found.arms)), strict=True))


def _places(found: Comparison) -> dict[float, str]:
    return {float(place): arm.name for place, arm in enumerate(found.arms)}


def _finals(found: Comparison, tokens: float) -> Panel:
    marks: list[Mark] = []
    colours = _colours(found)
    for place, arm in enumerate(found.arms):
        losses = np.asarray(arm.losses, dtype=np.float64)
        aside = 0.06 * (np.arange(losses.size) - (losses.size - 1) / 2)
        hover = [f"{arm.name}, {_seed(arm, i)}" for i in range(losses.size)]
        marks.append(
            Points(
                x=np.asarray(place + aside, dtype=np.float64),
                y=losses,
                colour=colours[arm.name],
                label=arm.name,
                hover=hover,
            )
        )
        if math.isfinite(arm.mean):
            marks.append(
                Line(
                    x=[place - 0.25, place + 0.25],
                    y=[arm.mean] * 2,
                    colour=colours[arm.name],
                    width=2.4,
                    group=arm.name,
                    hover=f"mean of {arm.name}",
                )
            )
            marks.append(
                Points(
                    x=[place + 0.3],
                    y=[arm.mean],
                    symbol="dot",
                    size=1,
                    colour=colours[arm.name],
                    group=arm.name,
                    texts=[f"{arm.mean:.4f}"],
                    hover=f"mean of {arm.name}",
                )
            )
    known = finite([loss for arm in found.arms for loss in arm.losses])
    room = float(np.ptp(known)) if known.size > 1 else 0.0
    return Panel(
        title="final losses",
        # Long names would hide each other at the ticks; the legend has them.
        x=Axis(
            "",
            low=-0.5,
            high=max(len(found.arms), 1) - 0.4,
            ticks=_places(found) if max((len(arm.name) for arm in found.arms), default=0) <= _LONGEST else {},
        ),
        y=Axis(
            f"loss at {format_count(tokens)} tokens (nats)",
            low=float(known.min()) - 0.15 * room if room else None,
            high=float(known.max()) + 0.25 * room if room else None,
        ),
        marks=marks,
    )


def _seed(arm: Arm, i: int) -> str:
    run = arm.runs[i]
    return f"seed {run.seed}" if run.seed is not None else run.name or f"run {i + 1}"


def _costs(found: Comparison, quantity: str, name: str, colours: dict[str, Colour]) -> Panel:
    marks: list[Mark] = []
    costs = {
        arm.name: getattr(arm.search or NOTHING, quantity) if arm.search is not None else math.nan for arm in found.arms
    }
    runs = finite([getattr(arm.training, quantity) for arm in found.arms if arm.training is not None])
    top = max([*finite(list(costs.values())).tolist(), *runs.tolist(), 1e-9])
    for place, (arm, cost) in enumerate(costs.items()):
        known = math.isfinite(cost)
        text = (format_count(cost) if quantity == "tokens" else f"{cost:.2g}") if known else "not known"
        length = cost if known else 0.0
        marks.append(
            Boxes(
                x_low=[0.0],
                x_high=[length],
                y_low=[place - 0.3],
                y_high=[place + 0.3],
                colour=colours[arm],
                label=arm,
                hover=f"{arm}: {text} {name}",
            )
        )
        marks.append(
            Points(
                x=[length + 0.09 * top],
                y=[place - 0.12],
                symbol="dot",
                size=0.1,
                colour=colours[arm],
                texts=[text],
                group=arm,
                hover=f"{arm}: {text} {name}",
            )
        )
    if runs.size:
        marks.append(Rule(at=float(runs.max())))
    ends = Axis(f"{name} of the search", unit="count" if quantity == "tokens" else "number", low=0.0, high=1.25 * top)
    return Panel(
        title=name, x=ends, marks=marks, y=Axis("", low=-0.6, high=len(costs) - 0.4, ticks=_places(found), reverse=True)
    )
