"""The hyperparameters of a target's tensors: the base's values times a parametrization's factors. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raylr.trainables.models.parametrization import VECTORS
from raylr.trainables.models.transfer import Transfer


@dataclass(frozen=True, kw_only=True)
class RoleSettings:
    """Tensors that have the same hyperparameters."""

    roles: tuple[str, ...]
    tensors: tuple[str, ...]
    """Their names."""
    init_std: float | None
    """Std of the initial weights; None for vectors, which start at 0 or 1."""
    lr: float
    weight_decay: float
    """0 for norms and biases."""
    eps: float
    lr_factor: float
    """Factor on the base's LR."""
    forward: float
    """Factor on the output of the matrix."""
    residual: float
    """Factor on what the block adds to the residual stream."""

    def record(self) -> dict[str, Any]:
        """Return the same as JSON's types."""
        return {**vars(self), "roles": list(self.roles), "tensors": list(self.tensors)}


def settings_of(
    found: Transfer, *, lr: float, init_std: float, weight_decay: float, eps: float
) -> tuple[RoleSettings, ...]:
    """Return the hyperparameters of all tensors of a target, those of equal settings together.

    Args:
        found: The factors.
        lr: The base's peak LR.
        init_std: The base's init std.
        weight_decay: The base's weight decay, which AdamW multiplies by the LR; norms and biases have none.
        eps: The base's ε.

    Returns:
        Groups in the order of their first tensors. Multipliers are listed, and not folded into the matrices.

    Example:
        >>> from raylr.trainables.models.parametrization import parametrization
        >>> from raylr.trainables.models.spec import ModelSpec
        >>> from raylr.trainables.models.transfer import network_of, transfer
        >>> size = dict(layers=2, kv_heads=1, head_dim=16, experts=4, top_k=2, vocab_size=64)
        >>> small = network_of(ModelSpec(hidden_size=32, heads=2, expert_size=32, **size))
        >>> large = network_of(ModelSpec(hidden_size=128, heads=8, expert_size=128, **size))
        >>> rule = parametrization("completed_p")
        >>> groups = settings_of(transfer(small, large, rule), lr=4e-3, init_std=0.02, weight_decay=0.1, eps=1e-8)
        >>> [(group.roles[0], group.lr, group.init_std) for group in groups][:2]
        [('embedding', 0.004, 0.02), ('attention_in', 0.001, 0.01)]
    """
    groups: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
    for one in found.tensors:
        factors, vector = one.factors, one.role in VECTORS
        key = (
            None if vector else init_std * factors["init_variance"] ** 0.5,
            lr * factors["lr"],
            0.0 if vector else weight_decay * factors["weight_decay"],
            eps * factors["eps"],
            factors["lr"],
            factors["forward"],
            factors["residual"],
        )
        groups.setdefault(key, []).append((one.name, one.role))
    return tuple(
        RoleSettings(
            roles=tuple(dict.fromkeys(role for _, role in members)), tensors=tuple(name for name, _ in members),
            init_std=std, lr=rate, weight_decay=decay, eps=epsilon, lr_factor=factor, forward=forward,
            residual=residual,
        )
        for (std, rate, decay, epsilon, factor, forward, residual), members in groups.items()
    )  # fmt: skip
