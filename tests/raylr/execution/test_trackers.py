import pytest

from raylr.errors import InputError
from raylr.execution.trackers import tracker_callbacks


def test_a_tracker_that_is_not_installed_is_named_before_training(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"wandb is not installed; `pip install 'raylr\[wandb\]'`"):
        tracker_callbacks(["wandb"], "study")


def test_no_trackers_no_callbacks():
    assert tracker_callbacks([], "study") == []


def test_a_store_that_mlflow_does_not_take_is_said_before_training(monkeypatch, tmp_path):
    mlflow = pytest.importorskip("mlflow")

    class Client:
        def search_experiments(self, max_results):
            raise mlflow.exceptions.MlflowException("in maintenance mode")

    monkeypatch.setattr(mlflow, "MlflowClient", Client)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "file:/x")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI=file:/x: in maintenance mode"):
        tracker_callbacks(["mlflow"], "study")
