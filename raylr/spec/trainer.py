"""The keys of a spec that name another trainer than raylr's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import pydantic
from pydantic import model_validator

from raylr.errors import SpecError
from raylr.spec.external import CommandSpec, ExternalModel, ExternalSize, ExternalTrain, TrainableSpec
from raylr.spec.fields import Section
from raylr.spec.messages import explain


class TrainerKeys(Section):
    """Base of the spec: what trains its runs."""

    command: CommandSpec | None = None
    """A command line that trains one run, in place of raylr's own trainer. The spec then has no corpus, and `sizes` and
    `train` have other keys."""
    trainable: TrainableSpec | None = None
    """A function that trains one run, in place of raylr's own trainer; as for `command`."""

    @model_validator(mode="after")
    def _one_trainer(self) -> Self:
        if self.command and self.trainable:
            raise ValueError("command and trainable are two ways to name the trainer; give one")
        return self

    @property
    def external(self) -> bool:
        """Whether another trainer trains the runs."""
        return self.command is not None or self.trainable is not None

    @property
    def trainer(self) -> str:
        """The key that names the other trainer: command or trainable; "" for raylr's own."""
        return "command" if self.command else "trainable" if self.trainable else ""

    def check_command(self, models: Mapping[str, ExternalModel], train: Any, *, pauses: bool) -> None:
        """Check the placeholders of the command, if there is one, and that its runs can be paused if they will be.

        Raises:
            ValueError: In one sentence.
        """
        if self.command is None:
            return
        self.command.check_names(models)
        if isinstance(train, ExternalTrain) and train.seq_len is None:
            self.command.check_without_sequences()
        if pauses and self.command.resume is None:
            raise ValueError("search.method surface pauses runs and continues them: command needs resume")

    def check_templates(self, models: Mapping[str, ExternalModel], schedule: str) -> None:
        """Check the command with the templates of its files, which are read.

        Raises:
            SpecError: In one sentence.
        """
        try:
            if self.command:
                self.command.check(models, schedule=schedule)
        except ValueError as error:
            raise SpecError(str(error)) from None


def external_model(name: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> ExternalModel:
    """Return the model of a size: its keys on top of those that all sizes share, `args` merged key by key.

    Raises:
        ValueError: In one sentence that names the size.
    """
    whole = {**shared, **own}
    shared_args, own_args = shared.get("args"), own.get("args")
    if isinstance(shared_args, Mapping) and isinstance(own_args, Mapping):
        whole["args"] = {**shared_args, **own_args}
    try:
        return ExternalSize.model_validate(whole).model()
    except pydantic.ValidationError as error:
        raise ValueError(f"size {name!r}: {explain(error, ExternalSize)}") from None


def is_external(data: Mapping[str, Any]) -> bool:
    """Return whether the keys validated so far name another trainer; a key that is missing has failed its check."""
    return any(data.get(key, True) is not None for key in ("command", "trainable"))
