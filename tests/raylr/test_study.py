"""A study from end to end, on models and a corpus as small as they can be."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from raylr.analysis.laws.lr_law import LRLaw
from raylr.cli.app import main
from raylr.errors import InputError
from raylr.report.html import write_report
from raylr.spec import StudySpec
from raylr.store.runtable import evaluations_table, trials_table
from raylr.study import FittingStudy

SPEC = """
name: tiny
corpus: {vocab_size: 300}
model: {heads: 2, kv_heads: 1, head_dim: 8, experts: 4, top_k: 2, layers: 1}
sizes:
  S: {hidden_size: 8, expert_size: 8}
  M: {hidden_size: 16, expert_size: 16}
train: {seq_len: 32, batch_tokens: 512, warmup_tokens: 4096, validation_tokens: 2048}
budgets: [20k, 40k]
lr: {low: 3e-3, high: 2e-1}
search: {max_trials: 3}
target: {name: XL, model: {hidden_size: 24, expert_size: 24}, tokens: 50k, check: [0.333, 1, 3]}
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A folder of text: a few modules of the standard library."""
    folder = tmp_path_factory.mktemp("text")
    for name in (
        "argparse",
        "ast",
        "inspect",
        "subprocess",
        "tarfile",
        "typing",
        "zipfile",
        "datetime",
        "doctest",
        "pickle",
    ):
        module = __import__(name)
        source = Path(module.__file__)
        if source.name == "__init__.py":
            continue
        (folder / f"{name}.txt").write_text(source.read_text())
    return folder


def spec_of(text, **changes):
    data = yaml.safe_load(SPEC)
    data["corpus"]["files"] = [str(text)]
    return StudySpec.model_validate(data | changes)


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    study = FittingStudy(spec_of(text), folder)
    return study, study.run()


@pytest.mark.slow
def test_a_study_ends_with_a_law_a_prediction_and_its_check(finished):
    study, result = finished
    assert {optimum.setting.name for optimum in result.fit.optima} == {"S", "M"}
    assert result.prediction.params == result.spec.target_model().params("total")
    assert [run.lr / result.prediction.lr for run in result.check.runs] == pytest.approx([0.333, 1, 3], rel=1e-4)
    assert all(math.isfinite(result.check.loss_at(run)) for run in result.check.runs)
    assert 0 < result.cost.token_share < 1
    assert LRLaw.from_json((study.directory / "law.json").read_text()) == result.fit.law


@pytest.mark.slow
def test_every_evaluation_is_in_the_table_once(finished):
    study, _ = finished
    rows = study.evaluations.read().to_pylist()
    assert len({(row["trial"], row["tokens"]) for row in rows}) == len(rows)
    ends = {row["trial"]: row for row in study.trials.read().to_pylist()}
    assert {row["trial"] for row in rows} == set(ends)
    for row in rows:
        assert row["tokens"] <= ends[row["trial"]]["tokens"]
        assert 0 < row["loss"] < 7


@pytest.mark.slow
def test_a_finished_study_trains_nothing(finished, text, monkeypatch):
    study, result = finished

    def no_ray(*args, **kwargs):
        raise AssertionError("a finished study started Ray")

    monkeypatch.setattr("ray.init", no_ray)
    again = FittingStudy(spec_of(text), study.directory).run()
    assert again.fit.law == result.fit.law


@pytest.mark.slow
def test_the_report_is_one_file_with_its_pictures(finished):
    _, result = finished
    path = write_report(result)
    page = path.read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "http://" not in page
    assert "https://" not in page
    assert f"{result.prediction.lr:.2e}".split("e")[0] in page
    names = {file.name for file in (path.parent / "figures").iterdir()}
    assert {"figure-1a-loss-curves.png", "figure-1b-loss-over-lr.svg", "figure-2-law.png", "check.svg"} <= names


@pytest.mark.slow
def test_another_spec_is_kept_out_of_a_studys_folder(finished, text):
    study, _ = finished
    with pytest.raises(InputError, match=r"holds a study of another spec \(budgets"):
        FittingStudy(spec_of(text, budgets=["20k", "30k"]), study.directory)
    FittingStudy(spec_of(text, name="other"), study.directory)


def kill_and_finish(folder, text, changes, total, shares, log):
    """Run a study by the command line, kill it -9 when `shares` of its `total` evaluations are there, let it end."""
    file = log / "spec.yaml"
    data = yaml.safe_load(SPEC)
    data["corpus"]["files"] = [str(text)]
    file.write_text(yaml.safe_dump(data | changes))
    command = [sys.executable, "-m", "raylr", "search", str(file), "--out", str(folder)]
    for share in shares:
        said = log / f"killed-at-{share:.2f}.log"
        with said.open("w") as sink:
            process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + 240
        while len(evaluations_table(folder)) < share * total:
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    end = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert end.returncode == 0, end.stdout + end.stderr
    return command, end


def assert_the_same_study(folder, study, law):
    assert LRLaw.from_json((folder / "law.json").read_text()) == law
    rows = evaluations_table(folder).read().to_pylist()
    assert len({(row["trial"], row["tokens"]) for row in rows}) == len(rows) == len(study.evaluations)
    assert len(trials_table(folder)) == len(study.trials)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_law(finished, text, tmp_path):
    study, result = finished
    folder = tmp_path / "study"
    command, end = kill_and_finish(folder, text, {}, len(study.evaluations), (1 / 3, 2 / 3), tmp_path)
    assert_the_same_study(folder, study, result.fit.law)
    began = time.monotonic()
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "nothing was run" in again.stdout
    assert again.stdout.splitlines()[-1] == end.stdout.splitlines()[-1]
    assert time.monotonic() - began < 30  # it answers; how fast is for a benchmark to say


IN_PARTS = {"search": {"method": "surface", "max_trials": 5, "rungs": [0.25, 0.5, 1], "budget": 2}, "target": None}


@pytest.mark.slow
def test_runs_in_parts_and_killed_in_the_middle_end_with_the_same_law(text, tmp_path):
    whole = FittingStudy(spec_of(text, **IN_PARTS), tmp_path / "whole")
    result = whole.run()
    ends = [row for row in whole.trials.read().to_pylist() if row["role"] == "search"]
    runs = {row["trial"]: max(other["tokens"] for other in ends if other["trial"] == row["trial"]) for row in ends}
    assert len(ends) > len(runs), "no run went on"
    assert sum(row["status"] == "frozen" for row in ends) >= len(runs) - 2
    for size in ("S", "M"):
        assert sum(tokens for trial, tokens in runs.items() if f"-{size}-" in trial) <= 2 * 39_936 + 512
    curves = whole.evaluations.read().to_pylist()
    assert {trial: max(row["tokens"] for row in curves if row["trial"] == trial) for trial in runs} == runs
    exported = whole.finished_runs()
    assert len({(run.cell, run.lr) for run in exported}) == len(exported) == len(runs)
    budget = max(whole.spec.token_budgets)
    for run in exported:
        if run.attributes["status"] == "frozen":
            assert run.final == pytest.approx(float(result.fit.surfaces[run.cell].loss(run.lr, budget)[0]))
    assert not list((whole.directory / "checkpoints").glob("search-*"))
    folder = tmp_path / "killed"
    kill_and_finish(folder, text, IN_PARTS, len(whole.evaluations), (0.5,), tmp_path)
    assert_the_same_study(folder, whole, result.fit.law)


def test_a_corpus_smaller_than_the_budget_is_refused_before_training(text, tmp_path, monkeypatch):
    monkeypatch.setattr("ray.init", lambda *args, **kwargs: pytest.fail("started Ray"))
    study = FittingStudy(spec_of(text, budgets=["20k", "900M"]), tmp_path / "study")
    with pytest.raises(InputError, match=r"training tokens and the longest run needs 900M"):
        study.run()
    FittingStudy(spec_of(text), tmp_path / "study")  # nothing was measured: the mended spec may have the folder


def test_a_second_process_is_kept_out(text, tmp_path):
    study = FittingStudy(spec_of(text), tmp_path / "study")
    code = f"import fcntl, time; f = open({str(tmp_path / 'study' / '.lock')!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
    other = subprocess.Popen(
        [sys.executable, "-c", code + "print('locked', flush=True); time.sleep(60)"], stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline()
        with pytest.raises(InputError, match="another process is running the study"):
            study.run()
    finally:
        other.kill()
        other.communicate()


def test_a_folder_with_other_things_is_left_alone(text, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="is not empty and holds no study"):
        FittingStudy(spec_of(text), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_opening_no_study(tmp_path):
    with pytest.raises(InputError, match="holds no study"):
        FittingStudy.open(tmp_path)


@pytest.mark.slow
def test_a_study_is_exported_for_optuna_dashboard(finished, tmp_path, capsys):
    import optuna

    study, _ = finished
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
