import math

import optuna
import pytest

from raylr.searchers.optuna import FinishedRun, PowerLawPruner, QuadraticSampler, export

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


def curve(lr, tokens):
    return final(lr) - 0.3 + 0.3 * (tokens / 1000) ** -0.5


def run_pruned(**options):
    """A study of five trials, and how many tokens each saw."""
    study = optuna.create_study(sampler=QuadraticSampler(target=1000), pruner=PowerLawPruner(1000, **options))
    spent = []

    def objective(trial):
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        for tokens in range(25, 1001, 25):
            trial.report(curve(lr, tokens), tokens)
            if trial.should_prune():
                spent.append(tokens)
                raise optuna.TrialPruned
        spent.append(tokens)
        return curve(lr, 1000)

    study.optimize(objective, n_trials=5)
    return study, spent


def test_pruner_truncates_and_the_sampler_extrapolates():
    study, spent = run_pruned(keep_best=False)
    assert max(spent) < 700
    assert min(spent) >= 400
    got = study.sampler.recommend(study)
    assert abs(math.log(got.lr / 2e-3)) < 0.15
    assert got.loss == pytest.approx(2.5, rel=2e-3)


def test_a_trial_that_would_be_the_best_runs_to_its_end():
    study, spent = run_pruned()
    best = min(range(5), key=lambda i: final(study.trials[i].params["lr"]))
    assert spent[0] == spent[best] == 1000  # nothing to compare the first with
    assert min(spent) < 700
    assert study.best_trial.number == best


@pytest.mark.parametrize(
    "call", [lambda t: t.suggest_float("lr", 0.0, 1.0), lambda t: t.suggest_float("lr", -1.0, 1.0)]
)
def test_ranges_that_are_not_positive(call):
    study = optuna.create_study(sampler=QuadraticSampler())
    with pytest.raises(ValueError, match="0 < low < high"):
        call(study.ask())


def test_categorical_lr():
    study = optuna.create_study(sampler=QuadraticSampler())
    with pytest.raises(ValueError, match="not a numeric range"):
        study.ask().suggest_categorical("lr", [1e-3, 1e-2])


def test_bad_pruner():
    with pytest.raises(ValueError, match="above 0"):
        PowerLawPruner(0)


def test_export(tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    runs = [
        FinishedRun(
            cell=cell, lr=lr, tokens=[1e9, 2e9], loss=[3.0, 2.0 + lr], final=2.0 + lr if lr < 1e-2 else None,
            attributes={"decision": "complete"},
        )
        for cell in ("1M", "2M")
        for lr in (1e-3, 5e-3, 2e-2)
    ]  # fmt: skip
    for _ in range(2):  # again: replaced, not doubled
        assert export(runs, storage, name="demo") == ["demo/1M", "demo/2M"]
    study = optuna.load_study(study_name="demo/2M", storage=storage)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert study.best_params == {"lr": 1e-3}
    assert study.trials[0].intermediate_values == {10**9: 3.0, 2 * 10**9: 2.001}
    export(runs, storage, name="demo", lr_range=(5e-4, 1e-2))  # the search left its range
    lr = optuna.load_study(study_name="demo/1M", storage=storage).trials[0].distributions["lr"]
    assert (lr.low, lr.high) == (5e-4, 2e-2)
    with pytest.raises(ValueError, match="no runs to export"):
        export([], storage, name="demo")
