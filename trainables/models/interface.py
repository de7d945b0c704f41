"""What the training loop needs of a network, whatever its architecture."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Losses(NamedTuple):
    """Scalars of one forward pass; `total` is what is differentiated, `cross_entropy` (nats per token) what is
    reported."""

    total: Tensor
    cross_entropy: Tensor
    aux_loss: Tensor


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
