"""`Recipe`: everything that belongs to a learning rate in a trainer's configuration, each value with its origin."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from raylr.analysis.laws.lr_law import LRLaw, LRPrediction
from raylr.analysis.units import format_count, format_lr
from raylr.errors import InputError, nearest

SCHEDULES = ("constant", "wsd", "cosine", "linear")
"""Shapes of the LR after the warmup. `wsd`: constant, then a linear decay to 0 over the last part."""
_SAME = {"warmup_stable_decay": "wsd", "trapezoid": "wsd", "stable": "constant"}
"""Other names of these shapes; names that begin with theirs are known anyway."""
WARMUP = 0.01
"""Share of the tokens for warmup where the runs do not say: 0.5 to 2 % is usual."""
DECAY = 0.1
"""Share of the run in which a WSD schedule decays unless another share is given: OLMo-core's default, and MiniCPM's."""
FLOOR = 0.1
"""LR at the end of a cosine, as a share of the peak: Chinchilla, Llama and OLMo."""
WEIGHT_DECAY, BETA1, BETA2, EPS, CLIP = 0.1, 0.9, 0.95, 1e-8, 1.0
"""What most public pre-training runs of this decade use (Llama, OLMo 2, DeepSeek, Qwen), where the runs do not say."""
DEFAULT, GIVEN, RUNS, LAW = "default of raylr, not known from the runs", "given", "as in the runs", "from the law"


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user says about the run; None is left to the law and its runs."""

    batch: float | None = None
    """Batch in what the law counts it in."""
    seq_len: int | None = None
    schedule: str | None = None
    warmup_tokens: float | None = None
    weight_decay: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    ranks: int = 1
    """Data-parallel ranks."""
    micro_batch: int = 1
    """Sequences that a rank trains at once."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Tensors with hyperparameters of their own."""

    roles: str
    """What they are, for people."""
    patterns: tuple[str, ...]
    """Regular expressions that match their whole names."""
    init_std: float | None
    """Std of their initial weights; None for norms and biases."""
    lr: float
    """Peak LR."""
    weight_decay: float
    eps: float
    multiplier: float
    """Factor on the output of these matrices, or on what their block adds to the residual stream."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The values of a run, in the units that trainers count in."""

    lr: float
    min_lr: float
    """LR at the end."""
    schedule: str
    steps: int
    warmup_steps: int
    decay_steps: int
    """Steps of the decay at the end; 0 for a constant LR."""
    batch: int
    """Sequences of one optimizer step."""
    seq_len: int
    ranks: int
    micro_batch: int
    weight_decay: float
    beta1: float
    beta2: float
    eps: float = EPS
    clip: float = CLIP
    origin: Mapping[str, str] = field(default_factory=dict)
    """Name of a value -> where it comes from."""
    notes: tuple[str, ...] = ()
    """The law, the interval, the extrapolation."""
    groups: tuple[Group, ...] = ()
    """Groups of tensors, which together are all; empty: all tensors have the same."""
    decoupled_lr: float | None = None
    """Peak LR of the embedding and the output layer, for Megatron-LM; None: `lr`."""

    @property
    def accumulation(self) -> int:
        """Micro-batches of a rank in one optimizer step."""
        return self.batch // (self.ranks * self.micro_batch)

    @property
    def batch_tokens(self) -> int:
        """Tokens of one optimizer step."""
        return self.batch * self.seq_len

    @property
    def step(self) -> str:
        """What makes up one optimizer step, for a comment."""
        return f"{self.ranks} data-parallel ranks, {self.batch} sequences a step: {self.why('batch')}"

    def comments(self, sign: str = "#") -> str:
        """Return the notes as lines of comment."""
        return "".join(f"{sign} {note}\n" for note in self.notes)

    def why(self, name: str) -> str:
        """Return where a value comes from."""
        return self.origin.get(name, DEFAULT)


def pattern_of(name: str) -> str:
    """Return the pattern of a tensor's name, in which numbers of layers and experts are free."""
    return r"\.".join(r"\d+" if piece.isdigit() else re.escape(piece) for piece in name.split("."))


def make_recipe(law: LRLaw, prediction: LRPrediction, wishes: Wishes) -> Recipe:
    """Return the recipe of a prediction.

    Args:
        law: The law.
        prediction: Its prediction at the run's size, tokens and batch.
        wishes: What the user says.

    Raises:
        InputError: If the batch or the length of a sequence is not known, or a number cannot be.
    """
    known, origin = law.conditions, {"lr": LAW}

    def choose(name: str, given: float | None, runs: float | None, default: float) -> float:
        value, why = (given, GIVEN) if given is not None else (runs, RUNS) if runs is not None else (default, DEFAULT)
        origin[name] = why
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} must be a number from 0 on, got {value}")
        return float(value)

    length = choose("seq_len", wishes.seq_len, known.seq_len, 0)
    if not length >= 1:
        raise InputError("the runs do not say how long their sequences are: give --seq-len")
    if prediction.batch is None:
        raise InputError("neither the law nor its runs have a batch: give --batch")
    origin["batch"] = GIVEN if wishes.batch is not None else LAW if law.batch_law is not None else RUNS
    sequences = prediction.batch if law.batch_kind == "sequences" else prediction.batch / length
    unit = wishes.ranks * wishes.micro_batch
    if wishes.ranks < 1 or wishes.micro_batch < 1:
        raise InputError("--ranks and --micro-batch are counts from 1 on")
    batch = max(1, round(sequences / unit)) * unit
    steps = max(1, round(prediction.tokens / (batch * length)))
    schedule = _schedule(wishes.schedule or known.schedule, wishes.schedule is not None)
    origin["schedule"] = GIVEN if wishes.schedule else RUNS if known.schedule else DEFAULT
    warmup = choose("warmup", wishes.warmup_tokens, known.warmup_tokens, WARMUP * prediction.tokens)
    warmup_steps = min(max(1, round(warmup / (batch * length))), steps)
    decay = {"constant": 0, "wsd": round(DECAY * steps)}.get(schedule, steps - warmup_steps)
    notes = _notes(law, prediction, batch * length, sequences / batch)
    if schedule == "constant":
        notes.append("the LR stays constant after the warmup; a decay at the end (--schedule wsd) keeps this peak")
    beta1 = choose("beta1", wishes.beta1, known.beta1, BETA1)
    beta2 = choose("beta2", wishes.beta2, known.beta2, BETA2)
    for name, beta in (("beta1", beta1), ("beta2", beta2)):
        if not beta < 1:
            raise InputError(f"{name} must be below 1, got {beta:g}")
    if known.optimizer and known.optimizer.lower() not in ("adamw", "adam"):
        raise InputError(f"the law is for {known.optimizer}; recipes are for AdamW")
    return Recipe(
        lr=float(f"{prediction.lr:.3g}"),
        min_lr=float(f"{prediction.lr * _floor(schedule):.3g}"),
        schedule=schedule,
        steps=steps,
        warmup_steps=warmup_steps,
        decay_steps=min(decay, steps - warmup_steps),
        batch=batch,
        seq_len=round(length),
        ranks=wishes.ranks,
        micro_batch=wishes.micro_batch,
        weight_decay=choose(
            "weight_decay", wishes.weight_decay,
            prediction.weight_decay if prediction.weight_decay is not None else known.weight_decay, WEIGHT_DECAY,
        ),
        beta1=beta1,
        beta2=beta2,
        origin=origin,
        notes=tuple(notes),
    )  # fmt: skip


def _schedule(name: str | None, given: bool) -> str:
    if name is None:
        return "cosine"
    plain = _SAME.get(name.lower(), name.lower())
    found = next((one for one in SCHEDULES if plain.startswith(one)), None)
    if found is None:
        if given:
            raise InputError(f"--schedule: there is no {name!r}{nearest(name, SCHEDULES)}")
        raise InputError(f"recipes do not have the schedule of the law's runs, {name!r}: give --schedule")
    return found


def _floor(schedule: str) -> float:
    return {"constant": 1.0, "cosine": FLOOR}.get(schedule, 0.0)


def _notes(law: LRLaw, prediction: LRPrediction, batch_tokens: float, ratio: float) -> list[str]:
    place = f"{format_count(prediction.params)} parameters, {format_count(prediction.tokens)} tokens"
    notes = [f"LR by raylr for {place}, batch {format_count(batch_tokens)} tokens"]
    if law.formula:
        where = f" ({law.source})" if law.source else ""
        notes.append(f"law: {law.formula}{where}")
    if math.isfinite(prediction.lr_low) and prediction.lr_low > 0 and math.isfinite(prediction.lr_high):
        span = f"{format_lr(prediction.lr_low)} to {format_lr(prediction.lr_high)}"
        about = f"; optimum of the {law.conditions.objective} loss" if law.conditions.objective else ""
        notes.append(f"{prediction.level:.0%} prediction interval {span}{about}")
    else:
        notes.append("the law has no interval here")
    notes += [part.strip() for part in prediction.message.split(";") if part.strip()]
    if not 0.99 < ratio < 1.01:
        notes.append("the batch is rounded to whole micro-batches on all ranks")
    notes.append("one LR for all parameter groups, as the law's runs had")
    return list(dict.fromkeys(" ".join(note.split()) for note in notes))
