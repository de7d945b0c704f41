"""What Tune keeps of a trial."""

import copy
import os
import pickle

from raylr.execution.trials import JOB, only_own_loggers, packed, unpacked


def test_a_trainable_gets_the_config_of_its_job_and_tune_a_few_keys():
    config = {"run": "r", "lr": 1e-3, "model": {"layers": 2, "factors": (1, 2)}, "eval_at": [1, 2]}
    trial = packed(config)
    assert {key: value for key, value in trial.items() if key != JOB} == {"run": "r", "lr": 1e-3}
    assert copy.deepcopy(trial)[JOB] is trial[JOB]
    got = []
    unpacked(got.append)(pickle.loads(pickle.dumps(trial)))
    assert got == [config]
    assert "layers" in str(trial[JOB])


def test_other_experiments_keep_their_loggers(monkeypatch):
    name = "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"
    for before in (None, "0"):
        monkeypatch.delenv(name, raising=False)
        if before is not None:
            monkeypatch.setenv(name, before)
        with only_own_loggers():
            assert os.environ[name] == "1"
        assert os.environ.get(name) == before
