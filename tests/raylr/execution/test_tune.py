"""Ray Tune as an executor, on trainables that take no time."""

import gc
import math
import os
import pickle
import re
import signal
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import tune

from raylr.analysis.runs import Run, RunEnd
from raylr.errors import InputError, StorageError, StudyError
from raylr.execution.executor import Job
from raylr.execution.pace import Pace
from raylr.execution.tune import TuneExecutor, _Events, _Jobs, _JobSearcher, _ReportScheduler, reported
from raylr.execution.work import FixedPolicy, Work
from raylr.external.trial import reported_checkpoint
from raylr.store.runs import RunStore
from raylr.store.runtable import evaluations_table, trials_table

POINTS = (10, 20, 30)


pytestmark = pytest.mark.usefixtures("shared_cluster")


class Stopping(FixedPolicy):
    """Stops runs at LRs above 1 after their first report."""

    def __init__(self, lrs):
        super().__init__(lrs)
        self.ends = {}

    def report(self, run, tokens, loss, current_lr=None):
        return RunEnd.PRUNED if run > 1 else None

    def tell(self, run, end, loss=None, stderr=0.0):
        self.ends[run] = end


def trainable(config):
    """Report three losses; fail at the LR 0.5, the first time only at 0.25, and diverge at 0.75."""
    marker = Path(config["folder"]) / f"tried-{config['lr']}"
    for tokens in POINTS:
        if config["lr"] == 0.5 or (config["lr"] == 0.25 and tokens == 20 and not marker.exists()):
            marker.touch()
            raise OSError("no space for activations")
        diverged = config["lr"] == 0.75 and tokens == 20
        loss = math.nan if diverged else 3 - tokens / 100
        tune.report({"loss": loss, "tokens": tokens, "run_end": "diverged" if diverged else None, "more": {"x": 1}})
        if diverged:
            return


def work_in(folder, lrs):
    def job_of(lr):
        config = {"run": f"run-{lr}", "lr": lr, "folder": str(folder)}
        run = Run(measured={"lr": lr}, label=str(lr))
        return Job(run=run, role="search", size="S", lr=lr, tokens=30, stop_at=30, config=config, handle=lr)

    return Work(Stopping(lrs), job_of, RunStore(evaluations_table(folder), trials_table(folder)))


def executor_in(folder, **more):
    return TuneExecutor(storage=folder / "tune", resources={"CPU": 1}, **more)


@pytest.mark.slow
def test_runs_end_as_they_ended_and_failures_are_retried_once(tmp_path):
    work = work_in(tmp_path, [0.1, 0.25, 0.5, 0.75, 2.0])
    executor_in(tmp_path, concurrency=2).execute(trainable, work)
    assert work.policy.ends == {
        0.1: RunEnd.COMPLETED,
        0.25: RunEnd.COMPLETED,
        0.5: RunEnd.FAILED,
        0.75: RunEnd.DIVERGED,
        2.0: RunEnd.PRUNED,
    }
    (error,) = work.errors
    assert "no space for activations" in error
    assert "error.txt" in error
    rows = evaluations_table(tmp_path).read().to_pylist()
    assert {(row["lr"], row["tokens"]) for row in rows} == {
        *((lr, tokens) for lr in (0.1, 0.25) for tokens in POINTS),
        *((0.75, tokens) for tokens in POINTS[:2]),
        (2.0, 10),
    }
    assert all(row["more/x"] == 1 for row in rows)
    assert "trial_id" not in rows[0]


@pytest.mark.slow
def test_a_storage_that_fails_ends_everything_with_its_own_error(tmp_path, monkeypatch):
    work = work_in(tmp_path, [0.1, 0.2])

    def full(row):
        raise StorageError("cannot write: the disk is full")

    monkeypatch.setattr(work._store, "add_end", full)
    with pytest.raises(StorageError, match="the disk is full"):
        executor_in(tmp_path, concurrency=1).execute(trainable, work)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # of what Tune leaves open when it is ended by an exception


def stopped_once(config):
    """Report three losses; stop the process once, after the second."""
    marker = Path(config["folder"]) / "stopped"
    checkpoint, done = tune.get_checkpoint(), 0
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            done = int((Path(folder) / "done").read_text())
    for tokens in POINTS[done:]:
        if tokens == POINTS[2] and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "done").write_text(str(POINTS.index(tokens) + 1))
            tune.report(
                {"loss": 3 - tokens / 100, "tokens": tokens, "from": done},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


@pytest.mark.slow
def test_a_trial_that_hangs_is_ended_and_goes_on_from_its_checkpoint(tmp_path):
    work, heard = work_in(tmp_path, [0.1]), []
    work._listener.message = heard.append
    executor_in(tmp_path, hang_seconds=3).execute(stopped_once, work)
    assert work.policy.ends == {0.1: RunEnd.COMPLETED}
    assert work.errors == []
    assert {row["tokens"]: row["from"] for row in evaluations_table(tmp_path).read().to_pylist()} == {
        10: 0,
        20: 0,
        30: 2,
    }
    (message,) = heard
    assert re.fullmatch(
        r"0\.1: it hangs: it reported nothing for \d+ s(?: \(until then \d+ s at most\))?, and was ended; "
        r"it is tried again from its last checkpoint\.",
        message,
    )


def reports_its_cpus(config):
    cpus = tune.get_context().get_trial_resources().bundles[0]["CPU"]
    for tokens in POINTS:
        tune.report({"loss": 3 - tokens / 100, "tokens": tokens, "cpus": cpus})


@pytest.mark.slow
def test_sizes_get_what_they_request(tmp_path):
    def job_of(lr):
        size = "L" if lr > 0.1 else "S"
        run = Run(measured={"lr": lr}, label=str(lr))
        config = {"run": f"run-{lr}", "lr": lr, "size": size}
        return Job(run=run, role="search", size=size, lr=lr, tokens=30, stop_at=30, config=config, handle=lr)

    work = Work(FixedPolicy([0.1, 0.2, 0.05]), job_of, RunStore(evaluations_table(tmp_path), trials_table(tmp_path)))
    executor_in(tmp_path, of_sizes={"L": {"CPU": 2}}).execute(reports_its_cpus, work)
    rows = evaluations_table(tmp_path).read().to_pylist()
    assert {(row["size"], row["cpus"]) for row in rows} == {("S", 1), ("L", 2)}
    assert len(rows) == 9


def test_what_tune_adds_to_a_report_is_left_out():
    result = {"loss": 2.0, "trial_id": "x", "pid": 7, "done": True, "config": {"lr": 1}, "config/lr": 1, "a": {"b": 3}}
    assert reported(result) == {"loss": 2.0, "a/b": 3}


def test_what_tune_writes_to_disk_cannot_be_restored(tmp_path):
    searcher = _JobSearcher(_Jobs(work_in(tmp_path, [0.1]), Pace()))
    with pytest.raises(StudyError, match=r"continued by `raylr search`, not by Tuner\.restore"):
        pickle.loads(pickle.dumps(searcher))
    searcher.save(str(tmp_path / "state"))
    with pytest.raises(StudyError, match=r"not by Tuner\.restore"):
        searcher.restore(str(tmp_path / "state"))


class Added(SimpleNamespace):
    """A trial as the scheduler sees it."""

    def __hash__(self):
        return hash(self.trial_id)


def test_trials_begin_in_the_order_in_which_they_were_added(tmp_path):
    scheduler = _ReportScheduler(_Jobs(work_in(tmp_path, []), Pace()))
    trials = [Added(trial_id=str(i), status="PENDING", get_json_state=None, local_path=None) for i in range(4)]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    scheduler._jobs.failure = StorageError("nothing is recorded any more")
    begun = []
    while (trial := scheduler.choose_trial_to_run(None)) is not None:
        trial.status = "RUNNING"
        begun.append(trial)
        if trial is trials[1]:
            scheduler.on_trial_complete(None, trial, {})
            trials[0].status = "PENDING"  # it is tried again
    assert begun == [trials[0], trials[1], trials[0], trials[2], trials[3]]
    assert scheduler._live.keys() == {"0", "2", "3"}
    assert trials[0].get_json_state() == ("", "")


def test_more_than_this_machine_has_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr("ray.init", lambda *args, **kwargs: None)
    monkeypatch.setattr("raylr.execution.session.require_loopback", lambda: None)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0})
    executor = TuneExecutor(storage=tmp_path / "tune", resources={"cpu": 10_000})
    with pytest.raises(InputError, match=r"10000 CPUs .* lower `resources`"):
        executor.execute(trainable, work_in(tmp_path, [1e-3]))


def test_a_checkpoint_is_noted_behind_the_losses_before_it(tmp_path):
    """A function goes on behind its checkpoint: a loss that was not written by then would never be measured again."""
    work = work_in(tmp_path, [0.1])
    job = replace(work.next(), folder=tmp_path / "run")
    jobs, trial = _Jobs(work, Pace()), SimpleNamespace(trial_id="t")
    jobs.of["t"] = job
    written = []
    events = _Events(jobs, tmp_path, waits=False)
    for tokens in POINTS[:2]:
        assert work.report(job, {"loss": 3.0, "tokens": tokens}) is None
        events.on_checkpoint(0, [trial], trial, SimpleNamespace(path=str(tmp_path)))
        assert reported_checkpoint(tmp_path / "run") == tmp_path
        written.append(sorted(row["tokens"] for row in evaluations_table(tmp_path).read().to_pylist()))
    assert written == [[10], [10, 20]]
