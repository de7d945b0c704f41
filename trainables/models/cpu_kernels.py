"""Products, norms and the loss of a training step, written out for the CPU as autograd functions.

Each is the plain composition of torch operations (in `qwen3_moe`, which uses it off the CPU) with its derivative by
hand: fewer passes over memory, results written in place, blocks that stay in cache. So are `cpu_attention` and
`cpu_experts`. Gradients are checked against finite differences and against the compositions in the tests.

Shapes: N tokens, h hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from raylr.trainables.models.products import add_product, product, product_into, product_of_columns

LOGIT_BYTES = 4 * 2**20
"""Size of the block of fp32 logits that `LinearCrossEntropy` holds at a time."""


class Linear(Function):
    """x·Wᵀ for x [..., a] and W [b, a], by `product` there and back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """See the class."""
        ctx.save_for_backward(x, weight)
        return product(x.flatten(0, -2), weight).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        x, weight = ctx.saved_tensors
        grad = grad.flatten(0, -2)
        return product(grad, weight.t()).view_as(x), product_of_columns(grad, x.flatten(0, -2))


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """`F.linear` without a bias, by the fastest product that the device has."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        out: Tensor = Linear.apply(x, weight)
        return out
    return F.linear(x, weight)


class LinearCrossEntropy(Function):
    """Mean cross-entropy of softmax(x·Wᵀ) and mean squared log-partition, without holding all logits.

    Forward (x [N, h], weight [V, h], labels [N], z, needed) gives (total = cross_entropy + z · mean lse²,
    cross_entropy), in fp32. The gradients are made in the forward pass if they are `needed`, block by block, and scaled
    in the backward pass; the second output has no gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, z: float, needed: bool) -> tuple[Tensor, Tensor]:
        """See the class."""
        N, V = x.shape[0], weight.shape[0]
        rows = max(64, LOGIT_BYTES // (4 * V))
        exact = torch.promote_types(x.dtype, torch.float32)
        dx = torch.empty_like(x) if needed else None
        dw = weight.new_zeros(weight.t().shape, dtype=exact) if needed else None  # as for `product_of_columns`
        cross_entropy, squares = x.new_zeros((), dtype=exact), x.new_zeros((), dtype=exact)
        for first in range(0, N, rows):
            part, target = x[first : first + rows], labels[first : first + rows, None]
            logits = product(part, weight).to(exact)
            top, at_target = logits.amax(-1), logits.gather(1, target)[:, 0]
            probs = torch.softmax(logits, -1, out=logits)
            lse = top - probs.amax(-1).log_()
            cross_entropy += (lse - at_target).sum()
            if z:
                squares += lse.square().sum()
            if dx is None or dw is None:
                continue
            if z:
                probs.mul_(1 + 2 * z * lse[:, None])
            probs.scatter_add_(1, target, probs.new_full((1, 1), -1.0).expand_as(target))
            dlogits = probs.to(x.dtype)
            product_into(dx[first : first + rows], dlogits, weight.t())
            add_product(dw, part.t(), dlogits.t())
            del logits, probs, dlogits  # the next block takes their memory, which is in cache
        if dx is not None and dw is not None:
            ctx.save_for_backward(dx, dw)
        ctx.scale = 1.0 / N
        cross_entropy = cross_entropy / N
        ctx.mark_non_differentiable(cross_entropy)
        return cross_entropy + z * squares / N if z else cross_entropy.clone(), cross_entropy

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """See the class."""
        dx, dw = ctx.saved_tensors
        scale = (grad_total * ctx.scale).item()
        return dx * scale, dw.t().mul(scale).to(dx.dtype), None, None, None


def cross_entropy(x: Tensor, weight: Tensor, labels: Tensor, z: float = 0.0) -> tuple[Tensor, Tensor]:
    """`LinearCrossEntropy` without its gradients where none are needed (validation: a third of the products).

    Args:
        x: Hidden states, [N, h].
        weight: Output embedding, [V, h].
        labels: Token ids, [N].
        z: Coefficient of the z-loss.

    Returns:
        The loss with z-loss, and the mean cross-entropy.
    """
    total, mean = LinearCrossEntropy.apply(x, weight, labels, z, torch.is_grad_enabled())
    return total, mean


def exact(x: Tensor) -> Tensor:
    """x in fp32 or better: small operations on bf16 are slower than the two conversions, and less exact."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit_of(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x / √(mean x² + eps) over the last dimension, and 1 / √(mean x² + eps)."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return x * scale, scale


def unit_backward(grad: Tensor, weight: Tensor, unit: Tensor, scale: Tensor, out: Tensor) -> Tensor:
    """Write the gradient of x through unit(x) · weight to `out`, and return that of the weight.

    Args:
        grad: Gradient of the product, [..., d].
        weight: As many of its last dimensions as it has.
        unit: unit(x), [..., d], as `unit_of` returns it.
        scale: 1 / √(mean x² + eps), [..., 1].
        out: Where the gradient of x goes, [..., d].
    """
    its_type, weight = weight.dtype, exact(weight)
    along = grad * unit
    dweight = along.view(-1, *weight.shape).sum(0).to(its_type)
    # A matrix times a vector is one pass over memory.
    inward = (along @ weight).unsqueeze(-1) if weight.dim() == 1 else along.mul_(weight).sum(-1, keepdim=True)
    dx = torch.mul(grad, weight, out=along).addcmul_(unit, inward.div_(-unit.shape[-1]))
    if out.dtype == dx.dtype:
        torch.mul(dx, scale, out=out)
    else:  # a product that is written in another type takes three times as long as a product and a copy
        out.copy_(dx.mul_(scale))
    return dweight


class RMSNormalise(Function):
    """x / √(mean x² + eps) · weight over the last dimension, in fp32 inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See the class."""
        unit, scale = unit_of(exact(x), eps)
        ctx.save_for_backward(unit, scale, weight)
        return (unit * weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """See the class."""
        unit, scale, weight = ctx.saved_tensors
        out = torch.empty_like(grad)
        return out, unit_backward(exact(grad), weight, unit, scale, out), None
