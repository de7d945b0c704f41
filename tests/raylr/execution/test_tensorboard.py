"""TensorBoard's files of trials, read by raylr's own reader of event files (`raylr.records.tensorboard`)."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from raylr.execution import tensorboard
from raylr.execution.tensorboard import EventFile, TensorBoard
from raylr.records.tensorboard import event_record, read_event, whole_events


def events_in(folder):
    (file,) = folder.glob("events.out.tfevents.*")
    return whole_events(file.read_bytes(), 0)[0]


class Trial(SimpleNamespace):
    """What a logger uses of one of Tune's trials."""

    __hash__ = object.__hash__

    def init_local_path(self):
        """Its folder is there."""


def trial_in(folder, **params):
    return Trial(local_path=str(folder), evaluated_params=params)


def test_reports_and_hyperparameters_of_a_trial_are_in_its_file(tmp_path):
    logger, trial = TensorBoard(), trial_in(tmp_path, lr=1e-3, size="S")
    logger.log_trial_start(trial)
    for i in (1, 2):
        result = {"loss": 3.0 / i, "tokens": 10 * i, "more": {"x": 1}, "gone": math.nan, "training_iteration": i}
        logger.log_trial_result(i, trial, result | {"config": {"lr": 1e-3}, "draws": [1.0, 2.0], "picture": np.eye(3)})
    logger.log_trial_end(trial)
    events = events_in(tmp_path)
    assert [record for record in map(event_record, events) if record] == [
        {"step": i, "ray/tune/loss": 3.0 / i, "ray/tune/tokens": 10 * i, "ray/tune/more/x": 1} for i in (1, 2)
    ]
    assert {"lr": 1e-3, "size": "S"} in [read_event(event).hyperparameters for event in events]
    assert b"ray/tune/draws" in events[1]


def test_a_trial_that_goes_on_keeps_one_file(tmp_path):
    logger, trial = TensorBoard(), trial_in(tmp_path)
    for i in (1, 2):
        logger.log_trial_start(trial)
        logger.log_trial_result(i, trial, {"loss": 1.0, "training_iteration": i})
        (file,) = tmp_path.glob("*") if i == 2 else [tmp_path / logger._trial_writer[trial]._path.name]
    logger.log_trial_end(trial)
    assert file.exists()
    assert [record["step"] for record in map(event_record, events_in(tmp_path)) if record] == [1, 2]


def test_events_are_written_in_time_while_the_trial_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "WRITE_SECONDS", 0.0)
    file = EventFile(str(tmp_path))
    file.add_scalar("loss", 2.0, 1)
    file.flush()
    assert event_record(events_in(tmp_path)[-1]) == {"step": 1, "loss": 2.0}


@pytest.mark.parametrize("partly", [False, True])
def test_a_disk_that_fails_ends_nothing_and_leaves_no_torn_file(tmp_path, monkeypatch, partly):
    file = EventFile(str(tmp_path))
    file.add_scalar("loss", 2.0, 1)
    file.close()
    path, opened = file._path, type(file._path).open

    class Full:
        def __init__(self, real):
            self.real = real

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.real.close()

        def __getattr__(self, name):
            return getattr(self.real, name)

        def write(self, data):
            self.real.write(data[: len(data) // 2])
            self.real.flush()
            raise OSError("no space left")

    def full(self, mode):
        if not partly:
            raise OSError("no space left")
        return Full(opened(path, mode))

    file.add_scalar("loss", 1.0, 2)
    with monkeypatch.context() as broken:
        broken.setattr(type(path), "open", full)
        file.close()
    file.close()
    assert [record["loss"] for record in map(event_record, events_in(tmp_path)) if record] == [2.0, 1.0]
