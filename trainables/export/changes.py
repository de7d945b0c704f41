"""How far the activations of a checkpoint have moved since initialisation, for runs without the probe `changes`.

The initial weights follow from the run's seed alone, so that the checkpoint is all that is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from raylr.errors import CheckpointError
from raylr.trainables.data.corpus import Corpus, Windows
from raylr.trainables.export.weights import read_weights
from raylr.trainables.models.build import build
from raylr.trainables.models.spec import model_spec
from raylr.trainables.training.checkpoint import TAG, intact_state
from raylr.trainables.training.groups import parametrized_groups
from raylr.trainables.training.probing.changes import SEQUENCES, change_columns, observer_of
from raylr.trainables.training.spec import TrainSpec
from raylr.trainables.training.validation import model_inputs


def changes_of(checkpoint: Path, corpus: Path, *, trust: bool = False) -> dict[str, Any]:
    """Return a row with what the probe `changes` would have measured where a checkpoint was written.

    Args:
        checkpoint: The checkpoint's own folder.
        corpus: Folder of the tokenised text that the run was trained on.
        trust: Whether its files may hold objects other than tensors, which are then executed.

    Returns:
        `tokens`, `step`, `params`, `lr` and the columns of the probe.

    Raises:
        CheckpointError: If the checkpoint is damaged, or does not have the weights of its model.
    """
    state = intact_state(checkpoint)
    run, texts = state["run"], Corpus.open(corpus)
    spec, train = model_spec(run["model"]), TrainSpec.model_validate(run["train"])
    network: Any = build(spec, seed=train.seed, within_documents=not train.cross_document_attention)
    if train.parametrization is not None:
        parametrized_groups(network, train)  # scales the initial weights
    windows = Windows(texts.validation, train.seq_len).batch(0, SEQUENCES)
    observer = observer_of(network, model_inputs(windows, texts, train, torch.device("cpu")))
    start = observer.capture()
    missing, unknown = network.load_state_dict(read_weights(checkpoint / TAG, trust=trust), strict=False)
    if missing or unknown:
        raise CheckpointError(f"{checkpoint}: {[*missing, *unknown][0]} is not in both the checkpoint and its model")
    return {
        "tokens": state["step"] * train.batch_tokens,
        "step": state["step"],
        "params": spec.params("total"),
        "lr": run["lr"],
        **change_columns(start, observer.capture()),
    }
