"""Published LR laws, each with its units, range, conditions, batch rule and source.

`get` gives a law by name and `table` one row a law. `verified` is whether the source's own text was seen. What is not
known of a law (its range, its uncertainty, its factor) is None or NaN, and the message of a prediction states it. A
published law holds
under the conditions of its runs only: `zhou2026`, fitted at batches of 4M tokens, gives a third of the best LR of
AdamW runs at other batches.
"""

import math
from dataclasses import dataclass, replace

from raylr.analysis._checks import one_of
from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.laws.quantities import BatchLaw, WeightDecayLaw
from raylr.analysis.laws.scaling import SIZES
from raylr.analysis.status import Status
from raylr.analysis.units import format_count

_OLMO_UNIT = 108e6
_OLMO_BATCH = BatchLaw(c=2048.0 * 160, alpha=-2 / 3, beta=0.0, params_kind="non_embedding", params_unit=_OLMO_UNIT)
_OLMO_NOTES = "β₂ 0.99 for batches below 524,288 tokens, otherwise 0.95"

# Step Law's bootstrap of 1,000 fits: standard deviations of ln c and of the exponents of N and D, and their
# correlations, signs as of alpha and beta here. They were seen with two digits (0.73, 0.43, -0.31), and the terms of
# the variance at a large model cancel to a hundredth of their size. The third digits are therefore chosen, within
# rounding, such that the published 90 % interval at 7B parameters and 1.4T tokens comes out: 7.87e-4 to 1.10e-3.
_STEP_SD = (0.624, 0.030, 0.019)
_STEP_CORRELATION = ((1.0, 0.726, 0.428), (0.726, 1.0, -0.31), (0.428, -0.31, 1.0))
_STEP_COVARIANCE = tuple(tuple(_STEP_CORRELATION[i][j] * _STEP_SD[i] * _STEP_SD[j] for j in range(3)) for i in range(3))

_MARIN = Conditions(schedule="linear", seq_len=4096, objective="decayed", beta1=0.9062)
_MARIN_WIDTHS, _MARIN_TOKENS, _MARIN_BATCHES = (512.0, 1280.0), (2.07e8, 3.0e10), (131_072.0, 1_048_576.0)
_MARIN_NOTES = "a sparse MoE at 4 to 240 tokens per active parameter, 1 % warmup; N is the hidden size"

# nanochat: D_ref is 12 tokens per parameter of its 12-layer model (matrices 84,934,656 and head 25,165,824).
_NANO_TOKENS = 12.0 * (84_934_656 + 25_165_824)
_NANO_BATCH = 2.0**19

_LAWS = {
    # The text does not give the units; with N and D in 1e9 and the LR in 1e-4 the formula gives the optima of its
    # Table 4 within 7 % (8.75, 7.24, 6.36, 5.90, 5.55 e-4), with raw N and D 15 times less.
    "zhou2026": LRLaw(
        c=38.4588, alpha=0.2219, beta=0.3509, params_unit=1e9, tokens_unit=1e9, lr_unit=1e-4,
        params_range=(0.5e9, 3e9), tokens_range=(80e9, 220e9),
        conditions=Conditions(
            batch_tokens=4e6, schedule="constant", warmup_tokens=4e9, weight_decay=0.1, optimizer="adamw", beta1=0.9,
            beta2=0.95, seq_len=4096, objective="stable",
        ),
        notes="an MoE at batches of 4M tokens, AdamW, constant LR; for AdamW runs at other batches it is 3 times low",
        source="Zhou et al. 2026, arXiv 2601.05049, Eq. 6 (N: all parameters)",
    ),
    "steplaw": LRLaw(
        c=1.79, alpha=0.713, beta=-0.307, params_unit=1.0, tokens_unit=1.0, lr_unit=1.0, params_kind="non_embedding",
        params_range=(2.15e8, 1.07e9), tokens_range=(4e9, 1e11), covariance=_STEP_COVARIANCE,
        conditions=Conditions(schedule="cosine", optimizer="adamw", objective="decayed"),
        batch_law=BatchLaw(c=0.58, alpha=0.0, beta=-0.571, params_unit=1.0, tokens_unit=1.0,
                           params_kind="non_embedding", tokens_range=(4e9, 1e11)),
        notes="2,000 steps of warmup, cosine to 1e-5, at the best batch for each D (at one batch the exponent of D is "
        "near 0.05); the interval is that of the law (a bootstrap), without the scatter of cells around it",
        source="Li et al. 2025, Step Law, arXiv 2503.04715 (1,911 dense runs) and step-law/steplaw",
    ),
    "olmo-ladder": LRLaw(
        c=0.0047 / 2, alpha=1 / 3, beta=0.0, params_unit=_OLMO_UNIT, tokens_unit=1.0, lr_unit=1.0,
        params_kind="non_embedding", conditions=Conditions(schedule="wsd", optimizer="adamw", objective="decayed"),
        batch_law=_OLMO_BATCH, notes=_OLMO_NOTES,
        source="OLMo-core, model_ladder (0.0047 (N/108e6)^(-1/3) is Porian's; halved since pull request 551)",
    ),
    "olmo-ladder-stepped": LRLaw(  # times (D / 20 N)^-1/2: the Chinchilla multiple
        c=0.0047 / 2, alpha=1 / 3 - 1 / 2, beta=1 / 2, params_unit=_OLMO_UNIT, tokens_unit=20 * _OLMO_UNIT, lr_unit=1.0,
        params_kind="non_embedding", conditions=Conditions(schedule="stepped", optimizer="adamw", objective="decayed"),
        batch_law=_OLMO_BATCH,
        notes=f"the peak LR of each stage falls with the square root of its Chinchilla multiple; {_OLMO_NOTES}",
        source="OLMo-core, model_ladder, stepped schedule (pull requests 538 and 551)",
    ),
    "marin-muonh": LRLaw(
        c=18.31, alpha=0.150, beta=0.395, delta=0.5, params_kind="width", params_unit=1.0, tokens_unit=1.0,
        batch_unit=4096.0, lr_unit=1.0, maximum=0.05, params_range=_MARIN_WIDTHS,
        tokens_range=_MARIN_TOKENS, batch_range=_MARIN_BATCHES,
        conditions=replace(_MARIN, optimizer="muonh"), notes=_MARIN_NOTES,
        source="marin-community/marin, issues 5951 and 6074 (17 cells, R² 0.996)",
    ),
    "marin-adamh": LRLaw(
        c=7.0633, alpha=0.3678, beta=0.2813, delta=0.5, params_kind="width", params_unit=1.0, tokens_unit=1.0,
        batch_unit=4096.0, lr_unit=1.0, maximum=0.05, params_range=_MARIN_WIDTHS,
        tokens_range=_MARIN_TOKENS, batch_range=_MARIN_BATCHES,
        conditions=replace(_MARIN, optimizer="adamh"), notes=_MARIN_NOTES,
        source="marin-community/marin, issues 4225 and 6074 (13/3 times its Adam LR, 1.63)",
    ),
    "nanochat": LRLaw(
        c=0.02, alpha=0.0, beta=0.0, delta=0.5, batch_unit=_NANO_BATCH, params_unit=1.0, tokens_unit=1.0, lr_unit=1.0,
        batch_range=(2.0**18, 2.0**21), conditions=Conditions(schedule="linear", optimizer="muon", objective="decayed"),
        batch_law=BatchLaw(c=_NANO_BATCH, alpha=0.0, beta=-0.383, params_unit=1.0, tokens_unit=_NANO_TOKENS),
        weight_decay_law=WeightDecayLaw(c=0.28, alpha=0.0, beta=1.0, delta=0.5, params_unit=1.0,
                                        tokens_unit=_NANO_TOKENS, batch_unit=_NANO_BATCH),
        notes="LR of the matrices under Muon; those of embedding (0.3) and head (0.008) scale in the same way; "
        "batches are rounded to powers of two",
        source="karpathy/nanochat, scripts/base_train.py (exponent of the batch: arXiv 2505.13738)",
    ),
    "porian2024": LRLaw(
        c=3.7, alpha=0.36, beta=0.0, params_unit=1.0, tokens_unit=1.0, lr_unit=1.0,
        conditions=Conditions(optimizer="adamw", objective="decayed"), verified=False,
        notes="at about 20 tokens a parameter; batch 0.7576 N^0.703 sequences, their length is not known",
        source="Porian et al. 2024, arXiv 2406.19146, from a secondary source",
    ),
    "kaplan2020": LRLaw(
        c=0.003239, alpha=0.0001395, beta=0.0, form="logarithmic", params_kind="non_embedding", params_unit=1.0,
        tokens_unit=1.0, lr_unit=1.0, verified=False,
        conditions=Conditions(schedule="cosine", optimizer="adam", objective="decayed"),
        notes="3,000 steps of warmup, cosine to 0; not positive above 1.2e10 parameters",
        source="Kaplan et al. 2020, arXiv 2001.08361, Eq. D.1, from a secondary source",
    ),
    "deepseek2024": LRLaw(
        c=0.3118, alpha=0.1250, beta=0.1250, params_kind="flops_per_token", params_unit=1.0, tokens_unit=1.0,
        lr_unit=1.0, verified=False, conditions=Conditions(schedule="multi-step", objective="decayed"),
        batch_law=BatchLaw(c=0.2920, alpha=-0.3271, beta=-0.3271, params_kind="flops_per_token", params_unit=1.0,
                           tokens_unit=1.0, verified=False),
        notes="M: training FLOPs per token without the embedding; a multi-step schedule",
        source="DeepSeek LLM 2024, arXiv 2401.02954, Eq. 1, from a secondary source",
    ),
    "bjorck2024": LRLaw(
        c=math.nan, alpha=0.23, beta=0.32, status=Status.NOT_DETERMINED, verified=False,
        message="only the form c N^-0.23 D^-0.32 is known: its factor c and its units were not seen, so it gives no LR",
        notes="exponents of D by size: 0.70 (50M), 0.65, 0.38, 0.3155 (760M), 0.3171 (1.3B), 0.42 (2.7B)",
        source="Björck et al. 2024, arXiv 2409.19913, from a secondary source",
    ),
    "minicpm2024": LRLaw(
        c=0.01, alpha=0.0, beta=0.0, params_unit=1.0, tokens_unit=1.0, lr_unit=1.0, verified=False,
        conditions=Conditions(schedule="wsd", objective="decayed"),
        notes="a base LR under its own muP, not the LR of any weight; batch 1.21e9 / L^6.24 tokens at the loss L",
        source="MiniCPM 2024, arXiv 2404.06395, from a secondary source",
    ),
}  # fmt: skip


def names() -> tuple[str, ...]:
    """Return the names of all published laws."""
    return tuple(sorted(_LAWS))


def get(name: str) -> LRLaw:
    """Return a published law.

    Args:
        name: One of `names()`.

    Returns:
        The law. `status` is `not_determined` for a law of which only the form is known.

    Raises:
        InputError: There is no law of that name; the message names the nearest.

    Example:
        >>> round(get("olmo-ladder").lr(1e9, 20e9), 5)
        0.00112
    """
    return _LAWS[one_of(name, _LAWS, "preset")]


@dataclass(frozen=True, kw_only=True)
class PresetRow:
    """One published law in words, for a table."""

    name: str
    formula: str
    size: str
    """What N is, and its range."""
    tokens: str
    """Range of the tokens."""
    schedule: str
    optimizer: str
    batch_rule: str
    """How the batch enters: the law's own exponent, the rule for it, or the one batch of its runs."""
    weight_decay_rule: str
    uncertainty: bool
    """Whether the law has intervals."""
    notes: str
    source: str
    verified: bool


def table() -> tuple[PresetRow, ...]:
    """Return one row for each published law, by name, for `raylr laws` and the docs."""
    return tuple(_row(name, _LAWS[name]) for name in names())


def _row(name: str, law: LRLaw) -> PresetRow:
    batch = [] if law.batch_unit is None else [f"LR ∝ B^{law.delta:g}"]
    if law.batch_law is not None:
        batch.append(law.batch_law.formula)
    if law.conditions.batch_tokens is not None:
        batch.append(f"runs at {format_count(law.conditions.batch_tokens)} tokens")
    known = law.usable or law.status is not Status.NOT_DETERMINED
    return PresetRow(
        name=name, formula=law.formula if known else f"c N^-{law.alpha:g} D^-{law.beta:g}",
        size=f"{SIZES[law.params_kind]}, {_span(law.params_range)}", tokens=_span(law.tokens_range),
        schedule=law.conditions.schedule or "not known", optimizer=law.conditions.optimizer or "not known",
        batch_rule="; ".join(batch) or "not known",
        weight_decay_rule="" if law.weight_decay_law is None else law.weight_decay_law.formula,
        uncertainty=law.covariance is not None, notes=law.notes, source=law.source, verified=law.verified,
    )  # fmt: skip


def _span(span: tuple[float, float] | None) -> str:
    return "range not known" if span is None else f"{format_count(span[0])} to {format_count(span[1])}"
