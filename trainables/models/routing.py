"""The choice of experts: softmax over all experts, the top k of them, their weights scaled to sum to 1.

Shapes: N tokens, E experts, k experts a token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class Choice(Function):
    """Probabilities [N, E] in fp32 or better, weights [N, k] in the logits' type and experts [N, k], by logits [N, E].

    The k experts of a token are those with the highest probability plus `bias` [E] (None: 0); the bias has no part in
    the weights and no gradient. With its derivative by hand: composed of torch's operations there are ten nodes to go
    back through. Inside, experts are the first dimension: a softmax over a short last one is not vectorised.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, bias: Tensor | None, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        exact = torch.promote_types(logits.dtype, torch.float32)
        probs = torch.softmax(logits.t().contiguous(), 0, dtype=exact)
        chosen, experts = torch.topk(probs.t() if bias is None else probs.t() + bias, k, -1)
        if bias is not None:
            chosen = probs.t().gather(-1, experts)
        total = chosen.sum(-1, keepdim=True)
        weights = chosen / total
        ctx.save_for_backward(probs, weights, experts, total)
        ctx.its_type = logits.dtype
        ctx.mark_non_differentiable(experts)
        ctx.set_materialize_grads(False)
        return probs.t(), weights.to(logits.dtype), experts

    @staticmethod
    def backward(ctx: Any, dprobs: Tensor | None, dweights: Tensor | None, _: None) -> tuple[Tensor, None, None]:
        """See the class."""
        probs, weights, experts, total = ctx.saved_tensors
        grad = torch.zeros_like(probs) if dprobs is None else dprobs.t().clone(memory_format=torch.contiguous_format)
        if dweights is not None:
            inward = (dweights * weights).sum(-1, keepdim=True)
            grad.scatter_add_(0, experts.t(), ((dweights - inward) / total).t())
        dlogits = torch.ops.aten._softmax_backward_data(grad, probs, 0, probs.dtype)
        return dlogits.t().to(ctx.its_type), None, None
