"""Sections of a spec whose runs are trained by another trainer: `command` or `trainable`, sizes, and `train`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from raylr.analysis.units import parse_count
from raylr.errors import InputError
from raylr.external.placeholders import CHECKPOINT, LENGTHS, RUN, known, names
from raylr.external.read import ReadSpec
from raylr.spec.fields import FilePath, Section, Tokens
from raylr.trainables.models.loading import NAME

if TYPE_CHECKING:
    from raylr.analysis.laws.conditions import Conditions
    from raylr.trainables.models.spec import ParamKind

FLOPS_PER_PARAMETER = 6.0
"""FLOPs of training on one token, forward and backward, for each parameter (Kaplan et al. 2020, Section 2.1)."""


def _params(value: object) -> int:
    try:
        return round(parse_count(value))
    except (InputError, OverflowError):
        raise ValueError(f"{value!r} is not a number of parameters; write a number such as 1.2e9 or 1.2B") from None


def _words(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            raise ValueError(f"the command line cannot be split into words: {error}") from None
    if isinstance(value, list | tuple):
        return tuple(str(word) if isinstance(word, int | float) else word for word in value)
    return value


def _texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: str(item) if isinstance(item, int | float) else item for key, item in value.items()}
    return value


_SECRET = re.compile(r"(?i)(^|_)(API_?KEY|ACCESS_?KEY|SECRET|SECRET_KEY|PASSWORD|PASSWD|AUTH|TOKEN)$")
_SPECIAL = re.compile(r"(?i).*(EOS|BOS|PAD|UNK|MASK|SEP|CLS|END|START)_TOKEN$")
"""Variables that name a secret, and tokens of a vocabulary, which do not."""
Count = Annotated[int, BeforeValidator(_params)]
"""A number of parameters, as 1200000000, 1.2e9 or 1.2B."""
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
"""The words of a command line; a text is split as a shell does."""
Variables = Annotated[dict[str, str], BeforeValidator(_texts)]


class CommandSpec(Section):
    """A command line that trains one run; may be written as the list of its words.

    It runs as a subprocess in a folder of its own, which all its runs share with nobody. Words, `resume`, `env` and
    `files` may hold placeholders in braces, such as {lr}; docs/own_trainer.md lists them.
    """

    run: Words = Field(min_length=1)
    """The words of the command line. A word that names a file in `folder` becomes its full path."""
    read: ReadSpec = ReadSpec()
    """Where the loss is read; a section, or the name of a preset: json, megatron, megatron-train, torchtitan,
    torchtitan-train, nanotron, deepspeed, huggingface, huggingface-train, llamafactory, tensorboard, wandb."""
    resume: Words | None = None
    """Words to add when a run that was stopped is continued, such as [--resume, "{checkpoint}"]. An empty list: the
    command finds its checkpoint in {dir}. Without this key a run that was stopped starts again from its
    beginning."""
    checkpoint: str | None = None
    """Pattern of the names of checkpoints in the run's folder, such as "checkpoint-*"; the one with the highest number
    in its name is the newest."""
    env: Variables = Field(default_factory=dict)
    """Environment variables, in addition to those of raylr, which the command gets anyway. Passwords and keys are
    refused: a spec is copied into the study's folder."""
    files: dict[str, FilePath] = Field(default_factory=dict)
    """Files to write into the run's folder first: name → a template, whose placeholders are filled in. For trainers
    that are configured by a file."""
    folder: FilePath = Field(default=".", validate_default=True)
    """Folder that relative names in the command start from; it is on the Python path of the command. Default: that of
    the spec."""
    grace_seconds: float = Field(default=30.0, ge=0)
    """Time between SIGTERM and SIGKILL when a run is stopped, and time that a run has to end after its last loss."""
    report_seconds: float = Field(default=3600.0, gt=0)
    """A run that reports no loss for so long hangs, and is stopped."""

    @model_validator(mode="before")
    @classmethod
    def _from_words(cls, data: Any) -> Any:
        return {"run": data} if isinstance(data, str | list | tuple) else data

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if CHECKPOINT in self._names(self.resume or ()) and self.checkpoint is None:
            raise ValueError(
                'resume has {checkpoint}, so checkpoint must say how checkpoints are called, such as "checkpoint-*"'
            )
        for key, pattern in (("checkpoint", self.checkpoint), ("read.file", self.read.file)):
            if pattern is not None and (pattern.startswith(("/", "~")) or ".." in pattern.split("/") or not pattern):
                raise ValueError(f"{key}: {pattern!r} must be the name of files inside the run's folder")
        secret = next((name for name, value in self.env.items() if _SECRET.search(name) and value), None)
        if secret is not None and not _SPECIAL.match(secret):
            raise ValueError(
                f"env: {secret} looks like a password or a key, and a spec is copied into the study's folder and the "
                "report; leave it out and set it in the environment of raylr, which the command gets"
            )
        for name in self.files:
            if name.startswith(("/", "~")) or ".." in name.split("/") or not name:
                raise ValueError(f"files: {name!r} must be the name of a file inside the run's folder")
        return self

    @staticmethod
    def _names(texts: Any) -> set[str]:
        return {name for text in texts for name in names(text)}

    def placeholders(self) -> set[str]:
        """Return the placeholders of the command, without those of `files`."""
        return self._names((*self.run, *self.env.values(), *(self.resume or ())))

    def file_placeholders(self) -> set[str]:
        """Return the placeholders that may be meant in the templates of `files`. Raises OSError."""
        return self._names(path.read_text(encoding="utf-8") for path in self.files.values())

    def check(self, sizes: Mapping[str, ExternalModel], *, schedule: str) -> None:
        """Check the placeholders for every size, and that the command gets what it needs. Reads the templates.

        Raises:
            ValueError: In one sentence.
        """
        try:
            used = self.placeholders() | self.file_placeholders()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"command.files: {error}") from None
        for size, model in sizes.items():
            idle = sorted(set(model.args) - used)
            if idle:
                raise ValueError(f"size {size!r}: args.{idle[0]} is not used: the command has no {{{idle[0]}}}")
        if "lr" not in used:
            raise ValueError("command: it has no {lr}, so that every run would train at the same learning rate")
        if schedule != "constant" and not used & LENGTHS:
            raise ValueError(
                f"command: it has none of {{tokens}} and {{steps}}, but a {schedule} schedule depends on the length of "
                "the run"
            )

    def check_without_sequences(self) -> None:
        """Check that nothing is counted in sequences, whose length is not known. Raises ValueError."""
        counted = sorted(self.placeholders() & {"sequences", "seq_len"})
        what = f"{{{counted[0]}}}" if counted else "read" if self.read.position[0] == "sequences" else ""
        if what:
            raise ValueError(f"train.seq_len is missing: {what} of the command needs the tokens of one sequence")

    def check_names(self, sizes: Mapping[str, ExternalModel]) -> None:
        """Check that every placeholder of the command is known for every size. Raises ValueError."""
        for size, model in sizes.items():
            there = {*RUN, *model.args}
            for key, texts in (("run", self.run), ("env", self.env.values()), ("resume", self.resume or ())):
                allowed = there | {CHECKPOINT} if key == "resume" else there
                unknown = sorted(self._names(texts) - allowed)
                if unknown:
                    raise ValueError(
                        f"command.{key}: {{{unknown[0]}}} is no placeholder and no arg of size {size!r}; "
                        f"{known(allowed)}; write {{{{{unknown[0]}}}}} for the text"
                    )


class TrainableSpec(Section):
    """A function that trains one run as Ray Tune calls it; may be written as its name, package.module:function."""

    function: str = Field(pattern=NAME)
    """Module and name of the function. It is called with a dict: lr, tokens, eval_at, stop_at, batch, seed, params,
    size, dir (a folder of the run's own), and the args of the size. It reports `loss` and `tokens` by
    ray.tune.report."""
    folder: FilePath = Field(default=".", validate_default=True)
    """Folder that the module is imported from, if it is not installed. Default: that of the spec."""

    @model_validator(mode="before")
    @classmethod
    def _from_a_name(cls, data: Any) -> Any:
        return {"function": data} if isinstance(data, str) else data


class ExternalSize(Section):
    """A model size of another trainer."""

    params: Count
    """Parameters of the model, as 1.2e9 or 1.2B: what the law is fitted over."""
    active_params: Count | None = None
    """Parameters that one token uses, for mixtures of experts. Default: all."""
    args: dict[str, Any] = Field(default_factory=dict)
    """What makes the size: each is a placeholder of the command, or a key of the function's config."""

    @model_validator(mode="after")
    def _args(self) -> Self:
        for name in self.args:
            if name in RUN or name in CONFIG_KEYS or not name.isidentifier():
                raise ValueError(f"args: {name!r} cannot be the name of an arg" + (
                    ": raylr sets it" if name in RUN or name in CONFIG_KEYS else "; use letters, digits and _"
                ))  # fmt: skip
        if self.active_params is not None and self.active_params > self.params:
            raise ValueError(f"active_params {self.active_params} is above params {self.params}")
        return self

    def model(self) -> ExternalModel:
        """Return the model, as the rest of a study sees it."""
        return ExternalModel(total=self.params, active=self.active_params or self.params, args=dict(self.args))


CONFIG_KEYS = frozenset(("lr", "tokens", "eval_at", "stop_at", "batch", "seed", "params", "size", "dir", CHECKPOINT))
"""Keys of the config of a function, beside the args of the size."""


@dataclass(frozen=True, kw_only=True)
class ExternalModel:
    """A model of which raylr knows the parameters alone."""

    total: int
    active: int
    args: Mapping[str, Any]

    def params(self, kind: ParamKind = "total") -> int:
        """Return the number of parameters."""
        return self.active if kind == "active" else self.total

    def with_args(self, more: Mapping[str, Any]) -> ExternalModel:
        """Return the model with further args."""
        return replace(self, args={**self.args, **more})

    def flops_per_token(self, seq_len: int | None = None) -> float:
        """Return 6 FLOPs for each parameter that a token uses (attention is not known)."""
        return FLOPS_PER_PARAMETER * self.active


class ExternalTrain(Section):
    """How another trainer trains its runs.

    raylr does not set these: the law stores them, and budgets are counted in batches.
    """

    batch_tokens: Tokens
    """Tokens of one optimizer step."""
    schedule: Literal["constant", "wsd", "cosine", "linear"]
    """What the LR does after the warmup. At "constant" runs may be stopped early, since a power law then predicts
    their end; the others are compared by their final losses."""
    seq_len: int | None = Field(default=None, gt=0)
    """Tokens of one sequence; for {sequences} and for trainers that count sequences."""
    warmup_tokens: int | None = Field(default=None, ge=0)
    """Tokens of the warmup; the placeholders {warmup_tokens} and {warmup_steps}."""
    weight_decay: float | None = Field(default=None, ge=0)
    """Weight decay."""
    optimizer: str | None = None
    """Name of the optimizer, such as adamw or muon."""
    betas: tuple[float, float] | None = None
    """β₁ and β₂ of the optimizer."""
    seed: int = Field(default=0, ge=0)
    """First value of the placeholder {seed}; a replicate of a run gets the next."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.seq_len is not None and self.batch_tokens % self.seq_len:
            raise ValueError(
                f"batch_tokens={self.batch_tokens} is not a whole number of sequences of {self.seq_len} tokens"
            )
        return self

    @property
    def warmup(self) -> int:
        """Return the length of the warmup in tokens."""
        return self.warmup_tokens or 0

    def round_tokens(self, tokens: float) -> int:
        """Return the whole number of batches nearest to `tokens`, in tokens, at least one batch."""
        return max(1, round(tokens / self.batch_tokens)) * self.batch_tokens

    def conditions(self, objective: str) -> Conditions:
        """Return what a law stores about runs with these settings; what the spec does not say is not known."""
        from raylr.analysis.laws.conditions import Conditions

        return Conditions(
            batch_tokens=float(self.batch_tokens),
            schedule=self.schedule,
            warmup_tokens=None if self.warmup_tokens is None else float(self.warmup_tokens),
            weight_decay=self.weight_decay,
            optimizer=self.optimizer,
            beta1=self.betas[0] if self.betas else None,
            beta2=self.betas[1] if self.betas else None,
            seq_len=None if self.seq_len is None else float(self.seq_len),
            objective=objective if self.schedule == "constant" else "decayed",
        )
