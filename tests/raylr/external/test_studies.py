"""Studies whose runs are commands. One of them runs under Ray Tune and is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import yaml
from command_executor import CommandExecutor
from made_study import same_study

from raylr.analysis.runs import RunEnd
from raylr.errors import InputError, TrainingError
from raylr.recipes.recipe import Wishes
from raylr.recipes.transferred import transferred_recipe
from raylr.report.failures import failures_of
from raylr.report.html import write_report
from raylr.report.text import cost_line
from raylr.spec import StudySpec, load_spec
from raylr.store.check import check_study
from raylr.study import FittingStudy
from raylr.transfer_study import TransferStudy

SCRIPT = Path(__file__).parents[2] / "support" / "made_trainer.py"
BATCH, EVERY = 500, 2_500
SPEC = f"""
name: made
command:
  run: ["{{python}}", {SCRIPT}, --lr, "{{lr}}", --params, "{{width}}", --tokens, "{{tokens}}", --batch, "{{batch}}",
        --every, "{{eval_tokens}}", --seed, "{{seed}}"]
  resume: [--resume, "{{checkpoint}}"]
  checkpoint: checkpoint-*.json
  grace_seconds: 5
sizes:
  S: {{params: 100k, args: {{width: 100000}}}}
  M: {{params: 250k, args: {{width: 250000}}}}
train: {{batch_tokens: {BATCH}, schedule: constant}}
budgets: [24k, 40k]
lr: [3e-4, 1e-1]
search: {{max_trials: 4, truncate: false}}
target: {{name: XL, model: {{params: 1.5M, args: {{width: 1500000}}}}, tokens: 40k, check: [0.333, 1, 3]}}
"""
ONE = {"S": {"params": "100k", "args": {"width": 100_000}}}
PATIENCE = 600


def spec_with(*words, **changes):
    data = yaml.safe_load(SPEC)
    data["command"]["run"] += words
    command = changes.pop("command", {})
    return StudySpec.model_validate(data | changes | {"command": data["command"] | command})


def study_of(spec, folder):
    return FittingStudy(spec, folder, executor=lambda callbacks: CommandExecutor())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    study = study_of(spec_with(), tmp_path_factory.mktemp("studies") / "made")
    return study, study.run()


def test_a_study_of_commands_ends_with_a_law_and_a_check_and_needs_no_corpus(whole):
    study, result = whole
    assert not (study.directory / "corpus").exists()
    assert result.check is not None
    assert [run.lr / result.prediction.lr for run in result.check.runs] == pytest.approx([0.333, 1, 3], rel=1e-4)
    rows = study.evaluations.read().to_pylist()
    assert {row["size"]: row["params"] for row in rows} == {"S": 100_000, "M": 250_000, "XL": 1_500_000}
    assert {row["batch"] for row in rows} == {BATCH}
    assert all(row["flops"] == 6 * row["params"] * row["tokens"] for row in rows)
    assert len({(row["trial"], row["tokens"]) for row in rows}) == len(rows)
    assert check_study(study.directory).whole
    assert "FLOPs are taken as 6·N·D" in cost_line(result).text
    assert failures_of(study.directory) == []
    conditions = result.fit.law.conditions
    assert (conditions.batch_tokens, conditions.schedule, conditions.optimizer) == (BATCH, "constant", None)
    assert FittingStudy.open(study.directory).result().prediction == result.prediction


def test_a_transfer_study_of_commands_gets_the_init_std_and_the_ratios(tmp_path):
    target = {"name": "XL", "model": {"params": "1.6M", "args": {"width": 100_000}}, "tokens": "80k", "check": [1],
              "ratios": {"width": 4, "depth": 1}}  # fmt: skip
    spec = spec_with(
        "--std", "{init_std}", "--width-mult", "{width_ratio}", "--token-mult", "{token_ratio}", sizes=ONE, target=None,
        budgets=["40k"], search={"max_trials": 7, "truncate": False}, command={"env": {}},
        transfer={"init_std": [0.005, 0.08], "targets": [target]},
    )  # fmt: skip
    study = TransferStudy(spec, tmp_path / "study", executor=lambda callbacks: CommandExecutor())
    result = study.run()
    assert result.search.axes["init_std"] == pytest.approx(0.02, rel=0.6)
    (one,) = result.targets
    assert one.settings == ()
    assert one.ratios == {"width": 4, "depth": 1, "tokens": 2, "batch": 1}
    (command,) = [json.loads(row["config"])["command"] for row in study.trials.read().to_pylist()
                  if row["role"] == "check"]  # fmt: skip
    assert command[command.index("--width-mult") + 1] == "4.0"
    assert float(command[command.index("--std") + 1]) == result.search.axes["init_std"]
    write_report(result)
    with pytest.raises(InputError, match="ratios"):
        transferred_recipe(result, None, Wishes())


def test_checkpoints_of_the_search_are_removed_and_the_output_stays(whole):
    study, _ = whole
    roles = {row["trial"]: row["role"] for row in study.trials.read().to_pylist()}
    for folder in (study.directory / "runs").iterdir():
        assert (folder / "output.log").is_file()
        assert bool(list(folder.glob("checkpoint-*"))) is (roles[folder.name] == "check")


FAULTY = {"run": [*yaml.safe_load(SPEC)["command"]["run"], "--fault", "{fault}"]}
ONE_FAILS = {
    "S": {"params": "100k", "args": {"width": 100_000, "fault": "none"}},
    "M": {"params": "250k", "args": {"width": 250_000, "fault": "crash"}},
}


def test_runs_that_fail_are_in_the_report_with_what_they_printed(tmp_path):
    study = study_of(spec_with(sizes=ONE_FAILS, target=None, command=FAULTY), tmp_path / "study")
    with pytest.raises(TrainingError, match="of the runs failed, first M-lr"):
        study.run()
    assert {row["end"] for row in study.folder.failures.read().to_pylist()} == {RunEnd.FAILED}
    assert {row["size"] for row in study.trials.read().to_pylist()} == {"S"}
    page = write_report(study.result()).read_text()
    assert "after 17.5k tokens: it exited with status 3" in page
    assert "device-side assert triggered" in page
    assert check_study(study.directory).whole


def test_runs_that_report_another_name_say_which(tmp_path):
    sizes = {name: keys | {"args": keys["args"] | {"fault": "renamed"}} for name, keys in ONE_FAILS.items()}
    study = study_of(spec_with(sizes=sizes, target=None, command=FAULTY), tmp_path / "study")
    with pytest.raises(
        TrainingError, match=r"it reported no 'loss' \(command.read.loss\); its keys are step, val_loss"
    ):
        study.run()
    found = failures_of(study.directory)
    assert (len(found), len(study.folder.failures)) == (4, 8)  # the search repeats each once
    assert all("it reported no 'loss'" in failure.sentence for failure in found)
    assert all("val_loss" in failure.output for failure in found)


def test_a_run_of_nan_has_diverged(tmp_path):
    with pytest.raises(InputError, match="every run diverged"):
        study_of(spec_with("--fault", "nan", target=None), tmp_path / "study").run()


def test_other_limits_and_folders_are_the_same_study(whole, tmp_path):
    study, result = whole
    moved = spec_with(command={"grace_seconds": 1, "report_seconds": 9, "folder": str(tmp_path)})
    assert FittingStudy(moved, study.directory).run().fit.law == result.fit.law
    other = FittingStudy(spec_with(command={"env": {"A": "1"}}), study.directory)
    with pytest.raises(InputError, match=r"holds a study of another spec \(command\.env.*none of whose 1\d runs"):
        other.run()


def test_a_program_that_is_missing_is_said_before_anything_starts(tmp_path):
    spec = spec_with(command={"run": ["no-such-program", "{lr}", "{width}"]})
    with pytest.raises(InputError, match=r"command\.run: there is no program no-such-program"):
        study_of(spec, tmp_path / "study").run()
    assert not (tmp_path / "study" / "runs").exists()


def made_trainers(folder):
    """Processes of the script that train in a study's folder -> the steps that they have made."""
    found = {}
    for process in psutil.process_iter():
        try:
            if SCRIPT.name in " ".join(process.cmdline()) and process.cwd().startswith(str(folder)):
                found[process.pid] = len(Path(process.cwd(), "steps.log").read_text().split())
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_with_its_driver_and_in_its_script_it_ends_with_the_same_law(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    study, _ = whole
    folder, file = tmp_path / "study", tmp_path / "spec.yaml"
    file.write_text(SPEC)
    assert load_spec(file).differences(study.spec) == []
    command = [sys.executable, "-m", "raylr", "search", str(file), "--out", str(folder)]
    slow = os.environ | {"MADE_SECONDS": "0.02"}

    def wait_for(condition, process, log):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def measured():
        return len(FittingStudy.open(folder).evaluations) if (folder / "spec.yaml").exists() else 0

    total = len(study.evaluations)
    first = tmp_path / "first.log"
    with first.open("w") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=slow, start_new_session=True)
    try:
        wait_for(lambda: measured() >= total / 4 and made_trainers(folder), process, first)
    finally:
        process.kill()
        process.wait()
    second = tmp_path / "second.log"
    with second.open("w") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=slow, start_new_session=True)
    try:
        wait_for(lambda: measured() >= total / 2, process, second)
        wait_for(lambda: any(10 < steps < 40 for steps in made_trainers(folder).values()), process, second)
        os.kill(next(pid for pid, steps in made_trainers(folder).items() if steps < 60), signal.SIGKILL)
        assert process.wait(PATIENCE) == 0, second.read_text()
    finally:
        process.kill()
        process.wait()
    same_study(FittingStudy.open(folder), study)
    assert check_study(folder).whole
    assert made_trainers(folder) == {}
    for log in folder.glob("runs/*/steps.log"):
        again = sum(count - 1 for count in Counter(log.read_text().split()).values())
        assert again < 2 * EVERY / BATCH  # each kill costs what was trained since the last checkpoint
    attempts = "".join(path.read_text() for path in folder.glob("runs/*/attempts.jsonl")).splitlines()
    assert -signal.SIGKILL in [json.loads(line)["status"] for line in attempts]
