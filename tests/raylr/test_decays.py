"""Studies whose objective is decayed, on a made-up loss; and on real runs that are interrupted."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from made_study import SPEC, no_executor, spec_of, study_of
from pydantic import ValidationError
from serial_executor import SerialExecutor, report_of

from raylr.analysis import Decay
from raylr.analysis.laws.lr_law import LRLaw
from raylr.report.decay import decay_lines
from raylr.report.ending import ending
from raylr.report.html import write_report
from raylr.report.text import cost_line
from raylr.spec import StudySpec
from raylr.spec.decay import decayed_tokens, leaves_at
from raylr.study import FittingStudy

DECAYED = {"objective": "decayed", "decay": {"fraction": 0.25, "shape": "linear"}, "search": {"max_trials": 3}}
STABLE_BEST, DECAYED_BEST = 0.34, 2.95
"""Where the made-up loss is lowest, over its LR of 1, at the largest budget."""


def unit(params: float) -> float:
    return 3e-3 * (1e5 / params) ** 0.4


def report(job, tokens):
    """A loss whose floor follows the LR; its best LR is far higher after a decay."""
    base, train = report_of(job, tokens), job.config["train"]
    decay = Decay(shape=train["decay_shape"], fraction=train["decay_fraction"], final_lr_ratio=train["final_lr_ratio"])
    now = float(decay.factor([tokens], job.tokens)[0]) if train["schedule"] == "wsd" else 1.0
    x = job.lr / unit(base["params"])
    loss = 2.5 + 0.4 * (tokens / 39936 * x**0.7) ** -0.35 + 0.35 * x**0.5 * (0.25 + now)
    leaves = job.tokens * (1 - train["decay_fraction"]) // 512 * 512
    more = {"trunk_tokens": int(leaves)} if "trunk_dir" in job.config else {}
    return {**base, "loss": loss, "current_lr": now * job.lr, "run_end": None, **more}


@pytest.fixture(scope="module")
def decayed(texts, tmp_path_factory):
    executor = SerialExecutor(report=report)
    study = study_of(spec_of(texts, **DECAYED), tmp_path_factory.mktemp("decayed") / "study", executor)
    return study, study.run(), executor


def test_the_optima_are_those_after_the_decay_and_the_stable_ones_stand_beside_them(decayed):
    study, result, _ = decayed
    assert len(result.fit.optima) == len(result.fit.stable) == 4
    for after, before in zip(result.fit.optima, result.fit.stable, strict=True):
        assert (after.size, after.tokens) == (before.size, before.tokens)
        assert after.lr_low < DECAYED_BEST * unit(after.params) * (after.tokens / 39936) ** -0.33 < after.lr_high
        assert after.lr_opt > 2 * before.lr_opt
    at_the_end = [one for one in result.fit.stable if one.tokens == max(study.spec.token_budgets)]
    for one in at_the_end:
        assert one.lr_low < STABLE_BEST * unit(one.params) < one.lr_high


def test_the_law_and_the_prediction_carry_the_objective(decayed):
    study, result, _ = decayed
    stored = LRLaw.from_json((study.directory / "law.json").read_text()).conditions
    assert stored == result.fit.law.conditions
    assert (stored.objective, stored.schedule, stored.decay_fraction, stored.decay_shape) == (
        "decayed", "wsd", 0.25, "linear"
    )  # fmt: skip
    assert not result.prediction.message or "objective" not in result.prediction.message
    stable = study.spec.model_copy(update={"objective": "stable", "decay": None})
    there = result.fit.law.predict(1e5, 4e4, conditions=stable.conditions()).message
    assert "objective stable (runs of the law: decayed)" in there


def test_every_token_is_trained_once(decayed):
    study, result, executor = decayed
    assert not [one for one, count in Counter(executor.trained).items() if count > 1]
    rows, spec = study.evaluations.read().to_pylist(), study.spec
    trunks = {row["trial"]: row for row in sorted(rows, key=lambda row: row["tokens"]) if row["role"] == "search"}
    assert {row["tokens"] for row in trunks.values()} == {leaves_at(spec, spec.train, max(spec.token_budgets))}
    branches = {row["trial"]: row for row in sorted(rows, key=lambda row: row["tokens"]) if row["role"] == "decay"}
    assert {row["trunk"] for row in branches.values()} <= set(trunks)
    own = sum(row["tokens"] for row in trunks.values())
    own += sum(row["tokens"] - row["trunk_tokens"] for row in branches.values())
    assert result.cost.search_tokens == own <= len(trunks) * decayed_tokens(spec)
    assert decayed_tokens(spec) < 1.35 * max(spec.token_budgets)
    assert not study.folder.trunks.exists() or not list(study.folder.trunks.iterdir())


def test_the_check_is_decayed_too(decayed):
    study, result, _ = decayed
    config = [json.loads(row["config"]) for row in study.trials.read().to_pylist() if row["role"] == "check"]
    assert {(one["train"]["schedule"], one["train"]["decay_fraction"]) for one in config} == {("wsd", 0.25)}
    assert len(result.check.runs) == 3


def test_a_finished_study_trains_nothing_and_its_report_names_the_objective(decayed, tmp_path):
    study, result, _ = decayed
    again = FittingStudy(study.spec, study.directory, executor=no_executor).run()
    assert again.fit.law == result.fit.law
    page = write_report(again, tmp_path / "report").read_text()
    assert "Stable loss, before the decay: " in page
    lines = [line.text for line in (*ending(again), *decay_lines(again), cost_line(again))]
    said = " ".join(lines)
    assert "peak LR of a wsd schedule, optimum of the decayed loss" in said
    assert "after a linear decay to 0 over the last 25 % of the tokens" in said
    assert re.search(r"they are [\d.]+ times \(90 % interval .*\) the optima of the stable loss", said)
    assert re.search(r"its \d+ trunks and their decays took 1\.\d\d times the tokens of as many whole runs", said)


class Stop:
    """Interrupts an executor after a number of reports."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, job, tokens):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_interrupted_study_ends_with_the_same_law(decayed, texts, tmp_path):
    _, result, _ = decayed
    for left in (3, 20, 47, 60, 10**9):
        executor = SerialExecutor(before=Stop(left), report=report)
        try:
            found = study_of(spec_of(texts, **DECAYED), tmp_path / "study", executor).run()
        except KeyboardInterrupt:
            continue
    assert found.fit.law == result.fit.law
    assert found.cost == result.cost


def test_a_stable_study_may_go_on_to_the_decayed_loss(texts, tmp_path):
    study_of(spec_of(texts, target=None), tmp_path / "study", SerialExecutor(report=report)).run()
    executor = SerialExecutor(report=report)
    result = study_of(spec_of(texts, **DECAYED, target=None), tmp_path / "study", executor).run()
    assert result.fit.law.conditions.objective == "decayed"
    assert all(one.lr_low < DECAYED_BEST * unit(one.params) * (one.tokens / 39936) ** -0.33 < one.lr_high
               for one in result.fit.optima)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"decay": {"fraction": 0.2}}, "decay is for objective decayed"),
        ({"objective": "decayed", "train": {"schedule": "cosine"}}, "every budget is a run of its own"),
        ({"objective": "decayed", "search": {"method": "surface"}, "target": None}, "needs method quadratic"),
        ({"objective": "decayed", "decay": {"fraction": 0.01}}, "less than one batch"),
        ({"objective": "decayed", "decay": {"fraction": 0.95}}, "begins before the warmup"),
    ],
)
def test_what_does_not_go_with_a_decay_is_refused_in_one_sentence(texts, changes, why):
    changes = {**changes, "train": yaml.safe_load(SPEC)["train"] | changes.get("train", {})}
    with pytest.raises(ValidationError, match=why):
        spec_of(texts, **changes)


def test_other_trainers_and_transfer_are_refused():
    sizes = {"S": {"params": 1e6}}
    other = {"command": ["train"], "sizes": sizes, "train": {"batch_tokens": 10, "schedule": "constant"},
             "budgets": [1000], "lr": [1e-4, 1e-2], "objective": "decayed"}  # fmt: skip
    with pytest.raises(ValidationError, match="which raylr's own trainer can and command cannot"):
        StudySpec.model_validate(other)


REAL = {**DECAYED, "target": None, "sizes": {"S": {"hidden_size": 8, "expert_size": 8}}, "search": {"max_trials": 3},
        "budgets": [6144, 12288], "validations": 8}  # fmt: skip
PROGRAM = """
import json, sys
from pathlib import Path
import raylr.trainables.training.loop as loop
from made_study import study_of
from raylr.spec import StudySpec
from raylr.store.folder import CHECKPOINTS
from training_executor import TrainingExecutor

spec, folder, log = StudySpec.model_validate(json.loads(sys.argv[1])), Path(sys.argv[2]), open(sys.argv[3], "a")
factor, running = loop.lr_factor, [""]

def noted(train, step, tokens):
    print(train.schedule, running[0], step, file=log, flush=True)
    return factor(train, step, tokens)

class Executor(TrainingExecutor):
    def execute(self, trainable, work):
        started = work.started
        work.started = lambda job: (running.__setitem__(0, job.run.name), started(job))
        super().execute(trainable, work)

loop.lr_factor = noted
print(study_of(spec, folder, Executor(folder / CHECKPOINTS)).run().fit.law.to_json())
"""


def run_real(spec, folder: Path, log: Path, kill_after: float | None = None) -> str:
    """Run a study in a process of its own; kill it after some seconds of training."""
    path = os.pathsep.join(str(Path(__file__).parents[depth]) for depth in (2,)) + os.pathsep
    path += str(Path(__file__).parents[1] / "support")
    command = [sys.executable, "-c", PROGRAM, spec.model_dump_json(exclude_defaults=True), str(folder), str(log)]
    environment, pipe = {**os.environ, "PYTHONPATH": path}, subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        if kill_after is None:
            out, error = process.communicate()
            assert not process.returncode, error
            return out.strip().splitlines()[-1]
        begun = log.stat().st_size if log.exists() else 0
        while process.poll() is None and not (log.exists() and log.stat().st_size > begun):
            time.sleep(0.02)
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return ""


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_anywhere_no_trunk_token_is_trained_twice(texts, tmp_path):
    train = yaml.safe_load(SPEC)["train"] | {"checkpoint_seconds": 0, "warmup_tokens": 1024}
    spec = spec_of(texts, **{**REAL, "train": train})
    law = run_real(spec, tmp_path / "whole", tmp_path / "whole.log")
    log, kills = tmp_path / "log", (0.3, 0.7, 1.1, 1.6, 2.0, 0.5)
    for seconds in kills:
        run_real(spec, tmp_path / "killed", log, seconds)
    assert run_real(spec, tmp_path / "killed", log) == law
    steps = Counter(log.read_text().splitlines())
    again = [line for line, count in steps.items() if count > 1]
    assert len(again) <= len(kills)  # the step that was under way when it was killed, and no other
    assert set(steps) == set((tmp_path / "whole.log").read_text().splitlines())
