"""The searchers under real Tune runs, killed (in a process of their own) and undisturbed: `tune_runs.py`."""

import importlib.util
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

SCRIPT = Path(__file__).with_name("tune_runs.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore"),  # of Ray's and Optuna's
]


@pytest.fixture(scope="module")
def run(cluster):
    """Run an experiment in a folder to its end, in this process."""
    spec = importlib.util.spec_from_file_location("tune_runs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tune_runs"] = module
    spec.loader.exec_module(module)
    ray.cloudpickle.register_pickle_by_value(module)

    def run(folder, kind):
        folder.mkdir(exist_ok=True)
        module.main(folder, kind)
        return json.loads((folder / "found.json").read_text())

    yield run
    ray.cloudpickle.unregister_pickle_by_value(module)
    del sys.modules["tune_runs"]


def start(folder, kind, seconds=0.0):
    """The same in a process with a cluster of its own."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "TUNE_GLOBAL_CHECKPOINT_S": "1"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, str(SCRIPT), str(folder), kind, str(seconds)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(process, folder):
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()[-3000:]
    return json.loads((folder / "found.json").read_text())


def children(pid):
    """Processes started by `pid`, and theirs."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.split()
    parents = dict(zip(map(int, listed[::2]), map(int, listed[1::2]), strict=True))
    found = [p for p, parent in parents.items() if parent == pid]
    return found + [grandchild for p in found for grandchild in children(p)]


def wait_for_a_whole_snapshot(folder):
    """Tune writes its snapshots in place: a kill within those milliseconds loses any experiment, whatever its
    searcher."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        written = [p.stat() for p in folder.glob("tune/*state*")]
        if len(written) >= 3 and all(s.st_size and time.time() - s.st_mtime > 0.2 for s in written):
            return
        time.sleep(0.02)
    raise AssertionError("Tune wrote no snapshot")


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("tune_runs") / "undisturbed", "quadratic")


@pytest.mark.faults
def test_killed_twice_it_ends_like_an_undisturbed_run(undisturbed, tmp_path):
    folder = tmp_path / "killed"
    folder.mkdir()
    order = random.Random(0)
    for _ in range(2):
        process = start(folder, "quadratic", seconds=0.6)  # 30 s and more undisturbed
        time.sleep(order.uniform(3.5, 7.0))
        wait_for_a_whole_snapshot(folder)
        assert process.poll() is None, "it ended before it could be killed"
        family = children(process.pid)
        for pid in [process.pid, *family]:  # Ray's own processes of this run would linger
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.communicate()
    got = finish(start(folder, "quadratic"), folder)
    assert [t[:3] for t in got["trials"]] == [t[:3] for t in undisturbed["trials"]]
    assert got["recommended"] == undisturbed["recommended"]


def test_a_limiter_changes_nothing_but_the_time(undisturbed, run, tmp_path):
    one = run(tmp_path / "one", "limiter")
    assert one["trials"] == undisturbed["trials"]
    assert not one["errors"]


def test_pauses_and_resumes(run, tmp_path):
    found = run(tmp_path / "surface", "surface")
    assert found["finished"]
    assert not found["errors"]
    assert abs(math.log(found["recommended"]["1"] / 2e-3)) < 0.3
    assert sum(t[2] for t in found["trials"]) < 4e9
    assert any(t[3] for t in found["trials"]), "no trial was resumed from a checkpoint"


def test_truncates_for_another_searcher(run, tmp_path):
    found = run(tmp_path / "optuna", "truncate-optuna")
    assert set(found["decisions"]) == {"truncated"}
    for value, (loss, extrapolated, measured) in zip(found["values"], found["loss"], strict=True):
        assert value is not None
        assert loss == extrapolated < measured


def test_works_under_asha(run, tmp_path):
    found = run(tmp_path / "asha", "asha")
    assert not found["errors"]
    assert found["finished"]
