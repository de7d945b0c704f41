"""Actors of Ray Tune inside of the driver's process, for trials whose training takes no time.

Tune's controller speaks to actors through `RayActorManager`. `actors_in_process` puts one in its place that calls the
trial's function itself: the driver then does everything that it does with processes (its trials, searcher, scheduler,
callbacks, files, snapshots), and hundreds of trials run side by side on a machine that has memory for a few processes.
What is left out is the same for every searcher: Ray's calls between processes. Ray 2.60."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.tune.result import RESULT_DUPLICATE

Reports = Callable[[dict[str, Any]], Iterator[dict[str, Any]]]
"""Makes the reports of a trial from its config."""


class _Actor:
    """One actor: what `Trainable` is in a process of its own."""

    get_auto_filled_metrics = SimpleNamespace(remote=lambda **_: {})

    def __init__(self, reports: Reports, config: dict[str, Any]) -> None:
        self._make = reports
        self.reset(config)

    def reset(self, config: dict[str, Any], **_: Any) -> bool:
        self._config, self._iteration, self._begun = config, 0, time.time()
        self._reports = self._make(config)
        return True

    def train(self) -> dict[str, Any]:
        report = next(self._reports, None)
        if report is None:
            return {RESULT_DUPLICATE: True}
        self._iteration += 1
        passed = time.time() - self._begun
        return report | {
            "done": False,
            "training_iteration": self._iteration,
            "timestamp": int(self._begun + passed),
            "checkpoint_dir_name": None,
            "date": "2026-01-01_00-00-00",
            "time_this_iter_s": passed / self._iteration,
            "time_total_s": passed,
            "pid": os.getpid(),
            "hostname": "localhost",
            "node_ip": "127.0.0.1",
            "config": {key: value for key, value in self._config.items() if key[:2] != "__"},
            "time_since_restore": passed,
            "iterations_since_restore": self._iteration,
        }

    def stop(self) -> None:
        pass


class InProcessActors:
    """What Tune's controller needs of an actor manager; events come in the order in which they were requested."""

    def __init__(self, reports: Reports, room: int) -> None:
        self._reports, self._room, self._next_id = reports, room, 0
        self._waiting: deque[tuple[TrackedActor, dict[str, Any]]] = deque()
        self._live_actors_to_ray_actors_resources: dict[TrackedActor, tuple[_Actor, None]] = {}
        self._events: deque[tuple[TrackedActor, Callable[[], None]]] = deque()
        self._started: set[TrackedActor] = set()

    def next(self, timeout: float | None = None) -> bool:
        """Handle one event; return whether there was one."""
        while self._waiting and self.num_live_actors < self._room:
            tracked, config = self._waiting.popleft()
            self._live_actors_to_ray_actors_resources[tracked] = _Actor(self._reports, config), None
            self._events.append((tracked, partial(self._start, tracked)))
        if not self._events:
            return False
        self._events.popleft()[1]()
        return True

    def _start(self, tracked: TrackedActor) -> None:
        self._started.add(tracked)
        if tracked._on_start is not None:
            tracked._on_start(tracked)

    num_live_actors = property(lambda self: len(self._live_actors_to_ray_actors_resources))
    num_pending_actors = property(lambda self: len(self._waiting))
    num_total_actors = property(lambda self: self.num_live_actors + self.num_pending_actors)
    num_actor_tasks = property(lambda self: len(self._events))

    def get_live_actors_resources(self) -> dict[str, float]:
        """Return what the live actors hold."""
        return {"CPU": float(self.num_live_actors)}

    def add_actor(self, *, cls: Any, resource_request: Any, kwargs: dict[str, Any], **callbacks: Any) -> TrackedActor:
        """Request an actor; it starts once there is room."""
        self._next_id += 1
        tracked = TrackedActor(self._next_id, **callbacks)
        self._waiting.append((tracked, kwargs["config"]))
        return tracked

    def remove_actor(self, tracked_actor: TrackedActor, kill: bool = False, stop_future: Any = None) -> bool:
        """Stop an actor; return whether it had been started."""
        if tracked_actor not in self._live_actors_to_ray_actors_resources:
            self._waiting = deque(one for one in self._waiting if one[0] != tracked_actor)
            return False
        if tracked_actor not in self._started:  # as of Ray's: one that is stopped before it has begun calls nothing
            tracked_actor._on_start = tracked_actor._on_stop = tracked_actor._on_error = None

        def stopped() -> None:
            if self._live_actors_to_ray_actors_resources.pop(tracked_actor, None) and tracked_actor._on_stop:
                tracked_actor._on_stop(tracked_actor)

        self._events.append((tracked_actor, stopped))
        return True

    def is_actor_started(self, tracked_actor: TrackedActor) -> bool:
        """Return whether an actor is live."""
        return tracked_actor in self._live_actors_to_ray_actors_resources

    def is_actor_failed(self, tracked_actor: TrackedActor) -> bool:
        """Return False: these actors do not fail."""
        return False

    def schedule_actor_task(
        self, tracked_actor: TrackedActor, method_name: str, args: Any = (), kwargs: Any = None, on_result: Any = None,
        on_error: Any = None, _return_future: bool = False,
    ) -> None:  # fmt: skip
        """Call a method of an actor when its turn comes."""

        def call() -> None:
            if tracked_actor not in self._live_actors_to_ray_actors_resources:
                return
            actor = self._live_actors_to_ray_actors_resources[tracked_actor][0]
            result = getattr(actor, method_name)(*(args or ()), **(kwargs or {}))
            if on_result is not None:
                on_result(tracked_actor, result)

        if on_result is not None:  # the result of `stop` is of no use
            self._events.append((tracked_actor, call))

    def clear_actor_task_futures(self, tracked_actor: TrackedActor) -> None:
        """Nothing: an actor has one task at a time, and a trial that was stopped has none."""

    def cleanup(self) -> None:
        """Forget all actors."""
        self._live_actors_to_ray_actors_resources.clear()


@contextlib.contextmanager
def actors_in_process(reports: Reports, room: int) -> Iterator[None]:
    """Let Tune run its trials in this process, `room` of them side by side, while the block runs."""
    from ray.tune.execution import tune_controller

    before = tune_controller.RayActorManager
    tune_controller.RayActorManager = lambda resource_manager: InProcessActors(reports, room)
    try:
        yield
    finally:
        tune_controller.RayActorManager = before
