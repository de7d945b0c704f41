import pytest
from ray.tune.experiment import Trial

from raylr.fake_trials import FakeController, FakeTrial


def test_a_controller_lists_live_trials():
    controller = FakeController()
    controller.trials = [FakeTrial(name) for name in ("a", "b", "c")]
    controller.stop_trial(controller.trials[0])
    controller.pause_trial(controller.trials[1])
    assert [trial.status for trial in controller.get_trials()] == [Trial.TERMINATED, Trial.PAUSED, Trial.PENDING]
    assert [trial.trial_id for trial in controller.get_live_trials()] == ["b", "c"]


def test_what_a_trial_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError):
        FakeTrial("a").something  # noqa: B018
