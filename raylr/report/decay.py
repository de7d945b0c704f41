"""What a study says about its decay: both optima of every setting, and how far they lie apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from raylr.analysis.laws.decay import fit_decay_shift
from raylr.analysis.units import format_count, format_lr, format_name
from raylr.report.lines import Line
from raylr.report.text import interval

if TYPE_CHECKING:
    from raylr.study import StudyResult

SHOWN = 12
"""Settings whose stable optima are named; of more the factor between both optima alone."""


def decay_lines(result: StudyResult) -> list[Line]:
    """Return what the optima of a study with a decay are, beside those of the stable loss; nothing without one."""
    if result.spec.objective != "decayed":
        return []
    decay, fit = result.spec.decay_spec, result.fit
    end = "0" if decay.final_lr_ratio == 0 else f"{decay.final_lr_ratio:g} of the peak"
    words = f"these are the peak LRs of least loss after a {decay.shape} decay to {end} over the last "
    lines = [Line(f"{words}{100 * decay.fraction:.3g} % of the tokens", "Decay")]
    pairs = [
        (after, before)
        for after, before in zip(fit.optima, fit.stable, strict=True)
        if math.isfinite(after.lr_opt) and math.isfinite(before.lr_opt)
    ]
    if not pairs:
        return [*lines, Line("no setting has an optimum of the stable loss as well")]
    stderr = [math.hypot(after.log_stderr, before.log_stderr) for after, before in pairs]
    shift = fit_decay_shift([b.lr_opt for _, b in pairs], [a.lr_opt for a, _ in pairs], stderr=stderr)
    low, high = (math.exp(shift.log_shift + side * 1.6449 * shift.stderr) for side in (-1, 1))
    lines.append(
        Line(
            f"they are {math.exp(shift.log_shift):.3g} times (90 % interval {low:.2g} to {high:.2g}) the optima of the "
            "stable loss at the same tokens, from the trunks"
        )
    )
    if len(pairs) <= SHOWN:
        shown = ", ".join(
            f"{format_name(one.size)} at {format_count(one.tokens)} {format_lr(one.lr_opt)} "
            f"({interval(one.lr_low, one.lr_high)})"
            for _, one in pairs
        )
        lines.append(Line(f"stable: {shown}", dim=True))
    return lines
