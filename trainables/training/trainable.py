"""`pretrain`: the training loop as a Ray Tune trainable, and what a trial of it needs."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

from raylr.trainables.training.arguments import arguments
from raylr.trainables.training.checkpoint import RunFolder
from raylr.trainables.training.loop import train
from raylr.trainables.training.metrics import Row
from raylr.trainables.training.spec import TrainSpec

END_SECONDS = "600"
"""Seconds that Tune waits for a stopped trial to free its engine before it uses the process again; its default is 2 s.
A trial that does not end in time fails, and Tune 2.60 does not notify the searcher, which then waits forever."""


class Trainable(Protocol):
    """What can be searched: any function trainable of Ray Tune that keeps this contract. `pretrain` is one.

    Its config holds `lr` (the peak LR) and `tokens` (training tokens of the whole run). It may hold `eval_at` (token
    counts at which the loss is wanted, the last is `tokens`), `stop_at` (one of them, at which this trial is to stop),
    and further keys of its own. The trainable reports rows with at least `loss` and `tokens`, under the names of
    `raylr.trainables.training.metrics`; a row may have further columns, which the run table keeps. A loss that is NaN
    or infinite, or a row with `run_end` = `diverged`, means that the LR is too high. An exception does not
    count against the LR.
    """

    def __call__(self, config: dict[str, Any]) -> None:
        """Run one trial."""
        ...


def pretrain(config: dict[str, Any]) -> None:
    """Train one run: Ray Tune's function trainable around `raylr.trainables.train`.

    Every point of `eval_at` is reported. With more than one worker the trial is a driver of Ray Train (see `workers`).

    Args:
        config: `lr`, `model` (fields of `ModelSpec`, or `hf`), `train` (fields of `TrainSpec`), `corpus` (folder) and
            `tokens`; optionally all other arguments of `raylr.trainables.train` that are plain values. By default each
            report carries a checkpoint, so that a scheduler may pause the trial, unless there is a `run_dir`
            (`checkpoint_reports`).

    Raises:
        InputError: For an unknown key and for a run that cannot be.

    Example:
        A trial needs Ray, so the tests run `pretrain` in experiments (`tests/raylr/test_study_runs.py`).

        >>> from ray import tune
        >>> space = {"lr": 1e-3, "model": model, "train": train, "corpus": "corpus", "tokens": 640}  # doctest: +SKIP
        >>> results = tune.Tuner(pretrain, param_space=space).fit()  # doctest: +SKIP
    """
    from ray import tune

    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", END_SECONDS)
    given = arguments(config)
    if given["train"].workers > 1:
        from raylr.trainables.training.workers import drive

        drive(config, given)
        return

    def report(row: Row, checkpoint: Path | None) -> None:
        tune.report(row, checkpoint=tune.Checkpoint.from_directory(str(checkpoint)) if checkpoint else None)

    checkpoint = tune.get_checkpoint()
    with (
        RunFolder(given["run_dir"]).alone() if given.get("run_dir") is not None else nullcontext(),
        checkpoint.as_directory() if checkpoint is not None else nullcontext() as folder,
    ):
        train(**given, report=report, resume_from=folder, threads=trial_threads())


def trial_resources(train: TrainSpec, *, cpus: float = 1, gpus: float = 0) -> dict[str, float]:
    """Return the resources that one trial requests from Ray Tune.

    Args:
        train: With several workers the trial is the driver alone: Ray Train requests theirs, so limit how many trials
            run at a time.
        cpus: CPU threads of a trial in one process.
        gpus: Its GPUs.

    Returns:
        Amounts by the names of Ray's resources.

    Example:
        >>> trial_resources(TrainSpec(seq_len=8, batch_tokens=64), cpus=2)
        {'CPU': 2, 'GPU': 0}
    """
    return {"CPU": 0.5} if train.workers > 1 else {"CPU": cpus, "GPU": gpus}


def trial_threads() -> int:
    """Return the CPU threads of this trial.

    Returns:
        The CPUs that Ray gave to the trial, at least 1.

    Example:
        Inside a trial that requested `trial_resources(train, cpus=2)`:

        >>> trial_threads()  # doctest: +SKIP
        2
    """
    from ray import tune

    resources = tune.get_context().get_trial_resources()
    return max(1, int(resources.bundles[0].get("CPU", 1))) if resources is not None else 1
