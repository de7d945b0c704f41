"""The check of a prediction: training at the predicted LR and at multiples of it."""

from __future__ import annotations

import math

import numpy as np

from raylr.analysis.figures.colours import ACCENT, GREY, by_value
from raylr.analysis.figures.curves import curve
from raylr.analysis.figures.description import Axis, Boxes, Figure, Line, Mark, Panel, Points, Rule, finite, loss_limits
from raylr.analysis.laws.lr_law import LRPrediction
from raylr.analysis.studyfit import Check
from raylr.analysis.units import format_count, format_lr, format_name

_GRID = 80


def prediction_check(check: Check, prediction: LRPrediction, size: str) -> Figure:
    """Describe the losses at the target size: at the predicted LR and at multiples of it.

    Args:
        check: What training there gave.
        prediction: The prediction.
        size: Name of the target.
    """
    colours = by_value([run.lr for run in check.runs])
    curves = [
        mark
        for run, colour in zip(check.runs, colours, strict=True)
        for mark in curve(run, check.tokens, colour, power_law=False)
    ]
    late = [finite(run.loss)[finite(run.loss).size // 4 :] for run in check.runs]
    low, high = loss_limits([loss for losses in late for loss in losses], share=0.9, room=0.3)
    training = Panel(
        title=f"training at {size}",
        x=Axis("tokens", unit="count", low=0.0),
        y=Axis("validation loss (nats)", low=low, high=high),
        marks=curves,
    )
    ended = [run for run in check.runs if run.diverged or math.isfinite(check.loss_at(run))]
    lrs, losses = [run.lr for run in ended], [check.loss_at(run) for run in ended]
    marks: list[Mark] = []
    spread = math.isfinite(prediction.lr_low) and not math.isnan(prediction.lr_high)
    if spread:
        label = f"{prediction.level:.0%} interval of the prediction"
        marks.append(
            Boxes(
                x_low=[prediction.lr_low],
                x_high=[prediction.lr_high],
                y_low=[-math.inf],
                y_high=[math.inf],
                colour=ACCENT,
                alpha=0.14,
                label=label,
            )
        )
    known = finite(losses)
    if known.size >= 3:
        grid = np.geomspace(min(lrs), max(lrs), _GRID)
        marks.append(Line(x=grid, y=np.asarray(check.fit.predict(grid)[0]), colour=GREY, label="fitted loss"))
    marks.append(Rule(at=prediction.lr, colour=ACCENT, label=f"predicted {format_lr(prediction.lr)}"))
    marks.append(
        Points(
            x=lrs,
            y=losses,
            size=6,
            texts=[f"{loss:.4f}" if math.isfinite(loss) else "diverged" for loss in losses],
            hover=[f"LR {format_lr(lr)}, {lr / prediction.lr:.3g}× the predicted" for lr in lrs],
        )
    )
    ends = [*lrs, prediction.lr]
    room = float(np.ptp(known)) if known.size > 1 else 0.0
    finals = Panel(
        title="final losses",
        x=Axis("learning rate", scale="log", unit="lr", low=min(ends) / 1.6, high=max(ends) * 1.6),
        y=Axis(
            f"loss at {format_count(check.tokens)} tokens (nats)",
            low=float(known.min()) - 0.25 * room if room else None,
            high=float(known.max()) + 0.35 * room if room else None,
        ),
        marks=marks,
        note="" if lrs else "no run has ended yet",
    )
    caption = f"Left: training at {format_name(size)}. Right: its final losses; the dashed line is the predicted LR"
    caption += ", shaded its interval" if spread else ""
    caption += ", the grey line the loss over the LR fitted to these runs" if known.size >= 3 else ""
    return Figure(
        title=f"Training at {size}",
        statement=_statement(check, prediction, size),
        caption=f"{caption}.",
        panels=[training, finals],
        width=5.2,
        height=3.9,
        names=[size],
    )


def _statement(check: Check, prediction: LRPrediction, size: str) -> str:
    found = {run.lr: check.loss_at(run) for run in check.runs if math.isfinite(check.loss_at(run))}
    if not found:
        return f"No run at {format_name(size)} has a loss at {format_count(check.tokens)} tokens."
    best = min(found, key=lambda lr: found[lr])
    ratio = best / prediction.lr
    where = "the predicted LR" if abs(math.log(ratio)) < 0.01 else f"{ratio:.3g} times the predicted LR"
    return f"Of {len(found)} LRs trained at {format_name(size)}, {where} has the lowest loss, {found[best]:.4f}."
