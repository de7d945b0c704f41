"""Published LR laws, each with its units, range, schedule and source.

Laws of the form c * N^-alpha * D^-beta are `LRLaw`s as the fitted ones (`get`); `other` has those of another form, and
those of which too little is published for a number: these refuse to give one. A batch rule, where the source has one,
is in `schedule`. `verified` says whether the source's own text was seen. None comes with a covariance: their intervals
are unknown, and where the range is not known it is None.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from raylr.analysis._checks import one_of, positive
from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.laws.lr_law import LRLaw
from raylr.errors import LawError

_LAWS = {
    # Zhou et al. 2026, Eq. 6. The text does not give the units; with N and D in 1e9 and the LR in 1e-4 the formula
    # gives the optima of its Table 4 within 7 % (8.75, 7.24, 6.36, 5.90, 5.55 e-4), with raw N and D 15 times less.
    "zhou2026": LRLaw(
        c=38.4588,
        alpha=0.2219,
        beta=0.3509,
        params_unit=1e9,
        tokens_unit=1e9,
        lr_unit=1e-4,
        params_range=(0.5e9, 3e9),
        tokens_range=(80e9, 220e9),
        conditions=Conditions(
            batch_tokens=4e6,
            schedule="constant",
            warmup_tokens=4e9,
            weight_decay=0.1,
            optimizer="adamw",
            beta1=0.9,
            beta2=0.95,
            seq_len=4096,
            objective="stable",
        ),
        notes="1,000 steps of warmup",
        source="Zhou et al. 2026, arXiv 2601.05049, Eq. 6 (N: all parameters of an MoE)",
    ),
    # Li et al. 2025 (Step Law). Its exponent of D holds along the best batch for each D; at one batch it is near 0.05.
    # No range: where the text states which sizes and budgets the law was fitted on was not seen.
    "steplaw": LRLaw(
        c=1.79,
        alpha=0.713,
        beta=-0.307,
        params_unit=1.0,
        tokens_unit=1.0,
        lr_unit=1.0,
        conditions=Conditions(schedule="cosine", objective="decayed"),
        notes="2,000 steps of warmup, then cosine to 1e-5; batch 0.58 * D^0.571 tokens",
        source="Li et al. 2025, Step Law, arXiv 2503.04715 (N: non-embedding parameters)",
    ),
    # Porian et al. 2024; the text was not seen.
    "porian2024": LRLaw(
        c=3.7,
        alpha=0.36,
        beta=0.0,
        params_unit=1.0,
        tokens_unit=1.0,
        lr_unit=1.0,
        conditions=Conditions(objective="decayed"),
        notes="constant or cosine at about 20 tokens a parameter; batch 0.7576 * N^0.703 sequences",
        source="Porian et al. 2024, arXiv 2406.19146 (N: parameters), from a secondary source",
        verified=False,
    ),
    # OLMo's model ladder: 0.0047 * (N / 108e6)^(-1/3).
    "olmo-ladder": LRLaw(
        c=0.0047,
        alpha=1 / 3,
        beta=0.0,
        params_unit=108e6,
        tokens_unit=1.0,
        lr_unit=1.0,
        conditions=Conditions(objective="decayed"),
        notes="warmup and decay; batch 2048 * 160 * (N / 108e6)^(2/3) tokens",
        source="OLMo-core, model ladder (N: non-embedding parameters)",
    ),
}


@dataclass(frozen=True, kw_only=True)
class OtherLaw:
    """A published law of another form: ask `lr` for its LR; there is no `predict`, as no range or covariance is
    known."""

    name: str
    formula: str
    schedule: str
    source: str
    verified: bool = False
    objective: str = "decayed"
    why_not: str = ""
    """Why it gives no LR; empty if it does."""

    def lr(self, params: float, tokens: float, *, flops_per_token: float | None = None) -> float:
        """LR at `params` (non-embedding) and `tokens`.

        `flops_per_token`: DeepSeek LLM's M, training FLOPs of a token without the embedding; 6 * params without. Raises
        LawError for values that are not above zero, where the formula gives no positive LR, and for a law of which
        only the form is known.
        """
        n, d = float(positive([params], "params")[0]), float(positive([tokens], "tokens")[0])
        m = 6 * n if flops_per_token is None else float(positive([flops_per_token], "flops_per_token")[0])
        if self.name not in _FORMULAS:
            raise LawError(f"{self.name} gives no LR: {self.why_not}")
        lr = _FORMULAS[self.name](n, d, m)
        if lr <= 0:
            raise LawError(f"{self.formula} is not positive at {n:.3g} parameters: it holds below 1.2e10")
        return lr


_FORMULAS: dict[str, Callable[[float, float, float], float]] = {
    "kaplan2020": lambda n, d, m: 0.003239 - 0.0001395 * math.log(n),
    "deepseek2024": lambda n, d, m: 0.3118 * (m * d) ** -0.1250,
}
"""LR from params, tokens and FLOPs a token."""

_OTHERS = {
    law.name: law
    for law in (
        OtherLaw(
            name="kaplan2020",
            formula="0.003239 - 0.0001395 ln N",
            schedule="warmup of 3,000 steps, then cosine to 0; N: non-embedding parameters",
            source="Kaplan et al. 2020, arXiv 2001.08361, Eq. D.1, from a secondary source",
        ),
        OtherLaw(
            name="deepseek2024",
            formula="0.3118 C^-0.1250, C = M D",
            schedule="multi-step; M: non-embedding FLOPs a token; batch 0.2920 C^0.3271 tokens",
            source="DeepSeek LLM 2024, arXiv 2401.02954, Eq. 1, from a secondary source",
        ),
        OtherLaw(
            name="bjorck2024",
            formula="c N^-0.23 D^-0.32",
            schedule="not known",
            source="Björck et al. 2024, arXiv 2409.19913, from a secondary source",
            why_not="its factor c and its units were not seen; take the exponents from `formula`",
        ),
        OtherLaw(
            name="minicpm2024",
            formula="0.01 at every N and D",
            schedule="warmup, constant, decay; batch 1.21e9 / L^6.24 tokens, L: the loss in nats",
            source="MiniCPM 2024, arXiv 2404.06395, from a secondary source",
            why_not="its 0.01 is a base LR under its own muP, not the LR of any weight",
        ),
    )
}


def names() -> tuple[str, ...]:
    """Names that `get` knows."""
    return tuple(sorted(_LAWS))


def get(name: str) -> LRLaw:
    """Return the published law called `name`; LawError with the nearest name for an unknown one."""
    if name in _OTHERS:
        law = _OTHERS[name]
        raise LawError(
            f"{name} is not of the form c N^-alpha D^-beta but {law.formula}: presets.other({name!r}) has it"
        )
    return _LAWS[one_of(name, _LAWS, "preset")]


def other_names() -> tuple[str, ...]:
    """Names that `other` knows: laws that are not of the form of Eq. 8, or of which only the form is known."""
    return tuple(sorted(_OTHERS))


def other(name: str) -> OtherLaw:
    """Return the published law of another form called `name`; LawError for an unknown one."""
    return _OTHERS[one_of(name, _OTHERS, "law of another form")]
