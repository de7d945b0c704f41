"""What raylr uses of Ray that Ray does not document, in one place, and what happens with a Ray that does not have it.

    ray._private.services.resolve_ip_for_localhost    a cluster on 127.0.0.1 alone: without it one is refused
    ray._private.worker.print_to_stdstream            no lines of Ray's log when it dies: without it they are shown
    ray._private.worker._global_node                  ends Ray's processes at once: without it they end later
    TuneController._actor_manager                     frees what a stopped search holds: without it Ray does, later
    RayActorManager._actor_task_failed                a trial that runs out of memory fails alone: without it, all do
    Trial.temporary_state.ray_actor                   ends a trial that hangs: without it that is only reported
    ray.train._internal.session                       end of a stopped trial's thread: without it `sys.exit(0)` fails

`tests/raylr/execution/test_ray_private.py` fails when one is missing in the Ray that is installed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from raylr.errors import TrainingError

LOOPBACK = "127.0.0.1"
"""Address of a cluster on this machine alone: Ray's ports, which run what they are sent, are open to nobody else."""


@contextlib.contextmanager
def loopback_kept() -> Iterator[None]:
    """Let Ray take the address of this machine alone as it is: Ray 2.60 replaces it by that of the network, both for a
    cluster that is started and for one that is connected to."""
    with _replaced(ray._private.services, "resolve_ip_for_localhost", lambda host: host):
        yield


def require_loopback() -> None:
    """Raise TrainingError if the cluster that was started here listens to the network."""
    host = ray.get_runtime_context().gcs_address.rpartition(":")[0]
    if host != LOOPBACK:
        raise TrainingError(
            f"Ray {ray.__version__} does not start on {LOOPBACK} alone but on {host}, where others could reach it; "
            "install the Ray of raylr's constraints.txt, or start a cluster yourself and name it by RAY_ADDRESS"
        )


@contextlib.contextmanager
def without_logs() -> Iterator[None]:
    """Keep Ray from printing the last lines of its raylet's log when that has died, which `log_to_driver` does not."""
    with _replaced(ray._private.worker, "print_to_stdstream", lambda *args, **kwargs: None):
        yield


def end_own_processes() -> None:
    """End the processes of a cluster that was started here, at once."""
    with contextlib.suppress(Exception):  # the end of everything
        ray._private.worker._global_node.kill_all_processes(check_alive=False, allow_graceful=False)


def release_trials(controller: Any) -> None:
    """End the trials of Tune's controller and free what they hold: Tune leaves them after Ctrl-C, as long as this
    process is connected to Ray."""
    with contextlib.suppress(Exception):
        controller._actor_manager.cleanup()


def survive_lost_trials(controller: Any) -> None:
    """Let Tune's controller take any error of Ray's about a trial's process as the end of the trial.

    Ray Tune 2.60 knows that an actor has died, and raises for everything else, so that one trial which Ray's memory
    monitor ends (OutOfMemoryError) ends the whole search.
    """
    manager: Any = getattr(controller, "_actor_manager", None)
    failed = getattr(manager, "_actor_task_failed", None)
    if failed is None or "_actor_task_failed" in vars(manager):
        return

    def taken(tracked_actor_task: Any, exception: Exception) -> None:
        known = RayActorError, RayTaskError
        if isinstance(exception, RayError) and not isinstance(exception, known):
            kind = type(exception)
            exception = RayActorError(error_msg=f"{kind.__module__}.{kind.__qualname__}: {exception}")
        failed(tracked_actor_task, exception)

    manager._actor_task_failed = taken


def end_trial(trial: Any) -> bool:
    """End the process of a trial, also a stopped one; return False if Ray does not say which process that is."""
    try:
        actor = trial.temporary_state.ray_actor
    except AttributeError:
        return False
    if actor is not None:
        ray.kill(actor)
    return True


def ended_by_tune(error: BaseException) -> bool:
    """Return whether Tune ends the function of a trial that it has stopped: its next report raises SystemExit."""
    if not isinstance(error, SystemExit):
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    file = getattr(getattr(getattr(ray, "train", None), "_internal", None), "session", None)
    return file is None or (last is not None and last.tb_frame.f_code.co_filename == file.__file__)


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name, None)
    if before is None:
        yield
        return
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
