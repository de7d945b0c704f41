"""The load-balancing loss of a mixture of experts.

Notation: L layers, E experts, f_e the share of all tokens that expert e got (their sum is k, the experts of a token),
p_e the mean of the router's probabilities. The loss is E · Σ_e f_e·p_e.
"""

from __future__ import annotations

from torch import Tensor


def balance_losses(loads_LE: Tensor, probs_LE: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Return the load-balancing loss with f and p pooled over layers, and the mean over layers of each layer's own.

    Both equal k when balanced. The pooled one, Hugging Face's, does so too where one layer's load makes up for
    another's; each layer's own does not.

    Args:
        loads_LE: Tokens that each expert of each layer got.
        probs_LE: The routers' probabilities, summed over tokens.
        tokens: How many tokens there were.
    """
    L, E = loads_LE.shape
    load_E, probs_E = loads_LE.sum(0) / (tokens * L), probs_LE.sum(0) / (tokens * L)
    pooled = E * (load_E * probs_E).sum()
    return pooled, E * ((loads_LE / tokens) * (probs_LE / tokens)).sum(1).mean()
