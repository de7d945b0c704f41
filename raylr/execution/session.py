"""Ray for the time of a search: the cluster that RAY_ADDRESS names, or one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping

import ray

from raylr.errors import EXIT_FAILURE, TrainingError
from raylr.execution.kept import KEPT
from raylr.execution.ray_private import LOOPBACK, end_own_processes, loopback_kept, require_loopback, without_logs
from raylr.telemetry import telemetry_off

OWN_SECONDS = 5.0
"""Seconds without Ray's own processes on this machine after which they are gone: nobody starts them again."""
HEAD_SECONDS = 45.0
"""The same for the head of a shared cluster, which may be started again: less than the 60 s after which Ray 2.60 ends
every process that is connected to it (`gcs_rpc_server_reconnect_timeout_s`)."""
WATCH_SECONDS = 1.0
"""Time between two looks at Ray's processes."""
STARTS = 3
"""Times that Ray is started on this machine before a search ends with a sentence: 90 s in all."""
SHUTDOWN_SECONDS = 5.0
"""Longest time in which a search must have ended after Ray's processes are gone."""
JOIN_SECONDS = 10.0
"""Longest wait for the thread that watches them: it asks for 5 s at most, and may be writing what was measured."""


def lacking_resources(requested: Mapping[str, float], there: Mapping[str, float]) -> str:
    """Return in words what one trial requests and the whole cluster does not have; "" if it has everything.

    Args:
        requested: What a trial requests, as Tune takes it: `cpu`, `gpu`, and further names as they are.
        there: What the cluster has in all, `ray.cluster_resources()`.
    """
    for name, amount in requested.items():
        known = _ray_name(name)
        if amount > there.get(known, 0.0):
            return f"one trial requests {amount:g} {known}s and Ray's cluster has {there.get(known, 0.0):g}"
    return ""


def room_for(requested: Mapping[str, float]) -> int:
    """Return how many trials with these resources the connected cluster has room for, at least one."""
    there = ray.cluster_resources()
    rooms = [there.get(_ray_name(name), 0.0) // amount for name, amount in requested.items() if amount > 0]
    return max(1, int(min(rooms, default=1)))


def _ray_name(name: str) -> str:
    return {"cpu": "CPU", "gpu": "GPU"}.get(name, name)


_OWN: list[bool] = []
"""Of each session that is open in this process, the outer one first: whether it started its cluster."""


@contextlib.contextmanager
def cluster_watch(own: bool, lost: Callable[[str], None]) -> Iterator[None]:
    """End the block, and if need be this process, when the processes of Ray that it depends on are gone: the raylet of
    its node, or the head's GCS.

    Ray 2.60 would wait in its own code without listening to anybody, and after a minute end this process with a message
    that says nothing about the study.

    Args:
        own: Whether the cluster was started here.
        lost: Called once, in a thread, with a sentence; it has to keep what is in memory, and to make the block end.
    """
    context = ray.get_runtime_context()
    nodes = {node["NodeID"]: node for node in ray.nodes()}
    host, port = context.gcs_address.rsplit(":", 1)
    watched = {"Ray's head process (GCS)": (host, int(port), OWN_SECONDS if own else HEAD_SECONDS)}
    if here := nodes.get(context.get_node_id()):
        raylet = here["NodeManagerAddress"], int(here["NodeManagerPort"]), OWN_SECONDS
        watched["Ray's process on this machine (raylet)"] = raylet
    ended = threading.Event()

    def watch() -> None:
        since: dict[str, float] = {}
        while not ended.wait(WATCH_SECONDS):
            for name, (address, number, patience) in watched.items():
                if _answers(address, number):
                    since.pop(name, None)
                elif time.monotonic() - since.setdefault(name, time.monotonic()) >= patience:
                    sentence = f"{name} has ended. Everything measured is kept; the same command continues"
                    lost(sentence)
                    if not ended.wait(SHUTDOWN_SECONDS):
                        _end(sentence)
                    return

    watcher = threading.Thread(target=watch, daemon=True, name="raylr-cluster-watch")
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(
            JOIN_SECONDS
        )  # a thread that writes a table in C++ must not see Python end: the process would abort


def _end(sentence: str) -> None:
    """End this process, whose main thread waits in Ray's code."""
    print(f"raylr: {sentence}", file=sys.stderr, flush=True)
    end_own_processes()
    os._exit(EXIT_FAILURE)


def _is_loopback() -> bool:
    """Whether the cluster that RAY_ADDRESS names listens on this machine alone."""
    return os.environ.get("RAY_ADDRESS", "").rpartition(":")[0] in (LOOPBACK, "localhost")


def _answers(host: str, port: int) -> bool:
    """Whether something listens there. Slowness and a network that is away are no answer to that: only a refusal is."""
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return True


def _connect(own: bool) -> None:
    """Connect to Ray, or start it. Ray gives its own processes 30 s to start, which a busy machine may not do at once:
    it is started again up to `STARTS` times."""
    options = {"_node_ip_address": LOOPBACK} if own else {}
    for left in reversed(range(STARTS)):
        try:
            ray.init(
                "local" if own else None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                **options,
            )
            return
        except Exception as error:
            ray.shutdown()
            if not own or not left or "timed out during startup" not in str(error):
                raise


@contextlib.contextmanager
def ray_session() -> Iterator[bool]:
    """Connect to the cluster that RAY_ADDRESS names or that the job runs on, or start a quiet local one for now.

    A cluster that happens to run on this machine is left alone: Ray would connect to the latest one, and wait for
    minutes where that is about to end. Within `raylr.execution.kept.ray_kept` it stays until that ends.

    Yields:
        Whether the cluster was started here, so that it does not grow.
    """
    # Ctrl-C ends at once, since the tables are always complete; Tune would end as if everything had been trained.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the study shows its own progress
    for name in ("ray.tune", "ray._private.authentication", "ray._private.services"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # `Work.errors` has the errors
    if ray.is_initialized():
        yield bool(_OWN) and _OWN[-1]  # a session inside of another one is the same session
    elif KEPT:
        yield KEPT[0].enter_context(_session())
    else:
        with _session() as own:
            yield own


@contextlib.contextmanager
def _session() -> Iterator[bool]:
    own = os.environ.get("RAY_ADDRESS", "local") == "local"
    telemetry_off()  # without a dashboard, too, Ray starts the part of it that sends usage statistics
    if own:
        os.environ.setdefault("RAY_process_group_cleanup_enabled", "1")  # children of a trial end with it
    before = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings(), loopback_kept() if own or _is_loopback() else contextlib.nullcontext():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            _connect(own)
        except (KeyboardInterrupt, SystemExit) as end:  # half of a cluster would end this process by a SIGSEGV
            ray.shutdown()
            if isinstance(end, SystemExit) and callable(before):  # of Ray's own handler of SIGTERM, while it starts
                before(signal.SIGTERM, None)
            raise
        except Exception as error:  # of Ray's own: no cluster at the address, or a machine too busy to start one
            ray.shutdown()
            what = "start on this machine" if own else f"connect to the cluster at {os.environ['RAY_ADDRESS']}"
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise TrainingError(
                f"Ray did not {what}: {reason}. Nothing is lost; the same command continues."
            ) from error
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's own handler prints the stack of its C++ and ends the process
    _OWN.append(own)
    try:
        if own:
            require_loopback()
        with without_logs():
            yield own
    finally:
        _OWN.pop()
        ray.shutdown()
