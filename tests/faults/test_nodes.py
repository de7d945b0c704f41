"""Two nodes: a cluster of two raylets on this machine. Trials of several workers, nodes that are lost, resources that
come back."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from faulty_study import assert_same, spec_with
from tiny_runs import BATCH, MODEL, Curve, at_pass, curve, curves, train_spec

from raylr.analysis.runs import Run
from raylr.events import Listener
from raylr.execution.executor import Job
from raylr.execution.tune import TuneExecutor
from raylr.execution.work import FixedPolicy, Work
from raylr.store.runs import RunStore
from raylr.store.runtable import evaluations_table, trials_table
from raylr.study import FittingStudy
from raylr.trainables import Corpus, pretrain
from raylr.trainables.training import metrics, workers
from raylr.trainables.training.checkpoint import RunFolder

pytestmark = [
    *(pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1500)),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # files that Tune leaves open
]
SHARDED: dict[str, dict[str, Any]] = {
    "ZeRO 0": {"zero_stage": 0},
    "ZeRO 1": {"zero_stage": 1},
    "ZeRO 2": {"zero_stage": 2},
    "ZeRO 3": {"zero_stage": 3},
    "experts": {"expert_parallel": 2},
}
PATIENCE = 600.0
"""Seconds to wait for a study; the machine may be busy."""
SHARES = {"micro_batch": 4}
"""One process whose micro-batches are the two workers' shares: the load-balancing loss is taken over each of them."""


@pytest.fixture(scope="module")
def nodes(on_loopback: str) -> Iterator[Any]:
    """A head with two CPUs, of which a trial's driver takes a part, and a node with one: two workers need both."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("FAULTY_SECONDS", "0.3")
        head = {"num_cpus": 2, "resources": {"head": 1}, "node_ip_address": on_loopback}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(num_cpus=1, node_ip_address=on_loopback)
        patch.setenv("RAY_ADDRESS", cluster.address)
        environment = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_ADDRESS": cluster.address}
        ray.init(cluster.address, logging_level="error", log_to_driver=False, runtime_env={"env_vars": environment})
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def assert_nothing_is_held() -> None:
    """No placement group is left, and all resources are free; Ray frees them some seconds after a trial."""
    import ray
    from ray.util import placement_group_table

    deadline = time.monotonic() + 60
    while True:
        groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
        whole, free = ray.cluster_resources(), ray.available_resources()
        held = {name: whole[name] - free.get(name, 0) for name in whole if not name.startswith(("object_", "memory"))}
        if not groups and not any(held.values()):
            return
        assert time.monotonic() < deadline, (groups, held)
        time.sleep(0.5)


def tuned(cases: dict[str, dict[str, Any]], folder: Path, corpus: Corpus) -> tuple[dict[str, Curve], dict[str, int]]:
    """Train each case as a trial of two workers; return their curves and on how many nodes the workers were."""
    from ray import tune

    folder.mkdir()

    def trial(choice: dict[str, str]) -> None:
        work, name = workers.work, choice["case"]

        def noting(config: dict[str, Any]) -> None:
            import ray

            (folder / f"{name}-{ray.get_runtime_context().get_node_id()}").touch()
            work(config)

        workers.work = noting
        fields = train_spec(workers=2, **cases[name]).model_dump(exclude_none=True)
        points = [BATCH * step for step in (3, 6, 9, 12)]
        pretrain(
            {"lr": 3e-3, "model": MODEL.model_dump(), "train": fields, "corpus": str(corpus.path), "eval_at": points,
             "tokens": 12 * BATCH, "run_dir": str(folder / "run" / name)}
        )  # fmt: skip

    class Rows(tune.Callback):  # type: ignore[misc]  # no types
        found: dict[str, Curve] = {name: [] for name in cases}  # noqa: RUF012

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
            self.found[trial.config["case"]].append(result)

    results = tune.Tuner(
        tune.with_resources(trial, {"CPU": 0.5, "head": 0.1}),
        param_space={"case": tune.grid_search(list(cases))},
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(name="t", storage_path=str(folder), verbose=0, callbacks=[Rows()]),
    ).fit()
    assert [result.error for result in results] == [None] * len(cases)
    places = {name: len(list(folder.glob(f"{name}-*"))) for name in cases}
    return {name: curve(rows) for name, rows in Rows.found.items()}, places


def test_trials_over_two_nodes_have_the_curve_of_one_process(nodes: Any, corpus: Corpus, tmp_path: Path) -> None:
    found, places = tuned(SHARDED, tmp_path / "tune", corpus)
    assert places == dict.fromkeys(SHARDED, 2)
    (want,) = curves(corpus.path, 1, SHARES)
    for name, rows in found.items():
        assert [row[metrics.TOKENS] for row in rows] == [row[metrics.TOKENS] for row in want], name
        for mine, its in zip(rows, want, strict=True):
            assert mine[metrics.LOSS] == pytest.approx(its[metrics.LOSS], abs=1e-5), name
    assert_nothing_is_held()


def study_on(folder: Path, heard: list[str], **changes: Any) -> FittingStudy:
    """The study under Ray Tune on the cluster that this process is connected to."""
    study = FittingStudy(spec_with(**changes), folder)
    study.progress.message = heard.append  # type: ignore[method-assign]
    return study


def test_a_node_that_is_lost_costs_no_loss(
    nodes: Any, on_loopback: str, tmp_path: Path, undisturbed: FittingStudy, record: Callable[..., None]
) -> None:
    """Its trials go on elsewhere. Also: a study that ends and one that is stopped hold no resources."""
    import ray

    lost = nodes.add_node(num_cpus=2, node_ip_address=on_loopback)
    folder, heard = tmp_path / "study", list[str]()
    counts: list[int] = []

    def trains_there() -> bool:
        (raylet,) = lost.all_processes["raylet"]
        with suppress(psutil.Error):  # of a process that has just ended
            titles = [" ".join(child.cmdline()) for child in psutil.Process(raylet.process.pid).children()]
            return any(title.startswith("ray::ResourceTrainable") for title in titles)
        return False

    def kill() -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            count = len(FittingStudy.open(folder).evaluations) if (folder / "spec.yaml").exists() else 0
            if count >= 12 and trains_there():
                counts.append(count)
                nodes.remove_node(lost, allow_graceful=False)
                return
            time.sleep(0.2)

    killer = threading.Thread(target=kill)
    killer.start()
    study = study_on(folder, heard, resources={"cpus": 2, "hang_seconds": 4})  # a trial each on two of the nodes
    study.run()
    killer.join()
    (count,) = counts
    same = assert_same(study, undisturbed)
    assert_nothing_is_held()
    messages = [one for one in heard if "its node was lost" in one or "its node is gone" in one]
    assert messages, heard
    total = len(study.evaluations)
    record("node lost", how="SIGKILL to one of three raylets and all its processes", message=messages[0],
           survived=f"{count} of {total} losses; its trials go on elsewhere", same_law=same)  # fmt: skip
    assert ray.is_initialized()


def test_a_study_that_is_stopped_and_one_that_fails_hold_no_resources(nodes: Any, tmp_path: Path) -> None:
    heard = list[str]()
    study = study_on(tmp_path / "stopped", heard)

    def stop(event: Any) -> None:
        if event.tokens >= 10_000:
            raise KeyboardInterrupt

    study.progress.loss_measured = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        study.run()
    assert_nothing_is_held()
    sizes = {"S": {"params": "100k", "args": {"fails": 1}}}
    with pytest.raises(Exception, match="of the runs failed"):
        study_on(tmp_path / "failed", heard, sizes=sizes).run()
    assert_nothing_is_held()


def test_a_stopped_worker_of_two_is_noticed_and_its_resources_come_back(
    nodes: Any, corpus: Corpus, tmp_path: Path, record: Callable[..., None]
) -> None:
    """A worker of Ray Train gets SIGSTOP: the trial reports nothing, is ended, and goes on from its last checkpoint."""
    points = [BATCH * step for step in (3, 6, 9, 12)]
    config = {
        "run": "run", "lr": 3e-3, "model": MODEL.model_dump(), "corpus": str(corpus.path), "tokens": points[-1],
        "eval_at": points, "run_dir": str(tmp_path / "run"),
        "train": train_spec(workers=2).model_dump(exclude_none=True),
    }  # fmt: skip
    mark, heard = tmp_path / "stopped", list[str]()

    def trainable(config: dict[str, Any]) -> None:
        work = workers.work

        def mortal(config: dict[str, Any]) -> None:
            import ray.train

            if ray.train.get_context().get_world_rank() == 1 and not mark.exists():
                at_pass(11, "backward", lambda: (mark.touch(), os.kill(os.getpid(), signal.SIGSTOP)))
            work(config)

        workers.work = mortal
        pretrain({key: value for key, value in config.items() if key != "run"})

    def job_of(lr: float) -> Job:
        run = Run(measured={"lr": lr}, label="S-lr3.00e-3")
        return Job(run=run, role="search", size="S", lr=lr, tokens=points[-1], stop_at=points[-1], eval_at=points,
                   config=config, handle=lr)  # fmt: skip

    listener = Listener()
    listener.message = heard.append  # type: ignore[method-assign]
    store = RunStore(evaluations_table(tmp_path), trials_table(tmp_path))
    executor = TuneExecutor(storage=tmp_path / "tune", resources={"CPU": 0.5, "head": 0.1}, hang_seconds=10)
    work = Work(FixedPolicy([3e-3]), job_of, store, listener)
    executor.execute(trainable, work)
    assert mark.exists(), work.errors
    assert work.errors == []
    messages = [one for one in heard if "it is tried again" in one]  # it hangs, or gloo noticed that before
    assert messages, heard
    rows = sorted(evaluations_table(tmp_path).read().to_pylist(), key=lambda row: int(row["tokens"]))
    (want,) = curves(corpus.path, 1, SHARES)
    same = [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in want], abs=1e-5)
    assert same
    assert_nothing_is_held()
    how = "SIGSTOP to a worker of Ray Train, in a backward pass"
    record("one of two workers stopped", how=how, message=messages[0],
           survived=f"{len(rows)} of {len(want)} losses; no placement group is left", same_law=same)  # fmt: skip


def test_a_trial_that_gets_sigterm_saves_a_checkpoint_first(
    nodes: Any, corpus: Corpus, tmp_path: Path, record: Callable[..., None]
) -> None:
    """As of a node that is about to be taken away. The next attempt begins at the very step."""
    points = [BATCH * step for step in (3, 6, 9, 12)]
    run_dir, begun = tmp_path / "run", tmp_path / "begun.log"
    config = {
        "run": "run", "lr": 3e-3, "model": MODEL.model_dump(), "corpus": str(corpus.path), "tokens": points[-1],
        "eval_at": points, "run_dir": str(run_dir),
        "train": train_spec(checkpoint_seconds=1e6).model_dump(exclude_none=True),
    }  # fmt: skip

    def trainable(config: dict[str, Any]) -> None:
        whole = [path.name for path in RunFolder(run_dir).whole()]
        with begun.open("a") as log:
            log.write(f"{whole}\n")
        if not whole:
            at_pass(8, "backward", lambda: os.kill(os.getpid(), signal.SIGTERM))
        pretrain({key: value for key, value in config.items() if key != "run"})

    def job_of(lr: float) -> Job:
        run = Run(measured={"lr": lr}, label="S-lr3.00e-3")
        return Job(run=run, role="search", size="S", lr=lr, tokens=points[-1], stop_at=points[-1], eval_at=points,
                   config=config, handle=lr)  # fmt: skip

    heard, listener = list[str](), Listener()
    listener.message = heard.append  # type: ignore[method-assign]
    store = RunStore(evaluations_table(tmp_path), trials_table(tmp_path))
    executor = TuneExecutor(storage=tmp_path / "tune", resources={"CPU": 1})
    executor.execute(trainable, Work(FixedPolicy([3e-3]), job_of, store, listener))
    first, second = begun.read_text().splitlines()
    assert first == "[]"
    step = re.match(r"\['step-0*(8|9|10)'", second)
    assert step  # that it was in, or soon after
    (message,) = heard
    assert "ended by SIGTERM" in message
    rows = sorted(evaluations_table(tmp_path).read().to_pylist(), key=lambda row: int(row["tokens"]))
    (want,) = curves(corpus.path, 1, {})
    same = [row["loss"] for row in rows] == [row["loss"] for row in want]
    assert same
    survived = f"{len(rows)} of {len(want)} losses; the next attempt began at step {step[1]}"
    how = "SIGTERM to a trial's process amid step 8"
    record("node preempted", how=how, message=message, survived=survived, same_law=same)
