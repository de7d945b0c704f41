"""What Tune keeps of a trial."""

import copy
import os
import pickle

from ray.tune.experiment import Trial

from raylr.execution.trials import JOB, only_own_loggers, packed, unpacked, without_state


def test_a_trainable_gets_the_config_of_its_job_and_tune_a_few_keys():
    config = {"run": "r", "lr": 1e-3, "model": {"layers": 2, "factors": (1, 2)}, "eval_at": [1, 2]}
    trial = packed(config)
    assert {key: value for key, value in trial.items() if key != JOB} == {"run": "r", "lr": 1e-3}
    assert copy.deepcopy(trial)[JOB] is trial[JOB]
    got = []
    unpacked(got.append)(pickle.loads(pickle.dumps(trial)))
    assert got == [config]
    assert "layers" in str(trial[JOB])


def test_tune_keeps_the_last_report_of_a_trial_and_no_more():
    usual, ours = (Trial("lambda", config={}, stub=True) for _ in range(2))
    without_state(ours)
    for step in range(1, 30):
        for trial in (usual, ours):
            trial.update_last_result({"loss": 1 / step, "training_iteration": step, "pid": 1, "node_ip": "127.0.0.1"})
    assert usual.run_metadata.metric_analysis["loss"]["max"] == 1  # what it keeps of others
    assert ours.run_metadata.metric_analysis == ours.run_metadata.metric_n_steps == {}
    assert ours.last_result["loss"] == 1 / 29
    assert ours.get_json_state() == ("", "")


def test_other_experiments_keep_their_loggers(monkeypatch):
    name = "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"
    for before in (None, "0"):
        monkeypatch.delenv(name, raising=False)
        if before is not None:
            monkeypatch.setenv(name, before)
        with only_own_loggers():
            assert os.environ[name] == "1"
        assert os.environ.get(name) == before
