"""By how much a transferred LR misses the target's own optimum: what was measured, as standard deviations of ln LR.

A rule is exact in a limit that no model reaches. How far a finite target's optimum lies from where a rule puts it is
known only where both were searched. Every number here is such a measurement; where none was made, the text says so. No
torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raylr.trainables.models.parametrization import RULES, Axis, Parametrization

SEEDS = 0.16
"""Standard deviation of ln LR* between seeds: Qwen3-MoE of width 32 to 128, two layers, 250 to 500 steps, three seeds
(docs/transfer.md). A search with one seed finds that seed's optimum; its own interval does not hold this scatter."""
SHIFTS: dict[str, tuple[float, ...]] = {
    "ruled": (0.06, 0.00, -0.09, 0.11, 0.24, 0.11, 0.10, 0.07),
    "standard": (-0.75, -0.64, -0.83, -0.60, -0.29, -0.74),
}
"""Shift of ln LR* for each doubling of the width, as measured. The first four: widths 32, 64 and 128 of raylr's
Qwen3-MoE with QK norm at 250 and at 500 steps. The fifth: widths 32 and 128 of it at 244 and 488 steps (`raylr search
--example transfer`: +0.61 over two doublings, of which the tokens explain 0.12 if their exponent is -0.33). Then:
widths 256 to 2048 of a dense transformer (github.com/MikhailTerekhov/mup: its rules without and with scaled weight
decay, and its standard parametrization; the larger of two ways to fit the optimum). The last: widths 32 and 128 of
raylr's Qwen3-MoE at 256 steps of 512 tokens, three seeds. Both in `benchmarks/transfer_shifts.py`."""
DEPTH = SEEDS
"""Standard deviation for each doubling of the depth. One shift was measured: +0.06 (90 % interval -0.01 to +0.12), from
2 to 8 layers under completed_p, four seeds (`benchmarks/transfer_shifts.py`). Other models, of which none was measured,
may have another: this is more than twice that one."""
TOKENS = (-0.33, -0.54, -0.32, -0.35, -0.395)
"""Exponents of the optimal LR over tokens as measured at a fixed model: raylr's Qwen3-MoE (125 to 1,000 steps), a 124M
model at constant LRs (github.com/fabian-sp/lr-scheduling), Bjorck et al. 2024, Zhou et al. 2026 (Eq. 6), and marin with
MuonH."""
BATCH = (0.5, 0.5)
"""Mean and standard deviation of the exponent over the batch: the prior of `raylr.analysis.laws.lr_fit`, from published
laws."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One reason why the target's optimum may lie elsewhere."""

    what: str
    """In words, with the numbers."""
    sd: float
    """Standard deviation of ln LR."""


def spreads(rule: Parametrization, ratios: Mapping[Axis, float]) -> tuple[Spread, ...]:
    """Return what widens the interval of an LR that is carried from a proxy to a target.

    Args:
        rule: The parametrization.
        ratios: target / base along each axis; a missing one counts as 1.

    Returns:
        One entry for the seeds and one for each axis along which the target differs; independent of each other.

    Example:
        >>> from raylr.trainables.models.parametrization import parametrization
        >>> found = spreads(parametrization("completed_p"), {"width": 4.0, "tokens": 2.0})
        >>> [round(one.sd, 2) for one in found], round(total(found), 2)
        ([0.16, 0.23, 0.1], 0.3)
    """
    found = [Spread(what="seeds: the optimum of one seed differs from that of another", sd=SEEDS)]
    width, depth = (abs(math.log2(ratios.get(axis, 1.0))) for axis in ("width", "depth"))
    free = _rms(SHIFTS["standard"])
    if width > 0:
        each = _rms(SHIFTS["ruled"]) if _measured(rule, "width") else free
        own = "" if rule.name in RULES else ", as without a rule, since the own table was measured nowhere"
        found.append(Spread(what=f"width: {_doublings(width)} of {each:.2f} each{own}", sd=each * width))
    if depth > 0:
        each = DEPTH if _measured(rule, "depth") else free
        why = (
            "where +0.06 was measured, at one model"
            if each == DEPTH
            else "as over the width without a rule: not measured"
        )
        found.append(Spread(what=f"depth: {_doublings(depth)} of {each:.2f} each, {why}", sd=each * depth))
    if (tokens := ratios.get("tokens", 1.0)) != 1.0:
        exponent = rule.factor("lr", "hidden", {"tokens": math.e})
        exponent = math.log(exponent)
        off = _rms([one - exponent for one in TOKENS])
        text = f"tokens: the rule's exponent {exponent:g}, measured ones {min(TOKENS):g} to {max(TOKENS):g}"
        found.append(Spread(what=text, sd=off * abs(math.log(tokens))))
    if (batch := ratios.get("batch", 1.0)) != 1.0:
        exponent = math.log(rule.factor("lr", "hidden", {"batch": math.e}))
        off = math.hypot(exponent - BATCH[0], BATCH[1])
        text = f"batch: the rule's exponent {exponent:g}, published ones {BATCH[0]:g} ± {BATCH[1]:g}"
        found.append(Spread(what=text, sd=off * abs(math.log(batch))))
    return tuple(found)


def _measured(rule: Parametrization, axis: Axis) -> bool:
    """Whether the rule is a published one that does something along an axis: those that were measured are."""
    return rule.name in RULES and any(term.axis == axis for term in rule.terms)


def total(found: Sequence[Spread]) -> float:
    """Return the standard deviation of ln LR of independent spreads together."""
    return math.sqrt(sum(one.sd**2 for one in found))


def widened(lr: float, low: float, high: float, sd: float, level: float = 0.9) -> tuple[float, float]:
    """Return an interval of an LR, widened by a standard deviation of ln LR.

    Args:
        lr: The LR.
        low: Lower end of its own interval; 0 if open.
        high: Upper end; inf if open.
        sd: What is added, independent of it.
        level: Probability of the interval, of its own and of the widened one.
    """
    from statistics import NormalDist

    reach = NormalDist().inv_cdf(0.5 + level / 2) * sd
    below = math.hypot(math.log(lr / low), reach) if low > 0 else math.inf
    above = math.hypot(math.log(high / lr), reach) if high < math.inf else math.inf
    return lr * math.exp(-below), lr * math.exp(above)


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values))


def _doublings(count: float) -> str:
    return f"{count:.3g} doubling{'' if count == 1 else 's'}"
