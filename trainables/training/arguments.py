"""The arguments of a run: from the config of a trial, and whether such a run can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raylr.trainables.models.spec import HFSpec, ModelSpec, model_spec
from raylr.trainables.training.spec import TrainSpec

if TYPE_CHECKING:
    from raylr.trainables.data.corpus import Corpus

MULTIPLIERS = ("lr_multipliers", "weight_decay_multipliers", "eps_multipliers")
KEYS = frozenset(
    (
        *("lr", "model", "train", "corpus", "tokens", "eval_at", "stop_at", "run_dir", "aside_dir", "aside_at"),
        *("checkpoint_reports", *MULTIPLIERS),
    )
)
"""What the config of `pretrain` may hold."""


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `train` that a trial's config describes. Raises ValueError for an unknown key or a bad spec."""
    if unknown := sorted(set(config) - KEYS):
        raise ValueError(f"config of pretrain: unknown {', '.join(unknown)}; known are {', '.join(sorted(KEYS))}")
    return {
        **config,
        "lr": float(config["lr"]),
        "model": model_spec(config["model"]),
        "train": TrainSpec.model_validate(config["train"]),
        "tokens": int(config["tokens"]),
        "checkpoint_reports": bool(config.get("checkpoint_reports", config.get("run_dir") is None)),
    }


def check_run(model: ModelSpec | HFSpec, train: TrainSpec, corpus: Corpus, tokens: int, eval_at: Sequence[int]) -> None:
    """Raises ValueError, before anything is built, if this run cannot be: budget, corpus, vocabulary, tokenizer or
    expert parallelism do not fit."""
    train.check_budget(tokens, list(eval_at))
    train.check_experts(model)
    if isinstance(model, HFSpec):
        model.check_tokenizer(corpus.tokenizer_path)
    if model.vocab_size < corpus.vocab_size:
        raise ValueError(
            f"the model's vocab_size={model.vocab_size} is below the corpus' tokenizer's {corpus.vocab_size}"
        )
    there = (corpus.train_tokens - 1) // train.seq_len * train.seq_len
    if tokens > there and not train.repeat_data:
        raise ValueError(
            f"the budget of {tokens} tokens is above the corpus' {there} (in sequences of {train.seq_len}): use a "
            "larger corpus, a smaller budget, or repeat_data=True to read it more than once"
        )
    if train.validation_tokens > corpus.validation_tokens - 1:
        raise ValueError(
            f"validation_tokens={train.validation_tokens} is above the corpus' {corpus.validation_tokens} tokens "
            "of validation text"
        )
