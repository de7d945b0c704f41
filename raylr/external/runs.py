"""The runs of a study with another trainer: what identifies them, their folders, and what Ray Tune gets."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from raylr.analysis.curves.schedule import Schedule
from raylr.analysis.runs import Run
from raylr.analysis.units import format_lr
from raylr.errors import InputError, SpecError
from raylr.execution.executor import Job, Trainable
from raylr.external.placeholders import fill
from raylr.external.sources import OUTPUT
from raylr.external.trial import command_trial, function_trial, users_function
from raylr.spec import StudySpec
from raylr.spec.batches import StudySetting, TrainSettings
from raylr.spec.external import ExternalModel, ExternalTrain
from raylr.store.files import inside, remove_inside
from raylr.trainables.models.spec import AnyModelSpec

Model: TypeAlias = AnyModelSpec | ExternalModel
RUNS = "runs"
"""Folder of a study in which each run has a folder of its own."""


class ExternalRuns:
    """Makes the jobs of a study with another trainer.

    Args:
        spec: The study's spec.
        folder: The study's folder.
    """

    def __init__(self, spec: StudySpec, folder: Path) -> None:
        self._spec, self._folder = spec, folder

    @property
    def trainable(self) -> Trainable:
        """What Ray Tune calls for a trial."""
        return command_trial if self._spec.command else function_trial

    def check(self) -> None:
        """Check that the trainer is there, before anything starts.

        Raises:
            InputError: If a program, a template or a module is missing, or a function is none that trains.
        """
        self._spec.check_models()
        if self._spec.trainable:
            users_function(self._spec.trainable.function, self._spec.trainable.folder)
            return
        command = self._spec.command
        assert command is not None
        if not names_python(command.run[0]) and program(command.run[0], command.folder) is None:
            raise InputError(f"command.run: there is no program {command.run[0]} in {command.folder} or on the path")

    def job(
        self,
        role: str,
        setting: StudySetting,
        model: Model,
        tokens: int,
        lr: float,
        *,
        run: Run,
        train: TrainSettings,
        eval_at: list[int],
        stop_at: int | None = None,
        handle: Any = None,
        columns: Mapping[str, Any] | None = None,
    ) -> Job:
        """Return the job of a run, or of a segment of it.

        Args:
            role: "search" or "check".
            setting: What is searched, or the target.
            model: Its model, with the args of the size.
            tokens: Length of the run.
            lr: Peak LR.
            run: The run.
            train: Its training settings, with batch and seed.
            eval_at: Token counts at which the loss is wanted.
            stop_at: End of the segment; None: that of the run.
            handle: What the policy calls the run.
            columns: Further columns of its rows.
        """
        assert isinstance(model, ExternalModel)
        assert isinstance(train, ExternalTrain)
        size = setting.size
        end = tokens if stop_at is None else stop_at
        folder = inside(self._folder / RUNS, run.name)
        config: dict[str, Any] = {
            "run": run.name,
            "role": role,
            "size": size,
            "lr": lr,
            "dir": str(folder),
            "eval_at": eval_at,
            "stop_at": end,
        }
        if self._spec.command:
            config["command"] = self._spec.command.model_dump(mode="json")
            config["values"] = self._values(size, model, tokens, lr, train, stop_at=end) | {"dir": str(folder)}
            config |= {"batch": train.batch_tokens, "seq_len": train.seq_len}
        else:
            assert self._spec.trainable is not None
            config["trainable"] = self._spec.trainable.model_dump(mode="json")
            config["given"] = dict(model.args) | {
                "lr": lr,
                "tokens": tokens,
                "eval_at": eval_at,
                "stop_at": end,
                "batch": train.batch_tokens,
                "seed": train.seed,
                "params": model.total,
                "size": size,
                "dir": str(folder),
            }
        return Job(
            run=run,
            role=role,
            size=size,
            setting=setting.name,
            lr=lr,
            tokens=tokens,
            stop_at=end,
            batch=train.batch_tokens,
            seed=train.seed,
            config=config,
            handle=handle,
            columns={
                "params": model.total,
                "params_active": model.active,
                **({"optimizer": train.optimizer} if train.optimizer else {}),
                **(columns or {}),
            },
            flops_per_token=model.flops_per_token(),
            eval_at=eval_at,
            schedule=Schedule.named(train.schedule) if train.schedule == "constant" else None,
            log=folder / OUTPUT if self._spec.command else None,
            ends_itself=self._spec.command is not None,
            folder=folder,
        )

    def run(self, role: str, size: str, model: Model, tokens: int, lr: float, train: TrainSettings) -> Run:
        """Return the run of these settings: the filled-in command, or the function and its config.

        Where the loss is read, and how long a run may hang, changes nothing about the run.

        Args:
            role: "search" or "check".
            size: Name of the size.
            model: Its model, with its args.
            tokens: Length of the run.
            lr: Peak LR.
            train: Training settings, with batch and seed.
        """
        assert isinstance(model, ExternalModel)
        assert isinstance(train, ExternalTrain)
        measured: dict[str, Any] = {
            "trainable": self._spec.trainer,
            "purpose": role,
            "lr": lr,
            "tokens": tokens,
            "train": {"batch_tokens": train.batch_tokens, "seed": train.seed},
            "params": model.total,
            "args": dict(model.args),
        }
        if self._spec.command:
            command = self._spec.command
            values = self._values(size, model, tokens, lr, train, stop_at=tokens)
            values |= {name: f"{{{name}}}" for name in ("dir", "python", "size")}
            try:
                measured |= {
                    "command": [fill(word, values) for word in command.run],
                    "env": {name: fill(text, values) for name, text in command.env.items()},
                    "files": {name: fill(_template(path), values) for name, path in command.files.items()},
                    "read": command.read.model_dump(exclude_defaults=True),
                }
            except SpecError as error:
                raise SpecError(f"command: {error}") from None
        else:
            assert self._spec.trainable is not None
            measured["function"] = self._spec.trainable.function
        return Run(measured=measured, label=f"{size}-lr{format_lr(lr)}")

    def drop_checkpoints(self, run: str) -> None:
        """Remove the checkpoints of a run that has ended: what `command.checkpoint` matches, and those of Tune."""
        folder = inside(self._folder / RUNS, run)
        command = self._spec.command
        for path in folder.glob(command.checkpoint) if command and command.checkpoint else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for path in (self._folder / "tune").glob(f"*/{run}_*/checkpoint_*"):
            remove_inside(path.parent, path.name)

    def _values(
        self, size: str, model: ExternalModel, tokens: int, lr: float, train: ExternalTrain, *, stop_at: int
    ) -> dict[str, Any]:
        batch = train.batch_tokens
        interval = tokens // self._spec.validations // batch * batch or batch
        return dict(model.args) | {
            "lr": lr,
            "tokens": tokens,
            "steps": tokens // batch,
            "batch": batch,
            "sequences": None if train.seq_len is None else batch // train.seq_len,
            "seq_len": train.seq_len,
            "seed": train.seed,
            "params": model.total,
            "size": size,
            "warmup_tokens": train.warmup,
            "warmup_steps": round(train.warmup / batch),
            "eval_tokens": interval,
            "eval_steps": interval // batch,
            "stop_tokens": stop_at,
            "stop_steps": -(-stop_at // batch),
        }


def names_python(word: str) -> bool:
    """Return whether the first word of a command is the interpreter that runs raylr."""
    return word == "{python}" or word == sys.executable


def program(name: str, folder: Path) -> str | None:
    """Return the program that a command starts; None if there is none."""
    beside = folder / name
    if "/" in name and beside.exists():
        return shutil.which(str(beside))
    return shutil.which(name)


def _template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"command.files: cannot read {path} ({error})") from None
