"""Where the loss of another trainer's runs is read: keys of a spec's `read`, and a preset for each known trainer.

Formats and keys of the presets were taken from the trainers' own sources: Megatron-LM d98e8a6
(megatron/training/training.py), torchtitan b5bcd76 (components/metrics.py, components/validate.py), nanotron 2411b02
(src/nanotron/trainer.py), DeepSpeed edaa722 (runtime/pipe/engine.py), transformers 5.23.0 (trainer_callback.py),
LLaMA-Factory ff6d4d1 (train/callbacks.py), OLMo-core fa6c501 (train/callbacks/wandb.py), levanter 9263f81.
"""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import model_validator

from raylr.errors import nearest
from raylr.spec.fields import Section

_NUMBER = r"[-+.\w]+"


class ReadSpec(Section):
    """Where the loss of another trainer's runs is read while they train; may be written as the name of a preset.

    A record (a line, an event, a step) counts if it has the loss. Its tokens are read from it, or computed from its
    sequences or optimizer steps.
    """

    format: Literal["json", "regex", "tensorboard", "wandb", "trainer_state"] = "json"
    """"json": lines that hold a JSON object each. "regex": lines that `pattern` matches. "tensorboard": event files.
    "wandb": W&B's offline files (`run-*.wandb`). "trainer_state": Hugging Face's trainer_state.json in checkpoints."""
    file: str | None = None
    """Pattern of the names of the files to read, in the run's folder, such as "logs/*.jsonl". Without it: what the
    command prints (formats json and regex), or all files of the format."""
    pattern: str | None = None
    """Format regex: a regular expression with the named groups `loss` and one of `tokens`, `sequences`, `steps`;
    further groups (`lr`: the LR of the schedule at that step) become columns of the run table."""
    loss: str = "loss"
    """Key of the loss in nats per token; `eval/loss` is also the key `loss` inside of `eval`."""
    tokens: str | None = None
    """Key of the training tokens so far."""
    sequences: str | None = None
    """Key of the training sequences so far, in place of `tokens`; needs `train.seq_len`."""
    steps: str | None = None
    """Key of the optimizer steps so far, in place of `tokens`."""
    lr: str | None = None
    """Key of the LR of the schedule at that step; None: it is not read."""
    average: bool = False
    """Whether to average all losses since the last of the `validations` points, for losses of single training steps.
    Otherwise each record is a measurement."""
    diverged: str | None = None
    """A regular expression: a line of the output that matches it means that the run diverged."""

    @model_validator(mode="before")
    @classmethod
    def _from_a_preset(cls, data: Any) -> Any:
        if isinstance(data, str):
            if data not in PRESETS:
                raise ValueError(f"{data!r} is not a preset{nearest(data, PRESETS)}")
            return dict(PRESETS[data])
        return data

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for key in ("pattern", "diverged"):
            try:
                re.compile(getattr(self, key) or "")
            except re.error as error:
                raise ValueError(f"{key} is not a regular expression: {error}") from None
        if (self.format == "regex") != (self.pattern is not None):
            raise ValueError("format regex and a pattern belong together: give both or neither")
        if self.format == "regex":
            groups = set(re.compile(self.pattern or "").groupindex)
            if "loss" not in groups or not groups & {"tokens", "sequences", "steps"}:
                raise ValueError(
                    "pattern needs the named groups (?P<loss>…) and one of (?P<tokens>…), (?P<sequences>…), "
                    "(?P<steps>…)"
                )
        elif sum(getattr(self, key) is not None for key in ("tokens", "sequences", "steps")) > 1:
            raise ValueError("give one of tokens, sequences and steps")
        return self

    @property
    def position(self) -> tuple[str, str]:
        """Return what counts the progress (tokens, sequences or steps), and its key."""
        if self.format == "regex":
            groups = re.compile(self.pattern or "").groupindex
            kind = next(kind for kind in ("tokens", "sequences", "steps") if kind in groups)
            return kind, kind
        given = [(kind, str(getattr(self, kind))) for kind in ("tokens", "sequences", "steps") if getattr(self, kind)]
        return given[0] if given else _POSITION[self.format]


_POSITION = {
    "json": ("tokens", "tokens"),
    "tensorboard": ("steps", "step"),
    "wandb": ("steps", "_step"),
    "trainer_state": ("steps", "step"),
}
"""Format → what counts the progress, and its key, if the spec says nothing."""

_MEGATRON = (
    r"iteration\s+(?P<steps>\d+)/\s*\d+ \|.*?consumed samples:\s+\d+ \|"
    rf"(?:.*?learning rate: (?P<lr>{_NUMBER}) \|)?.*?lm loss: (?P<loss>{_NUMBER}) \|"
)
_MEGATRON_NAN = r"number of nan iterations:\s+[1-9]|found NaN in local forward loss"
PRESETS: dict[str, dict[str, Any]] = {
    "json": {"format": "json"},
    "megatron": {
        "format": "regex",
        "pattern": rf"validation loss at iteration (?P<steps>\d+)[^|]*\| lm loss value: (?P<loss>{_NUMBER}) \|",
        "diverged": _MEGATRON_NAN,
    },
    "megatron-train": {"format": "regex", "pattern": _MEGATRON, "average": True, "diverged": _MEGATRON_NAN},
    "torchtitan": {
        "format": "regex",
        "pattern": rf"validate step:\s*(?P<steps>\d+)\s+loss:\s*(?P<loss>{_NUMBER})",
        "diverged": r"(?<!validate )step:\s*\d+\s+loss:\s*(?:nan|-?inf)",
    },
    "torchtitan-train": {
        "format": "regex",
        "pattern": rf"(?<!validate )step:\s*(?P<steps>\d+)\s+loss:\s*(?P<loss>{_NUMBER})",
        "average": True,
    },
    "nanotron": {
        "format": "regex",
        "pattern": (
            r"iteration: (?P<steps>\d+) / \d+ \| consumed_tokens: "
            rf".*?lm_loss: (?P<loss>{_NUMBER})(?:.*?\| lr: (?P<lr>{_NUMBER}))?"
        ),
        "average": True,
    },
    "deepspeed": {
        "format": "regex",
        "pattern": rf"^steps: (?P<steps>\d+) loss: (?P<loss>{_NUMBER})",
        "average": True,
    },
    "huggingface": {
        "format": "trainer_state",
        "loss": "eval_loss",
        "diverged": r"'(?:eval_)?loss': '?(?:nan|-?inf)",
    },
    "huggingface-train": {"format": "trainer_state", "loss": "loss", "lr": "learning_rate", "average": True},
    "llamafactory": {
        "format": "json",
        "file": "**/trainer_log.jsonl",
        "loss": "eval_loss",
        "steps": "current_steps",
    },
    "tensorboard": {"format": "tensorboard"},
    "wandb": {"format": "wandb"},
}
"""Name of a preset → its keys. Those that end in -train read the loss of training steps, for runs without
validation."""
