import math
import multiprocessing
import random

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.status import Status
from raylr.errors import InputError
from raylr.searchers.optuna import QuadraticSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)


def final(lr, best=2e-3):
    return 2.5 * (1 + 0.012 * math.log(lr / best) ** 2)


def test_sampler_finds_the_optimum_and_stops():
    study = optuna.create_study(sampler=QuadraticSampler(stop=True))
    study.optimize(lambda t: final(t.suggest_float("lr", 1e-4, 1e-1, log=True)), n_trials=20)
    got = study.sampler.recommend(study)
    assert len(study.trials) <= 5
    assert got.status == "ok"
    assert abs(math.log(got.lr / 2e-3)) < 0.15


def test_sampler_goes_on_in_a_loaded_study(tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"

    def objective(trial):
        return final(trial.suggest_float("lr", 1e-4, 1e-1, log=True))

    for _ in range(4):
        study = optuna.create_study(study_name="s", storage=storage, load_if_exists=True, sampler=QuadraticSampler())
        study.optimize(objective, n_trials=1)
    whole = optuna.create_study(sampler=QuadraticSampler())
    whole.optimize(objective, n_trials=4)
    assert [t.params["lr"] for t in study.trials] == [t.params["lr"] for t in whole.trials]


def test_sampler_maximises_and_leaves_other_parameters_alone():
    study = optuna.create_study(direction="maximize", sampler=QuadraticSampler(seed=0))

    def objective(trial):
        trial.suggest_categorical("kind", ["a", "b"])
        return (
            1 - 0.1 * final(trial.suggest_float("lr", 1e-4, 1e-1, log=True)) - 1e-4 * trial.suggest_int("depth", 1, 4)
        )

    study.optimize(objective, n_trials=6)
    assert abs(math.log(study.sampler.recommend(study).lr / 2e-3)) < 0.3
    assert {t.params["kind"] for t in study.trials} <= {"a", "b"}


def test_running_trials_are_kept_apart():
    study = optuna.create_study(sampler=QuadraticSampler())
    lrs = [study.ask().suggest_float("lr", 1e-4, 1e-1, log=True) for _ in range(2)]
    assert lrs[0] != lrs[1]
    for trial, lr in zip(study.trials, lrs, strict=True):
        study.tell(trial.number, final(lr))
    more = [study.ask().suggest_float("lr", 1e-4, 1e-1, log=True) for _ in range(3)]
    assert len({round(math.log(lr), 1) for lr in more}) == 3


def test_failed_trials_bound_from_above():
    study = optuna.create_study(sampler=QuadraticSampler())

    def objective(trial):
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        return math.nan if lr > 4e-3 else final(lr)

    study.optimize(objective, n_trials=7)
    assert abs(math.log(study.sampler.recommend(study).lr / 2e-3)) < 0.3


@pytest.mark.parametrize(
    "call", [lambda t: t.suggest_float("lr", 0.0, 1.0), lambda t: t.suggest_float("lr", -1.0, 1.0)]
)
def test_ranges_that_are_not_positive(call):
    study = optuna.create_study(sampler=QuadraticSampler())
    with pytest.raises(InputError, match="0 < low < high"):
        call(study.ask())


def test_categorical_lr():
    study = optuna.create_study(sampler=QuadraticSampler())
    with pytest.raises(InputError, match="not a numeric range"):
        study.ask().suggest_categorical("lr", [1e-3, 1e-2])


def suggest(trial):
    return trial.suggest_float("lr", 1e-4, 1e-1, log=True)


@given(st.lists(st.sampled_from(["ask", "tell"]), min_size=2, max_size=40), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_trials_side_by_side_get_different_lrs(steps, seed):
    study, order = optuna.create_study(sampler=QuadraticSampler(seed=0)), random.Random(seed)
    running, lrs = [], []
    for step in steps:
        if step == "ask":
            running.append((study.ask(), None))
        elif running:
            trial, lr = running.pop(order.randrange(len(running)))
            lr = suggest(trial) if lr is None else lr
            lrs.append(lr)
            study.tell(trial, final(lr))
        if running and running[-1][1] is None and order.random() < 0.5:  # it asks for its lr late
            running[-1] = (running[-1][0], suggest(running[-1][0]))
    lrs += [suggest(trial) if lr is None else lr for trial, lr in running]
    assert len({round(math.log(lr), 6) for lr in lrs}) == len(lrs)


def test_many_asks_before_a_tell_fill_the_range():
    study = optuna.create_study(sampler=QuadraticSampler())
    lrs = [suggest(study.ask()) for _ in range(150)]
    assert len({round(math.log(lr), 6) for lr in lrs}) == 150
    assert min(lrs) < 3e-4
    assert max(lrs) > 3e-2


def work(storage):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name="s", storage=storage, sampler=QuadraticSampler())
    study.optimize(lambda trial: final(suggest(trial)), n_trials=3)


def test_six_processes_on_sqlite_get_different_lrs(tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(study_name="s", storage=storage)
    workers = [multiprocessing.get_context("fork").Process(target=work, args=(storage,)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    study = optuna.load_study(study_name="s", storage=storage, sampler=QuadraticSampler())
    lrs = [t.params["lr"] for t in study.trials]
    assert len(lrs) == 18
    assert len({round(math.log(lr), 6) for lr in lrs}) == 18


def test_steps_are_kept_and_not_repeated():
    study = optuna.create_study(sampler=QuadraticSampler())
    study.optimize(lambda t: final(t.suggest_float("lr", 5e-4, 6e-3, step=5e-4)), n_trials=10)
    lrs = [t.params["lr"] for t in study.trials]
    assert len(set(lrs)) == 10
    assert all(abs(lr / 5e-4 - round(lr / 5e-4)) < 1e-9 for lr in lrs)
    low = optuna.create_study(sampler=QuadraticSampler())
    assert abs(low.ask().suggest_float("lr", 3e-4, 9.3e-3, step=1e-3) / 1e-3 % 1 - 0.3) < 1e-9


def test_the_lr_is_judged_by_one_of_several_objectives():
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=QuadraticSampler(objective=1, seed=0))
    study.optimize(lambda t: (1.0, final(suggest(t)) + 0 * t.suggest_float("wd", 0, 1)), n_trials=6)
    assert abs(math.log(study.sampler.recommend(study).lr / 2e-3)) < 0.2
    with pytest.raises(InputError, match="objective=2 of a study with 2"):
        QuadraticSampler(objective=2).recommend(study)


def test_histories_with_other_kinds_of_lr():
    study = optuna.create_study(sampler=QuadraticSampler())
    floats, names = optuna.distributions.FloatDistribution, optuna.distributions.CategoricalDistribution
    for lr, distribution in ((0.0, floats(0.0, 1.0)), ("high", names(["high", "low"])), (None, names([None, 1]))):
        study.add_trial(optuna.trial.create_trial(params={"lr": lr}, distributions={"lr": distribution}, value=9.0))
    assert study.sampler.recommend(study).lr is None
    study.optimize(lambda trial: final(suggest(trial)), n_trials=5)
    study.add_trial(optuna.trial.create_trial(params={"lr": 0.0}, distributions={"lr": floats(0.0, 1.0)}, value=9.0))
    assert abs(math.log(study.sampler.recommend(study).lr / 2e-3)) < 0.2


def test_a_failure_below_an_lr_that_trained_says_nothing():
    study = optuna.create_study(sampler=QuadraticSampler())
    floats, fail = optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True), optuna.trial.TrialState.FAIL
    for lr, options in ((5e-3, {"value": final(5e-3)}), (5e-4, {"state": fail})):
        study.add_trial(optuna.trial.create_trial(params={"lr": lr}, distributions={"lr": floats}, **options))
    study.optimize(lambda trial: final(suggest(trial)), n_trials=6)
    assert abs(math.log(study.sampler.recommend(study).lr / 2e-3)) < 0.2


def test_axes_are_searched_with_the_lr_and_other_parameters_as_before():
    sampler = QuadraticSampler(axes=["wd"], stop=True, seed=0)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    assert sampler.recommend(study).status is Status.TOO_FEW

    def objective(trial):
        u = math.log(trial.suggest_float("lr", 1e-4, 1e-1, log=True) / 2e-3)
        v = math.log(trial.suggest_float("wd", 1e-2, 1.0, log=True) / 0.1)
        trial.suggest_float("beta", 0.9, 0.99)
        return -(2 + 0.03 * (u + 0.5 * v) ** 2 + 0.01 * v * v)

    study.optimize(objective, n_trials=12)
    found = sampler.recommend(study)
    assert len(study.trials) <= 9
    assert found.status is Status.OK
    assert found.lr == pytest.approx(2e-3, rel=0.1)
    assert found.axes["wd"].value == pytest.approx(0.1, rel=0.2)
    assert found.loss == pytest.approx(-2, abs=0.01)


def test_workers_that_ask_at_once_get_places_apart():
    study = optuna.create_study(sampler=QuadraticSampler(axes=["wd"]))
    trials = []
    for i in range(7):
        trial = study.ask()
        trials.append((trial.suggest_float("lr", 1e-4, 1e-1, log=True), trial.suggest_float("wd", 1e-2, 1.0, log=True)))
        if i < 3:
            study.tell(trial, 3 + 0.05 * math.log(trials[-1][0] / 2e-3) ** 2)
    assert len(set(trials)) == 7
    with pytest.raises(InputError, match="axes must name 1 to 3"):
        QuadraticSampler(axes=["lr"])
    with pytest.raises(InputError, match="prior= is known for the lr alone"):
        QuadraticSampler(axes=["wd"], prior="steplaw")
