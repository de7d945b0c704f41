"""Studies whose spec changes while they are under way: what is used again, what is said, what it costs."""

import json
import math

import numpy as np
import pytest
import yaml
from made_study import SPEC, contents, no_executor, spec_of, study_of
from serial_executor import SerialExecutor, report_of

from raylr.errors import StudyError
from raylr.events import Listener
from raylr.growth import from_plain, to_plain
from raylr.searchers.policies.policy import Point
from raylr.study import FittingStudy

SIZES = yaml.safe_load(SPEC)["sizes"]
TRAIN = yaml.safe_load(SPEC)["train"]


class Messages(Listener):
    def __init__(self):
        self.heard = []

    def message(self, text):
        self.heard.append(text)


def grown(spec, folder, report=report_of):
    """Go on with a study; what was trained, and what was said."""
    executor, messages = SerialExecutor(report=report), Messages()
    study = FittingStudy(spec, folder, executor=lambda callbacks: executor, progress=messages)
    result = study.run()
    return study, result, {name for name, _ in executor.trained}, messages.heard


def names(study):
    return set(study.trials.read().column("trial").to_pylist())


@pytest.mark.parametrize(
    ("changes", "new_sizes"),
    [
        ({"sizes": SIZES | {"L": {"hidden_size": 20, "expert_size": 20}}}, {"L"}),
        ({"sizes": {"S": SIZES["S"]}}, set()),
        ({"budgets": ["20k", "30k", "40k"]}, set()),
        ({"validations": 20}, set()),
        ({"search": {"max_trials": 6}}, None),
        ({"lr": {"low": 1e-5, "high": 1e-1}}, None),
        ({"budgets": ["20k", "60k"]}, None),
    ],
    ids=["size", "fewer sizes", "budget between", "validations", "trials", "range", "larger budget"],
)
def test_a_study_that_grows_uses_its_runs_again(finished, texts, changes, new_sizes):
    before, rows = names(finished), finished.evaluations.read().to_pylist()
    spec = spec_of(texts, target=None, **changes)
    study, result, trained, said = grown(spec, finished.directory)
    assert not trained & before  # nothing is measured twice
    assert any("used again" in text and next(iter(changes)) in text for text in said)
    if new_sizes is not None:
        assert {name.split("-")[1] for name in trained} == new_sizes
    kept = study.evaluations.read().to_pylist()
    assert [row for row in kept if row in rows] == rows  # what was measured stays
    assert {run.size for run in result.fit.runs} == set(spec.sizes)
    assert FittingStudy.open(finished.directory).result().fit.law == result.fit.law
    again = FittingStudy(spec, finished.directory, executor=no_executor).run()  # it has ended: nothing is left to train
    assert again.fit.law == result.fit.law


SETTLED = {"max_trials": 8}
"""Enough runs for every search to end by itself: one that ended for want of runs goes on under another spec."""


def test_a_batch_that_is_added_renames_the_old_searches_and_trains_nothing_again(finished, texts):
    grown(spec_of(texts, target=None, search=SETTLED), finished.directory)
    before = names(finished)
    train = {key: value for key, value in TRAIN.items() if key != "batch_tokens"}
    spec = spec_of(texts, target=None, train=train, batches=[512, 1024], search=SETTLED)
    study, result, trained, _ = grown(spec, finished.directory)
    assert not trained & before
    searched = [row for row in study.trials.read().to_pylist() if row["role"] == "search"]
    assert {row["batch"] for row in searched if row["trial"] in trained} == {1024}
    assert len({name.split("-")[0] for name in names(study)}) == len(names(study))
    assert len(result.fit.optima) == 2 * 2 * 2


def test_runs_of_another_size_under_the_same_name_are_left_out_and_priced(finished, texts):
    old = {row["trial"]: row for row in finished.trials.read().to_pylist() if row["size"] == "S"}
    spec = spec_of(texts, target=None, sizes=SIZES | {"S": {"hidden_size": 12, "expert_size": 8}})
    study, result, trained, said = grown(spec, finished.directory)
    assert {name.split("-")[1] for name in trained} == {"S"}
    lost = sum(row["tokens"] for row in old.values())
    assert any(f"{len(old) + 3}, which took" in text and "hidden_size" in text for text in said), (said, lost)
    assert len([run for run in result.fit.runs if run.size == "S"]) == len(trained)
    assert set(old) <= names(study)


def test_a_spec_of_which_nothing_could_be_used_is_another_study(finished, texts):
    before = contents(finished.directory)
    sentence = r"another spec \(train\.weight_decay: 0\.3, not [\d.]+\), none of whose \d+ runs could be used again; "
    with pytest.raises(StudyError, match=sentence):
        study_of(spec_of(texts, train=TRAIN | {"weight_decay": 0.3}), finished.directory).run()
    with pytest.raises(StudyError, match=r"another corpus \(corpus.vocab_size: 310, not 300"):
        FittingStudy(spec_of(texts, corpus={"vocab_size": 310, "files": [str(texts)]}), finished.directory)
    changed = {name for name, what in contents(finished.directory).items() if before.get(name) != what}
    assert changed <= {".", ".lock"}


def test_a_study_that_grows_and_is_killed_ends_as_an_undisturbed_one(whole, finished, texts, tmp_path):
    import shutil

    spec = spec_of(texts, target=None, lr={"low": 1e-5, "high": 1e-1}, search={"max_trials": 6})
    shutil.copytree(finished.directory, tmp_path / "other")
    _, undisturbed, trained, _ = grown(spec, finished.directory)
    count = 0

    def die(job, tokens):
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study_of(spec, tmp_path / "other", SerialExecutor(die)).run()
    _, result, rest, _ = grown(spec, tmp_path / "other")
    assert result.fit.law == undisturbed.fit.law
    assert rest <= trained


def test_back_to_the_first_spec(finished, texts):
    law = finished.result().fit.law
    grown(spec_of(texts, target=None, sizes=SIZES | {"L": {"hidden_size": 20, "expert_size": 20}}), finished.directory)
    _, result, trained, said = grown(spec_of(texts), finished.directory)
    assert not trained
    assert any("there is no size L" in text for text in said)
    assert result.fit.law == law


def test_the_surface_grows_too(texts, tmp_path):
    from made_study import SURFACE

    study = study_of(spec_of(texts, **SURFACE), tmp_path / "study")
    study.run()
    before = {(row["trial"], row["tokens"]) for row in study.evaluations.read().to_pylist()}
    executor = SerialExecutor()
    wider = spec_of(texts, **SURFACE, lr={"low": 1e-5, "high": 1e-1})
    FittingStudy(wider, tmp_path / "study", executor=lambda callbacks: executor).run()
    assert executor.trained
    assert len(set(executor.trained)) == len(executor.trained)
    assert before < {(r["trial"], r["tokens"]) for r in study.evaluations.read().to_pylist()}


def test_points_survive_their_plain_form():
    points = [
        Point(lr=1e-3, setting="S", loss=2.5, stderr=0.01),
        Point(lr=2e-3, setting="S", loss=math.nan),
        Point(lr=4e-3, setting="S"),
    ]
    back = from_plain(to_plain(points))
    assert repr(back) == repr(points)


def test_a_second_batch_is_added_to_a_finished_study(finished, texts):
    grown(spec_of(texts, target=None, search=SETTLED), finished.directory)
    before = names(finished)
    spec = spec_of(texts, target=None, batches={"S": [512, 1024], "M": 512}, search=SETTLED)
    study, result, trained, said = grown(spec, finished.directory)
    assert not trained & before
    assert any("used again" in text and "batches" in text for text in said)
    rows = [row for row in study.trials.read().to_pylist() if row["role"] == "search"]
    assert {(row["size"], row["batch"]) for row in rows if row["trial"] not in before} == {("S", 1024)}
    assert {run.size for run in result.fit.runs} == {"S B=512", "S B=1.02k", "M"}
    assert result.fit.law.batch_unit is not None


def test_more_seeds_repeat_lrs_of_the_same_folder_and_train_nothing_again(texts, tmp_path):
    """Losses of one LR differ by 5 % between seeds: more runs of it tell more than other LRs."""

    def noisy(job, tokens):
        report = report_of(job, tokens)
        rng = np.random.default_rng([job.seed, round(-1e3 * math.log(job.lr))])
        return report | {"loss": report["loss"] * (1 + 0.05 * rng.standard_normal())}

    fields = {"target": None, "sizes": {"S": SIZES["S"]}, "search": {"max_trials": 6, "truncate": False}}
    study, *_ = grown(spec_of(texts, seeds=1, **fields), tmp_path / "s", noisy)
    rows = study.trials.read().to_pylist()
    assert len({row["lr"] for row in rows}) == len(rows)
    before = names(study)
    study, _, trained, said = grown(spec_of(texts, seeds=3, **fields), tmp_path / "s", noisy)
    assert any(f"seeds: 3, not 1): all {len(before)} runs measured so far are used again" in text for text in said)
    assert not trained & before
    seeds = {}
    for row in study.trials.read().to_pylist():
        seeds.setdefault(row["lr"], []).append(json.loads(row["config"])["train"]["seed"])
    assert 1 < max(map(len, seeds.values())) <= 3
    assert all(sorted(each) == list(range(len(each))) for each in seeds.values())
