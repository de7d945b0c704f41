"""What raylr uses of Ray that Ray does not document: it is there, and what happens where it is not."""

import inspect
from types import SimpleNamespace
from typing import ClassVar

import pytest
import ray
import ray._private.services
import ray._private.worker
import ray.train._internal.session
from ray import exceptions
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import trial

from raylr.errors import TrainingError
from raylr.execution import ray_private


def test_the_ray_that_is_installed_has_it():
    assert ray._private.services.resolve_ip_for_localhost("10.0.0.1") == "10.0.0.1"
    assert callable(ray._private.worker.print_to_stdstream)
    assert hasattr(ray._private.worker, "_global_node")
    assert callable(ray._private.node.Node.kill_all_processes)
    assert "self._actor_task_failed(" in inspect.getsource(RayActorManager)
    assert "self._actor_manager = " in inspect.getsource(TuneController)
    assert "sys.exit(0)" in inspect.getsource(ray.train._internal.session)
    assert "ray_actor" in inspect.getsource(trial._TemporaryTrialState)


def test_localhost_stays_localhost_for_the_block(monkeypatch: pytest.MonkeyPatch):
    services = ray._private.services
    monkeypatch.setattr(services, "resolve_ip_for_localhost", lambda host: "10.1.2.3")
    with ray_private.loopback_kept():
        assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"
    assert services.resolve_ip_for_localhost("127.0.0.1") == "10.1.2.3"


@pytest.mark.parametrize(("address", "fine"), [("127.0.0.1:6379", True), ("10.1.2.3:6379", False)])
def test_a_cluster_that_listens_to_the_network_is_refused(
    address: str, fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(gcs_address=address))
    if fine:
        ray_private.require_loopback()
    else:
        with pytest.raises(TrainingError, match=r"does not start on 127\.0\.0\.1 alone but on 10\.1\.2\.3"):
            ray_private.require_loopback()


def test_what_is_not_there_is_done_without(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("ray._private.services.resolve_ip_for_localhost")
    monkeypatch.delattr("ray._private.worker.print_to_stdstream")
    monkeypatch.delattr("ray._private.worker._global_node")
    with ray_private.loopback_kept(), ray_private.without_logs():
        ray_private.end_own_processes()
    ray_private.release_trials(None)
    assert not ray_private.end_trial(SimpleNamespace())


def test_without_the_module_of_reports_each_exit_is_tunes(monkeypatch: pytest.MonkeyPatch):
    assert not ray_private.ended_by_tune(SystemExit(0))
    assert not ray_private.ended_by_tune(ValueError())
    monkeypatch.delattr("ray.train._internal.session")
    assert ray_private.ended_by_tune(SystemExit(0))
    assert not ray_private.ended_by_tune(ValueError())


@pytest.mark.parametrize(
    "error",
    [
        exceptions.OutOfMemoryError("running low on memory"),
        exceptions.OutOfDiskError("no room"),
        exceptions.WorkerCrashedError(),
        exceptions.NodeDiedError("it died"),
        exceptions.RaySystemError("unknown"),
        exceptions.ObjectLostError("00", "127.0.0.1", ""),
        exceptions.RayActorError(error_msg="it died"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_ray_says_of_a_process_ends_one_trial(error: Exception):
    """By Tune's own code, which raises for what it does not know."""
    heard: list[Exception] = []
    actor = SimpleNamespace(actor_id=1, _on_error=None)
    task = SimpleNamespace(_tracked_actor=actor, _on_error=lambda actor, error: heard.append(error))

    class Manager:
        _failed_actor_ids: ClassVar[set[int]] = set()
        _actor_task_failed = RayActorManager._actor_task_failed

        def _cleanup_actor(self, tracked_actor: object) -> None:
            pass

    controller = SimpleNamespace(_actor_manager=Manager())
    for _ in range(2):
        ray_private.survive_lost_trials(controller)
    controller._actor_manager._actor_task_failed(tracked_actor_task=task, exception=error)
    (taken,) = heard
    assert isinstance(taken, exceptions.RayActorError)
    assert str(error) in str(taken)
    with pytest.raises(RuntimeError, match="own"):
        controller._actor_manager._actor_task_failed(task, ValueError("own"))
    ray_private.survive_lost_trials(SimpleNamespace())


def test_a_trial_without_a_process_has_ended():
    assert ray_private.end_trial(SimpleNamespace(temporary_state=SimpleNamespace(ray_actor=None)))
