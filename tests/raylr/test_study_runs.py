"""Studies from end to end: Ray Tune trains models as small as they can be, and processes are killed."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from training_executor import TrainingExecutor

from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.runs import RunEnd
from raylr.cli.app import main
from raylr.spec import StudySpec
from raylr.store.check import check_study
from raylr.study import FittingStudy

SPEC = """
name: tiny
corpus: {vocab_size: 300}
model: {heads: 2, kv_heads: 1, head_dim: 8, experts: 4, top_k: 2, layers: 1}
sizes:
  S: {hidden_size: 8, expert_size: 8}
  M: {hidden_size: 16, expert_size: 16}
train: {seq_len: 32, batch_tokens: 512, warmup_tokens: 2048, validation_tokens: 2048}
budgets: [10k, 20k]
lr: {low: 3e-3, high: 2e-1}
search: {max_trials: 3}
target: {name: XL, model: {hidden_size: 24, expert_size: 24}, tokens: 25k, check: [0.333, 1, 3]}
"""
SEGMENTS = {
    "sizes": {"S": {"hidden_size": 8, "expert_size": 8}},
    "budgets": ["20k", "40k"],
    "search": {"method": "surface", "max_trials": 5, "rungs": [0.25, 0.5, 1], "budget": 2},
    "target": None,
}
PATIENCE = 600
"""Seconds to wait for a process; the machine may be busy."""


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A folder of text: a few modules of the standard library."""
    folder = tmp_path_factory.mktemp("text")
    for name in ("argparse", "ast", "inspect", "subprocess", "tarfile", "typing", "zipfile", "doctest", "pickle"):
        (folder / f"{name}.txt").write_text(Path(__import__(name).__file__).read_text())
    return folder


def data_of(text, **changes):
    data = yaml.safe_load(SPEC)
    data["corpus"]["files"] = [str(text)]
    return data | changes


@pytest.fixture(scope="module")
def undisturbed(text, tmp_path_factory):
    """The study whose runs are trained in this process, one after the other."""
    spec = StudySpec.model_validate(data_of(text))
    folder = tmp_path_factory.mktemp("undisturbed") / "tiny"
    study = FittingStudy(spec, folder, executor=lambda callbacks: TrainingExecutor())
    return study, study.run()


@pytest.fixture(scope="module")
def killed(shared_cluster, undisturbed, text, tmp_path_factory):
    """The same study by the command line, killed in the middle and started again: its folder, command and output."""
    folder = tmp_path_factory.mktemp("killed")
    total = len(undisturbed[0].evaluations)
    command, end = stopped_and_finished(folder / "study", text, {}, total, folder, signal.SIGKILL)
    return FittingStudy.open(folder / "study"), command, end.stdout


def stopped_and_finished(folder, text, changes, total, log, sign):
    """Run a study by the command line, send it a signal when half of its evaluations are there, let it end later."""
    file = log / "spec.yaml"
    file.write_text(yaml.safe_dump(data_of(text, **changes)))
    command = [sys.executable, "-m", "raylr", "search", str(file), "--out", str(folder)]
    printed = log / "stopped.log"
    with printed.open("w") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (folder / "spec.yaml").exists() or len(FittingStudy.open(folder).evaluations) < 0.5 * total:
            assert process.poll() is None, printed.read_text()
            assert time.monotonic() < deadline, printed.read_text()
            time.sleep(0.2)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended: the assertion above says how
            os.kill(process.pid, sign)
        status = process.wait()
    if sign == signal.SIGTERM:
        assert status == 143, printed.read_text()
        assert "Stopped. Everything measured is kept" in printed.read_text()
        assert "stack" not in printed.read_text().lower()
    else:
        assert status == -sign
    end = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert end.returncode == 0, end.stdout + end.stderr
    return command, end


def assert_the_same_study(folder, study, law):
    assert LRLaw.from_json((folder / "law.json").read_text()) == law
    again = FittingStudy.open(folder)
    rows = [{(row["trial"], row["tokens"], row["loss"]) for row in one.evaluations.read().to_pylist()}
            for one in (study, again)]  # fmt: skip
    assert rows[0] == rows[1]
    assert len(again.trials) == len(study.trials)
    assert check_study(folder).whole


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_the_middle_it_ends_with_the_same_law(undisturbed, killed, capsys):
    want, result = undisturbed
    study, command, printed = killed
    assert_the_same_study(study.directory, want, result.fit.law)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(command[3:])
    again = capsys.readouterr().out
    assert not ended.value.code
    assert "nothing was run" in again
    assert again.splitlines()[-1] == printed.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_of_real_runs_ends_with_a_law_and_a_check(killed, monkeypatch):
    study, _, _ = killed
    result = study.result()
    assert [run.lr / result.prediction.lr for run in result.check.runs] == pytest.approx([0.333, 1, 3], rel=1e-4)
    assert all(math.isfinite(result.check.loss_at(run)) for run in result.check.runs)
    rows = study.evaluations.read().to_pylist()
    assert all(0 < row["loss"] < 7 and (row["current_lr"] < row["lr"]) == (row["tokens"] < 2048) for row in rows)
    names = {row["trial"] for row in rows}
    assert len(names) == len(study.trials)
    kept = {path.name for path in (study.directory / "checkpoints").iterdir()}
    assert kept == {row["trial"] for row in study.trials.read().to_pylist() if row["role"] == "check"}
    monkeypatch.setattr("ray.init", lambda *args, **kwargs: pytest.fail("a finished study started Ray"))
    assert FittingStudy.open(study.directory).run().fit.law == result.fit.law


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_runs_in_segments_and_stopped_in_the_middle_end_with_the_same_law(text, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    whole = FittingStudy(StudySpec.model_validate(data_of(text, **SEGMENTS)), tmp_path / "whole")
    result = whole.run()
    ends = whole.trials.read().to_pylist()
    reached = {row["trial"]: max(other["tokens"] for other in ends if other["trial"] == row["trial"]) for row in ends}
    assert len(ends) > len(reached), "no run was resumed"
    assert sum(row["end"] == RunEnd.PAUSED for row in ends) >= len(reached) - 2
    assert sum(reached.values()) <= 2 * 39_936 + 512
    curves = whole.evaluations.read().to_pylist()
    assert {run: max(row["tokens"] for row in curves if row["trial"] == run) for run in reached} == reached
    assert not list((whole.directory / "checkpoints").iterdir())
    folder = tmp_path / "killed"
    stopped_and_finished(folder, text, SEGMENTS, len(whole.evaluations), tmp_path, signal.SIGTERM)
    assert_the_same_study(folder, whole, result.fit.law)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_is_exported_for_optuna_dashboard(killed, tmp_path, capsys):
    import optuna

    study, _, _ = killed
    storage = f"sqlite:///{tmp_path}/optuna.db"
    with pytest.raises(SystemExit) as end:
        main(["export", str(study.directory), "--optuna", storage])
    assert not end.value.code
    assert "2 studies" in capsys.readouterr().out
    exported = {summary.study_name: summary for summary in optuna.get_all_study_summaries(storage)}
    ended = [row for row in study.trials.read().to_pylist() if row["role"] == "search"]
    assert sum(summary.n_trials for summary in exported.values()) == len(ended)
    best = min(row["target_loss"] for row in ended if row["size"] == "S")
    assert next(v for k, v in exported.items() if k.endswith("S")).best_trial.value == pytest.approx(best)
