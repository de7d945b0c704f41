"""The points on which publications and public code disagree about transfer, as named choices with their sources.

"Code" names the project whose source has the option. docs/transfer.md says what follows from each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One disputed point."""

    question: str
    options: Mapping[str, str]
    """Option → what it does, and who does it. The first one is taken unless the parametrization says otherwise."""

    def source(self, option: str) -> str:
        """Return who does it this way."""
        return self.options[option]


_OWN = "m_N is the ratio of the tensor's own fan-in (code: OLMo-core, branch davidh/mup)"
_LITERAL = "m_N is the ratio of hidden sizes (Zhou et al., arXiv 2601.05049, Table 10 read literally)"

_SPECTRAL = "spectral condition: Yang, Simon & Bernstein, arXiv 2310.17813"

CHOICES: dict[str, Choice] = {
    "head": Choice(
        question="Form of the unembedding's width rule: in its init and LR, or as a multiplier on the logits",
        options={
            "variance": "init variance × m_N⁻², LR × m_N⁻¹, no multiplier (Zhou et al., Table 10; Complete(d)P)",
            "multiplier": "logits × m_N⁻¹, init and LR unchanged (CompleteP; code: PyPI mup, Megatron-core)",
        },
    ),
    "router": Choice(
        question="What the router of a mixture of experts is",
        options={
            "hidden": "a hidden matrix: init variance and LR × m_N⁻¹ (code: Megatron-core, lm-engine)",
            "output": "an output matrix: init std and LR × m_N⁻¹ (code: OLMo-core, branch davidh/mup); ε as hidden",
            "logit_multiplier": "router logits × m_N⁻¹, LR × m_N⁻¹, init unchanged (code: ArchScale, which cites arXiv "
            "2508.09752; that paper's table was not seen)",
            "plain": "not scaled with width (code: marin); its logits then grow with width",
        },
    ),
    "attention_fan_in": Choice(
        question="Width of attention's output projection: heads × head_dim, or the hidden size",
        options={"own": _OWN, "hidden_size": _LITERAL},
    ),
    "experts_fan_in": Choice(
        question="Width of the experts' last matrix: the expert's inner size, or the hidden size",
        options={"own": _OWN, "hidden_size": _LITERAL},
    ),
    "dense_fan_in": Choice(
        question="Width of a dense MLP's last matrix: its inner size, or the hidden size",
        options={"own": _OWN, "hidden_size": _LITERAL},
    ),
    "hidden_weight_decay": Choice(
        question="Weight decay of hidden matrices over width",
        options={
            "linear": "× m_N, so that LR × weight decay is unchanged (CompleteP; Complete(d)P; code: PyPI mup)",
            "sqrt": "× √m_N (Fan et al., arXiv 2510.15262)",
            "constant": "unchanged (code: Megatron-core)",
        },
    ),
    "token_lr": Choice(
        question="LR over training tokens",
        options={
            "none": "unchanged (μP and CompleteP have no rule)",
            "half": "× m_D^−0.5 (Complete(d)P; Zhou et al., Table 10)",
            "bjorck": "× m_D^−0.32 (Björck et al. 2024; HyperP)",
            "zhou": "× m_D^−0.35 (fitted at a fixed batch: Zhou et al., Eq. 6)",
            "marin": "× m_D^−0.395, with batch='sqrt_lr' (marin's fit for MuonH, another optimizer)",
        },
    ),
    "token_weight_decay": Choice(
        question="Weight decay over training tokens",
        options={
            "none": "unchanged (μP and CompleteP have no rule)",
            "half": "× m_D^−0.5 (Complete(d)P; Zhou et al., Table 10)",
            "nanochat": "× m_D⁻¹, with batch='sqrt_lr_weight_decay': λ ∝ √B/D (code: nanochat)",
        },
    ),
    "token_eps": Choice(
        question="AdamW's ε over training tokens",
        options={
            "none": "unchanged (μP and CompleteP have no rule)",
            "half": "× m_D^0.5 (Complete(d)P; Zhou et al., Table 10)",
        },
    ),
    "batch": Choice(
        question="What follows from another batch",
        options={
            "unchanged": "nothing (Zhou et al. hold the batch fixed; an option of ArchScale)",
            "sqrt_lr": "LR × √m_B (marin)",
            "sqrt_lr_weight_decay": "LR and weight decay × √m_B (code: nanochat)",
            "completed_p": "LR and weight decay × √m_B, ε × 1/√m_B (Complete(d)P)",
        },
    ),
    "betas": Choice(
        question="AdamW's β over batch and tokens",
        options={
            "unchanged": "β₁ and β₂ are the base's (Zhou et al.)",
            "completed_p": "1−β₁ and 1−β₂ × m_B/m_D (Complete(d)P)",
        },
    ),
    "optimizer": Choice(
        question="Optimizer of the hidden matrices; all else is trained by AdamW",
        options={
            "adamw": "AdamW, which all of these tables are written for",
            "muon": "Muon, whose updates have spectral norm 1: LR × √(m_out/m_in), so that they stay in proportion to "
            f"√(out/in) ({_SPECTRAL})",
            "muon_spectral": "Muon that multiplies its updates by √(out/in) itself: LR unchanged "
            f"({_SPECTRAL}; code: microsoft/dion, adjust_lr='spectral_norm'; raylr, adjust_lr: spectral)",
            "muon_original": "Muon that multiplies by √max(1, out/in): LR × √(m_out/m_max), the rest of √(out/in) "
            f"({_SPECTRAL}; code: Keller Jordan's Muon, torch's default)",
            "muon_match_rms_adamw": "Muon that multiplies by 0.2·√max(out, in): LR × √(m_out/(m_in·m_max)), the rest "
            f"of √(out/in) ({_SPECTRAL}; code: Moonlight, arXiv 2502.16982; torch, adjust_lr_fn='match_rms_adamw')",
        },
    ),
    "muon_weight_decay": Choice(
        question="Weight decay of Muon's matrices over width (times the LR that Muon has not adjusted yet)",
        options={
            "constant": "LR × weight decay unchanged: divided by the factor on the LR (as in CompleteP's table for "
            "AdamW; code: microsoft/dion)",
            "inverse_width": "LR × weight decay × m_N⁻¹ (Qiu et al., arXiv 2512.05620)",
        },
    ),
    "muon_head": Choice(
        question="LR of the unembedding, which AdamW trains beside Muon",
        options={
            "table": "as in the table for AdamW: × m_N⁻¹, or a multiplier m_N⁻¹ on the logits (choice head)",
            "sqrt": "× m_N^−0.5 (code: microsoft/dion's README, LR/√d_in)",
        },
    ),
}
"""Name of a disputed point → the point."""
OF_MUON = ("muon_weight_decay", "muon_head")
"""Points that arise only where Muon trains the hidden matrices."""
MUON_LR: dict[str, dict[str, float]] = {
    "muon": {"fan_in": -0.5, "fan_out": 0.5},
    "muon_spectral": {},
    "muon_original": {"fan_out": 0.5, "larger": -0.5},  # √max(1, out/in) = √(larger/in)
    "muon_match_rms_adamw": {"fan_in": -0.5, "fan_out": 0.5, "larger": -0.5},
}
"""Option of `optimizer` → exponents of a matrix' own ratios in its LR: √(out/in) over what Muon multiplies by."""
