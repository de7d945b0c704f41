"""What Ray Tune keeps of a trial: as little as it needs, since a study's tables hold everything.

Tune copies, flattens and writes a trial's config with every report and into every snapshot of the experiment; by its
own loggers it takes more than twice the driver's time for a report that has no config of hundreds of keys
(`benchmarks/scale.py`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from raylr.execution.executor import Config, Trainable

JOB = "job"
"""Key of a trial's config that holds the whole config of its job."""
SHOWN = ("run", "role", "size", "lr", "tokens")
"""Keys of a job's config that people read in Tune's output, in TensorBoard and in experiment trackers."""


class Held:
    """A job's config as one value that Tune neither copies nor takes apart.

    Args:
        config: The config; nothing changes it.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)

    def __deepcopy__(self, memo: dict[int, Any]) -> Held:
        return self

    def __repr__(self) -> str:
        return repr(self.config)


def packed(config: Mapping[str, Any]) -> Config:
    """Return the config of a trial for a job's config; `unpacked` gives the trainable the latter."""
    return {**{key: config[key] for key in SHOWN if key in config}, JOB: Held(config)}


def unpacked(trainable: Trainable) -> Trainable:
    """Return a trainable of trials whose configs `packed` made."""

    def train(config: Config) -> Any:
        return trainable(dict(config[JOB].config))

    return train


def without_state(trial: Any) -> None:
    """Leave a trial that Tune adds out of its snapshots of the experiment, and let Tune keep no statistics of it.

    A study is never restored from snapshots, and writing the state of each trial again and again takes a tenth of the
    driver's time and half of its memory. For each metric of each trial, Tune keeps the least, the greatest and the mean
    value and the last fifteen, for as long as the experiment runs: most of what the driver holds of a trial.
    """
    trial.get_json_state = lambda: ("", "")
    if (metadata := getattr(trial, "run_metadata", None)) is not None:  # Ray does not document it
        metadata.update_metric = lambda *args, **kwargs: None


@contextlib.contextmanager
def only_own_loggers() -> Iterator[None]:
    """Keep Tune from writing `result.json` and `progress.csv` of each trial while the block runs."""
    name = "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
