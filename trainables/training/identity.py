"""What identifies a run: everything that decides the numbers it measures, and nothing else. No torch here.

Two runs of one identity are the same run: what one measured need not be measured again, and a checkpoint of one serves
the other. Not part of the identity are

* where the validation loss is measured and how often checkpoints are written: they change nothing about the weights;
* the micro-batch, activation checkpointing, and the layout (workers, ZeRO stage, expert parallelism): the losses are
  equal to rounding. A checkpoint still belongs to its layout (`raylr.trainables.training.checkpoint`);
* `repeat_data`, which permits a long run and does not change a permitted one;
* probes, which read and change nothing;
* the number of training tokens, where the schedule does not depend on it (a constant LR after the warmup): such a run
  can be continued to more tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raylr.analysis.runs import identity_of
from raylr.trainables.models.roles import MODULE_OF, TABLES
from raylr.trainables.training.groups import multipliers_by_role

if TYPE_CHECKING:
    from raylr.trainables.models.spec import AnyModelSpec
    from raylr.trainables.training.spec import TrainSpec

LAYOUT = ("workers", "zero_stage", "expert_parallel")
"""Fields of `TrainSpec` that set how a run is spread over processes."""
PROBES = ("probes", "probe_interval")
"""Fields of `TrainSpec` that set what is looked at beside the loss."""
_NOT_IDENTITY = frozenset(
    (*LAYOUT, *PROBES, "micro_batch", "activation_checkpointing", "checkpoint_seconds", "repeat_data")
)
_WARMUP = frozenset(("warmup_steps", "warmup_tokens"))
_OF_SCHEDULE = {
    "constant": frozenset(),
    "wsd": frozenset(("decay_fraction", "decay_shape", "final_lr_ratio")),
    "cosine": frozenset(("final_lr_ratio",)),
}
"""Fields of `TrainSpec` that each schedule reads."""
_ALL_SCHEDULES = frozenset().union(*_OF_SCHEDULE.values())


def identity_fields(
    *,
    model: AnyModelSpec,
    train: TrainSpec,
    lr: float,
    tokens: int,
    corpus: str,
    decay_corpus: str | None = None,
) -> dict[str, Any]:
    """Return what identifies a run, as values that JSON can hold.

    Settings that mean the same give the same fields: the warmup counts in tokens, fields that the schedule does not
    read are left out (as is the optimizer, if it is AdamW), and multipliers are resolved to roles.

    Args:
        model: The model. An `HFSpec` is read, which imports transformers; a `ModelSpec` needs nothing.
        train: All other settings, with the seeds.
        lr: Peak LR.
        tokens: Training tokens; part of the identity only if the schedule depends on them.
        corpus: Identity of the tokenised text (`Corpus.fingerprint`).
        decay_corpus: Identity of the text of the decay, if that is another one.
    """
    unread = _NOT_IDENTITY | _WARMUP | {*TABLES} | (_ALL_SCHEDULES - _OF_SCHEDULE[train.schedule])
    if train.optimizer.name == "adamw":  # all of its settings are fields of their own
        unread |= {"optimizer"}
    by_role = multipliers_by_role(MODULE_OF, train)
    factors = {
        what: {role: value for role, one in by_role.items() if (value := getattr(one, what)) != 1.0}
        for what in ("lr", "weight_decay", "eps")
    }
    return {
        "model": model.identity(),
        "train": train.model_dump(mode="json", exclude=set(unread)) | {"warmup": train.warmup},
        "lr": float(lr),
        "tokens": None if train.schedule == "constant" else int(tokens),
        "corpus": corpus,
        "multipliers": {what: table for what, table in factors.items() if table},
    } | ({} if decay_corpus is None else {"decay_corpus": decay_corpus})


def run_identity(
    *,
    model: AnyModelSpec,
    train: TrainSpec,
    lr: float,
    tokens: int,
    corpus: str,
) -> str:
    """Return the identity of a run: the hash of `identity_fields`.

    Args:
        model: The model.
        train: All other settings, with the seeds.
        lr: Peak LR.
        tokens: Training tokens; part of the identity only if the schedule depends on them.
        corpus: Identity of the tokenised text (`Corpus.fingerprint`).

    Returns:
        A hash in hexadecimal digits, the same on every machine.

    Example:
        >>> from raylr.trainables import ModelSpec, TrainSpec
        >>> model = ModelSpec(
        ...     hidden_size=8, layers=1, heads=1, kv_heads=1, head_dim=8,
        ...     experts=2, top_k=1, expert_size=8, vocab_size=300,
        ... )
        >>> train = TrainSpec(seq_len=8, batch_tokens=64)
        >>> one, longer, other = (
        ...     run_identity(model=model, train=train, lr=lr, tokens=tokens, corpus="text")
        ...     for lr, tokens in ((1e-3, 640), (1e-3, 1280), (2e-3, 640))
        ... )
        >>> one == longer, one == other
        (True, False)
    """
    fields = identity_fields(model=model, train=train, lr=lr, tokens=tokens, corpus=corpus)
    return identity_of(fields)


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return what differs between the `identity_fields` of two runs, as `name: there, not here`."""
    out: list[str] = []
    for key in sorted({*there, *here}):
        one, other = there.get(key), here.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            out += differences(one, other, f"{prefix}{key}.")
        elif one != other:
            out.append(f"{prefix}{key}: {one!r}, not {other!r}")
    return out
