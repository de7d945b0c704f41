"""Ray for the time of a search: what it lacks, that it does not start, that it is gone."""

import socket
import threading

import pytest

from raylr.errors import TrainingError
from raylr.execution import session
from raylr.execution.kept import ray_kept
from raylr.execution.session import cluster_watch, lacking_resources, ray_session


def test_what_a_cluster_lacks_is_named():
    there = {"CPU": 4.0, "memory": 1e9, "scorer": 1.0}
    assert lacking_resources({"cpu": 4, "gpu": 0, "scorer": 1}, there) == ""
    assert lacking_resources({"cpu": 64, "gpu": 1}, there) == "one trial requests 64 CPUs and Ray's cluster has 4"
    assert "0.5 GPUs and Ray's cluster has 0" in lacking_resources({"cpu": 1, "gpu": 0.5}, there)
    assert "1 TPUs" in lacking_resources({"TPU": 1}, there)


@pytest.mark.parametrize(
    ("address", "what"), [("", "start on this machine"), ("10.0.0.1:6379", "connect to the cluster at 10.0.0.1:6379")]
)
def test_that_ray_does_not_start_is_said_in_a_sentence(
    address: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(*args: object, **kwargs: object) -> None:
        raise TimeoutError("Timed out waiting for the node.\nThe raylet's log …")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(TrainingError, match=f"Ray did not {what}: Timed out waiting for the node. Nothing is lost"),
        ray_session(),
    ):
        pass


@pytest.mark.parametrize(("address", "fails", "tried"), [("", 2, 3), ("", 3, 3), ("10.0.0.1:6379", 1, 1)])
def test_ray_that_is_too_slow_to_start_here_is_started_again(
    address: str, fails: int, tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def init(*args: object, **kwargs: object) -> None:
        calls.append(args)
        if len(calls) <= fails:
            raise Exception("The current node timed out during startup. This could happen because …")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr(session, "require_loopback", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    if fails < tried:
        with ray_session() as own:
            assert own
    else:
        with pytest.raises(TrainingError, match="timed out during startup"), ray_session():
            pass
    assert len(calls) == tried


def test_stages_share_one_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("ray.init", lambda *args, **kwargs: calls.append("init"))
    monkeypatch.setattr("ray.shutdown", lambda: calls.append("shutdown"))
    monkeypatch.setattr("ray.is_initialized", lambda: calls.count("init") > calls.count("shutdown"))
    monkeypatch.setattr(session, "require_loopback", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for _ in range(2):
        with ray_kept():
            pass  # nothing was trained
        assert not calls
        with ray_kept():
            for _ in range(2):
                with ray_kept(), ray_session() as own:
                    assert own
            assert calls == ["init"]
        assert calls == ["init", "shutdown"]
        calls.clear()
    with pytest.raises(KeyError), ray_kept(), ray_session():
        raise KeyError
    assert calls == ["init", "shutdown"]
    calls.clear()
    with ray_session():
        pass
    assert calls == ["init", "shutdown"]


def listening() -> socket.socket:
    """Something that answers at a port of its own."""
    server = socket.create_server(("127.0.0.1", 0), backlog=50)
    server.settimeout(5)
    return server


@pytest.mark.parametrize(("gone", "named"), [("gcs", "head process"), ("raylet", "on this machine")])
def test_a_process_of_ray_that_is_gone_is_noticed(gone: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = {"gcs": listening(), "raylet": listening()}
    ports = {name: server.getsockname()[1] for name, server in servers.items()}

    class Context:
        gcs_address = f"127.0.0.1:{ports['gcs']}"

        def get_node_id(self) -> str:
            return "here"

    node = {"NodeID": "here", "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": ports["raylet"]}
    monkeypatch.setattr("ray.get_runtime_context", Context)
    monkeypatch.setattr("ray.nodes", lambda: [node])
    monkeypatch.setattr(session, "OWN_SECONDS", 0.05)
    monkeypatch.setattr(session, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(session, "_end", lambda sentence: pytest.fail("the block had ended"))
    heard: list[str] = []
    noticed = threading.Event()

    def lost(sentence: str) -> None:
        heard.append(sentence)
        noticed.set()

    with cluster_watch(True, lost):
        assert not noticed.wait(0.2)
        servers[gone].close()
        assert noticed.wait(5)
    assert named in heard[0]
    assert "the same command continues" in heard[0]
    for server in servers.values():
        server.close()
