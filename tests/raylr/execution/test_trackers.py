import pytest

from raylr.errors import InputError
from raylr.execution.trackers import tracker_callbacks


def test_a_tracker_that_is_not_installed_is_named_before_training(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"wandb is not installed; `pip install 'raylr\[wandb\]'`"):
        tracker_callbacks(["wandb"], "study")


def test_no_trackers_no_callbacks():
    assert tracker_callbacks([], "study") == []
