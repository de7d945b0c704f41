import gc
import os
import pickle
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Two processes on two cores: with a thread of torch or BLAS for each core in both, each waits for the other's. Before
# anything is imported that reads it; the processes that the tests start have it, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A process that the tests start compiles 200 modules, unless one before it has kept what it compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import hypothesis_profile  # noqa: F401  # loads the profile
import pytest
from tiny_runs import MODEL, run

from raylr.analysis.figures.static import render
from raylr.evaluation.environment import Environment, set_up
from raylr.trainables import Corpus, build_corpus
from raylr.trainables.export.hf import export_checkpoint


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with slow tests first, so that no worker is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # stable: the rest stays as it is


gc.set_threshold(100_000, 20, 20)  # by default a collection every 700 objects
LOADED = [0]
"""How many modules there were when they were last excluded from garbage collection."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Modules and what was collected of the tests are no garbage: `train` collects garbage at the end of each run, and
    would look through a million objects of theirs, half a second each time."""
    if len(sys.modules) > LOADED[0] + 100:
        LOADED[0] = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed is as wide as in a file: a worker of pytest-xdist has the COLUMNS of a terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session", autouse=True)
def no_flush() -> Iterator[None]:
    """Nothing waits for the disk: the tests kill processes, not the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def drawn_once() -> Iterator[None]:
    """A figure of a report that has been drawn in this process is not drawn again: half a second each, ten a report,
    and most reports are of the same few studies."""
    known: dict[bytes, Any] = {}

    def drawn(figure: Any) -> Any:
        content = pickle.dumps(figure)
        if content not in known:
            known[content] = render(figure)
        return known[content]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raylr.report.page.render", drawn)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_account() -> Iterator[None]:
    """Nobody's credentials are used; the processes that the tests start have these, too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "KEYOFTHETESTS",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An object store in this process: moto's S3, at host:port."""
    from object_store import start_store

    server = start_store()
    yield "{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket of it; this process has an empty cache of its own."""
    from object_store import Bucket

    bucket = Bucket(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{s3_server}")
    with bucket.machine(tmp_path / "cache"):
        yield bucket


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def on_loopback() -> Iterator[str]:
    """The address of this machine alone, which the clusters of the tests listen on; Ray would take the network's."""
    from raylr.execution.ray_private import LOOPBACK, loopback_kept

    with loopback_kept():
        yield LOOPBACK


@pytest.fixture(scope="session")
def ray_node(on_loopback: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Ray cluster that the tests of one process share: two CPUs and a resource `scorer`. Its workers find whatever
    the tests import, and have a cache of their own, as those of another machine do."""
    from ray.cluster_utils import Cluster

    from raylr.remote.copies import CACHE

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv(CACHE, str(tmp_path_factory.mktemp("workers") / "cache"))
        # Ray's agent that runs jobs would else connect to the address of the network, where nothing listens, forever.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        node = {"num_cpus": 2, "resources": {"scorer": 1}, "include_dashboard": True, "dashboard_port": free_port()}
        node["dashboard_agent_listen_port"] = free_port()  # another test process has the usual one; without it, no jobs
        node["include_log_monitor"] = False  # nobody reads what the workers print
        cluster = Cluster(initialize_head=True, head_node_args=node | {"node_ip_address": on_loopback})
    yield cluster.head_node
    cluster.shutdown()


@pytest.fixture(scope="session")
def ray_address(ray_node: Any) -> str:
    return str(ray_node.address)


@pytest.fixture(scope="session")
def job_server(ray_node: Any) -> str:
    return f"http://{ray_node.address_info['webui_url']}"


@pytest.fixture(scope="module")
def shared_cluster(ray_address: str) -> Iterator[None]:
    """What is started here, and by the command line, runs on that cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", ray_address)
        yield


@pytest.fixture(scope="module")
def cluster(shared_cluster: None) -> Iterator[None]:
    """This process is connected to that cluster."""
    import ray

    ray.init(logging_level="error", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium for all tests of one process (`CHROMIUM` says whether there is one)."""
    from browser import started

    with started(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty small documents of the standard library's kind."""
    folder = tmp_path_factory.mktemp("texts")
    for i in range(60):
        body = "".join(f"def f{j}(x):\n    return x * {i * j} + {j}\n\n" for j in range(i % 7, i % 7 + 30))
        (folder / f"{i:02}.py").write_text(f'"""Module {i}."""\n\n{body}')
    return folder


@pytest.fixture(scope="session")
def corpus(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build_corpus([texts], tmp_path_factory.mktemp("corpus") / "c", vocab_size=400, validation_fraction=0.1)


@pytest.fixture(scope="session")
def environment() -> Environment:
    """OpenCompass's own environment, made if it is not there: two minutes, so that tests which use it have a limit of
    their own."""
    return set_up()


@pytest.fixture(scope="module")
def model(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model with such large weights that its answers differ from question to question, exported."""
    folder = tmp_path_factory.mktemp("model")
    run(corpus.path, lr=1e-3, steps=4, model=MODEL.model_copy(update={"init_std": 0.4}), run_dir=folder / "run")
    yield export_checkpoint(folder / "run", folder / "hf")
    import deepspeed

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()
