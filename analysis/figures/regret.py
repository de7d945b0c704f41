"""What an LR beside the best costs: the loss above the lowest over the LR, in multiples of the recommended one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from raylr.analysis.figures.colours import ACCENT, ordered
from raylr.analysis.figures.description import Axis, Band, Figure, Line, Mark, Panel, Rule, finite
from raylr.analysis.laws.lr_law import LRPrediction
from raylr.analysis.laws.quantities import CurvatureLaw
from raylr.analysis.optimum.fit import OptimumFit
from raylr.analysis.units import format_lr

_LEVELS = (0.05, 0.95)
_FARTHEST = 4.0
"""Multiples of the LR that are drawn, to either side: beyond them the loss of most models is that of another regime."""
_BY_LAW = 3.0
"""Eq. 2 holds up to about this factor."""
_GRID = 61
_TICKS = {0.25: "¼×", 0.5: "½×", 1.0: "1×", 2.0: "2×", 4.0: "4×"}
_MOST = 8


def regret(
    optima: Mapping[str, OptimumFit],
    *,
    law: CurvatureLaw | None = None,
    prediction: LRPrediction | None = None,
) -> Figure | None:
    """Describe the loss above the lowest over the LR, with its 90 % interval.

    Args:
        optima: Name of a setting → the fit of its loss over the LR. Those without a curve are left out; of more than 8,
            those are drawn that are spread evenly.
        law: The law of the curvature, for the cost at the target.
        prediction: At the target; None for none.

    Returns:
        The figure; None where no setting has a curve.
    """
    known = {name: fit for name, fit in optima.items() if fit.curves is not None and math.isfinite(fit.lr)}
    if not known:
        return None
    names = list(known)
    shown = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, min(_MOST, len(names))).round().astype(int))]
    marks: list[Mark] = []
    tops: list[float] = []
    for name, colour in zip(shown, ordered(len(shown)), strict=True):
        factors, mean, low, high = _regrets(known[name])
        tops += [float(np.interp(2.0, factors, mean)), float(np.interp(0.5, factors, mean))]
        marks.append(
            Line(x=factors, y=mean, colour=colour, label=name, hover=f"{name}, LR {format_lr(known[name].lr)}")
        )
        if name == shown[-1]:  # the bands of all would hide each other
            marks.append(Band(x=factors, low=low, high=high, colour=colour, group=name))
    statement = _statement_of(shown[-1], known[shown[-1]])
    caption = (
        "Lines are the expected loss above the lowest, from the loss over the LR at the largest budget of each; the "
        f"band is the 90 % interval of {shown[-1]}. At 1× is the recommended LR: its own cost is what the runs leave "
        "unknown"
    )
    if law is not None and prediction is not None and law.usable:
        factors = np.geomspace(1 / _BY_LAW, _BY_LAW, _GRID)
        found = [law.cost(prediction.params, prediction.tokens, factor) for factor in factors]
        two = law.cost(prediction.params, prediction.tokens, 2.0)
        tops.append(two.value)
        label = "target, by the law of the curvature"
        marks.append(Line(x=factors, y=[one.value for one in found], colour=ACCENT, style="dashed", label=label))
        if all(math.isfinite(one.high) for one in found):
            marks.append(
                Band(
                    x=factors,
                    low=[one.low for one in found],
                    high=[one.high for one in found],
                    colour=ACCENT,
                    group=label,
                )
            )
        statement = f"At the target an LR off by a factor of 2 costs {_nats(two.value, two.low, two.high)}."
        caption += "; the dashed line is the target by Eq. 2, whose curvature a law of all settings gives"
    if len(shown) < len(known):
        caption += f". {len(shown)} of {len(known)} settings are drawn, spread evenly"
    marks += [Rule(at=at, style="dotted") for at in (0.5, 2.0)]
    top = 2.2 * max([*finite(tops).tolist(), 1e-9])
    panel = Panel(
        x=Axis("LR, as a multiple of the recommended", scale="log", low=1 / _FARTHEST, high=_FARTHEST, ticks=_TICKS),
        y=Axis("loss above the lowest (nats)", low=-0.03 * top, high=top),
        marks=marks,
    )
    return Figure(
        title="What an LR beside the best costs",
        statement=statement,
        caption=f"{caption}.",
        panels=[panel],
        width=6.4,
        height=4.0,
        names=shown,
    )


def _regrets(fit: OptimumFit) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return multiples of the LR within the fitted range, the expected regret there and the ends of its interval."""
    assert fit.curves is not None
    x = fit.curves.x
    inside = np.linspace(-math.log(_FARTHEST), math.log(_FARTHEST), _GRID) + math.log(fit.lr)
    low_end, high_end = np.log(fit.lr_range)
    inside = inside[(inside >= max(x[0], low_end)) & (inside <= min(x[-1], high_end))]
    above = fit.losses.unit * (fit.curves.curves - fit.curves.curves.min(axis=1, keepdims=True))
    low, high = (np.interp(inside, x, values) for values in np.quantile(above, _LEVELS, axis=0))
    return np.exp(inside) / fit.lr, np.interp(inside, x, above.mean(axis=0)), low, high


def _statement_of(name: str, fit: OptimumFit) -> str:
    factors, mean, low, high = _regrets(fit)
    sides = []
    for factor, words in ((2.0, "twice"), (0.5, "half")):
        if factors.size and factors[0] <= factor <= factors[-1]:
            at = [float(np.interp(factor, factors, values)) for values in (mean, low, high)]
            sides.append(f"{words} the recommended LR costs {_nats(*at)}")
    if not sides:
        return f"The LRs of {name} reach less than a factor of 2 from the recommended one, {format_lr(fit.lr)}."
    return f"At {name}, {', '.join(sides)}."


def _nats(value: float, low: float, high: float) -> str:
    """Return a cost with its interval, all with the decimals that the wider side needs for two digits."""
    size = max(value, high if math.isfinite(high) else value)
    places = min(max(1 - math.floor(math.log10(size)), 0), 6) if size > 0 else 4
    return f"{value:.{places}f} nats (90 % interval {low:.{places}f} to {high:.{places}f})"
