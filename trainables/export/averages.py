"""The loss of an average of checkpoints: an estimate of the loss after a decay that needs no decay.

At a constant LR the weights scatter around a valley's floor, and their mean lies nearer to it, as the weights after a
decay do (Izmailov et al. 2018; Hägele et al. 2024 and Zhang et al. 2025 for pre-training). docs/analyses.md compares it
with real decays.

References:
    Izmailov et al. 2018 (arXiv 1803.05407). Hägele et al. 2024 (arXiv 2405.18392).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylr.errors import CheckpointError, InputError

ALONE: dict[str, Any] = {"workers": 1, "zero_stage": 1, "expert_parallel": 1, "parametrization": None, "probes": []}
"""The network of the average is run by one process, even if several trained its checkpoints; none of it is trained."""


def averaged_loss(
    checkpoints: Sequence[str | Path],
    corpus: str | Path,
    *,
    weights: Sequence[float] | None = None,
    threads: int | None = None,
    trust_checkpoint: bool = False,
) -> float:
    """Return the validation loss of the mean of several checkpoints of one run.

    Args:
        checkpoints: Folders of checkpoints of one run, such as those in the `keep_dir` of `train`. The mean of those of
            the last 20 % of a run at a constant LR estimates its loss after a linear decay over as much.
        corpus: Folder of the tokenised text that the run was trained on.
        weights: Share of each checkpoint, not below 0; they are divided by their sum. None: equal ones.
        threads: CPU threads of torch in this process; None leaves them as they are.
        trust_checkpoint: Whether the files may hold pickled objects other than tensors, which are then executed.

    Returns:
        Nats per token, on the validation sequences of the run.

    Raises:
        InputError: Without a checkpoint, for weights that are no shares, and for another corpus than the run's.
        CheckpointError: If a checkpoint is damaged or of another run than the first one.

    Example:
        >>> from raylr.trainables import ModelSpec, TrainSpec, averaged_loss, build_corpus, train
        >>> characters = Path("text.txt").write_text(" ".join(str(number) for number in range(5000)))
        >>> corpus = build_corpus(["text.txt"], "corpus", vocab_size=300)
        >>> model = ModelSpec(
        ...     hidden_size=8, layers=1, heads=1, kv_heads=1, head_dim=8,
        ...     experts=2, top_k=1, expert_size=8, vocab_size=300,
        ... )
        >>> settings = TrainSpec(seq_len=8, batch_tokens=64, validation_tokens=64)
        >>> points = [448, 512, 576, 640]
        >>> rows = train(
        ...     lr=1e-3, model=model, train=settings, corpus="corpus", tokens=640, eval_at=points,
        ...     keep_dir="kept", keep_at=points,
        ... )
        >>> bool(abs(averaged_loss(sorted(Path("kept").glob("step-*")), "corpus") - rows[-1]["loss"]) < 0.1)
        True
    """
    from raylr.trainables.data.corpus import Corpus
    from raylr.trainables.export.weights import read_weights
    from raylr.trainables.models.build import build
    from raylr.trainables.models.spec import model_spec
    from raylr.trainables.training.checkpoint import TAG, intact_state
    from raylr.trainables.training.engine import bring_up, running_engine
    from raylr.trainables.training.spec import TrainSpec
    from raylr.trainables.training.validation import validate, validation_batches

    folders, shares = [Path(one) for one in checkpoints], _shares(len(checkpoints), weights)
    states = [intact_state(folder) for folder in folders]
    other = next((i for i, state in enumerate(states) if state.get("identity") != states[0].get("identity")), None)
    if other is not None:
        raise CheckpointError(f"{folders[other]} is a checkpoint of another run than {folders[0]}")
    texts = Corpus.open(corpus)
    if texts.fingerprint != states[0].get("fields", {}).get("corpus"):
        raise InputError(f"{folders[0]} was trained on another text than {corpus}: give the run's own corpus")
    run = states[0]["run"]
    spec = TrainSpec.model_validate(run["train"] | ALONE)
    mean: dict[str, Any] = {}
    for folder, share in zip(folders, shares, strict=True):
        for name, value in read_weights(folder / TAG, trust=trust_checkpoint).items():
            if value.is_floating_point():
                mean[name] = mean.get(name, 0.0) + share * value.double()
            else:
                mean[name] = value
    bring_up(threads)
    shape = model_spec({name: value for name, value in run["model"].items() if name != "tensors"})
    within = not spec.cross_document_attention
    with running_engine(build(shape, seed=spec.seed, z_loss=spec.z_loss, within_documents=within), spec) as engine:
        own = engine.module.state_dict()
        missing = sorted(own.keys() ^ mean.keys())
        if missing:
            raise CheckpointError(f"{folders[0]} holds other tensors than the network has: {', '.join(missing[:3])}")
        engine.module.load_state_dict({name: value.to(own[name].dtype) for name, value in mean.items()})
        return validate(engine, validation_batches(texts, spec, 0, engine.device), 1)


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
    given = [1.0] * count if weights is None else [float(one) for one in weights]
    if not count:
        raise InputError("checkpoints: at least one is needed")
    total = math.fsum(given)
    if len(given) != count or not all(one >= 0 for one in given) or not 0 < total < math.inf:
        raise InputError(f"weights must be {count} numbers from 0 on with a finite sum above 0, got {given}")
    return [one / total for one in given]
