"""The fixed validation sequences of a run and the loss on them."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raylr.trainables.data.corpus import Corpus
    from raylr.trainables.training.spec import TrainSpec


def model_inputs(windows: Any, corpus: Corpus, train: TrainSpec, device: Any) -> tuple[Any, Any, Any]:
    """Return what the network takes of some windows.

    Args:
        windows: Token ids [B, T + 1].
        corpus: Their corpus, for the end-of-document token.
        train: The run.
        device: Where the tensors are put.

    Returns:
        Ids [B, T], next tokens [B, T] and, if attention stays within documents, document numbers [B, T], else None.
    """
    import torch

    rows = torch.from_numpy(windows).to(device)
    ids, labels = rows[:, :-1], rows[:, 1:]
    if train.cross_document_attention:
        return ids, labels, None
    ends = (ids == corpus.eos_id).long()
    return ids, labels, ends.cumsum(1) - ends


def validation_batches(corpus: Corpus, train: TrainSpec, rank: int, device: Any) -> list[tuple[Any, Any, Any]]:
    """Return one worker's share of the fixed validation sequences, in micro-batches as `model_inputs` gives them.

    They are the first of the validation stream, so that all runs of a corpus have the same ones.

    Args:
        corpus: The corpus.
        train: The training settings.
        rank: Number of the worker.
        device: Where the batches are.
    """
    from raylr.trainables.data.corpus import Windows

    stream = Windows(corpus.validation, train.seq_len)
    each = math.ceil(train.validation_tokens / (train.seq_len * train.workers))
    micro = 2 * (train.micro_batch or train.sequences_per_worker)  # nothing is kept for a backward pass
    mine = stream.batch(rank * each, each)
    return [model_inputs(mine[first : first + micro], corpus, train, device) for first in range(0, each, micro)]


def validate(
    engine: Any,
    batches: list[tuple[Any, Any, Any]],
    world: int,
    *,
    first: AbstractContextManager[Any] | None = None,
) -> float:
    """Return the mean cross-entropy over the validation sequences of all workers, in nats per token.

    Args:
        engine: DeepSpeed's engine.
        batches: This worker's share (`validation_batches`).
        world: Number of workers.
        first: A context around the forward pass over the first batch.
    """
    import torch
    import torch.distributed as dist

    around = first if first is not None else nullcontext()
    total = torch.zeros(2, dtype=torch.float64, device=engine.device)
    engine.eval()
    with torch.no_grad():
        for ids, labels, documents in batches:
            with around:
                losses = engine(ids, labels, documents)
            around = nullcontext()
            total += torch.stack((losses.cross_entropy.double() * len(ids), total.new_tensor(len(ids))))
    engine.train()
    if world > 1:
        dist.all_reduce(total)
    return float(total[0] / total[1])
