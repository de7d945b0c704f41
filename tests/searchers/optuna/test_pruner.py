import math
import random

import optuna
import pytest

from raylr.errors import InputError
from raylr.searchers.optuna import PowerLawPruner, QuadraticSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)


def final(lr, best=2e-3):
    return 2.5 * (1 + 0.012 * math.log(lr / best) ** 2)


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


@pytest.mark.parametrize("sampler", ["quadratic", "random"])
def test_the_best_trial_is_never_lost_under_noise(sampler):
    """1 % noise on every report; the best is the one whose last loss would have been lowest."""
    lost, pruned = 0, 0
    for seed in range(4):
        noise, sequence = random.Random(seed), optuna.samplers.RandomSampler(seed=seed)
        sampler_ = QuadraticSampler(target=1000, seed=0) if sampler == "quadratic" else sequence
        study = optuna.create_study(sampler=sampler_, pruner=PowerLawPruner(1000))
        ends = []

        def objective(trial, noise=noise, ends=ends):
            lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
            losses = [curve(lr, t) * (1 + 0.01 * noise.gauss(0, 1)) for t in range(25, 1001, 25)]
            ends.append(losses[-1])
            for tokens, loss in zip(range(25, 1001, 25), losses, strict=True):
                trial.report(loss, tokens)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return losses[-1]

        study.optimize(objective, n_trials=10)
        best = min(range(10), key=ends.__getitem__)
        lost += study.trials[best].state is not optuna.trial.TrialState.COMPLETE
        pruned += sum(t.state is optuna.trial.TrialState.PRUNED for t in study.trials)
    assert lost == 0
    assert pruned > 0


def test_steps_may_start_at_zero():
    study = optuna.create_study(sampler=QuadraticSampler(target=40), pruner=PowerLawPruner(40, keep_best=False))
    steps = []

    def objective(trial):
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        for step in range(40):
            trial.report(curve(lr, 25 * (step + 1)), step)
            if trial.should_prune():
                steps.append(step)
                raise optuna.TrialPruned
        return curve(lr, 1000)

    study.optimize(objective, n_trials=4)
    assert len(steps) == 4
    assert min(steps) >= 16


@pytest.mark.parametrize("options", [{"target": 0}, {"target": 9, "min_fraction": 0}, {"target": 9, "tolerance": -1}])
def test_bad_arguments(options):
    with pytest.raises(InputError, match="must be above 0"):
        PowerLawPruner(**options)


def test_a_falling_lr_is_not_truncated():
    _, spent = run_pruned(schedule="cosine")
    assert spent == [1000] * 5
