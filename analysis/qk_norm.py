"""Runs with and without QK norm beside each other, after the paper's Figures 7 and 9.

References:
    Zhou et al. 2026 (arXiv 2601.05049), Sections 6.2 and 6.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylr.analysis.probes import MATRICES, Rows, last, update_rms
from raylr.analysis.units import format_lr

SAME_PARAMS = 0.02
"""Relative difference of parameters up to which two models are one but for QK norm, whose weights are few."""
_QUANTITIES = {
    "loss": "loss at the end",
    "attention_logit_max": "largest attention logit",
    "attention_entropy": "attention entropy (nats)",
    "activation_change/attention_logits/last": "raw attention logits, last layer: std of x_t − x_0",
    "loss_spikes": "loss spikes",
    "grad_norm_spikes": "gradient-norm spikes",
}


@dataclass(frozen=True, kw_only=True)
class NormEffect:
    """Two runs, or two coordinate checks, that differ in QK norm alone."""

    name: str
    pairs: Mapping[str, tuple[float | None, float | None]]
    """What was measured → with QK norm, without; None where one of them lacks it."""
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        pairs = {name: {"with": one, "without": other} for name, (one, other) in self.pairs.items()}
        return {"name": self.name, "sentence": self.sentence, "measured": pairs}


def of_runs(runs: Mapping[str, Rows]) -> list[NormEffect]:
    """Return the pairs of runs with one LR and one number of parameters (but for the norm's).

    Args:
        runs: Trial → its rows by tokens, with `qk_norm`, `lr`, `params` and the columns of probes.
    """
    with_norm = [rows for rows in runs.values() if rows[0].get("qk_norm") is True]
    without = [rows for rows in runs.values() if rows[0].get("qk_norm") is False]
    return [
        _pair(one, other)
        for one in with_norm
        for other in without
        if math.isclose(one[0]["lr"], other[0]["lr"], rel_tol=1e-6)
        and abs(one[0]["params"] / other[0]["params"] - 1) < SAME_PARAMS
        and one[-1]["tokens"] == other[-1]["tokens"]
    ]


def _pair(one: Rows, other: Rows) -> NormEffect:
    pairs: dict[str, tuple[float | None, float | None]] = {
        shown: (last(one, column), last(other, column)) for column, shown in _QUANTITIES.items()
    }
    its, others = update_rms(one), update_rms(other)
    pairs |= {f"update RMS, {role}": (its.get(role), others.get(role)) for role in MATRICES}
    name = f"{one[0].get('size') or one[0]['trial']} at LR {format_lr(one[0]['lr'])}"
    parts = [f"{name}: update RMS of the matrices {_range(its)} with QK norm and {_range(others)} without"]
    logits = pairs[_QUANTITIES["attention_logit_max"]]
    if None not in logits:
        parts.append(f"largest attention logit {logits[0]:.3g} and {logits[1]:.3g}")
    pairs = {shown: values for shown, values in pairs.items() if values != (None, None)}
    return NormEffect(name=name, pairs=pairs, sentence="; ".join(parts) + ".")


def _range(found: Mapping[str, float]) -> str:
    if not found:
        return "not measured"
    return f"{min(found.values()):.2f} to {max(found.values()):.2f}"


def of_check(checks: Sequence[Mapping[str, Any]]) -> list[NormEffect]:
    """Return the pairs of coordinate checks over width of one rule, with and without QK norm.

    The slopes are those of the raw attention logits, q·k/√d before any QK norm, after the last step.

    Args:
        checks: As `CoordinateCheck.to_json` returns them; their variants end with ", QK norm" and ", no QK norm".
    """
    by_name = {str(check["variant"]): check for check in checks if check["axis"] == "width"}
    found = []
    for variant, check in by_name.items():
        rule, sign, norm = variant.rpartition(", ")
        other = by_name.get(f"{rule}, no QK norm")
        if not sign or norm != "QK norm" or other is None:
            continue
        mine, its = _raw_slopes(check), _raw_slopes(other)
        pairs = {name: (mine.get(name), its.get(name)) for name in {**mine, **its}}
        named = "; ".join(
            f"{name} {_signed(one)} with QK norm and {_signed(two)} without" for name, (one, two) in pairs.items()
        )
        found.append(NormEffect(name=rule, pairs=pairs, sentence=f"{rule}: {named}."))
    return found


def _raw_slopes(check: Mapping[str, Any]) -> dict[str, float | None]:
    rows = [row for row in check["rows"] if row["observable"] == "attention_logits" and row["step"]]
    final = max((row["step"] for row in rows), default=0)
    return {
        f"slope over width of raw attention logits, {row['layer']} layer, x_{final} − x_0": row["slope"]
        for row in rows
        if row["step"] == final
    }


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.2f}"
