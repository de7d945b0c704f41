"""What the training loop needs of a network of any architecture."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn


class Losses(NamedTuple):
    """Scalars of one forward pass; `total` is what is differentiated, `cross_entropy` (nats per token) what is
    reported."""

    total: Tensor
    cross_entropy: Tensor
    aux_loss: Tensor
    """Load-balancing loss of counts that are pooled over layers; 0 in a dense model."""
    layer_aux_loss: Tensor
    """Mean over layers of each layer's own load-balancing loss; 0 in a dense model."""


class LanguageModel(Protocol):
    """A network that `raylr.trainables.training.loop` can train: a `torch.nn.Module` with these two methods.

    Shape suffixes: B sequences, T positions, V vocabulary.
    """

    def __call__(
        self, ids_BT: Tensor, labels_BT: Tensor | None = None, documents_BT: Tensor | None = None
    ) -> Tensor | Losses:
        """Compute the losses of a batch, or logits.

        Args:
            ids_BT: Token ids.
            labels_BT: The token that follows each id.
            documents_BT: Number of the document of each token, to keep attention within documents; None: across.

        Returns:
            `Losses` if `labels_BT` is given, otherwise logits [B, T, V].
        """
        ...

    def after_step(self) -> None:
        """Update what is not trained by gradients; called after every optimizer step."""
        ...


def first_tensor(out: Any) -> Any:
    """Return what a module returns first: layers and blocks return their output alone or in a tuple."""
    return out[0] if isinstance(out, tuple | list) else out


def added_to_residual(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what a block with the output `x` adds to the residual stream: times the multiplier that its layer has, if
    any."""
    factor = getattr(layer, "multiplier", getattr(layer, "residual_multiplier", 1.0))
    return x * (factor if isinstance(factor, int | float) else 1.0)
