import os

from raylr.external.process import environment


def test_a_command_is_a_job_of_its_own(monkeypatch, tmp_path):
    for name in ("RAY_ADDRESS", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    found = environment(tmp_path, {"WANDB_DIR": "here", "MASTER_PORT": "29500"})
    assert not {"RAY_ADDRESS", "RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"} & set(found)
    assert found["MASTER_PORT"] == "29500"  # what the spec sets is set
    assert found["CUDA_VISIBLE_DEVICES"] == "3"
    assert found["PYTHONPATH"].split(os.pathsep) == [str(tmp_path), "/elsewhere"]
    assert found["WANDB_DIR"] == "here"
