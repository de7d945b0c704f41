import os

import pytest

from raylr.errors import SpecError
from raylr.trainables import TrainSpec, pretrain, trial_resources


def test_the_trainable_refuses_unknown_keys() -> None:
    with pytest.raises(SpecError, match="unknown leraning_rate; known are "):
        pretrain({"leraning_rate": 1})


def test_a_stopped_trial_has_time_to_free_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "TUNE_FUNCTION_THREAD_TIMEOUT_S"
    for before, after in ((None, "600"), ("7", "7")):
        if before is None:
            monkeypatch.setenv(name, "")  # so that it is put back
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, before)
        with pytest.raises(SpecError, match="unknown"):
            pretrain({"leraning_rate": 1.0})
        assert os.environ[name] == after


def test_the_driver_of_several_workers_requests_half_a_cpu() -> None:
    one, two = (TrainSpec(seq_len=8, batch_tokens=64, workers=workers) for workers in (1, 2))
    assert trial_resources(one, cpus=3, gpus=1) == {"CPU": 3, "GPU": 1}
    assert trial_resources(two, cpus=3, gpus=1) == {"CPU": 0.5}
