"""The choice of experts: softmax over all experts, the top k of them, their weights scaled to sum to 1.

Shapes: N tokens, E experts, k experts a token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

TAKEN = 1e30
"""What is subtracted from the score of an expert that was chosen: more than any two scores differ by."""


class Choice(Function):
    """Probabilities [N, E] in fp32 or better, weights [N, k] in the logits' type and experts [N, k], by logits [N, E].

    The k experts of a token are those with the highest probability plus `bias` [E] (None: 0); the bias has no part in
    the weights and no gradient. With its derivative by hand: composed of torch's operations there are ten nodes to go
    back through. Inside, tokens are the last dimension: sums and maxima over a short last one are not vectorised.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, bias: Tensor | None, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        exact = torch.promote_types(logits.dtype, torch.float32)
        probs = torch.softmax(logits.t().contiguous(), 0, dtype=exact)
        chosen, experts = highest(probs if bias is None else probs + bias[:, None], k)
        if bias is not None:
            chosen = probs.gather(0, experts)
        total = chosen.sum(0)
        weights = chosen / total
        ctx.save_for_backward(probs, weights, experts, total)
        ctx.its_type = logits.dtype
        experts = experts.t().contiguous()
        ctx.mark_non_differentiable(experts)
        ctx.set_materialize_grads(False)
        return probs.t(), weights.t().contiguous().to(logits.dtype), experts

    @staticmethod
    def backward(ctx: Any, dprobs: Tensor | None, dweights: Tensor | None, _: None) -> tuple[Tensor, None, None]:
        """See the class."""
        probs, weights, experts, total = ctx.saved_tensors
        grad = torch.zeros_like(probs) if dprobs is None else dprobs.t().clone(memory_format=torch.contiguous_format)
        if dweights is not None:
            dweights = dweights.t().to(probs.dtype)
            grad.scatter_add_(0, experts, (dweights - (dweights * weights).sum(0)).div_(total))
        dlogits = torch.ops.aten._softmax_backward_data(grad, probs, 0, probs.dtype)
        return dlogits.t().to(ctx.its_type), None, None


def highest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k highest scores of each token and their experts, highest first.

    On the CPU by k rounds of maxima over all tokens: `torch.topk` sorts each token by itself, which takes 1.2 to 4.6
    times as long (8 to 128 experts, 2 to 8 of them). Of equal scores the first expert's comes first. A token with a
    score of NaN gets some experts.

    Args:
        scores: [E, N], fp32 or fp64; not changed.
        k: At most E.

    Returns:
        Scores and experts, [k, N].
    """
    if scores.device.type != "cpu":
        return torch.topk(scores, k, 0)
    E, N = scores.shape
    rank = torch.arange(E, 0, -1, dtype=scores.dtype)[:, None]
    left, is_it = scores.clone(), torch.empty_like(scores)
    values, found = scores.new_empty(k, N), scores.new_empty(k, N)
    for i in range(k):
        torch.amax(left, 0, out=values[i])
        is_it.copy_(left).eq_(values[i]).mul_(rank)
        torch.amax(is_it, 0, out=found[i])
        if i + 1 < k:
            left.sub_(is_it.eq_(found[i]), alpha=TAKEN)
    return values, (E - found).clamp_(max=E - 1).long()
