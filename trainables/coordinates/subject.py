"""What a coordinate check trains: a model at one width, depth and seed, with its batch and loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from raylr.errors import InputError
from raylr.trainables.data.corpus import Corpus, Windows

if TYPE_CHECKING:
    from torch import Tensor, nn

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network with what it is trained on; what a user's function returns that is not a language model."""

    model: nn.Module
    """The network, with initial weights."""
    loss: Callable[[nn.Module], Tensor]
    """Runs the network on the batch and returns the loss, a scalar."""
    forward: Callable[[nn.Module], Tensor]
    """Runs the network on the batch and returns its output, whose coordinates are observed as "output logits"."""
    groups: list[dict[str, Any]] | None = None
    """Parameter groups for `torch.optim.AdamW` with their LRs, if the function has applied a parametrization itself;
    None: the check applies its rule."""


class MakeModel(Protocol):
    """A user's function that makes a network."""

    def __call__(self, *, width: float, depth: float, seed: int) -> nn.Module | Subject:
        """Return a network, initialised from `seed`.

        Args:
            width: Its width in multiples of the base's.
            depth: Its depth in multiples of the base's.
            seed: Seed of its initial weights.

        Returns:
            A network that maps token ids [B, T] to logits [B, T, V] (or to an object with `logits`), or a `Subject`.
        """
        ...


def made_ids(vocab_size: int, sequences: int, seq_len: int, seed: int) -> Ids:
    """Return ids of an artificial language [sequences, seq_len + 1]: Zipf's frequencies, and words with few successors.

    A coordinate check needs a batch with structure to learn, not a language: nothing is downloaded or tokenised.

    Args:
        vocab_size: Number of ids.
        sequences: Rows.
        seq_len: Tokens of one sequence.
        seed: Seed of the text; the language is the same for all.
    """
    share = 1 / np.arange(1, vocab_size + 1)
    share /= share.sum()
    successors = np.random.default_rng(0).choice(vocab_size, size=(vocab_size, 4), p=share)
    rng = np.random.default_rng(seed)
    ids = np.empty((sequences, seq_len + 1), dtype=np.int64)
    ids[:, 0] = rng.choice(vocab_size, size=sequences, p=share)
    for t in range(1, seq_len + 1):
        follows = rng.random(sequences) < 0.6
        free = rng.choice(vocab_size, size=sequences, p=share)
        ids[:, t] = np.where(follows, successors[ids[:, t - 1], rng.integers(4, size=sequences)], free)
    return ids


def batch_ids(corpus: str | Path | None, vocab_size: int, sequences: int, seq_len: int, seed: int) -> Ids:
    """Return the batch of a seed.

    Args:
        corpus: Folder of a tokenised corpus; None: the artificial language.
        vocab_size: Vocabulary of the model.
        sequences: Sequences of the batch.
        seq_len: Tokens of a sequence.
        seed: Seed of the batch.
    """
    if corpus is None:
        return made_ids(vocab_size, sequences, seq_len, seed)
    texts = Corpus.open(corpus)
    if texts.vocab_size > vocab_size:
        raise InputError(f"the corpus in {texts.path} has {texts.vocab_size} token ids and the model {vocab_size}")
    return Windows(texts.train, seq_len, seed).batch(0, sequences)


def language_model(model: nn.Module, ids: Ids) -> Subject:
    """Return a language model with one batch: raylr's own interface, or token ids to logits."""
    import torch
    import torch.nn.functional as F

    from raylr.trainables.models.hf import HuggingFaceModel
    from raylr.trainables.models.qwen3_moe import Qwen3MoE

    inputs_BT, labels_BT = torch.from_numpy(ids[:, :-1]), torch.from_numpy(ids[:, 1:])

    def forward(network: nn.Module) -> Tensor:
        out: Any = network(inputs_BT)
        out = getattr(out, "logits", out)
        logits_BTV: Tensor = out[0] if isinstance(out, tuple | list) else out
        return logits_BTV

    def loss(network: nn.Module) -> Tensor:
        if isinstance(network, Qwen3MoE | HuggingFaceModel):
            total: Tensor = network(inputs_BT, labels_BT).total
            return total
        return F.cross_entropy(forward(network).flatten(0, 1), labels_BT.flatten())

    return Subject(model=model, loss=loss, forward=forward)
