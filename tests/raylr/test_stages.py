"""Identities of runs, and studies that are stopped and go on, on a made-up loss."""

import math
import shutil

import pytest
import yaml
from made_study import SPEC, SURFACE, no_executor, same_study, spec_of, study_of
from serial_executor import DELTA, SerialExecutor

from raylr.analysis.runs import RunEnd, Setting
from raylr.errors import InputError, TrainingError
from raylr.events import Listener
from raylr.searchers.policies import cell_search, surface_cell
from raylr.searches import optimum_now, search_policy
from raylr.stages import Stages
from raylr.study import FittingStudy


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"data_seed": 1},
        {"batch_tokens": 1024},
        {"schedule": "cosine"},
        {"weight_decay": 0.2},
        {"validation_tokens": 1024},
        {"warmup_tokens": 2048},
    ],
)
def test_runs_that_measure_other_things_have_other_names(texts, tmp_path, change):
    names = []
    for train in ({}, change):
        spec = spec_of(texts, train=yaml.safe_load(SPEC)["train"] | train)
        stages = Stages(FittingStudy(spec, tmp_path / str(len(names))).folder, None)
        names.append(stages.run_of("search", "S", spec.models()["S"], 39_936, 1e-3).name)
    assert names[0] != names[1]


def test_a_replicate_is_a_run_with_another_seed(texts, tmp_path):
    spec = spec_of(texts)
    stages = Stages(FittingStudy(spec, tmp_path / "study").folder, None)
    model = spec.models()["S"]
    jobs = [stages._job("search", spec.settings()[0], model, 39_936, 1e-3, None, None, repeat) for repeat in (0, 1, 1)]
    assert [job.seed for job in jobs] == [job.config["train"]["seed"] for job in jobs] == [0, 1, 1]
    assert jobs[0].run.name != jobs[1].run.name == jobs[2].run.name


def test_the_horizon_counts_only_where_the_schedule_depends_on_it(texts, tmp_path):
    for schedule, same in (("constant", True), ("cosine", False), ("wsd", False)):
        spec = spec_of(texts, train=yaml.safe_load(SPEC)["train"] | {"schedule": schedule, "checkpoint_seconds": 7})
        stages = Stages(FittingStudy(spec, tmp_path / schedule).folder, None)
        model = spec.models()["S"]
        names = {stages.run_of("search", "S", model, tokens, 1e-3).name for tokens in (20_480, 39_936)}
        assert (len(names) == 1) is same


def fits_in(search, monkeypatch):
    """Let a stage train nothing; return how many models its search fitted."""
    fits = []
    for module, name in ((cell_search, "fit_optimum"), (surface_cell, "fit_surface")):
        fit = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, fit=fit, **more: (fits.append(1), fit(*args, **more))[1])
    search()
    return len(fits)


@pytest.mark.parametrize("changes", [{}, SURFACE], ids=["quadratic", "surface"])
def test_a_study_that_is_restored_fits_nothing_again(texts, tmp_path, changes, monkeypatch):
    spec = spec_of(texts, **changes)
    study_of(spec, tmp_path / "study").run()
    plans = tmp_path / "study" / "plans"

    def restored():
        folder = study_of(spec, tmp_path / "study").folder
        with folder.locked():
            Stages(folder, Listener(), no_executor).search()

    assert fits_in(restored, monkeypatch) == 0
    (file,) = plans.glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert fits_in(restored, monkeypatch) > 0  # and suggests the same: no_executor trains nothing
    assert fits_in(restored, monkeypatch) == 0
    shutil.rmtree(plans)
    assert fits_in(restored, monkeypatch) > 0


@pytest.fixture(scope="module")
def undisturbed_study(texts, tmp_path_factory):
    """A finished study of a spec with these changes, and what it trained; one for all tests that ask for the same."""
    known = {}

    def undisturbed_study(changes):
        if str(changes) not in known:
            counter = SerialExecutor()
            study = study_of(spec_of(texts, **changes), tmp_path_factory.mktemp("undisturbed") / "study", counter)
            study.run()
            known[str(changes)] = study, counter.trained
        return known[str(changes)]

    return undisturbed_study


@pytest.mark.parametrize("changes", [{}, SURFACE], ids=["quadratic", "surface"])
@pytest.mark.parametrize("share", [0.02, 0.4, 0.75, 0.98])
def test_killed_anywhere_it_ends_with_the_same_tables_and_law(undisturbed_study, texts, tmp_path, changes, share):
    spec = spec_of(texts, **changes)
    undisturbed, trained = undisturbed_study(changes)
    left = int(share * len(trained))

    def die(job, tokens):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    first, second = SerialExecutor(die), SerialExecutor()
    with pytest.raises(KeyboardInterrupt):
        study_of(spec, tmp_path / "killed", first).run()
    study = study_of(spec, tmp_path / "killed", second)
    study.run()
    same_study(study, undisturbed)
    if not changes:  # a made-up run has no checkpoint: of one that was on its way, or paused, all is reported again
        assert len({run for run, _ in set(first.trained) & set(second.trained)}) <= 1


def test_a_finished_study_trains_nothing(finished, texts):
    shutil.rmtree(finished.directory / "corpus")
    again = FittingStudy(spec_of(texts), finished.directory, executor=no_executor)
    assert again.ending() == "the answer\n"
    assert again.run().fit.law == finished.fit().law


def test_runs_are_paused_and_resumed(texts, tmp_path):
    executor = SerialExecutor()
    study = study_of(spec_of(texts, **SURFACE), tmp_path / "study", executor)
    result = study.run()
    ends = study.trials.read().to_pylist()
    runs = {row["trial"] for row in ends}
    assert len(ends) > len(runs), "no run was resumed"
    assert {row["end"] for row in ends} <= {RunEnd.PAUSED, RunEnd.COMPLETED}
    budget = max(study.spec.token_budgets)
    for run in study.finished_runs():
        if run.attributes["status"] == RunEnd.PAUSED:
            assert run.final == pytest.approx(float(result.fit.surfaces[run.setting].run_loss(run.lr, budget)[0]))


def test_a_run_that_failed_is_trained_again(texts, tmp_path):
    def fail(job, tokens):
        if job.size == "M" and tokens > 20_000:
            raise RuntimeError("out of memory")

    spec = spec_of(texts)
    with pytest.raises(TrainingError, match=r"M-lr.*: out of memory; what was measured is kept"):
        study_of(spec, tmp_path / "study", SerialExecutor(fail)).run()
    study = study_of(spec, tmp_path / "study")
    study.run()
    undisturbed = study_of(spec, tmp_path / "other")
    undisturbed.run()
    assert study.fit().law == undisturbed.fit().law or len(study.trials) > len(undisturbed.trials)


def test_every_run_diverged(texts, tmp_path):
    with pytest.raises(InputError, match=r"every run diverged, at LRs from .* lower lr\.low"):
        study_of(spec_of(texts, lr={"low": 5.0, "high": 90.0}), tmp_path / "study").run()


def test_a_corpus_smaller_than_the_budget_is_refused_before_training(texts, tmp_path):
    train = yaml.safe_load(SPEC)["train"] | {"repeat_data": False}
    spec = spec_of(texts, budgets=["20k", "900M"], train=train)
    study = FittingStudy(spec, tmp_path / "study", executor=no_executor)
    with pytest.raises(InputError, match=r"training tokens and the longest run needs 900M"):
        study.run()
    study_of(spec_of(texts), tmp_path / "study").run()  # nothing was measured: the mended spec may have the folder


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd"])
def test_runs_whose_lr_falls_are_not_truncated(texts, schedule):
    train = yaml.safe_load(SPEC)["train"] | {"schedule": schedule}
    spec = spec_of(texts, train=train, search={"truncate": True, "min_fraction": 0.3, "loss_tolerance": 0.5})
    policy = search_policy(spec, [Setting(name="S", params=1e5, tokens=1000.0, batch=512.0)])
    run = policy.ask().run
    ends = [policy.report(run, tokens, 2 + (tokens / 1000) ** -0.5) for tokens in range(50, 1001, 50)]
    assert (RunEnd.TRUNCATED in ends) is (schedule == "constant")
    assert ends[-1] is RunEnd.COMPLETED


TWO_BATCHES = {
    "batches": {"S": [512, 1024], "M": [512, 1024]},
    "target": {"name": "XL", "model": {"hidden_size": 24, "expert_size": 24}, "tokens": "50k", "batch_tokens": 2048},
}


def test_a_study_with_two_batches_searches_each_and_ends_the_same_when_killed(texts, tmp_path):
    spec = spec_of(texts, **TWO_BATCHES)
    counter = SerialExecutor()
    study = study_of(spec, tmp_path / "undisturbed", counter)
    result = study.run()
    rows = study.evaluations.read().to_pylist()
    assert {(row["size"], row["batch"]) for row in rows if row["role"] == "search"} == {
        (size, batch) for size in ("S", "M") for batch in (512, 1024)
    }
    assert {(row["size"], row["batch"]) for row in rows if row["role"] == "check"} == {("XL", 2048)}
    assert all(row["tokens"] % row["batch"] == 0 and row["step"] == row["tokens"] // row["batch"] for row in rows)
    assert {one.size for one in result.fit.optima} == {"S B=512", "S B=1.02k", "M B=512", "M B=1.02k"}
    assert len({row["trial"] for row in rows}) == len({(row["trial"], row["batch"]) for row in rows})
    low, high = result.fit.law.interval(0.9)["delta"]
    assert low < DELTA < high
    assert result.prediction.batch == 2048
    assert "extrapolated: 2 times beyond the fitted batch" in result.prediction.message
    assert result.cost.grid_tokens == 4 * spec.lr.grid * max(spec.token_budgets)
    assert {run.setting for run in study.finished_runs()} == {one.size for one in result.fit.optima}

    left = len(counter.trained) // 2

    def die(job, tokens):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study_of(spec, tmp_path / "killed", SerialExecutor(die)).run()
    study_of(spec, tmp_path / "killed").run()
    same_study(study_of(spec, tmp_path / "killed", no_executor), study)


def test_how_the_law_is_fitted_may_change_in_a_finished_study(texts, tmp_path):
    study_of(spec_of(texts, **TWO_BATCHES), tmp_path / "study").run()
    shutil.rmtree(tmp_path / "study" / "corpus")
    spec = spec_of(texts, **TWO_BATCHES, law={"batch_exponent": 0.3})
    law = FittingStudy(spec, tmp_path / "study", executor=no_executor).fit().law
    assert law.delta == 0.3


def test_an_optimum_is_stated_only_with_losses_on_both_sides_of_it():
    from raylr.searchers.policies.quadratic import QuadraticPolicy

    policy = QuadraticPolicy([Setting(name="S", params=1e6, tokens=1e6)], lr_range=(1e-3, 2e-2), max_trials=5)
    assert optimum_now(policy, "S") is None
    stated = []
    while not policy.finished and (suggestion := policy.ask()) is not None:
        policy.tell(suggestion.run, RunEnd.COMPLETED, 3 + 0.1 * math.log(suggestion.lr / 5e-3) ** 2)
        stated.append(optimum_now(policy, "S"))
    assert stated[0] is None
    last = stated[-1]
    assert last is not None
    assert last.lr_low < 5e-3 < last.lr_high
    assert policy.ended("S")
