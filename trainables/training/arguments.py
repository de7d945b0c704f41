"""The arguments of a run: read from the config of a trial, and checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from raylr.errors import DataError, SpecError
from raylr.trainables.models.spec import AnyModelSpec, HFSpec, model_spec
from raylr.trainables.training.spec import TrainSpec

if TYPE_CHECKING:
    from raylr.trainables.data.corpus import Corpus

KEYS = frozenset(
    (
        *("lr", "model", "train", "corpus", "tokens", "eval_at", "stop_at", "run_dir", "queue_dir", "queue_at"),
        *("keep_dir", "keep_at", "trunk_dir", "decay_corpus"),
        *("checkpoint_reports", "trust_checkpoint"),
    )
)
"""Keys that the config of `pretrain` may hold."""
REQUIRED = ("lr", "model", "train", "corpus", "tokens")
"""Keys that the config must hold."""


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `train` that a trial's config describes.

    Args:
        config: The keys `KEYS`; `model` and `train` are fields of `ModelSpec` (or `hf`) and `TrainSpec`.

    Returns:
        The same keys, with `model` and `train` as validated specs and `lr` and `tokens` as numbers.

    Raises:
        SpecError: For an unknown or missing key, a value of the wrong kind, and a model or training that cannot be.

    Example:
        >>> model = {"hidden_size": 8, "layers": 1, "heads": 1, "kv_heads": 1, "head_dim": 8, "experts": 2, "top_k": 1,
        ...          "expert_size": 8, "vocab_size": 300}
        >>> train = {"seq_len": 8, "batch_tokens": 64}
        >>> given = arguments({"lr": 1e-3, "model": model, "train": train, "corpus": "corpus", "tokens": 640})
        >>> given["train"].batch_tokens
        64
    """
    if unknown := sorted(set(config) - KEYS):
        raise SpecError(f"config of pretrain: unknown {', '.join(unknown)}; known are {', '.join(sorted(KEYS))}")
    if missing := [key for key in REQUIRED if key not in config]:
        raise SpecError(f"config of pretrain: {', '.join(missing)} must be given")
    return {
        **config,
        "lr": _number(config, "lr", float),
        "model": _spec("model", model_spec, config["model"]),
        "train": _spec("train", TrainSpec.model_validate, config["train"]),
        "tokens": _number(config, "tokens", int),
        "checkpoint_reports": bool(config.get("checkpoint_reports", config.get("run_dir") is None)),
    }


def _number(config: Mapping[str, Any], key: str, kind: Callable[[Any], Any]) -> Any:
    try:
        return kind(config[key])
    except (TypeError, ValueError, OverflowError):
        raise SpecError(f"config of pretrain: {key}={config[key]!r} must be a number") from None


def _spec(key: str, validate: Callable[[Any], Any], fields: Any) -> Any:
    """Validate fields, with one sentence for each thing that cannot be."""
    if not isinstance(fields, Mapping):
        raise SpecError(f"config of pretrain: {key}={fields!r} must be a mapping of fields")
    try:
        return validate(fields)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, (key, *one['loc'])))}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False, include_context=False)
        ]
        raise SpecError(f"config of pretrain: {'; '.join(problems)}") from None


def check_run(
    lr: float,
    model: AnyModelSpec,
    train: TrainSpec,
    corpus: Corpus,
    tokens: int,
    eval_at: Sequence[int],
    end: int,
    saved_at: Mapping[str, Sequence[int]],
) -> None:
    """Check that a run can be, before anything is built.

    Args:
        lr: As in `raylr.trainables.train`, like all but the last two.
        model: The model.
        train: The training settings.
        corpus: The corpus.
        tokens: Tokens of the run.
        eval_at: Points at which the loss is measured.
        end: Point at which the run stops; one of `eval_at`.
        saved_at: Name of an argument (`queue_at`, `keep_at`) → points at which checkpoints are kept.

    Raises:
        InputError: If LR, tokens, points, corpus, vocabulary, tokenizer or expert parallelism do not fit.
    """
    if not (lr > 0 and math.isfinite(lr)):
        raise SpecError(f"lr={lr} must be a positive number")
    train.check_budget(tokens, list(eval_at))
    train.check_experts(model)
    if end not in eval_at:
        raise SpecError(
            f"stop_at={end} is not one of the points at which the loss is measured, eval_at={list(eval_at)}"
        )
    for name, saved in saved_at.items():
        if any(point % train.batch_tokens or not 0 < point <= tokens for point in saved):
            raise SpecError(
                f"{name}={list(saved)} must be whole batches of {train.batch_tokens} tokens, up to tokens={tokens}"
            )
    if isinstance(model, HFSpec):
        model.check_tokenizer(corpus.tokenizer_path)
    if model.vocab_size < corpus.vocab_size:
        raise SpecError(
            f"the model's vocab_size={model.vocab_size} is below the corpus' tokenizer's {corpus.vocab_size}"
        )
    there = (corpus.train_tokens - 1) // train.seq_len * train.seq_len
    if tokens > there and not train.repeat_data:
        raise DataError(
            f"the budget of {tokens} tokens is above the corpus' {there} (in sequences of {train.seq_len}): use a "
            "larger corpus, a smaller budget, or repeat_data=True to read it more than once"
        )
    if train.validation_tokens > corpus.validation_tokens - 1:
        raise DataError(
            f"validation_tokens={train.validation_tokens} is above the corpus' {corpus.validation_tokens} tokens "
            "of validation text"
        )
