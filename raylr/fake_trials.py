"""A trial and a controller as a scheduler sees them, without a cluster."""

from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial


class FakeTrial:
    """What a scheduler sees of a Trial."""

    status: str
    last_result: dict[str, Any]

    def __init__(self, trial_id: str, lr: float = 1e-3):
        self.__dict__.update(
            trial_id=trial_id, config={"lr": lr, "tokens_target": 100_000.0}, status=Trial.PENDING, last_result={},
            is_saving=False, trainable_name="fake", evaluated_params={"lr": lr}, checkpoint=None, temporary_state=None,
            has_checkpoint=lambda: False, is_finished=lambda: self.status in (Trial.TERMINATED, Trial.ERROR),
            run_metadata=SimpleNamespace(checkpoint_manager=None), experiment_tag=trial_id,
        )  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def set_status(self, status: str) -> None:
        """As Trial.set_status."""
        self.status = status


class FakeController:
    """What a scheduler sees of the TuneController."""

    def __init__(self) -> None:
        self.trials: list[FakeTrial] = []
        self.search_alg = SimpleNamespace(searcher=SimpleNamespace())
        self.paused: list[FakeTrial] = []

    def get_trials(self) -> list[FakeTrial]:
        """All trials."""
        return self.trials

    def get_live_trials(self) -> list[FakeTrial]:
        """Those that have not ended."""
        return [t for t in self.trials if not t.is_finished()]

    def stop_trial(self, trial: FakeTrial) -> None:
        """End a trial."""
        trial.status = Trial.TERMINATED

    def pause_trial(self, trial: FakeTrial, should_checkpoint: bool = True) -> None:
        """Pause a trial."""
        trial.status = Trial.PAUSED
